// A redis-server of its own, as a process that a test can hurt: killed, stopped in its tracks, emptied, rolled back, promoted.
import { type ChildProcess, spawn } from 'node:child_process'
import { cp, mkdtemp, readdir, rename, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { programFromPackage } from './debian-package.ts'
import { type RedisCertificate, redisCertificate } from './redis-certificate.ts'
import { tellKeeper } from './redis-keeper.ts'

export interface RedisProcessOptions {
  /** Every write goes to the file before it is answered: what kill -9 leaves is what was confirmed. Without, nothing is left. */
  readonly appendonly?: boolean
  readonly replicaOf?: { readonly port: number }
  /** Of the default user, asked from clients and, of a replica, shown to its master. */
  readonly password?: string
  /** Speaks TLS only, by a certificate for 127.0.0.1 of an authority of its own (`RedisProcess.certificate`). */
  readonly tls?: boolean
  /** As in redis.conf. */
  readonly settings?: Readonly<Record<string, string>>
}

/** What a server held when `save` was called. Removed with the server. */
export interface RedisCopy {
  readonly folder: string
}

/** @example
 *  await using redis = await startRedis({ appendonly: true })
 *  const older = await redis.save()
 *  await redis.kill()
 *  await redis.start(older)
 *  @throws saying what to install */
export async function startRedis(options: RedisProcessOptions = {}): Promise<RedisProcess> {
  const redis = await RedisProcess.prepare(options)
  try {
    await redis.start()
  } catch (error) {
    await redis[Symbol.asyncDispose]()
    throw error
  }
  return redis
}

const program = (): Promise<string> => programFromPackage(['redis-server'], 'redis-server')

export class RedisProcess implements AsyncDisposable {
  readonly port: number
  /** Its own: a dump, the append-only files, a configuration file. */
  readonly folder: string
  readonly url: string
  readonly certificate: RedisCertificate | null
  readonly #options: RedisProcessOptions
  readonly #arguments: readonly string[]
  #child: ChildProcess | null = null
  #gone: Promise<void> = Promise.resolve()
  #output = ''
  #copies = 0
  #isPaused = false

  private constructor(parts: {
    port: number
    folder: string
    options: RedisProcessOptions
    certificate: RedisCertificate | null
    arguments: readonly string[]
  }) {
    this.port = parts.port
    this.folder = parts.folder
    this.certificate = parts.certificate
    this.#options = parts.options
    this.#arguments = parts.arguments
    const { password, tls } = parts.options
    const login = password === undefined ? '' : `:${encodeURIComponent(password)}@`
    this.url = `redis${tls ? 's' : ''}://${login}127.0.0.1:${parts.port}`
  }

  /** With a folder and a port, not started.
   *  @param files to lie in its folder: by name, their text
   *  @param line replaces the arguments of a plain server */
  static async prepare(
    options: RedisProcessOptions,
    { port, files = {}, line = [] }: { port?: number; files?: Record<string, string>; line?: readonly string[] } = {},
  ): Promise<RedisProcess> {
    const folder = await mkdtemp(join(tmpdir(), 'tidegate-redis-'))
    tellKeeper('folder', folder)
    for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text)
    const certificate = options.tls ? await redisCertificate(folder) : null
    return new RedisProcess({ port: port ?? (await lastingPort()), folder, options, certificate, arguments: line })
  }

  get isRunning(): boolean {
    return this.#child !== null
  }

  /** Running, and not stopped in its tracks. */
  get isUp(): boolean {
    return this.isRunning && !this.#isPaused
  }

  get pid(): number | null {
    return this.#child?.pid ?? null
  }

  /** The end of what it printed. */
  get output(): string {
    return this.#output
  }

  /** On the same port each time.
   *  @param data a copy of an older state: the tail since then is lost; 'empty'; without, what the last run left in the folder */
  async start(data?: RedisCopy | 'empty'): Promise<void> {
    if (this.#child !== null) throw new Error(`redis on port ${this.port} runs already`)
    if (data !== undefined) await this.#lay(data)
    const command = await program()
    // The port of one that was killed is free at once; another process may hold it for the moment of its own search.
    for (let attempt = 1; ; attempt += 1)
      try {
        return await this.#launch(command)
      } catch (error) {
        if (attempt === 20 || !this.#output.includes('Address already in use')) throw error
        await sleep(50)
      }
  }

  /** kill -9: what is not in the append-only file is lost. */
  async kill(): Promise<void> {
    this.#child?.kill('SIGKILL')
    await this.#gone
  }

  /** An orderly end that keeps the data, as a service manager's stop. */
  async stop(): Promise<void> {
    this.#child?.kill('SIGTERM')
    this.resume()
    await this.#gone
  }

  /** SIGSTOP: connections stand, are even accepted by the kernel, and nothing answers. */
  pause(): void {
    this.#isPaused = this.#child?.kill('SIGSTOP') ?? false
  }

  resume(): void {
    this.#child?.kill('SIGCONT')
    this.#isPaused = false
  }

  /** A copy of what it holds now, to start it with later. */
  async save(): Promise<RedisCopy> {
    this.#copies += 1
    const copy = { folder: join(this.folder, `copy-${this.#copies}`) }
    const from = (name: string): string => join(this.folder, name)
    if (this.#options.appendonly) await cp(from(appendFolder), join(copy.folder, appendFolder), { recursive: true })
    else {
      await this.ask('SAVE')
      await cp(from(dump), join(copy.folder, dump))
      // Else a start after kill -9 would have it too.
      await rm(from(dump))
    }
    return copy
  }

  /** A replica becomes a master. */
  async promote(): Promise<void> {
    await this.ask('REPLICAOF', 'NO', 'ONE')
    await this.catchUp()
  }

  async follow(master: { readonly port: number }): Promise<void> {
    await this.ask('REPLICAOF', '127.0.0.1', String(master.port))
  }

  /** A replica takes nothing more from its master, and stays its replica: it does not pass the master's door. */
  async lag(): Promise<void> {
    await this.ask('CONFIG', 'SET', 'masteruser', 'nobody', 'masterauth', 'of no use')
    await this.ask('CLIENT', 'KILL', 'TYPE', 'master')
    await until(async () => (await this.replication()).get('master_link_status') === 'down', `${this.url} to lag`)
  }

  /** The opposite of `lag`. */
  async catchUp(): Promise<void> {
    await this.ask('CONFIG', 'SET', 'masteruser', '', 'masterauth', this.#options.password ?? '')
  }

  /** Waits until a replica has what its master has. */
  async synced(): Promise<void> {
    await until(async () => (await this.replication()).get('master_link_status') === 'up', `${this.url} to follow`)
  }

  /** Lines of INFO replication. */
  async replication(): Promise<Map<string, string>> {
    const text = String(await this.ask('INFO', 'replication'))
    return new Map(text.split('\r\n').map(line => line.split(/:(.*)/s).slice(0, 2) as [string, string]))
  }

  /** Whether so many replicas say, within a second, that they have all that was written. One that has only just synced does not
   *  get what is written next before its first acknowledgement, though its link is up: it comes up to a second later. */
  async isConfirmedBy(replicas: number): Promise<boolean> {
    return this.#connected(async client => {
      await client.publish('nobody', 'moves the offset')
      return (await client.wait(replicas, 1000)) >= replicas
    })
  }

  /** One command over a connection of its own. @throws after two seconds without an answer */
  ask(command: string, ...values: readonly string[]): Promise<unknown> {
    return this.#connected(client => client.call(command, ...values))
  }

  async #connected<Reply>(use: (client: Redis) => Promise<Reply>): Promise<Reply> {
    const { password, tls } = this.#options
    const client = new Redis({
      host: '127.0.0.1',
      port: this.port,
      lazyConnect: true,
      // What it says while it loads its data is an answer too.
      enableReadyCheck: false,
      retryStrategy: () => null,
      connectTimeout: 2000,
      commandTimeout: 2000,
      ...(password === undefined ? {} : { password }),
      ...(tls ? { tls: { ca: this.certificate!.authority } } : {}),
    })
    client.on('error', () => {})
    try {
      await client.connect()
      return await use(client)
    } finally {
      client.disconnect()
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill()
    await rm(this.folder, { recursive: true, force: true })
  }

  #launch(command: string): Promise<void> {
    const line = this.#arguments.length > 0 ? this.#arguments : this.#settings()
    const child = spawn(command, line, { cwd: this.folder, stdio: ['ignore', 'pipe', 'pipe'] })
    const { promise: isReady, resolve, reject } = Promise.withResolvers<void>()
    this.#child = child
    if (child.pid !== undefined) tellKeeper('began', child.pid)
    this.#output = ''
    const take = (text: string): void => {
      this.#output = (this.#output + text).slice(-20_000)
      if (/Ready to accept connections|Sentinel ID is/.test(this.#output)) resolve()
    }
    child.stdout!.setEncoding('utf8').on('data', take)
    child.stderr!.setEncoding('utf8').on('data', take)
    child.once('error', reject)
    this.#gone = new Promise(ended =>
      child.once('close', code => {
        if (child.pid !== undefined) tellKeeper('ended', child.pid)
        this.#child = null
        this.#isPaused = false
        reject(new Error(`redis-server on port ${this.port} exited with ${code}:\n${this.#output}`))
        ended()
      }),
    )
    return isReady
  }

  #settings(): string[] {
    const { appendonly, replicaOf, password, tls, settings } = this.#options
    const all: Record<string, string> = {
      ...plainSettings,
      port: tls ? '0' : String(this.port),
      appendonly: appendonly ? 'yes' : 'no',
      ...(replicaOf === undefined ? {} : { replicaof: `127.0.0.1 ${replicaOf.port}` }),
      ...(tls ? { 'tls-port': String(this.port), 'tls-auth-clients': 'no', ...this.certificate!.settings } : {}),
      ...settings,
    }
    const own = password === undefined ? [] : ['--requirepass', password, '--masterauth', password]
    return [...Object.entries(all).flatMap(([name, value]) => [`--${name}`, ...value.split(' ')]), ...own]
  }

  async #lay(data: RedisCopy | 'empty'): Promise<void> {
    for (const name of [dump, appendFolder]) await rm(join(this.folder, name), { recursive: true, force: true })
    if (data === 'empty') return
    // By a rename, since a start that is killed in the middle must not find half a copy.
    const laid = join(this.folder, 'laid')
    await cp(data.folder, laid, { recursive: true })
    for (const name of await readdir(laid)) await rename(join(laid, name), join(this.folder, name))
    await rm(laid, { recursive: true })
  }
}

const dump = 'dump.rdb'
const appendFolder = 'appendonlydir'

const plainSettings = {
  bind: '127.0.0.1',
  save: '',
  // Written before the answer; the machine does not crash in tests, so nothing waits for the disk.
  appendfsync: 'no',
  'shutdown-on-sigterm': 'save',
  'repl-diskless-sync-delay': '0',
  'repl-ping-replica-period': '1',
}

/** A port that a server can come back to after minutes: below those that the kernel gives to outgoing connections, of which
 *  one could take it meanwhile, or, connecting to the port itself while nobody listens, even reach itself. */
export async function lastingPort(): Promise<number> {
  for (;;) {
    const port = 12_000 + Math.floor(Math.random() * 20_000)
    if (await isFree(port)) return port
  }
}

function isFree(port: number): Promise<boolean> {
  const server = createServer()
  return new Promise(resolve => {
    server.once('error', () => resolve(false))
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
  })
}

/** What fails meanwhile counts as not yet. */
export async function until(condition: () => Promise<boolean>, what: string, timeoutMs = 20_000): Promise<void> {
  const deadline = Date.now() + timeoutMs
  let last: unknown
  for (;;) {
    try {
      if (await condition()) return
    } catch (error) {
      last = error
    }
    if (Date.now() > deadline) throw new Error(`waited ${timeoutMs} ms for ${what}`, { cause: last })
    await sleep(25)
  }
}
