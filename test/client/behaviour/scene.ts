// What every scenario plays in: a database that somebody writes to all the while, a node, and clients on it, each behind a proxy of its
// own. While anything breaks, what the clients say of themselves is held against what they have.
import { randomUUID } from 'node:crypto'
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

export const heartbeatMs = 1500
/** A client that says it is live has what was committed so long ago: a link that is dead is noticed after two heartbeats. */
const truthMs = 2 * heartbeatMs + 500
/** A request that a browser sends over a dead connection of its pool costs a try, and there may be some. */
const patienceMs = 90_000
/** Of one scenario, which waits several times. */
export const scenarioMs = 240_000
const commitEveryMs = 100
const stateRows = 20
const lookEveryMs = 100

export const allTransports: readonly TransportName[] = ['websocket', 'sse', 'long-poll']

/** One client, and what is between it and the node. */
export class Player implements AsyncDisposable {
  readonly name: string
  readonly proxy: FaultProxy
  readonly client: Driven
  /** The longest that it lacked something while it said that it was live. */
  worstLieMs = 0
  glance: Glance
  isGone = false

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
    if (this.isGone) return
    this.isGone = true
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
  /** When each event was committed: from `firstEventId` on, none left out. */
  readonly #committed: { readonly id: number; readonly at: number }[] = []
  readonly #ending = new AbortController()
  readonly #running: Promise<void>[] = []
  #pause: PromiseWithResolvers<void> | null = null
  /** Who wants nothing to be committed. */
  #quiets = 0
  /** When this process came back later than it wanted to, and by how much: nobody in it could know anything sooner. */
  readonly #late: { readonly at: number; readonly ms: number }[] = []
  #isWriting = false
  #selecting: Promise<string[]> = Promise.resolve([])
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
   *  @param transports left out: the client's own choice @param targetUrl past its proxy, where that is not to lead to the node */
  async enter(
    name: string,
    {
      transports,
      targetUrl = this.node.url,
      place,
    }: { transports?: readonly TransportName[]; targetUrl?: string; place?: string } = {},
  ): Promise<Player> {
    const proxy = await FaultProxy.before(targetUrl)
    const options = { url: proxy.url, token: this.#token, ...(transports === undefined ? {} : { transports }) }
    const client = await this.#driver.open(options, place)
    const player = new Player(name, proxy, client, await client.glance())
    this.players.push(player)
    return player
  }

  /** One for each transport alone, of that name. */
  async enterAll(): Promise<Player[]> {
    const place = randomUUID()
    const players = await Promise.all(
      allTransports.map(transport => this.enter(transport, { transports: [transport], place })),
    )
    await this.areLive(players)
    return players
  }

  async until(what: string, holds: (player: Player) => boolean, players: readonly Player[]): Promise<void> {
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

  areLive(players: readonly Player[]): Promise<void> {
    return this.until('live', ({ isLive }) => isLive, players)
  }

  /** So much more was committed, and they have it. */
  async progress(commits: number, players: readonly Player[]): Promise<void> {
    const target = this.#nextId + commits
    await this.until(`has event ${target}`, ({ glance }) => glance.lastEvent >= target, players)
  }

  /** Nothing is committed meanwhile. */
  async quiet<T>(during: () => Promise<T>): Promise<T> {
    this.#quiets += 1
    this.#pause ??= Promise.withResolvers()
    try {
      await until(() => !this.#isWriting)
      return await during()
    } finally {
      this.#quiets -= 1
      if (this.#quiets === 0) {
        this.#pause?.resolve()
        this.#pause = null
      }
    }
  }

  /** [P1] [P4] [P8] Rows equal the SELECT, every event and every message has come once and in order, nobody was told to begin anew, and nobody who said
   *  that it was live lacked anything for longer than it takes to notice a dead link. */
  async expectWhole(players: readonly Player[]): Promise<void> {
    await this.quiet(async () => {
      const rows = await this.#selected()
      const last = this.#committed.at(-1)?.id ?? 0
      await this.until('live, with the last event', ({ isLive, glance }) => isLive && glance.lastEvent >= last, players)
      for (const player of players) {
        const { client, name } = player
        let seen = await client.seen()
        // Both at one moment: on a busy machine who is live may be silent for too long in the next.
        const isWhole = async (): Promise<boolean> => {
          seen = await client.seen()
          return seen.rowsStatus === 'live' && sorted(seen.rows).join() === rows.join()
        }
        await until(isWhole, patienceMs).catch(() => {})
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

  /** One after the other: they are transactions of one connection. */
  #selected(): Promise<string[]> {
    const sql = `SELECT * FROM messages WHERE id < ${firstEventId}`
    this.#selecting = this.#selecting.then(async () => sorted(await selectAs(this.#database, this.#ann, sql)))
    return this.#selecting
  }

  /** An event with each commit, and a row that changes, goes, or comes into sight. */
  async #write(): Promise<void> {
    while (!this.#ending.signal.aborted) {
      // Not once: another pause may have begun by the time that the first is seen to be over.
      while (this.#pause !== null && !this.#ending.signal.aborted) await this.#pause.promise
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
      await Promise.all(this.players.filter(({ isGone }) => !isGone).map(player => this.#lookAt(player)))
      const due = Date.now() + lookEveryMs
      await sleep(lookEveryMs)
      const now = Date.now()
      if (now - due > lookEveryMs) this.#late.push({ at: now, ms: now - due })
    }
  }

  async #lookAt(player: Player): Promise<void> {
    const before = Date.now()
    player.glance = await player.client.glance().catch(() => player.glance)
    const { liveSince, lastEvent } = player.glance
    if (liveSince === null || lastEvent === 0) return
    const missing = this.#committed[lastEvent + 1 - firstEventId]
    if (missing === undefined) return
    const since = Math.max(missing.at, liveSince)
    const lateMs = this.#late.reduce((sum, { at, ms }) => (at > since ? sum + ms : sum), 0)
    player.worstLieMs = Math.max(player.worstLieMs, before - since - lateMs)
  }
}

const sorted = (rows: readonly Record<string, unknown>[]): string[] =>
  rows.map(({ id, room_id, author, body }) => `${id} ${room_id} ${author} ${body}`).sort()
