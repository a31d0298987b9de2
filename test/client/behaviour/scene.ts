// What every scenario plays in: a database that somebody writes to all the while, a node, and clients on it, each behind a proxy of its
// own. While anything breaks, what the clients say of themselves is held against what they have.
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'vitest'
import type { TransportName } from '../../../src/client/client.ts'
import { channelPolicies } from '../../support/channel-client.ts'
import { FaultProxy } from '../../support/fault-proxy.ts'
import { person, prepareDatabase, roomsSchema, selectAs, TestNode, tokenFor } from '../../support/node.ts'
import { TestDatabase } from '../../support/postgres.ts'
import { until } from '../../support/stalled.ts'
import { expectWithin } from '../../support/within.ts'
import type { Driven, Driver } from './driver.ts'
import { firstEventId, type Glance, topic, windowRows } from './watched.ts'

export const heartbeatMs = 1000
/** A client that says it is live has what was committed so long ago: a link that is dead is noticed after two heartbeats. */
const truthMs = 2 * heartbeatMs + 500
/** A request that a browser sends over a dead connection of its pool costs a try, and there may be some. */
const patienceMs = 90_000
/** Of one scenario, which waits several times. */
export const scenarioMs = 240_000
const commitEveryMs = 30
const stateRows = 20
const lookEveryMs = 50

export const allTransports: readonly TransportName[] = ['websocket', 'sse', 'long-poll']

/** One client, and what is between it and the node. */
export class Player implements AsyncDisposable {
  readonly name: string
  readonly proxy: FaultProxy
  readonly client: Driven
  /** The longest that it lacked something while it said that it was live. */
  worstLieMs = 0
  glance: Glance

  constructor(name: string, proxy: FaultProxy, client: Driven, glance: Glance) {
    this.name = name
    this.proxy = proxy
    this.client = client
    this.glance = glance
  }

  get isLive(): boolean {
    return this.glance.liveSince !== null
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.client[Symbol.asyncDispose]()
    await this.proxy[Symbol.asyncDispose]()
  }
}

export class Scene implements AsyncDisposable {
  readonly node: TestNode
  readonly players: Player[] = []
  readonly #database: TestDatabase
  readonly #driver: Driver
  readonly #ann: string
  readonly #token: string
  /** When each event was committed. */
  readonly #committed: { readonly id: number; readonly at: number }[] = []
  readonly #ending = new AbortController()
  readonly #running: Promise<void>[] = []
  #pause: PromiseWithResolvers<void> | null = null
  #isWriting = false
  #nextId = firstEventId

  private constructor(fields: { node: TestNode; database: TestDatabase; driver: Driver; ann: string; token: string }) {
    this.node = fields.node
    this.#database = fields.database
    this.#driver = fields.driver
    this.#ann = fields.ann
    this.#token = fields.token
  }

  static async begin(driver: Driver, settings: Record<string, string> = {}): Promise<Scene> {
    const database = await TestDatabase.create()
    await prepareDatabase(database, roomsSchema + channelPolicies, ['rooms', 'members', 'messages'])
    const ann = person()
    await database.query(`INSERT INTO members VALUES (1, '${ann}'), (2, '${ann}')`)
    await database.query(
      `INSERT INTO messages SELECT i, 1 + i % 3, 'first', '0' FROM generate_series(1, ${stateRows}) i`,
    )
    const node = await TestNode.start(database.url, {
      HEARTBEAT_MS: String(heartbeatMs),
      ALLOWED_ORIGINS: '*',
      CHANNELS: JSON.stringify([{ pattern: topic, history: { length: 10_000, age: '1h' } }]),
      ...settings,
    })
    const scene = new Scene({ node, database, driver, ann, token: await tokenFor(ann) })
    scene.#running.push(scene.#write(), scene.#look())
    return scene
  }

  /** A client more. It is owed what is committed from when it is live.
   *  @param transports left out: the client's own choice @param url past its proxy, where that is not to lead to the node */
  async enter(name: string, transports?: readonly TransportName[], targetUrl = this.node.url): Promise<Player> {
    const proxy = await FaultProxy.before(targetUrl)
    const client = await this.#driver.open({
      url: proxy.url,
      token: this.#token,
      ...(transports === undefined ? {} : { transports }),
    })
    const player = new Player(name, proxy, client, await client.glance())
    this.players.push(player)
    return player
  }

  /** Each of them over one transport alone. */
  async enterAll(): Promise<void> {
    for (const transport of allTransports) await this.enter(transport, [transport])
    await this.areLive()
  }

  async until(
    what: string,
    holds: (player: Player) => boolean,
    players: readonly Player[] = this.players,
  ): Promise<void> {
    await until(() => players.every(holds), patienceMs).catch(() => {})
    const rest = players.filter(player => !holds(player))
    if (rest.length === 0) return
    const stories = await Promise.all(
      rest.map(
        async ({ name, client }) =>
          `${name}: ${JSON.stringify(await client.seen().then(({ story, errors }) => ({ story, errors })), null, 1)}`,
      ),
    )
    throw new Error(`${what}: not so of\n${stories.join('\n')}`)
  }

  areLive(players: readonly Player[] = this.players): Promise<void> {
    return this.until('live', ({ isLive }) => isLive, players)
  }

  /** So much more was committed, and they have it. */
  async progress(commits: number, players: readonly Player[] = this.players): Promise<void> {
    const target = this.#nextId + commits
    await this.until(`has event ${target}`, ({ glance }) => glance.lastEvent >= target, players)
  }

  /** Nothing is committed meanwhile. */
  async quiet<T>(during: () => Promise<T>): Promise<T> {
    this.#pause = Promise.withResolvers()
    try {
      await until(() => !this.#isWriting)
      return await during()
    } finally {
      this.#pause.resolve()
      this.#pause = null
    }
  }

  /** [P1] [P4] [P8] Rows equal the SELECT, every event and every message has come once and in order, nobody was told to begin anew, and nobody who said
   *  that it was live lacked anything for longer than it takes to notice a dead link. */
  async expectWhole(players: readonly Player[] = this.players): Promise<void> {
    await this.quiet(async () => {
      const rows = sorted(
        await selectAs(this.#database, this.#ann, `SELECT * FROM messages WHERE id < ${firstEventId}`),
      )
      const last = this.#committed.at(-1)?.id ?? 0
      await this.until('live, with the last event', ({ isLive, glance }) => isLive && glance.lastEvent >= last, players)
      for (const player of players) {
        const { client, name } = player
        const rowsOf = async (): Promise<string[]> => sorted((await client.seen()).rows)
        await until(async () => (await rowsOf()).join() === rows.join(), patienceMs).catch(() => {})
        const seen = await client.seen()
        const story = `${name}\n${seen.story.join('\n')}`
        expect(sorted(seen.rows), story).toEqual(rows)
        expect(seen.rowsStatus, story).toBe('live')
        const ids = this.#committed.map(({ id }) => id)
        for (const told of [seen.events, seen.messages])
          expect(told, story).toEqual(ids.filter(id => id >= (told[0] ?? 0)))
        expect(seen.newest, story).toEqual(ids.slice(-windowRows).reverse())
        expect([seen.resyncs, seen.errors], story).toEqual([[], []])
        const { worstLieMs } = player
        player.worstLieMs = 0
        expectWithin(worstLieMs, truthMs)
      }
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ending.abort()
    this.#pause?.resolve()
    await Promise.all(this.#running)
    for (const player of this.players) await player[Symbol.asyncDispose]()
    await this.node[Symbol.asyncDispose]()
    await this.#database[Symbol.asyncDispose]()
  }

  /** An event with each commit, and a row that changes, goes, or comes into sight. */
  async #write(): Promise<void> {
    while (!this.#ending.signal.aborted) {
      await this.#pause?.promise
      this.#isWriting = true
      const id = this.#nextId++
      const row = 1 + (id % stateRows)
      const state =
        id % 7 === 0
          ? `DELETE FROM messages WHERE id = ${row}; INSERT INTO messages VALUES (${row}, ${1 + (id % 3)}, 'again', '${id}')`
          : `UPDATE messages SET room_id = ${1 + (id % 3)}, body = '${id}' WHERE id = ${row}`
      const event = `INSERT INTO messages VALUES (${id}, 1, 'event', ''); SELECT realtime.send('${id}', 'event', '${topic}')`
      await this.#database.query(`BEGIN; ${event}; ${state}; COMMIT`)
      this.#committed.push({ id, at: Date.now() })
      this.#isWriting = false
      await sleep(commitEveryMs)
    }
  }

  async #look(): Promise<void> {
    while (!this.#ending.signal.aborted) {
      for (const player of [...this.players]) {
        const before = Date.now()
        player.glance = await player.client.glance().catch(() => player.glance)
        const { liveSince, lastEvent } = player.glance
        if (liveSince === null || lastEvent === 0) continue
        const missing = this.#committed.find(({ id }) => id > lastEvent)
        if (missing !== undefined)
          player.worstLieMs = Math.max(player.worstLieMs, before - Math.max(missing.at, liveSince))
      }
      await sleep(lookEveryMs)
    }
  }
}

const sorted = (rows: readonly Record<string, unknown>[]): string[] =>
  rows.map(({ id, room_id, author, body }) => `${id} ${room_id} ${author} ${body}`).sort()
