// What is dear to make and the same for all test files that need it: the first that asks makes it, the others wait.
import { createHash } from 'node:crypto'
import { mkdir, mkdtemp, readdir, readFile, readlink, rename, rm, stat, symlink } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

/** @param folder named by what it is made of; it is there whole or not at all
 *  @param make fills a folder that exists, and becomes that one */
export async function makeOnce(folder: string, make: (folder: string) => Promise<void>): Promise<void> {
  const isThere = (): Promise<boolean> =>
    stat(folder).then(
      () => true,
      () => false,
    )
  const lock = `${folder}.lock`
  await mkdir(dirname(folder), { recursive: true })
  while (!(await isThere())) {
    if (!(await take(lock))) {
      await sleep(100)
      continue
    }
    try {
      if (await isThere()) return
      const made = await mkdtemp(`${folder}.new-`)
      await make(made)
      await rename(made, folder)
    } finally {
      await rm(lock, { force: true })
    }
  }
}

/** A lock says whose process holds it: one that was killed holds it no longer. */
async function take(lock: string): Promise<boolean> {
  try {
    await symlink(String(process.pid), lock)
    return true
  } catch {
    const holder = Number(await readlink(lock).catch(() => Number.NaN))
    if (Number.isNaN(holder) || isAlive(holder)) return false
    await rm(lock, { force: true })
    return false
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

/** Of files, and of all in folders: their names and contents. */
export async function hashOf(root: string, names: readonly string[]): Promise<string> {
  const hash = createHash('sha256')
  for (const name of names) {
    const path = join(root, name)
    const isFolder = (await stat(path)).isDirectory()
    const entries = isFolder ? await readdir(path, { recursive: true, withFileTypes: true }) : []
    const files = isFolder
      ? entries.filter(entry => entry.isFile()).map(entry => join(entry.parentPath, entry.name))
      : [path]
    for (const file of files.sort())
      hash
        .update(`${file.slice(root.length)}\n`)
        .update(await readFile(file))
        .update('\n')
  }
  return hash.digest('hex').slice(0, 16)
}
