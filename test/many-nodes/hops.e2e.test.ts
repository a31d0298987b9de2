// Clients without a home: each reads on, mid-stream, on another node over another wire, while rows are written, memberships
// flip, and the node that holds the slot is killed.
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Asked } from '../checker/wires.ts'
import { NodeProcess } from '../faults/node-process.ts'
import { asSet, person, prepareDatabase, roomsSchema, selectAs, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { transports } from '../support/readers.ts'
import { findRedis, type TestRedis } from '../support/redis.ts'
import { until } from '../support/stalled.ts'
import { Hopper, type HoppingQuery } from './hopper.ts'

type Query = Asked['query']

/** At least: until each reader was at every node over every wire. HOPS=20 lets them go on. */
const hopsOfEach = Number(process.env.HOPS ?? 12)
/** More than this, so that what comes and goes does so between hops. */
const flipsWanted = 10
const ada = person()
let database: TestDatabase
let redis: TestRedis
let token: string
const nodes: NodeProcess[] = []
/** Those that are there. */
let up: NodeProcess[] = []

beforeAll(async () => {
  database = await TestDatabase.create()
  redis = await findRedis()
  await prepareDatabase(database, roomsSchema, ['rooms', 'members', 'messages'])
  token = await tokenFor(ada)
  const settings = { REDIS_URL: redis.url, WINDOW_MAX_AGE_MS: '300000' }
  await Promise.all([1, 2, 3].map(async () => nodes.push(await NodeProcess.start(database.url, settings))))
  up = [...nodes]
})

afterAll(async () => {
  for (const node of nodes) await node.kill()
  await redis?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

const below = (n: number): number => Math.floor(Math.random() * n)

/** One connection: what it commits is in this order in the stream. Everybody reads room 1; room 2 comes and goes. */
class Writer {
  /** By room, as a change feed tells it: `insert 7`. */
  readonly log: Readonly<Record<1 | 2, string[]>> = { 1: [], 2: [] }
  readonly rooms: string[] = []
  flips = 0
  #isOver = false
  #isMember = false
  #next = 1
  readonly #here: { readonly id: number; readonly room: 1 | 2 }[] = []
  readonly #running: Promise<void>

  constructor() {
    this.#running = this.#run()
  }

  async stop(): Promise<void> {
    this.#isOver = true
    await this.#running
  }

  async #run(): Promise<void> {
    while (!this.#isOver) {
      const chance = below(100)
      if (chance < 6) await this.#flip()
      else if (chance < 10) await this.#room()
      else await this.#message(chance)
      await sleep(below(12))
    }
  }

  async #flip(): Promise<void> {
    this.#isMember = !this.#isMember
    this.flips += 1
    await database.query(
      this.#isMember
        ? `INSERT INTO members VALUES (2, '${ada}')`
        : `DELETE FROM members WHERE room_id = 2 AND user_id = '${ada}'`,
    )
  }

  async #room(): Promise<void> {
    await database.query(`UPDATE rooms SET name = 'name ${Math.random()}' WHERE id = 1`)
    this.rooms.push('update 1')
  }

  async #message(chance: number): Promise<void> {
    const place = below(this.#here.length)
    const known = this.#here[place]
    if (known === undefined || chance < 50 || this.#here.length < 30) {
      const row = { id: this.#next++, room: (1 + below(2)) as 1 | 2 }
      await database.query(`INSERT INTO messages VALUES (${row.id}, ${row.room}, 'a', 'text ${Math.random()}')`)
      this.log[row.room].push(`insert ${row.id}`)
      this.#here.push(row)
    } else if (chance < 80) {
      await database.query(`UPDATE messages SET body = 'again ${Math.random()}' WHERE id = ${known.id}`)
      this.log[known.room].push(`update ${known.id}`)
    } else {
      await database.query(`DELETE FROM messages WHERE id = ${known.id}`)
      this.log[known.room].push(`delete ${known.id}`)
      this.#here.splice(place, 1)
    }
  }
}

const query = (table: Query['table'], filter = ''): Query => ({
  table,
  filter,
  select: null,
  where: 'true',
  matches: () => true,
})

const pairs = 3 * transports.length

/** All pairs of a wire and a node in nine hops, each reader from another one on; a node that is away is passed over. */
async function wander(hopper: Hopper, first: number): Promise<void> {
  const isOver = (): boolean => hopper.hops >= hopsOfEach && hopper.visited.size === pairs
  for (let step = first; !isOver() && hopper.failure === null; step++) {
    const node = nodes[(step + Math.floor(step / 3)) % nodes.length]!
    if (!up.includes(node)) continue
    if (!(await hopper.hop(node.url, transports[step % 3]!))) {
      await sleep(20)
      continue
    }
    // Mid-stream: something has come, and more is on its way.
    await hopper.heard(1 + below(6))
    await sleep(below(30))
  }
}

async function leader(): Promise<NodeProcess> {
  for (;;) {
    for (const node of up) {
      const response = await fetch(`${node.url}/ready`)
      if (((await response.json()) as { leader: boolean }).leader) return node
    }
    await sleep(50)
  }
}

/** Whether each of these is among those, in the same order: what came is a part of what was written, nothing twice. */
function isPartOf(some: readonly string[], all: readonly string[]): boolean {
  let at = 0
  for (const each of some) {
    at = all.indexOf(each, at) + 1
    if (at === 0) return false
  }
  return true
}

test('[P4] [P5] readers that hop across nodes and wires go on where they stand: nothing lost, nothing repeated, no resync', {
  timeout: 120_000,
}, async () => {
  await database.query(`INSERT INTO members VALUES (1, '${ada}'); INSERT INTO rooms VALUES (1, 'one'), (2, 'two')`)
  const hoppers = [
    new Hopper('live', 'live', [query('messages')], token),
    new Hopper('live, filtered', 'live', [query('messages', 'room_id=eq.2')], token),
    new Hopper('three live', 'live', [query('messages'), query('rooms'), query('members')], token),
    new Hopper('changes', 'changes', [query('messages', 'room_id=eq.1')], token),
    new Hopper('changes that come and go', 'changes', [query('messages', 'room_id=eq.2')], token),
    new Hopper(
      'three changes',
      'changes',
      [query('messages', 'room_id=eq.1'), query('rooms', 'id=eq.1'), query('messages', 'room_id=eq.2')],
      token,
    ),
  ]
  // Before the first row is written, so that all of them are owed.
  for (const [place, hopper] of hoppers.entries()) {
    await hopper.hop(nodes[place % 3]!.url, 'sse')
    await until(() => hopper.isThere)
  }
  const writer = new Writer()
  const wandering = Promise.all(hoppers.map((hopper, place) => wander(hopper, 4 * place)))
  const hops = (): number => hoppers.reduce((sum, hopper) => sum + hopper.hops, 0)
  await until(() => hops() >= (hoppers.length * hopsOfEach) / 3, 60_000)
  const killed = await leader()
  up = up.filter(node => node !== killed)
  await killed.kill()
  const atKill = hops()
  await until(() => hops() >= atKill + hoppers.length * 3, 60_000)
  await killed.start()
  up = [...nodes]
  await wandering
  await until(() => writer.flips > flipsWanted, 60_000)
  await writer.stop()

  const told = (of: HoppingQuery): readonly string[] =>
    of.query.filter === 'room_id=eq.1' ? writer.log[1] : writer.rooms
  const isWhole = async (hopper: Hopper, of: HoppingQuery): Promise<void> => {
    if (hopper.kind === 'live') {
      const { table, filter } = of.query
      const where = filter === '' ? 'true' : 'room_id = 2'
      const expected = asSet(await selectAs(database, ada, `SELECT * FROM ${table} WHERE ${where}`))
      await until(() => asSet(of.rows.list()).join() === expected.join() || hopper.failure !== null).catch(() => {})
      expect(asSet(of.rows.list()), hopper.story).toEqual(expected)
    } else if (of.query.filter === 'room_id=eq.2') {
      expect(isPartOf(of.changes, writer.log[2]), hopper.story).toBe(true)
      expect(of.changes.length).toBeGreaterThan(0)
    } else {
      await until(() => of.changes.length >= told(of).length || hopper.failure !== null).catch(() => {})
      expect(of.changes, hopper.story).toEqual(told(of))
    }
  }
  for (const hopper of hoppers) {
    for (const each of hopper.queries) await isWhole(hopper, each)
    expect([hopper.name, hopper.failure, hopper.resyncs], hopper.story).toEqual([hopper.name, null, []])
    expect(hopper.hops).toBeGreaterThanOrEqual(hopsOfEach)
    expect(hopper.visited.size).toBe(pairs)
    hopper.leave()
  }
  console.log(
    `${hops()} hops, ${writer.log[1].length + writer.log[2].length} commits of rows, ${writer.flips} flips; ended meanwhile: ${hoppers.flatMap(({ ends }) => ends)}`,
  )
})
