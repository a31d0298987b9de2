// Supabase's wire over two nodes with one Redis: channels that are on both, nodes that leave or die, a Redis that forgets.
import { setTimeout as sleep } from 'node:timers/promises'
import { createClient, type RealtimeChannel } from '@supabase/supabase-js'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { NodeProcess } from '../faults/node-process.ts'
import { Peer } from '../server/deliver/phoenix/support/peer.ts'
import { ComingBack, expectWhole } from '../supabase/coming-back.ts'
import { Balancer } from '../support/balancer.ts'
import { person, tokenFor } from '../support/node.ts'
import { ChannelNodes } from './channel-nodes.ts'

const rules = [
  { pattern: 'room:9*', history: { length: 10_000, age: '10m' }, rate: { perSecond: 5000, burst: 5000 } },
  { pattern: '*', presence: { grace: '1500ms', diff: '50ms' }, rate: { perSecond: 5000, burst: 5000 } },
]
const settings = { CHANNELS: JSON.stringify(rules), DRAIN_DELAY_MS: '500', DRAIN_SPREAD_MS: '500' }

let nodes: ChannelNodes<NodeProcess>
let stack: AsyncDisposableStack

const start = (databaseUrl: string, redisUrl: string): Promise<NodeProcess> =>
  NodeProcess.start(databaseUrl, { REDIS_URL: redisUrl, ...settings })

beforeAll(async () => {
  nodes = await ChannelNodes.start(start, node => node.kill())
  stack = new AsyncDisposableStack()
})
afterEach(async () => {
  await stack.disposeAsync()
  stack = new AsyncDisposableStack()
})
afterAll(() => nodes?.[Symbol.asyncDispose]())

/** A member of a private channel, by supabase-js. */
class Member {
  readonly channel: RealtimeChannel
  readonly heard: unknown[] = []
  readonly statuses: string[] = []
  readonly left: string[] = []

  private constructor(channel: RealtimeChannel) {
    this.channel = channel
  }

  static async join({ url }: { readonly url: string }, sub: string, topic: string): Promise<Member> {
    const token = await tokenFor(sub)
    const client = createClient(url, await tokenFor('', { role: 'anon' }), { accessToken: async () => token })
    await client.realtime.setAuth()
    stack.defer(async () => void (await client.realtime.disconnect()))
    const config = { private: true, broadcast: { ack: true }, presence: { key: sub } }
    const member = new Member(client.channel(topic, { config }))
    member.channel
      .on('broadcast', { event: '*' }, ({ payload }) => {
        const isBinary = payload instanceof ArrayBuffer
        member.heard.push(isBinary ? Buffer.from(payload).toString('hex') : payload.n)
      })
      .on('presence', { event: 'leave' }, ({ key }) => member.left.push(key))
      .subscribe(status => member.statuses.push(status))
    await expect.poll(() => member.statuses, { timeout: 20_000 }).toContain('SUBSCRIBED')
    return member
  }

  async say(payload: unknown): Promise<void> {
    expect(await this.channel.send({ type: 'broadcast', event: 'said', payload })).toBe('ok')
  }

  hears(all: readonly unknown[]): Promise<void> {
    return expect.poll(() => this.heard, { timeout: 20_000 }).toEqual(all)
  }

  sees(keys: readonly string[], timeout = 20_000): Promise<void> {
    return expect.poll(() => Object.keys(this.channel.presenceState()).sort(), { timeout }).toEqual([...keys].sort())
  }
}

const roomNumber = (topic: string): string => topic.slice('room:'.length)

const write = (topic: string, id: number): Promise<unknown> =>
  nodes.database.query(
    `WITH said AS (SELECT realtime.send('{"n": ${id}}'::jsonb, 'said', '${topic}', true))
     INSERT INTO messages SELECT ${id}, ${roomNumber(topic)}, 'a', 'b' FROM said`,
  )

/** Each id is a row, and a message in the channel, of one transaction. @returns the last */
async function writing(topic: string, use: () => Promise<void>): Promise<number> {
  await nodes.database.query('DELETE FROM messages')
  let isOver = false
  let id = 0
  const writer = (async () => {
    while (!isOver) {
      await write(topic, id + 1)
      id += 1
      await sleep(20)
    }
  })()
  try {
    await use()
  } finally {
    isOver = true
    await writer
  }
  return id
}

test('[P5] a broadcast at one node is heard at the other once and in order, JSON and bytes', async () => {
  const [ann, bob] = [person(), person()]
  const topic = await nodes.roomOf([ann, bob])
  const [inA, inB] = [await Member.join(nodes.a, ann, topic), await Member.join(nodes.b, bob, topic)]
  const expected: unknown[] = []
  for (let n = 1; n <= 100; n += 1) {
    const bytes = Buffer.from([0, n, 255])
    await inA.say(n % 5 === 0 ? new Uint8Array(bytes).buffer : { n })
    expected.push(n % 5 === 0 ? bytes.toString('hex') : n)
  }
  await inB.hears(expected)
  await inB.say({ n: 'back' })
  await inA.hears(['back'])
  expect(inB.heard).toEqual(expected)
})

test('a broadcast by HTTP at one node is heard at both', async () => {
  const [ann, bob] = [person(), person()]
  const topic = await nodes.roomOf([ann, bob])
  const [inA, inB] = [await Member.join(nodes.a, ann, topic), await Member.join(nodes.b, bob, topic)]
  const post = async (path: string, type: string, body: string | Uint8Array<ArrayBuffer>): Promise<number> => {
    const headers = { authorization: `Bearer ${await tokenFor(ann)}`, 'content-type': type }
    return (await fetch(`${nodes.a.url}/realtime/v1/api/broadcast${path}`, { method: 'POST', headers, body })).status
  }
  const batch = [1, 2].map(n => ({ topic, event: 'said', payload: { n }, private: true }))
  expect(await post('', 'application/json', JSON.stringify({ messages: batch }))).toBe(202)
  const single = `/${encodeURIComponent(topic)}/events/said?private=true`
  expect(await post(single, 'application/octet-stream', new Uint8Array([0, 255]))).toBe(202)
  for (const member of [inA, inB]) await member.hears([1, 2, '00ff'])
})

test('[P8] presence is of both nodes; of a node that is killed each member leaves once, after its lease', async () => {
  const [ann, bob, cid] = [person(), person(), person()]
  const topic = await nodes.roomOf([ann, bob, cid])
  const victim = await start(nodes.database.url, nodes.redis.url)
  const inA = await Member.join(nodes.a, ann, topic)
  await inA.channel.track({ at: 'a' })
  const inB = await Member.join(nodes.b, bob, topic)
  // In the state at its join.
  await inB.sees([ann])
  await inB.channel.track({ at: 'b' })
  const lost = await Member.join(victim, cid, topic)
  await lost.channel.track({ at: 'victim' })
  for (const member of [inA, inB, lost]) await member.sees([ann, bob, cid])
  await victim.kill()
  for (const member of [inA, inB]) await member.sees([ann, bob])
  await inB.channel.untrack()
  await inA.sees([ann])
  for (const member of [inA, inB]) await expect.poll(() => member.left, { timeout: 20_000 }).toEqual([cid, bob])
}, 60_000)

test('[P3] a commit that revokes a membership ends the private channel on both nodes', async () => {
  const [ann, bob] = [person(), person()]
  const topic = await nodes.roomOf([ann, bob])
  const token = await tokenFor(bob)
  const peers = [stack.use(await Peer.open(nodes.a.url, token)), stack.use(await Peer.open(nodes.b.url, token))]
  for (const peer of peers)
    expect(await peer.join(`realtime:${topic}`, { private: true })).toMatchObject({ status: 'ok' })
  const inA = await Member.join(nodes.a, ann, topic)
  await inA.say({ n: 1 })
  for (const peer of peers) await peer.until(({ event }) => event === 'broadcast')
  await nodes.database.query(`DELETE FROM members WHERE room_id = ${roomNumber(topic)} AND user_id = '${bob}'`)
  for (const peer of peers) {
    const { payload } = await peer.until(({ event, payload: { status } }) => event === 'system' && status === 'error')
    expect(payload.message).toContain('You no longer have permission to read')
    await peer.until(({ event }) => event === 'phx_error')
  }
  await inA.say({ n: 2 })
  for (const peer of peers) {
    const again = await peer.join(`realtime:${topic}`, { private: true })
    expect(again).toMatchObject({ status: 'error', response: { reason: expect.stringContaining('Unauthorized') } })
    expect(peer.of('broadcast')).toHaveLength(1)
  }
})

test('[P4] a restart of one node after the other: a client behind a balancer loses nothing, and nothing comes twice', async () => {
  const ann = person()
  const topic = await nodes.roomOf([ann], true)
  const balancer = stack.use(await Balancer.start({ readyPath: '/ready?scope=node', askEveryMs: 100 }))
  for (const node of [nodes.a, nodes.b]) balancer.add(node.url, node.url)
  const isWhole = (): Promise<void> => expect.poll(() => balancer.ready.length, { timeout: 30_000 }).toBe(2)
  await isWhole()
  const join = (): Promise<ComingBack> => ComingBack.join({ version: '2.119.1', url: balancer.url, sub: ann, topic })
  const clients = [stack.use(await join()), stack.use(await join()), stack.use(await join())]
  const lastId = await writing(topic, async () => {
    for (const node of [nodes.a, nodes.b]) {
      await sleep(1500)
      expect(await node.stop()).toBe(0)
      await node.start()
      await isWhole()
    }
    for (const client of clients)
      await expect.poll(() => client.statuses.at(-1), { timeout: 30_000 }).toBe('SUBSCRIBED')
  })
  for (const client of clients) {
    await client.heard(lastId)
    for (const seen of [client.changes, client.messages]) expectWhole(seen, lastId, [])
    expect(client.joins).toBeGreaterThan(1)
  }
}, 120_000)

test('[P8] kill -9 of a node: its client is told by CHANNEL_ERROR, is back at the other, and hears what follows', async () => {
  const ann = person()
  const topic = await nodes.roomOf([ann], true)
  await nodes.database.query('DELETE FROM messages')
  const victim = await start(nodes.database.url, nodes.redis.url)
  const balancer = stack.use(await Balancer.start())
  balancer.add('victim', victim.url)
  const client = stack.use(await ComingBack.join({ version: '2.119.1', url: balancer.url, sub: ann, topic }))
  await write(topic, 1)
  await client.heard(1)
  balancer.add('a', nodes.a.url)
  balancer.remove('victim')
  await victim.kill()
  await client.joined(2)
  expect(client.statuses).toEqual(['SUBSCRIBED', 'CHANNEL_ERROR', 'SUBSCRIBED'])
  await write(topic, 2)
  await client.heard(2)
  expect(client.changes.map(({ id }) => id)).toEqual([1, 2])
}, 60_000)

test('[P4] [P8] Redis comes back empty: clients are told, or go on; nothing hangs', async () => {
  const [ann, bob] = [person(), person()]
  const topic = await nodes.roomOf([ann, bob], true)
  await nodes.database.query('DELETE FROM messages')
  const join = (url: string, sub: string): Promise<ComingBack> =>
    ComingBack.join({ version: '2.119.1', url, sub, topic })
  const clients = [stack.use(await join(nodes.a.url, ann)), stack.use(await join(nodes.b.url, bob))]
  await write(topic, 1)
  for (const client of clients) await client.heard(1)
  await nodes.redis.kill()
  await nodes.redis.start('empty')
  let id = 1
  // What is written until both are told belongs to the gap that they are told of.
  await expect
    .poll(
      async () => {
        id += 1
        await write(topic, id)
        await sleep(100)
        return clients.every(({ changes, messages }) => changes.at(-1)?.id === id && messages.at(-1)?.id === id)
      },
      { timeout: 60_000, interval: 200 },
    )
    .toBe(true)
  for (const { changes, systems, statuses } of clients) {
    const ids = changes.map(seen => seen.id)
    expect(ids).toEqual([...new Set(ids)].sort((x, y) => x - y))
    const isWhole = ids.length === id
    if (!isWhole)
      expect([...systems, ...statuses].some(told => /RESYNC|LOST|EPOCH|GONE|CHANNEL_ERROR/.test(told))).toBe(true)
  }
  // Who comes now is let in.
  const late = stack.use(await join(nodes.b.url, bob))
  await write(topic, id + 1)
  await late.heard(id + 1)
}, 120_000)
