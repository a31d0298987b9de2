// What SQL sends, and who may hear it: of one node in memory, and over Redis.
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Caller, ChannelRequest, ChannelSubscription } from '../../../src/server/channels/door.ts'
import { channelPolicies } from '../../support/channel-client.ts'
import { person, prepareDatabase, roomsSchema, TestNode } from '../../support/node.ts'
import { TestDatabase } from '../../support/postgres.ts'
import { findRedis, type TestRedis } from '../../support/redis.ts'
import { Recorder, room, said } from './bench.ts'

const ways = ['alone', 'with Redis', 'private only'] as const
type Way = (typeof ways)[number]
const ann = person()
const kept = { pattern: 'room:2', public: true, history: { length: 100, age: '1h' } }

let redis: TestRedis
const databases = {} as Record<Way, TestDatabase>
const nodes = {} as Record<Way, TestNode>

beforeAll(async () => {
  redis = await findRedis()
  const settings: Record<Way, Record<string, string>> = {
    alone: {},
    'with Redis': { REDIS_URL: redis.url },
    'private only': { SUPABASE_PRIVATE_ONLY: '1' },
  }
  for (const way of ways) {
    const database = await TestDatabase.create()
    databases[way] = database
    await prepareDatabase(database, roomsSchema + channelPolicies, ['rooms', 'members', 'messages'])
    await database.query(`INSERT INTO members VALUES (1, '${ann}'), (2, '${ann}')`)
    nodes[way] = await TestNode.start(database.url, { CHANNELS: JSON.stringify([kept]), ...settings[way] })
  }
}, 60_000)

afterAll(async () => {
  for (const node of Object.values(nodes)) await node[Symbol.asyncDispose]()
  for (const database of Object.values(databases)) await database[Symbol.asyncDispose]()
  await redis?.[Symbol.asyncDispose]()
})

const member: Caller = {
  principal: { role: 'authenticated', claims: { role: 'authenticated', sub: ann }, expiresAt: null },
  connection: 'member',
  isPublicOpen: true,
}
/** Of no room. */
const anon: Caller = {
  principal: { role: 'anon', claims: { role: 'anon' }, expiresAt: null },
  connection: 'anon',
  isPublicOpen: true,
}
const at = (topic: string, isPrivate: boolean, more: Partial<ChannelRequest> = {}): ChannelRequest =>
  room({ channel: { topic, isPrivate }, self: true, ...more })

async function enter(way: Way, who: Caller, request: ChannelRequest) {
  const outlet = new Recorder()
  const subscription: ChannelSubscription = await nodes[way].server.channels.join(who, request, outlet)
  return { outlet, subscription, [Symbol.dispose]: () => subscription.close('gone') }
}

const both = (['alone', 'with Redis'] as const).flatMap(way =>
  ['room:1', 'room:2'].map(topic => [way, topic, topic === 'room:2' ? 'with a history' : 'without one'] as const),
)

test.each(both)(
  '[P2] %s, in %s, %s: SQL, members and POSTs are heard in the channel that they name, and in no other',
  async (way, topic) => {
    using inPrivate = await enter(way, member, at(topic, true))
    using inPublic = await enter(way, anon, at(topic, false))
    const { channels } = nodes[way].server
    await databases[way].query(`
    BEGIN;
    SELECT realtime.send('"SQL, private"', 'said', '${topic}');
    SELECT realtime.send('"SQL, public"', 'said', '${topic}', false);
    SELECT realtime.send('"SQL, private by name"', 'said', '${topic}', true);
    COMMIT;`)
    await expect.poll(() => inPrivate.outlet.got.length).toBe(2)
    await expect.poll(() => inPublic.outlet.got.length).toBe(1)
    await inPrivate.subscription.send(said('member, private'))
    await inPublic.subscription.send(said('anon, public'))
    await channels.publish({ ...member, connection: null }, at(topic, true).channel, said('POST, private'))
    await channels.publish({ ...anon, connection: null }, at(topic, false).channel, said('POST, public'))
    await expect.poll(() => inPrivate.outlet.got.length).toBe(4)
    await expect.poll(() => inPublic.outlet.got.length).toBe(3)
    // What came too much would have come before this.
    await databases[way].query(`SELECT realtime.send('"end"', 'said', '${topic}', p) FROM unnest('{t,f}'::bool[]) p`)
    await expect.poll(() => inPrivate.outlet.got.at(-1)).toBe('said: "end"')
    await expect.poll(() => inPublic.outlet.got.at(-1)).toBe('said: "end"')
    expect(texts(inPrivate.outlet)).toEqual([
      ...['SQL, private', 'SQL, private by name', 'member, private', 'POST, private', 'end'],
    ])
    expect(texts(inPublic.outlet)).toEqual(['SQL, public', 'anon, public', 'POST, public', 'end'])
  },
)

const texts = ({ got }: Recorder): string[] => got.map(line => JSON.parse(line.replace('said: ', '')) as string)

test.each(['alone', 'with Redis'] as const)('[P2] %s: a history holds what was said in its own channel', async way => {
  const { channels } = nodes[way].server
  const range = { before: null, limit: 100 }
  const told = async (who: Caller, isPrivate: boolean) =>
    (await channels.history(who, at('room:2', isPrivate).channel, range)).messages.map(({ payload }) => payload)
  await databases[way].query(`
    SELECT realtime.send(to_jsonb(p::text), 'said', 'room:2', p) FROM unnest('{t,f}'::bool[]) p`)
  await expect.poll(async () => (await told(member, true)).at(-1)).toBe('"true"')
  await expect.poll(async () => (await told(anon, false)).at(-1)).toBe('"false"')
  for (const payload of await told(member, true)) expect(payload).not.toMatch(/public|false/)
  for (const payload of await told(anon, false)) expect(payload).not.toMatch(/private|true/)
  await expect(told(anon, true)).rejects.toMatchObject({ code: 'CHANNEL_REFUSED' })
  using late = await enter(way, anon, at('room:2', false, { last: 1 }))
  await expect.poll(() => late.outlet.got).toEqual(['said: "false"'])
})

test('[P2] private only: nobody is let into public channels, and what SQL sends there goes nowhere', async () => {
  const way = 'private only'
  const shut: Caller = { ...member, isPublicOpen: false }
  const { channels } = nodes[way].server
  using inPrivate = await enter(way, shut, at('room:1', true))
  await expect(enter(way, shut, at('room:1', false))).rejects.toMatchObject({ code: 'PRIVATE_ONLY' })
  const post = channels.publish({ ...shut, connection: null }, at('room:1', false).channel, said(1))
  await expect(post).rejects.toMatchObject({ code: 'PRIVATE_ONLY' })
  // Even if somebody were there.
  using inPublic = await enter(way, anon, at('room:1', false))
  await databases[way].query(`
    SELECT realtime.send('"to nobody"', 'said', 'room:1', false), realtime.send('"private"', 'said', 'room:1')`)
  await expect.poll(() => texts(inPrivate.outlet)).toEqual(['private'])
  await inPublic.subscription.send(said('end'))
  await expect.poll(() => texts(inPublic.outlet)).toEqual(['end'])
})
