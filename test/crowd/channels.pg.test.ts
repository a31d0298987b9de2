// Channels with many members, and many channels with few: what they weigh, and that nothing of them is left.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { LocalPostgres } from '../../src/cli/local-postgres.ts'
import { channelPolicies } from '../support/channel-client.ts'
import { jwtSecret, person, prepareDatabase, roomsSchema, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { findRedis } from '../support/redis.ts'
import { until } from '../support/stalled.ts'
import { assertOpenFiles, Child } from './child.ts'
import type { MemberAnswers } from './members.ts'
import type { NodeAnswers } from './node.ts'

const members = 5000
const everybody = 1
let server: LocalPostgres
let database: TestDatabase

beforeAll(async () => {
  assertOpenFiles(members)
  server = await LocalPostgres.create({ settings: { fsync: 'off' } })
  await server.start()
  database = await TestDatabase.create(server.url)
  await prepareDatabase(database, roomsSchema + channelPolicies, ['rooms', 'members', 'messages'])
})

afterAll(async () => {
  await database?.[Symbol.asyncDispose]()
  await server?.stop()
})

/** Many channels of few: each person is in all of them. */
const rooms = { first: 1000, count: 2000 } as const
const connections = 100
const each = 20
/** Of two thousand who come and go; `CROWD_ROUNDS=10` for twenty thousand. */
const rounds = Number(process.env.CROWD_ROUNDS ?? 4)

const startNode = async (more: Readonly<Record<string, string>> = {}): Promise<[Child<NodeAnswers>, number]> => {
  const node = new Child<NodeAnswers>('node')
  const { port } = await node.ask('start', {
    DATABASE_URL: database.url,
    JWT_SECRET: jwtSecret,
    PORT: '0',
    MAX_CONNECTIONS: '6000',
    AUDIENCE_GRACE_MS: '0',
    // A crowd that enters at once keeps a node busy for a second or two: it does not stand still.
    BEACON_MS: '10000',
    // Who enters may make the heartbeat come, which is kept for so long.
    WINDOW_MAX_AGE_MS: '3000',
    CHANNELS: JSON.stringify([
      { pattern: 'public:*', public: true },
      { pattern: '*', presence: { grace: '1s' } },
    ]),
    ...more,
  })
  return [node, port]
}

const nothingLeft = (node: Child<NodeAnswers>): Promise<void> =>
  until(async () => Object.values(await node.ask('holds')).every(count => count === 0), 30_000).catch(async () =>
    expect(Object.entries(await node.ask('holds')).filter(([, count]) => count > 0)).toEqual([]),
  )

test('[P7] each of five thousand members of one private channel takes little beside its connection', {
  timeout: 180_000,
}, async () => {
  const people = Array.from({ length: members }, () => person())
  await database.query(`INSERT INTO members SELECT ${everybody}, u FROM unnest($1::uuid[]) u`, [people])
  const tokens = await Promise.all(people.map(id => tokenFor(id)))
  const [node, port] = await startNode()
  await using _node = node
  await using crowd = new Child<MemberAnswers>('members')
  const come = () => crowd.ask('connect', { port, tokens })
  const join = (more: object) => crowd.ask('join', { topics: [`room:${everybody}`], each: 1, more })
  // What is compiled and cached once is not theirs.
  await come()
  await join({ presence: true, track: { meta: null } })
  await crowd.ask('leave')
  const weights: number[] = [(await node.ask('weigh')).live]
  const weigh = async (): Promise<number> => {
    weights.push((await node.ask('weigh')).live)
    return (weights.at(-1)! - weights.at(-2)!) / members
  }
  await join({})
  const member = await weigh()
  expect(await node.ask('holds')).toMatchObject({ channels: 1, members, permissions: members, guards: members })
  await crowd.ask('send', { payload: 1 })
  await crowd.ask('received', { messages: members - 1 })
  const told = await weigh()
  await crowd.ask('leave')
  await weigh()
  await join({ presence: true, track: { meta: { name: 'somebody' } } })
  const present = await weigh()
  console.log(
    `of ${members} members of one channel each takes ${member.toFixed(0)} bytes beside its connection, ${(member + told).toFixed(0)} after a message, and ${present.toFixed(0)} where it is present and looks on`,
  )
  await crowd.ask('cut')
  await nothingLeft(node)
  expect(await crowd.ask('faults')).toEqual([])
  expect(member + told).toBeLessThan(4000)
})

const kB = (bytes: number): string => `${(bytes / 1000).toFixed(0)} kB`

/** Enters and leaves 2,000 times in each round, in every way: said, cut, and with presence. */
async function comeAndGo(crowd: Child<MemberAnswers>, port: number, tokens: readonly string[]): Promise<void> {
  const topics = Array.from({ length: rooms.count }, (_, i) => `room:${rooms.first + i}`)
  for (let round = 0; round < rounds; round++) {
    await crowd.ask('connect', { port, tokens })
    const more = round % 3 === 0 ? { presence: true, track: { meta: { round } } } : {}
    const from = (round * 200) % rooms.count
    await crowd.ask('join', { topics: [...topics.slice(from), ...topics.slice(0, from)], each, more })
    await crowd.ask('send', { payload: round })
    if (round % 2 === 0) await crowd.ask('leave')
    await crowd.ask('cut')
  }
}

test.each(['alone', 'with Redis'])(
  '[P7] thousands who come and go in two thousand channels leave nothing behind in a node %s',
  { timeout: 240_000 },
  async way => {
    await using redis = way === 'alone' ? null : await findRedis()
    const people = Array.from({ length: 10 }, () => person())
    await database.query(
      `INSERT INTO members SELECT ${rooms.first} + i, u FROM unnest($1::uuid[]) u, generate_series(0, ${rooms.count - 1}) i`,
      [people],
    )
    const tokens: string[] = []
    for (let i = 0; i < connections; i++) tokens.push(await tokenFor(people[i % people.length]!))
    const [node, port] = await startNode({
      MAX_FRAMES_PER_SECOND: '10000',
      ...(redis === null ? {} : { REDIS_URL: redis.url }),
    })
    await using _node = node
    await using crowd = new Child<MemberAnswers>('members')
    // Once for what is compiled, pooled and remembered of topics.
    await comeAndGo(crowd, port, tokens)
    await nothingLeft(node)
    const before = (await node.ask('weigh')).live
    await comeAndGo(crowd, port, tokens)
    const during = await node.ask('holds')
    await nothingLeft(node)
    let after = (await node.ask('weigh')).live
    await until(async () => {
      await new Promise(resolve => setTimeout(resolve, 1000))
      after = Math.min(after, (await node.ask('weigh')).live)
      return after - before < 1_000_000
    }, 15_000).catch(() => {})
    console.log(`${way}: ${kB(before)} after the first ${rounds * connections * each}, ${kB(after)} after as many more`)
    expect(Object.values(during).some(count => count > 0)).toBe(true)
    expect(await crowd.ask('faults')).toEqual([])
    expect(after - before).toBeLessThan(1_000_000)
  },
)

test('[P7] ten thousand channels joined by a hundred connections, each at its limit of subscriptions', {
  timeout: 120_000,
}, async () => {
  const tokens = await Promise.all(Array.from({ length: 100 }, () => tokenFor(person())))
  const [node, port] = await startNode({ MAX_FRAMES_PER_SECOND: '10000' })
  await using _node = node
  await using crowd = new Child<MemberAnswers>('members')
  await crowd.ask('connect', { port, tokens })
  const before = (await node.ask('weigh')).live
  const topics = Array.from({ length: 10_000 }, (_, i) => `public:${i}`)
  await crowd.ask('join', { topics, each: 100, more: { private: false } })
  expect(await node.ask('holds')).toMatchObject({ channels: 10_000, members: 10_000, heard: 10_000, permissions: 0 })
  const each = ((await node.ask('weigh')).live - before) / topics.length
  console.log(`a channel with its only member takes ${each.toFixed(0)} bytes`)
  expect(each).toBeLessThan(6000)
  await expect(crowd.ask('oneMore', { topic: 'public:more' })).resolves.toBe('TOO_MANY_SUBSCRIPTIONS')
  await crowd.ask('cut')
  await nothingLeft(node)
})
