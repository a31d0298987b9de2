// A thousand clients who lose their connections in the same moment and come back at once, each at its position, while rows
// keep coming: nothing is lost, nothing comes twice, and the database and the neighbours notice little.
import type pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { freePort, LocalPostgres } from '../../src/cli/local-postgres.ts'
import { jwtSecret, person, prepareDatabase, roomsSchema, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { assertOpenFiles, Child } from './child.ts'
import type { ClientAnswers, Who } from './clients.ts'
import type { NodeAnswers } from './node.ts'

const count = 1000
const everybody = 1
/** DATABASE_POOL and the stream. */
const mostConnections = 4 + 1
let server: LocalPostgres
let database: TestDatabase
let watcher: TestDatabase

beforeAll(async () => {
  assertOpenFiles(2 * count)
  server = await LocalPostgres.create({ settings: { fsync: 'off' } })
  await server.start()
})

afterAll(async () => {
  await database?.[Symbol.asyncDispose]()
  await server?.stop()
})

const nowUs = (): number => (performance.timeOrigin + performance.now()) * 1000

/** Commits a row for one client after the other, each tenth for all, until it is told to stop. The body says when. */
class Writer {
  readonly #client: pg.Client
  #next = 0
  #stopped = false
  #done: Promise<void> = Promise.resolve()

  constructor(client: pg.Client) {
    this.#client = client
  }

  start(): void {
    this.#stopped = false
    this.#done = (async () => {
      while (!this.#stopped) {
        await this.row(this.#next % 10 === 0 ? everybody : 10 + ((this.#next * 7) % (count + 1)))
        // A hundred commits a second, of which ten are for all: ten thousand deliveries a second.
        await new Promise(resolve => setTimeout(resolve, 10))
      }
    })()
  }

  /** @returns its id */
  async row(room: number): Promise<number> {
    this.#next += 1
    const id = this.#next
    await this.#client.query('INSERT INTO messages VALUES ($1, $2, $3, $4)', [id, room, 'w', String(nowUs())])
    return id
  }

  async stop(): Promise<void> {
    this.#stopped = true
    await this.#done
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }
}

/** The most connections that Tidegate had to the database while `during` ran. */
async function connectionsDuring(during: () => Promise<unknown>): Promise<number> {
  let isOver = false
  let most = 0
  const watching = (async () => {
    while (!isOver) {
      const [row] = await watcher.query<{ n: number }>(
        `SELECT count(*)::int AS n FROM pg_stat_activity WHERE application_name LIKE 'tidegate%'`,
      )
      most = Math.max(most, row!.n)
      await new Promise(resolve => setTimeout(resolve, 20))
    }
  })()
  await during().finally(() => {
    isOver = true
  })
  await watching
  return most
}

const startNode = async (port: number): Promise<Child<NodeAnswers>> => {
  const node = new Child<NodeAnswers>('node')
  await node.ask('start', { DATABASE_URL: database.url, JWT_SECRET: jwtSecret, PORT: String(port) })
  return node
}

test('[P4] [P7] a thousand clients cut at one moment come back at once, of a node that goes on and of one that was killed', {
  timeout: 180_000,
}, async () => {
  database = await TestDatabase.create(server.url)
  watcher = await TestDatabase.connect(database)
  await prepareDatabase(database, roomsSchema, ['rooms', 'members', 'messages'])
  const people = Array.from({ length: count + 1 }, () => person())
  await database.query(`INSERT INTO members SELECT ${everybody}, u FROM unnest($1::uuid[]) u`, [people])
  await database.query(`INSERT INTO members SELECT 9 + n, u FROM unnest($1::uuid[]) WITH ORDINALITY AS x (u, n)`, [
    people,
  ])
  const who: Who[] = await Promise.all(
    people.map(async (id, i) => ({
      token: await tokenFor(id),
      kind: i % 2 === 0 ? ('live' as const) : ('changes' as const),
    })),
  )
  const port = await freePort()
  const first = await startNode(port)
  await using crowd = new Child<ClientAnswers>('clients')
  await using neighbour = new Child<ClientAnswers>('clients')
  await neighbour.ask('come', { port, who: who.slice(count), atOnce: 1, latencies: true })
  await crowd.ask('come', { port, who: who.slice(0, count), atOnce: 200 })
  await using writer = new Writer(database.client)
  /** Resolves when a row written now has come to all of them, and so all that were written before. */
  const caughtUp = async (): Promise<void> => {
    await crowd.ask('reached', { id: await writer.row(everybody) })
  }

  writer.start()
  for (let i = 0; i < 20; i++) await caughtUp()
  const calm = await neighbour.ask('latencies')
  await first.ask('loopDelay')

  // The sockets are reset; the node goes on.
  let tookMs = 0
  const duringReset = await connectionsDuring(async () => {
    const cutAt = nowUs()
    await crowd.ask('cut')
    tookMs = ((await crowd.ask('back')).atUs - cutAt) / 1000
    await caughtUp()
  })
  const stormy = await neighbour.ask('latencies')
  console.log(
    `${count} clients reset: all live again after ${tookMs.toFixed(0)} ms, at most ${duringReset} database connections; a neighbour's latency: p50 ${stormy.p50.toFixed(1)} ms, most ${stormy.most.toFixed(0)} ms (before: p50 ${calm.p50.toFixed(1)}, most ${calm.most.toFixed(0)}); the loop stood still for ${(await first.ask('loopDelay')).toFixed(0)} ms`,
  )

  // The node is killed; another comes up in its place.
  let upMs = 0
  const killedAt = nowUs()
  await first.kill()
  await using _second = await startNode(port)
  const duringRestart = await connectionsDuring(async () => {
    upMs = (nowUs() - killedAt) / 1000
    tookMs = ((await crowd.ask('back')).atUs - killedAt) / 1000
    await caughtUp()
  })
  console.log(
    `the node killed: ready again after ${upMs.toFixed(0)} ms, ${count} clients live after ${tookMs.toFixed(0)} ms, at most ${duringRestart} database connections; told to come back later: ${JSON.stringify(await crowd.ask('putOff'))}`,
  )

  await writer.stop()
  await writer.row(everybody)
  await caughtUp()
  const owed = await watcher.query<{ rows: number; sum: number }>(
    `SELECT count(*)::int AS rows, sum(m.id)::int AS sum FROM unnest($1::uuid[]) WITH ORDINALITY AS p (id, n)
     JOIN members ON members.user_id = p.id JOIN messages m USING (room_id) GROUP BY n ORDER BY n`,
    [people.slice(0, count)],
  )
  expect(await crowd.ask('told')).toEqual(owed)
  expect(await crowd.ask('faults')).toEqual([])
  expect(await neighbour.ask('faults')).toEqual([])
  expect(duringReset).toBeLessThanOrEqual(mostConnections)
  expect(duringRestart).toBeLessThanOrEqual(mostConnections)
  expect(stormy.count).toBeGreaterThan(0)
  expect(stormy.most).toBeLessThan(2000)
})
