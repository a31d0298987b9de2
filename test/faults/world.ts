// A database under load, a node in a process of its own behind a link that can be hurt, and strict readers of every kind over
// every wire; and what must hold of all of them after whatever was done to them.
import { expect, inject, vi } from 'vitest'
import { LocalPostgres } from '../../src/cli/local-postgres.ts'
import { FaultyLink } from '../support/faulty-link.ts'
import { person, prepareDatabase, roomsSchema, selectAs, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { type Transport, transports } from '../support/readers.ts'
import { until } from '../support/stalled.ts'
import { Load, stateRows, writers } from './load.ts'
import { NodeProcess, windowMs } from './node-process.ts'
import { firstEventId, firstLargeEventId, LoyalReader } from './readers.ts'

const patienceMs = 40_000
// Most take a few seconds; the others wait for a limit of ten or thirty.
vi.setConfig({ testTimeout: 90_000 })

/** What the log says, whole: of every event one line, no line besides. */
export const cutOff: unknown = expect.stringMatching(
  /^warn DATABASE_UNREACHABLE: cut off from the database: clients are told stale, and it is tried again until it answers\. .*psql/,
)
export const streaming = 'info: streaming from the slot'
export const newSlot =
  'info: streaming from a new slot: an epoch begins, and a client with a position of another one starts over'
export const changesComeAgain = 'info: changes come again'

const together = 'Its client may come back and resume; further ones are told together, once a minute'
export const gaveUp = {
  silent: `info HEARTBEAT_MISSED: closed: The peer was silent for two heartbeats. ${together}`,
  slow: `info SLOW_CONSUMER: closed: The peer did not take its data for too long. ${together}`,
}

export const noResyncs = (world: World): string[][] => world.readers.map(() => [])

export interface WorldOptions {
  /** A server of its own, which may be killed; it syncs to the disk. */
  readonly ownServer: boolean
  readonly node?: Readonly<Record<string, string>>
  /** More readers will join before `weigh` is called. */
  readonly joinedLater?: boolean
}

export class World {
  readonly server: LocalPostgres | null
  readonly link: FaultyLink
  readonly node: NodeProcess
  readonly load: Load
  /** Two of each wire, a live query and a change feed, straight to the node. */
  readonly neighbours: LoyalReader[] = []
  readonly #others: LoyalReader[] = []
  readonly #database: { current: TestDatabase }
  readonly #ada: string
  readonly #token: string
  /** Events from here on are owed to every change feed. */
  #owedFrom = firstEventId
  #owedLargeFrom = firstLargeEventId
  #weight = 0

  private constructor(fields: {
    server: LocalPostgres | null
    link: FaultyLink
    node: NodeProcess
    load: Load
    database: TestDatabase
    ada: string
    token: string
  }) {
    this.server = fields.server
    this.link = fields.link
    this.node = fields.node
    this.load = fields.load
    this.#database = { current: fields.database }
    this.#ada = fields.ada
    this.#token = fields.token
  }

  static async begin({ ownServer, node: settings = {}, joinedLater = false }: WorldOptions): Promise<World> {
    const server = ownServer ? await LocalPostgres.create() : null
    await server?.start()
    const database = await TestDatabase.create(server?.url ?? inject('databaseUrl'))
    if (ownServer) {
      await database.query(`ALTER SYSTEM SET max_slot_wal_keep_size = '4GB'`)
      await database.query('SELECT pg_reload_conf()')
    }
    await prepareDatabase(database, roomsSchema, ['rooms', 'members', 'messages'])
    const ada = person()
    await database.query(
      `INSERT INTO members VALUES (1, '${ada}'); INSERT INTO messages SELECT i, 1, 'first', '0' FROM generate_series(1, ${stateRows}) i`,
    )
    const link = await FaultyLink.to(database.url)
    const node = await NodeProcess.start(link.url, settings)
    const load = new Load(database.url)
    const world = new World({ server, link, node, load, database, ada, token: await tokenFor(ada) })
    load.start()
    for (const transport of transports)
      for (const kind of ['live', 'changes'] as const)
        world.neighbours.push(world.#reader(transport, kind, 'small', node.url))
    if (!joinedLater) await world.weigh()
    return world
  }

  get database(): TestDatabase {
    return this.#database.current
  }

  get readers(): readonly LoyalReader[] {
    return [...this.neighbours, ...this.#others]
  }

  #reader(transport: Transport, kind: 'live' | 'changes', rows: 'all' | 'small', url: string): LoyalReader {
    return new LoyalReader({ transport, kind, rows, url, token: this.#token }).start()
  }

  /** One reader more, of the large rows too, which is held to the same. @param url its way to the node */
  async join(transport: Transport, kind: 'live' | 'changes', url: string): Promise<LoyalReader> {
    const reader = this.#reader(transport, kind, 'all', url)
    this.#others.push(reader)
    await until(() => reader.isThere || reader.failure !== null, patienceMs)
    if (kind === 'changes') this.#owedFrom = this.load.nextId
    return reader
  }

  /** Starts its own server again. After kill -9 the server's children hold its memory for a moment. */
  async serverIsBack(): Promise<void> {
    await until(() =>
      this.server!.start().then(
        () => true,
        () => false,
      ),
    )
    await this.reconnect()
  }

  /** When the server is there again. */
  async reconnect(): Promise<void> {
    await this.database.client.end().catch(() => {})
    await until(() =>
      TestDatabase.connect(this.database).then(
        database => {
          this.#database.current = database
          return true
        },
        () => false,
      ),
    )
  }

  /** Events written until now are owed to nobody: an epoch has ended. */
  async forgive(): Promise<void> {
    await this.everybodyIsThere()
    this.#owedFrom = this.load.nextId
    this.#owedLargeFrom = this.load.nextLargeId
  }

  async everybodyIsThere(): Promise<void> {
    await until(() => this.readers.every(reader => reader.isThere || reader.failure !== null), patienceMs).catch(
      () => {},
    )
    const missing = this.readers.filter(reader => !reader.isThere)
    expect(missing.map(({ name, failure, ends }) => failure ?? `${name}, ended by ${ends.slice(-10)}`)).toEqual([])
  }

  /** Postgres has confirmed this many commits more. */
  async written(commits: number): Promise<void> {
    const enough = this.load.commits + commits
    await until(() => this.load.commits >= enough, patienceMs)
  }

  /** [P1] [P4] With the load paused: every live query equals the SELECT; every event that is owed has come, once, in order. */
  async expectWhole(): Promise<void> {
    await this.load.pause()
    try {
      await this.#expectWholeWhilePaused()
    } finally {
      this.load.goOn()
    }
  }

  async #expectWholeWhilePaused(): Promise<void> {
    const rows = await selectAs(this.database, this.#ada, `SELECT * FROM messages WHERE id < ${firstEventId}`)
    const events = await selectAs(this.database, this.#ada, `SELECT id FROM messages WHERE id >= ${firstEventId}`)
    const isOwed = (id: number): boolean => (id < firstLargeEventId ? id >= this.#owedFrom : id >= this.#owedLargeFrom)
    const ids = events
      .map(({ id }) => Number(id))
      .filter(isOwed)
      .sort((a, b) => a - b)
    const owedTo = new Map(this.readers.map(reader => [reader, ids.filter(id => reader.asksFor(id))]))
    const stateFor = new Map(
      this.readers.map(reader => [reader, sorted(rows.filter(({ id }) => reader.asksFor(Number(id))))]),
    )
    const stateOf = (reader: LoyalReader): string[] => sorted(reader.rows.list())
    const cameTo = (reader: LoyalReader): number[] => reader.inserted.filter(isOwed).sort((a, b) => a - b)
    const isWhole = (reader: LoyalReader): boolean =>
      reader.kind === 'live'
        ? stateOf(reader).join() === stateFor.get(reader)!.join()
        : cameTo(reader).length >= owedTo.get(reader)!.length
    await until(() => this.readers.every(reader => reader.failure !== null || isWhole(reader)), patienceMs).catch(
      () => {},
    )
    for (const reader of this.readers) {
      expect(reader.failure).toBe(null)
      if (reader.kind === 'live') expect(stateOf(reader), reader.story).toEqual(stateFor.get(reader))
      else {
        expect(cameTo(reader), reader.story).toEqual(owedTo.get(reader))
        expect(repeated(reader.inserted), reader.story).toEqual([])
        expect(outOfOrder(reader.inserted), reader.story).toEqual([])
      }
    }
  }

  /** By reader: what it was told since this was asked last. */
  resyncs(): string[][] {
    return this.readers.map(({ resyncs }) => resyncs.splice(0))
  }

  /** [P7] Within 10 % of what it weighed before, under the same load, with the same readers. */
  async expectWeight(): Promise<void> {
    let weight = Number.POSITIVE_INFINITY
    const most = 1.1 * this.#weight
    await until(async () => {
      weight = await this.node.weigh()
      return weight <= most
    }, patienceMs).catch(() => {})
    console.log(`held ${mebibytes(weight)} MiB, before ${mebibytes(this.#weight)} MiB`)
    expect(weight).toBeLessThanOrEqual(most)
  }

  /** The longest that a neighbour waited for a row that was written since this moment, in milliseconds. */
  slowest(since: number): number {
    return Math.max(
      ...this.neighbours.flatMap(({ latencies }) => latencies.filter(({ at }) => at >= since).map(({ ms }) => ms)),
    )
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const reader of this.readers) reader.stop()
    await this.load.stop()
    await this.node.kill()
    await this.link[Symbol.asyncDispose]()
    if (this.server === null) await this.database[Symbol.asyncDispose]()
    else {
      await this.database.client.end().catch(() => {})
      await this.server.stop()
    }
  }

  /** From here on it is held to what it weighs now. Once everybody is there and the window is as full as it will be, which
   *  weighs as much as all else that moves. */
  async weigh(): Promise<void> {
    await this.everybodyIsThere()
    this.#owedFrom = this.load.nextId
    this.#weight = 0
    const fullAt = performance.now() + windowMs
    await until(async () => {
      await new Promise(resolve => setTimeout(resolve, 1000))
      if (performance.now() > fullAt - 2000) this.#weight = Math.max(this.#weight, await this.node.weigh())
      return performance.now() > fullAt
    })
    this.node.said()
  }
}

const sorted = (rows: readonly Record<string, unknown>[]): string[] =>
  rows.map(({ id, room_id, author, body }) => `${id} ${room_id} ${author} ${body}`).sort()

function repeated(ids: readonly number[]): number[] {
  const seen = new Set<number>()
  return ids.filter(id => seen.size === seen.add(id).size)
}

/** What one writer wrote comes in the order in which it wrote. */
function outOfOrder(ids: readonly number[]): number[] {
  const last = new Map<number, number>()
  return ids.filter(id => {
    const writer = id < firstLargeEventId ? id % writers : writers
    const before = last.get(writer) ?? 0
    last.set(writer, id)
    return id < before
  })
}

const mebibytes = (bytes: number): string => (bytes / 2 ** 20).toFixed(1)
