// Programs the tests need from the machine: found on the PATH, else installed where that is possible, else named.
import { spawn } from 'node:child_process'
import { access, constants } from 'node:fs/promises'
import { delimiter, join } from 'node:path'

/** The first of the names that is on the PATH; null when none is. */
export async function findOnPath(...names: readonly string[]): Promise<string | null> {
  const folders = (process.env.PATH ?? '').split(delimiter).filter(folder => folder !== '')
  for (const path of names.flatMap(name => folders.map(folder => join(folder, name))))
    if (await isExecutable(path)) return path
  return null
}

/** A program on the PATH, after installing its Debian package if it must and may be.
 *  @throws saying what to install */
export async function programFromPackage(names: readonly string[], debianPackage: string): Promise<string> {
  const found = await findOnPath(...names)
  if (found !== null) return found
  const remedy = `none of ${names.join(', ')} is on the PATH; install it (Debian: apt-get install ${debianPackage})`
  if (process.getuid?.() !== 0 || (await findOnPath('apt-get')) === null) throw new Error(remedy)
  console.log(`${debianPackage}: installing the Debian package`)
  // The other test process may be installing too: wait for its lock.
  const apt = ['-o', 'DPkg::Lock::Timeout=300', '-q', '-y']
  try {
    await run('apt-get', [...apt, 'update'])
    await run('apt-get', [...apt, 'install', '--no-install-recommends', debianPackage])
  } catch (cause) {
    throw new Error(`${remedy}; apt-get could not`, { cause })
  }
  const installed = await findOnPath(...names)
  if (installed === null) throw new Error(remedy)
  return installed
}

async function run(command: string, args: readonly string[]): Promise<void> {
  // RUNLEVEL=1 keeps a package from starting its service.
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' }
  const child = spawn(command, args, { env, stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  child.stdout.on('data', data => (output += data))
  child.stderr.on('data', data => (output += data))
  const code = await new Promise<number | null>((resolve, reject) => child.once('error', reject).once('close', resolve))
  if (code !== 0) throw new Error(`${command} ${args.join(' ')} failed with ${code}:\n${output.slice(-2000)}`)
}

const isExecutable = (path: string): Promise<boolean> =>
  access(path, constants.X_OK).then(
    () => true,
    () => false,
  )
