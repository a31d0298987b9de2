// A node whose wall clock is set back and forth: what is measured in channels is time that passed.
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { NodeProcess } from '../../faults/node-process.ts'
import { ChannelClient, channelPolicies, type JoinedChannel } from '../../support/channel-client.ts'
import { person, prepareDatabase, roomsSchema, tokenFor } from '../../support/node.ts'
import { TestDatabase } from '../../support/postgres.ts'
import { findRedis, type TestRedis } from '../../support/redis.ts'

const minutes = 60_000
const clock = new URL('../../torture/clock.ts', import.meta.url).href
const [ann, bob] = [person(), person()]
const rules = [
  { pattern: 'room:1', rate: { perSecond: 10, burst: 5 } },
  { pattern: 'room:2', presence: { grace: '2s', diff: '50ms' } },
  { pattern: 'room:3', history: { length: 100, age: '1m' } },
]

let folder: string
const databases: TestDatabase[] = []
let redis: TestRedis
const nodes: Record<string, NodeProcess> = {}
const clients: ChannelClient[] = []
/** Of each node: what bob hears that ann says, by which the time is told. */
const tellers: { readonly says: JoinedChannel; readonly hears: JoinedChannel }[] = []

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'clock-'))
  redis = await findRedis()
  for (const [way, more] of Object.entries({ alone: {}, 'with Redis': { REDIS_URL: redis.url } })) {
    const database = await TestDatabase.create()
    databases.push(database)
    await prepareDatabase(database, roomsSchema + channelPolicies, ['rooms', 'members', 'messages'])
    await database.query(
      `INSERT INTO members SELECT g, u FROM unnest('{${ann},${bob}}'::uuid[]) u, generate_series(1, 4) g`,
    )
    nodes[way] = await NodeProcess.start(database.url, {
      CHANNELS: JSON.stringify(rules),
      NODE_OPTIONS: `--import ${clock}`,
      TORTURE_CLOCK_FILE: join(folder, 'clock'),
      ...more,
    })
    const [says, hears] = await Promise.all(
      [ann, bob].map(async sub => (await ChannelClient.open(nodes[way]!, await tokenFor(sub))).join('room:4')),
    )
    tellers.push({ says: says!, hears: hears! })
  }
}, 60_000)

afterEach(async () => {
  for (const client of clients.splice(0)) client.cut()
  await set(0)
})

afterAll(async () => {
  for (const node of Object.values(nodes)) await node.kill()
  for (const database of databases) await database[Symbol.asyncDispose]()
  await redis?.[Symbol.asyncDispose]()
  await rm(folder, { recursive: true, force: true })
})

/** Resolves when both nodes have it. Tokens live for an hour. */
async function set(offsetMs: number): Promise<void> {
  await writeFile(join(folder, 'clock'), String(offsetMs))
  for (const { says, hears } of tellers) {
    const isSet = async (): Promise<boolean> => {
      await says.send('time', null)
      const at = hears.messages.at(-1)?.sentAt
      return at !== undefined && Math.abs(Date.parse(at) - Date.now() - offsetMs) < minutes
    }
    await expect.poll(isSet).toBe(true)
  }
}

async function open(way: string, sub: string): Promise<ChannelClient> {
  const client = await ChannelClient.open(nodes[way]!, await tokenFor(sub))
  clients.push(client)
  return client
}

async function enter(way: string, sub: string, topic: string, more = {}): Promise<[ChannelClient, JoinedChannel]> {
  const client = await open(way, sub)
  return [client, await client.join(topic, more)]
}

/** Minutes that the clock is set by. Both nodes have it: what is asked of one is asked of the other at the same time. */
const jumps = [30, -600] as const
const ways = ['alone', 'with Redis'] as const

test.each(jumps)('[P7] by %i minutes: a sender is slowed as before, not for longer and not less', async by => {
  const rooms = await Promise.all(ways.map(async way => (await enter(way, ann, 'room:1'))[1]))
  const send = (inRoom: JoinedChannel, count: number): Promise<unknown> =>
    Promise.all(Array.from({ length: count }, (_, n) => inRoom.send('n', n)))
  await Promise.all(rooms.map(inRoom => send(inRoom, 5)))
  await set(by * minutes)
  const beganAt = performance.now()
  const tookMs = await Promise.all(
    rooms.map(async inRoom => {
      // Some tokens have come back meanwhile.
      await send(inRoom, 15)
      return performance.now() - beganAt
    }),
  )
  expect(Math.min(...tookMs)).toBeGreaterThan(700)
  // Not by the minutes that the clock was set.
  expect(Math.max(...tookMs)).toBeLessThan(20_000)
})

test.each(jumps)(
  'by %i minutes: who comes back within the grace never left, and who does not leaves in time',
  async by => {
    const places = await Promise.all(
      ways.map(async way => {
        const [, watching] = await enter(way, ann, 'room:2', { presence: true })
        const [first] = await enter(way, bob, 'room:2', { track: { meta: 1 } })
        const second = await open(way, bob)
        const events = () => watching.told.filter(each => each.kind === 'presence')
        const gone = (): boolean => events().some(({ left }) => left !== undefined)
        await watching.waitFor(() => events().some(({ joined }) => joined?.length === 1))
        return { watching, first, second, gone }
      }),
    )
    for (const { first } of places) first.cut()
    await set(by * minutes)
    await Promise.all(places.map(({ second }) => second.join('room:2', { track: { meta: 1 } })))
    await sleep(2500)
    for (const { gone } of places) expect(gone()).toBe(false)
    await set(0)
    const cutAt = performance.now()
    for (const { second } of places) second.cut()
    await set(-30 * minutes)
    await Promise.all(
      places.map(async ({ watching, gone }) => {
        await watching.waitFor(gone)
        expect(performance.now() - cutAt).toBeGreaterThan(1900)
      }),
    )
  },
)

test.each(jumps)('[P4] by %i minutes: a history keeps what it kept, and goes on', async by => {
  const rooms = await Promise.all(
    ways.map(async way => {
      const [, inRoom] = await enter(way, ann, 'room:3')
      const before = (await enter(way, bob, 'room:3', { last: 100 }))[1]
      const kept = before.messages.length
      await inRoom.send('n', 'before')
      return { way, inRoom, kept }
    }),
  )
  await set(by * minutes)
  for (const { way, inRoom, kept } of rooms) {
    await inRoom.send('n', 'after')
    const [, late] = await enter(way, ann, 'room:3', { last: 100 })
    await late.waitFor(() => late.messages.length >= kept + 2)
    expect(late.payloads.slice(-2)).toEqual(['before', 'after'])
    // What is told of when it was sent is the clock's.
    const [first, second] = late.messages.slice(-2).map(({ sentAt }) => Date.parse(sentAt))
    expect(Math.abs(second! - first! - by * minutes)).toBeLessThan(minutes)
  }
})
