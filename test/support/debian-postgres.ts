// Tools of a Postgres server that the npm package does not bring.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync } from 'node:fs'
import { chown, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import pg from 'pg'
import type { LocalPostgres } from '../../src/cli/local-postgres.ts'

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

/** Restarts a fresh server of `debianBin` so that its next transaction id is that one. @param xid `next`: 32-bit, in that epoch */
export async function advanceXids(server: LocalPostgres, xid: { epoch: number; next: number }): Promise<void> {
  // What was written under small ids must not lie in the future of the large ones: freeze it.
  await maintain(server.url, ['ALTER DATABASE template0 ALLOW_CONNECTIONS true'])
  for (const name of ['template0', 'template1', 'postgres'])
    await maintain(server.url.replace(/\/postgres$/, `/${name}`), ['VACUUM FREEZE'])
  await server.halt('fast')
  const { epoch, next } = xid
  await resetWal(server.dataDir, ['-e', String(epoch), '-x', String(next), '-u', String(next - 1000)])
  const name = Math.floor(next / 2 ** 20)
  const segment = join(server.dataDir, 'pg_xact', name.toString(16).toUpperCase().padStart(4, '0'))
  await writeFile(segment, Buffer.alloc(256 * 1024))
  const { uid, gid } = await stat(server.dataDir)
  await chown(segment, uid, gid)
  await server.start()
}

async function maintain(url: string, statements: readonly string[]): Promise<void> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  for (const statement of statements) await client.query(statement)
  await client.end()
}
