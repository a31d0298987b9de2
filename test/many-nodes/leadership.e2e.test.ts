// The node that holds the slot is killed, paused and cut off: how long until another one streams, and what the first one
// does when it is back.
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { LocalPostgres } from '../../src/cli/local-postgres.ts'
import { NodeProcess } from '../faults/node-process.ts'
import { firstEventId, LoyalReader } from '../faults/readers.ts'
import { FaultyLink } from '../support/faulty-link.ts'
import { person, prepareDatabase, roomsSchema, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { findRedis, type TestRedis } from '../support/redis.ts'
import { until } from '../support/stalled.ts'
import { expectWithin } from '../support/within.ts'

const ada = person()

interface Place {
  readonly node: NodeProcess
  /** Its way to Postgres. */
  readonly link: FaultyLink
  readonly reader: LoyalReader
}

let server: LocalPostgres
let database: TestDatabase
let redis: TestRedis
const places: Place[] = []
/** When each row was written, by its number. */
const writtenAt: number[] = []
let writing: Promise<void>
let stopped = false

beforeAll(async () => {
  server = await LocalPostgres.create({ settings: { fsync: 'off', log_min_messages: 'warning' } })
  await server.start()
  database = await TestDatabase.create(server.url)
  redis = await findRedis()
  await prepareDatabase(database, roomsSchema, ['rooms', 'members', 'messages'])
  await database.query(`INSERT INTO members (room_id, user_id) VALUES (1, '${ada}')`)
  const token = await tokenFor(ada)
  const place = async (): Promise<void> => {
    const link = await FaultyLink.to(database.url)
    const node = await NodeProcess.start(link.url, { REDIS_URL: redis.url, WINDOW_MAX_AGE_MS: '300000' })
    const reader = new LoyalReader({ transport: 'sse', kind: 'changes', rows: 'all', url: node.url, token }).start()
    places.push({ node, link, reader })
  }
  await Promise.all([1, 2, 3].map(place))
  await until(() => places.every(({ reader }) => reader.isThere))
  writing = write()
})

afterAll(async () => {
  stopped = true
  await writing
  for (const { node, link, reader } of places) {
    reader.stop()
    await node.kill()
    await link[Symbol.asyncDispose]()
  }
  await redis?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
  await server?.stop()
})

async function write(): Promise<void> {
  while (!stopped) {
    const id = firstEventId + writtenAt.length
    writtenAt.push(performance.now())
    await database.query(`INSERT INTO messages VALUES (${id}, 1, 'ada', 'text')`)
    await sleep(50)
  }
}

const streams = (line: string): boolean => line.startsWith('info: streaming from')
const turnsOf = ({ node }: Place): number => node.saying.filter(streams).length

const senders = () =>
  database.query<{ pid: number; port: number }>(
    "SELECT pid, client_port AS port FROM pg_stat_replication WHERE application_name = 'tidegate wal'",
  )

/** Who holds the slot: whose link leads to the one walsender there is. */
async function leader(): Promise<Place> {
  let found: Place | undefined
  await until(async () => {
    const [sender, ...more] = await senders()
    found = more.length > 0 ? undefined : places.find(({ link }) => link.ports.includes(sender?.port ?? 0))
    return found !== undefined
  })
  return found!
}

/** Does something to the leader, and measures until the others have been told of a row that was written after it. */
async function takeover(harm: (leader: Place) => unknown): Promise<{ was: Place; ms: number }> {
  const was = await leader()
  const others = places.filter(place => place !== was)
  const before = others.map(turnsOf)
  const from = writtenAt.length
  const at = performance.now()
  await harm(was)
  const harmed = writtenAt.length
  await until(() => others.some(({ reader }) => (reader.inserted.at(-1) ?? 0) - firstEventId >= harmed))
  const ms = Math.round(performance.now() - at)
  // It was another one who streamed it, not what was under way still. Its row may come before what it logs is read.
  const successors = (): Place[] => others.filter((other, index) => turnsOf(other) > before[index]!)
  await until(() => successors().length > 0)
  expect(successors()).toHaveLength(1)
  expect(from).toBeGreaterThan(0)
  return { was, ms }
}

/** All who are there have every row, once, in order, and nobody had to start over. */
async function expectWhole(): Promise<void> {
  const upTo = writtenAt.length
  await until(() => places.every(({ reader }) => (reader.inserted.at(-1) ?? 0) - firstEventId >= upTo))
  for (const { reader } of places) {
    expect([reader.resyncs, reader.failure]).toEqual([[], null])
    const [first] = reader.inserted
    expect(reader.inserted).toEqual(reader.inserted.map((_, index) => first! + index))
  }
}

test('[P4] a leader that is killed is followed by another within five seconds, and nobody misses a row', async () => {
  const { was, ms } = await takeover(({ node }) => node.kill())
  console.log(`kill -9: ${ms} ms`)
  expectWithin(ms, 5000)
  await was.node.start()
  await expectWhole()
})

test('[P4] a leader that is paused is followed by another within ten seconds; awake again, it stands in line', async () => {
  const { was, ms } = await takeover(({ node }) => node.signal('SIGSTOP'))
  console.log(`SIGSTOP: ${ms} ms`)
  expectWithin(ms, 10_000)
  const [holder] = await senders()
  const turns = turnsOf(was)
  was.node.said()
  was.node.signal('SIGCONT')
  await was.node.untilSaid('info: another node leads; this one takes over when the slot becomes free')
  await expectWhole()
  expect(turnsOf(was)).toBe(0)
  expect(turns).toBeGreaterThan(0)
  expect(await senders()).toEqual([holder])
  expect(was.node.said().filter(line => line.startsWith('error') || line.includes('LEADER_SILENT'))).toEqual([])
})

test('[P4] a leader cut off from Postgres is followed by another within ten seconds, and follows it while it is still cut off', async () => {
  const { was, ms } = await takeover(({ link }) => link.isolate())
  console.log(`black hole between leader and Postgres: ${ms} ms`)
  expectWithin(ms, 10_000)
  const [holder] = await senders()
  const at = performance.now()
  await expectWhole()
  console.log(`its own readers: ${Math.round(performance.now() - at)} ms later`)
  was.link.thaw()
  await expectWhole()
  expect(await senders()).toEqual([holder])
})

test("[P4] through all of it, Postgres's log has no line about a slot in use", () => {
  expect(server.log.filter(line => /\b(ERROR|FATAL|PANIC):.*slot/.test(line))).toEqual([])
})
