// A PgBouncer in transaction mode before a test's Postgres, with few connections, so that each serves whoever comes next.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, chown, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { freePort } from '../../src/cli/local-postgres.ts'
import { programFromPackage } from './debian-package.ts'

export class PgBouncer {
  /** As the given one, through the pooler. */
  readonly url: string
  readonly #program: string
  readonly #folder: string
  readonly #owner: { readonly uid?: number; readonly gid?: number }
  #process: ChildProcess | null = null

  private constructor(program: string, folder: string, url: string, owner: { uid?: number; gid?: number }) {
    this.#program = program
    this.#folder = folder
    this.url = url
    this.#owner = owner
  }

  /** @param settings of its `[pgbouncer]` section */
  static async start(databaseUrl: string, settings: Readonly<Record<string, string>> = {}): Promise<PgBouncer> {
    const program = await programFromPackage(['pgbouncer', '/usr/sbin/pgbouncer'], 'pgbouncer')
    const target = new URL(databaseUrl)
    const url = new URL(databaseUrl)
    url.hostname = '127.0.0.1'
    url.port = String(await freePort())
    const folder = await mkdtemp(join(tmpdir(), 'tidegate-pgbouncer-'))
    const quoted = (text: string): string => `"${decodeURIComponent(text).replaceAll('"', '""')}"`
    const all = {
      listen_addr: '127.0.0.1',
      listen_port: url.port,
      unix_socket_dir: '',
      auth_type: 'scram-sha-256',
      auth_file: join(folder, 'users'),
      pool_mode: 'transaction',
      // So that whatever one left in a session, the next one finds.
      default_pool_size: '2',
      max_client_conn: '200',
      server_login_retry: '0',
      ...settings,
    }
    const lines = Object.entries(all).map(([name, value]) => `${name} = ${value}`)
    await writeFile(join(folder, 'users'), `${quoted(target.username)} ${quoted(target.password)}\n`)
    await writeFile(
      join(folder, 'ini'),
      `[databases]\n* = host=${target.hostname} port=${target.port}\n[pgbouncer]\n${lines.join('\n')}\n`,
    )
    const owner = await ownerOf(folder)
    const pooler = new PgBouncer(program, folder, url.href, owner)
    await pooler.resume()
    return pooler
  }

  /** Starts it again after `halt`. */
  async resume(): Promise<void> {
    const child = spawn(this.#program, [join(this.#folder, 'ini')], {
      ...this.#owner,
      cwd: tmpdir(),
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    this.#process = child
    let output = ''
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      output = (output + text).slice(-4000)
      if (output.includes('process up')) resolve()
    })
    child.once('error', reject)
    child.once('exit', code => reject(new Error(`pgbouncer exited with ${code}:\n${output}`)))
    await promise
  }

  /** As a crash of it. */
  async halt(): Promise<void> {
    const child = this.#process
    if (child === null || child.exitCode !== null || child.signalCode !== null) return
    const gone = once(child, 'exit')
    child.kill('SIGKILL')
    await gone
    this.#process = null
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.halt()
    await rm(this.#folder, { recursive: true, force: true })
  }
}

/** It refuses to run as root. */
async function ownerOf(folder: string): Promise<{ uid?: number; gid?: number }> {
  if (process.getuid?.() !== 0) return {}
  const nobody = (await readFile('/etc/passwd', 'utf8')).split('\n').find(line => line.startsWith('nobody:'))!
  const [uid, gid] = nobody.split(':').slice(2, 4).map(Number) as [number, number]
  for (const path of [folder, join(folder, 'ini'), join(folder, 'users')]) await chown(path, uid, gid)
  await chmod(folder, 0o700)
  return { uid, gid }
}

/** By address; they end with the process. */
const started = new Map<string, Promise<PgBouncer>>()

/** TEST_POOLER=1: nodes that tests start in their process read through a PgBouncer, so that every suite is one of the pooler too.
 *  @returns settings for a node over this database */
export async function poolerSettings(databaseUrl: string): Promise<Record<string, string>> {
  if (!process.env.TEST_POOLER) return {}
  let pooler = started.get(databaseUrl)
  if (pooler === undefined) {
    pooler = PgBouncer.start(databaseUrl)
    started.set(databaseUrl, pooler)
    void pooler.then(each => process.once('exit', () => void each.halt()))
  }
  return { DATABASE_URL: (await pooler).url, DATABASE_REPLICATION_URL: databaseUrl }
}
