// Three nodes as processes, and clients at each that are held over three wires, while what all of them need is away.
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'vitest'
import { LocalPostgres } from '../../src/cli/local-postgres.ts'
import { connect, Refused } from '../checker/wires.ts'
import { NodeProcess } from '../faults/node-process.ts'
import { firstEventId, LoyalReader } from '../faults/readers.ts'
import { asSet, person, prepareDatabase, roomsSchema, selectAs, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { type Transport, transports } from '../support/readers.ts'
import { type RedisProcess, startRedis } from '../support/redis-process.ts'
import { until } from '../support/stalled.ts'
import { expectWithin } from '../support/within.ts'

/** How long it is away: `npm run test:away` waits two minutes. */
export const awayMs = 1000 * Number(process.env.AWAY_SECONDS ?? 12)
/** One at each node. */
const readersOfEach = 3
const heartbeatMs = 2000
/** Whoever comes meanwhile is told what to do within three seconds; twice, where a role is asked for and rows are. */
const answerMs = 10_000
export const recoverMs = 40_000

export class AwayWorld implements AsyncDisposable {
  readonly server: LocalPostgres
  readonly redis: RedisProcess
  readonly nodes: readonly NodeProcess[]
  readonly readers: readonly LoyalReader[]
  readonly #ada: string
  readonly #token: string
  #database: TestDatabase
  #written = 0

  private constructor(parts: {
    server: LocalPostgres
    redis: RedisProcess
    nodes: readonly NodeProcess[]
    readers: readonly LoyalReader[]
    database: TestDatabase
    ada: string
    token: string
  }) {
    this.server = parts.server
    this.redis = parts.redis
    this.nodes = parts.nodes
    this.readers = parts.readers
    this.#database = parts.database
    this.#ada = parts.ada
    this.#token = parts.token
  }

  static async begin(): Promise<AwayWorld> {
    const server = await LocalPostgres.create({ settings: { fsync: 'off' } })
    await server.start()
    const database = await TestDatabase.create(server.url)
    await prepareDatabase(database, roomsSchema, ['rooms', 'members', 'messages'])
    const ada = person()
    await database.query(`INSERT INTO members VALUES (1, '${ada}'); INSERT INTO messages VALUES (1, 1, 'w', 'first')`)
    const redis = await startRedis()
    const token = await tokenFor(ada)
    const settings = { REDIS_URL: redis.url, HEARTBEAT_MS: String(heartbeatMs), WINDOW_MAX_AGE_MS: '300000' }
    const nodes = await Promise.all([1, 2, 3].map(() => NodeProcess.start(database.url, settings)))
    const readers = transports.flatMap(transport =>
      (['live', 'changes'] as const).flatMap(kind =>
        Array.from({ length: readersOfEach }, (_, i) =>
          new LoyalReader({ transport, kind, rows: 'all', url: nodes[i % 3]!.url, token }).start(),
        ),
      ),
    )
    const world = new AwayWorld({ server, redis, nodes, readers, database, ada, token })
    await until(() => readers.every(({ isThere }) => isThere), recoverMs)
    await world.told()
    return world
  }

  /** One commit of an event and a row. */
  async write(): Promise<void> {
    const n = this.#written + 1
    await this.#database.query(
      `INSERT INTO messages VALUES (${firstEventId + n}, 1, 'w', '0'), (${1 + n}, 1, 'w', 'row ${n}')`,
    )
    this.#written = n
  }

  /** Writes, and waits until everybody has it. */
  async told(): Promise<void> {
    await this.write()
    const isTold = ({ kind, rows, inserted, failure }: LoyalReader): boolean =>
      failure !== null ||
      (kind === 'live' ? rows.rows.has(`[${this.#written + 1}]`) : inserted.at(-1) === firstEventId + this.#written)
    await until(() => this.readers.every(isTold), recoverMs).catch(() => {
      const missing = this.readers.filter(reader => !isTold(reader)).map(({ story }) => story)
      throw new Error(`nothing comes:\n${missing.join('\n')}\n${this.#said()}`)
    })
  }

  async disconnect(): Promise<void> {
    await this.#database.client.end()
  }

  async reconnect(): Promise<void> {
    this.#database = await TestDatabase.connect(this.#database)
  }

  /** Holds what is away for its time, looks at everybody meanwhile and afterwards.
   *  @param goes takes it away @param comes brings it back */
  async away(
    goes: () => unknown,
    comes: () => Promise<unknown>,
    meanwhile: () => Promise<void> = async () => {},
  ): Promise<void> {
    for (const reader of this.readers) reader.ends.length = 0
    await this.told()
    await this.write()
    const goneAt = performance.now()
    await goes()
    const hasGoneAt = performance.now()
    // A poll is a new connection each time: where Postgres must be asked for it, it is sent on.
    const isTold = ({ isStale, transport, ends }: LoyalReader): boolean =>
      isStale || (transport === 'long-poll' && ends.at(-1) === 'UNAVAILABLE')
    const untold = (): string[] => this.readers.filter(reader => !isTold(reader)).map(({ story }) => story)
    await until(() => untold().length === 0, recoverMs).catch(() => {
      throw new Error(`not told stale: ${untold()}`)
    })
    const staleAfter = Math.max(...this.readers.map(({ staleChangedAt }) => staleChangedAt)) - goneAt
    const newcomers = await this.#newcomers()
    await meanwhile()
    for (let left = 1; left > 0; ) {
      left = awayMs - (performance.now() - goneAt)
      expect(await this.#health()).toEqual([200, 200, 200])
      await sleep(Math.max(0, Math.min(left, 1000)))
    }
    expect(untold()).toEqual([])
    await comes()
    const backAt = performance.now()
    await until(() => this.readers.every(({ isStale }) => !isStale), recoverMs).catch(() => {
      throw new Error(`still told stale: ${this.readers.filter(({ isStale }) => isStale).map(({ name }) => name)}`)
    })
    const freshAfter = Math.max(...this.readers.map(({ staleChangedAt }) => staleChangedAt)) - backAt
    await this.told()
    console.log(
      `away for ${Math.round(backAt - hasGoneAt)} ms: told stale within ${Math.round(staleAfter)} ms, well ${Math.round(freshAfter)} ms after it was back; newcomers: ${newcomers.join(', ')}`,
    )
    expectWithin(staleAfter - (hasGoneAt - goneAt), 2 * heartbeatMs + 1000)
    await this.#expectWhole()
  }

  async #health(): Promise<number[]> {
    return Promise.all(this.nodes.map(async ({ url }) => (await fetch(`${url}/health`)).status))
  }

  /** Each is told something, or follows: nobody is left hanging. @returns what became of them */
  async #newcomers(): Promise<string[]> {
    const asked = transports.flatMap(transport =>
      (['live', 'changes'] as const).map(kind => this.#newcomer(transport, kind)),
    )
    return Promise.all(asked)
  }

  async #newcomer(transport: Transport, kind: 'live' | 'changes'): Promise<string> {
    const { promise, resolve } = Promise.withResolvers<string>()
    const beganAt = performance.now()
    const query = {
      table: 'messages',
      filter: 'room_id=eq.1',
      select: null,
      where: 'true',
      matches: () => true,
    } as const
    const asked = [{ kind, query, since: null }]
    const request = {
      url: this.nodes[1]!.url,
      transport,
      token: this.#token,
      asked,
      onEvent: (_: number, { event, data }: { event: string; data: unknown }) => {
        if (event === 'error') resolve((data as { code: string }).code)
        // Changes need nothing to begin with; rows do.
        else if (event === 'snapshot' || (kind === 'changes' && event !== 'heartbeat')) resolve('follows')
      },
      onEnd: ({ code }: { code: string }) => resolve(code),
    }
    const wire = await connect(request).catch(error => {
      // A WebSocket's client does not show what a refused upgrade says.
      if (String(error).includes('server response: 503')) resolve('UNAVAILABLE')
      else if (error instanceof Refused && error.ending.isRetryable) resolve(error.ending.code)
      else throw error
      return null
    })
    const became = await Promise.race([promise, sleep(answerMs).then(() => 'left hanging')])
    wire?.close()
    expect([transport, kind, became]).toEqual([
      transport,
      kind,
      kind === 'live' ? 'UNAVAILABLE' : expect.stringMatching(/^(UNAVAILABLE|follows)$/),
    ])
    return `${transport} ${kind} ${became} after ${Math.round(performance.now() - beganAt)} ms`
  }

  /** Nothing lost, nothing repeated, nobody cut off or told to start over. */
  async #expectWhole(): Promise<void> {
    const expected = asSet(
      await selectAs(this.#database, this.#ada, `SELECT * FROM messages WHERE id < ${firstEventId}`),
    )
    for (const reader of this.readers) {
      const ends = reader.ends.filter(code => reader.transport !== 'long-poll' || code !== 'UNAVAILABLE')
      expect([reader.failure, reader.resyncs, ends], reader.story).toEqual([null, [], []])
      if (reader.kind === 'live') expect(asSet(reader.rows.list()), reader.story).toEqual(expected)
      else expect(reader.inserted).toEqual(Array.from({ length: this.#written }, (_, i) => firstEventId + 1 + i))
    }
  }

  #said(): string {
    return this.nodes.map(node => node.saying.join('\n')).join('\n--\n')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const reader of this.readers) reader.stop()
    for (const node of this.nodes) await node.kill()
    await this.redis[Symbol.asyncDispose]()
    await this.#database.client.end().catch(() => {})
    await this.server.stop()
  }
}
