// Tools of a Postgres server that the npm package does not bring.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync } from 'node:fs'
import { stat } from 'node:fs/promises'
import { join } from 'node:path'

const root = '/usr/lib/postgresql'

/** Folder of the newest server that Debian's package put here; null where there is none. */
export const debianBin: string | null =
  (existsSync(root) ? readdirSync(root) : [])
    .sort((a, b) => Number(b) - Number(a))
    .map(version => join(root, version, 'bin'))
    .find(folder => existsSync(join(folder, 'pg_resetwal'))) ?? null

/** Runs pg_resetwal over a cluster that does not run, as its owner. */
export async function resetWal(dataDir: string, args: readonly string[]): Promise<void> {
  const { uid, gid } = await stat(dataDir)
  const child = spawn(join(debianBin!, 'pg_resetwal'), [...args, dataDir], { uid, gid, stdio: 'pipe', cwd: '/' })
  let output = ''
  child.stderr.on('data', data => (output += data))
  const [code] = (await once(child, 'exit')) as [number]
  if (code !== 0) throw new Error(`pg_resetwal: ${output}`)
}
