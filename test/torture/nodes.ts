// The nodes under torture: each a process of its own, behind links of its own to clients, Postgres and Redis, with a clock
// of its own; and a balancer before them.
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import pg from 'pg'
import { nodeSettings } from '../checker/nodes.ts'
import { Balancer } from '../support/balancer.ts'
import { FaultyLink } from '../support/faulty-link.ts'
import { jwtSecret } from '../support/node.ts'
import { lastingPort } from '../support/redis-process.ts'
import { RunningProcess } from '../support/run-cli.ts'

export interface NodesOptions {
  readonly databaseUrl: string
  /** Null: one node, with its window in its own memory. */
  readonly redisUrl: string | null
  readonly settings: Readonly<Record<string, string>>
  /** A mistake to plant in every node; null for none. */
  readonly plant: string | null
  readonly random: () => number
}

const main = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url))
const preloads = ['clock.ts', 'plant.ts'].map(name => new URL(name, import.meta.url).href)
const maxLogLines = 60
/** Longer than any fault lasts. */
const maxStarts = 100

/** One place in the deployment. Its process may change; its addresses stay. */
export class TorturedNode {
  readonly name: string
  readonly toClients: FaultyLink
  readonly toPostgres: FaultyLink
  readonly toRedis: FaultyLink | null
  readonly #env: Readonly<Record<string, string>>
  readonly #clockFile: string
  #process: RunningProcess | null = null
  /** How manieth process it is. */
  #life = 0
  #log: string[] = []
  #isWanted = false
  isStopped = false
  /** Times that it was started again because it ended before it was ready. */
  restarts = 0
  /** Why it ended by itself, when it did. */
  fault: string | null = null

  private constructor(
    name: string,
    links: readonly [FaultyLink, FaultyLink, FaultyLink | null],
    env: Readonly<Record<string, string>>,
    clockFile: string,
  ) {
    this.name = name
    ;[this.toClients, this.toPostgres, this.toRedis] = links
    this.#env = env
    this.#clockFile = clockFile
  }

  static async place(
    name: string,
    folder: string,
    { databaseUrl, redisUrl, settings, plant }: NodesOptions,
  ): Promise<TorturedNode> {
    const port = await lastingPort()
    const toClients = await FaultyLink.to(`http://127.0.0.1:${port}`)
    const toPostgres = await FaultyLink.to(databaseUrl)
    const toRedis = redisUrl === null ? null : await FaultyLink.to(redisUrl)
    const clockFile = join(folder, name)
    return new TorturedNode(
      name,
      [toClients, toPostgres, toRedis],
      {
        ...nodeSettings,
        DATABASE_URL: toPostgres.url,
        ...(toRedis === null ? {} : { REDIS_URL: toRedis.url }),
        JWT_SECRET: jwtSecret,
        PORT: String(port),
        LOG_LEVEL: 'info',
        ...settings,
        TORTURE_CLOCK_FILE: clockFile,
        ...(plant === null ? {} : { TORTURE_PLANT: plant }),
      },
      clockFile,
    )
  }

  get isUp(): boolean {
    return this.#process !== null
  }

  /** This process of it, by name: what an earlier one had told, it need not know. */
  get life(): string {
    return `${this.name}#${this.#life}`
  }

  /** Resolves when it listens. One that finds no database ends, and is started again, as a service's manager does. */
  async start(): Promise<void> {
    this.#isWanted = true
    for (let attempt = 1; this.#isWanted && !(await this.#launch()); attempt++) {
      if (attempt === maxStarts) throw new Error(`${this.name} does not start:\n${this.#log.join('\n')}`)
      this.restarts += 1
      await sleep(300)
    }
  }

  /** @returns whether it listens, or is no longer wanted */
  async #launch(): Promise<boolean> {
    this.#life += 1
    const { life } = this
    const child = new RunningProcess([...preloads.flatMap(preload => ['--import', preload]), main, 'start'], this.#env)
    this.#process = child
    let text = ''
    child.child.stderr!.on('data', (chunk: string) => {
      const lines = (text + chunk).split('\n')
      text = lines.pop()!
      this.#log = [...this.#log, ...lines.map(line => `${life} ${line}`.slice(0, 600))].slice(-maxLogLines)
    })
    child.child.once('exit', (code, signal) => {
      if (this.#process !== child) return
      this.#process = null
      this.isStopped = false
      if (!this.#isWanted) return
      // Before it was ready, what is missing is the operator's to mend; later on it must not end.
      if (child.out.includes('is ready'))
        this.fault = `${life} ended by itself: ${code ?? signal}\n${this.#log.join('\n')}`
      else if (child.out.includes('listens'))
        void sleep(300).then(() => {
          this.restarts += 1
          // Unless somebody else has ended or started it since.
          return this.#isWanted && this.life === life ? this.start() : undefined
        })
    })
    try {
      await child.until(({ out }) => out.includes('listens'))
      return true
    } catch {
      return !this.#isWanted
    }
  }

  async kill(): Promise<void> {
    await this.#end('SIGKILL')
  }

  /** As a deployment's manager ends it. */
  async drain(): Promise<void> {
    await this.#end('SIGTERM')
  }

  stop(): void {
    this.isStopped = true
    this.#process?.child.kill('SIGSTOP')
  }

  goOn(): void {
    this.isStopped = false
    this.#process?.child.kill('SIGCONT')
  }

  async setClock(offsetMs: number): Promise<void> {
    await writeFile(this.#clockFile, String(offsetMs))
  }

  get links(): readonly FaultyLink[] {
    return [this.toClients, this.toPostgres, ...(this.toRedis === null ? [] : [this.toRedis])]
  }

  /** The end of what it said. */
  get log(): readonly string[] {
    return this.#log
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill()
    for (const link of this.links) await link[Symbol.asyncDispose]()
  }

  async #end(signal: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    const child = this.#process
    this.#isWanted = false
    if (child === null) return
    child.child.kill(signal)
    if (signal === 'SIGKILL') this.isStopped = false
    await child.end()
  }
}

export class TorturedNodes {
  readonly balancer: Balancer
  readonly all: TorturedNode[] = []
  readonly #options: NodesOptions
  readonly #folder: string
  #names = 0
  #restarts = 0

  private constructor(options: NodesOptions, balancer: Balancer, folder: string) {
    this.#options = options
    this.balancer = balancer
    this.#folder = folder
  }

  static async start(size: number, options: NodesOptions): Promise<TorturedNodes> {
    const folder = await mkdtemp(join(tmpdir(), 'tidegate-torture-'))
    const balancer = await Balancer.start({ random: options.random, readyPath: '/ready?scope=node' })
    const nodes = new TorturedNodes(options, balancer, folder)
    process.once('exit', () => {
      for (const node of nodes.all) void node.kill()
    })
    try {
      for (let i = 0; i < size; i++) await nodes.join()
      return nodes
    } catch (error) {
      await nodes[Symbol.asyncDispose]()
      throw error
    }
  }

  /** One more. Resolves when it listens. */
  async join(): Promise<TorturedNode> {
    this.#names += 1
    const node = await TorturedNode.place(`node${this.#names}`, this.#folder, this.#options)
    try {
      await node.start()
    } catch (error) {
      await node[Symbol.asyncDispose]()
      throw error
    }
    this.all.push(node)
    this.balancer.add(node.name, node.toClients.url, () => node.life)
    return node
  }

  /** Times that a node was started again because it ended before it was ready. */
  get restarts(): number {
    return this.#restarts + this.all.reduce((sum, node) => sum + node.restarts, 0)
  }

  /** One less, in good order. */
  async leave(node: TorturedNode): Promise<void> {
    await node.drain()
    this.balancer.remove(node.name)
    this.#restarts += node.restarts
    this.all.splice(this.all.indexOf(node), 1)
    await node[Symbol.asyncDispose]()
  }

  /** The process behind a client's connection. */
  nodeOf(clientPort: number): string {
    return this.balancer.behind(clientPort) ?? 'a node that is gone'
  }

  /** Who streams from the slot; null when nobody does. */
  async leader(): Promise<TorturedNode | null> {
    const client = new pg.Client({ connectionString: this.#options.databaseUrl, connectionTimeoutMillis: 2000 })
    client.on('error', () => {})
    try {
      await client.connect()
      const { rows } = await client.query<{ port: number }>(
        `SELECT client_port AS port FROM pg_stat_replication JOIN pg_replication_slots ON active_pid = pid
          WHERE slot_name LIKE 'tidegate%' AND database = current_database()`,
      )
      return this.all.find(node => rows.some(({ port }) => node.toPostgres.carries(port))) ?? null
    } catch {
      return null
    } finally {
      await client.end().catch(() => {})
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const node of this.all) await node[Symbol.asyncDispose]()
    await this.balancer[Symbol.asyncDispose]()
    await rm(this.#folder, { recursive: true, force: true })
  }
}

const sleep = (ms: number): Promise<void> => new Promise(resolve => setTimeout(resolve, ms))
