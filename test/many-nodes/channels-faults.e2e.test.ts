// Channels over two nodes while what joins them is cut, goes silent, or leaves.
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import type { JoinedChannel } from '../support/channel-client.ts'
import { person, TestNode } from '../support/node.ts'
import { ChannelNodes } from './channel-nodes.ts'

/** Longer than it takes to come back on a busy machine. */
const graceMs = 6000
const patienceMs = 60_000

const rules = [
  { pattern: 'news', public: true },
  { pattern: 'room:9*', history: { length: 5000, age: '10m' }, rate: { perSecond: 5000, burst: 5000 } },
  { pattern: '*', rate: { perSecond: 5000, burst: 5000 }, presence: { grace: `${graceMs}ms`, diff: '50ms' } },
]

let nodes: ChannelNodes<TestNode>

const start = (databaseUrl: string, redisUrl: string): Promise<TestNode> =>
  TestNode.start(databaseUrl, { REDIS_URL: redisUrl, CHANNELS: JSON.stringify(rules) })

beforeAll(async () => {
  nodes = await ChannelNodes.start(start, node => node[Symbol.asyncDispose]())
})
afterEach(() => nodes.settle())
afterAll(() => nodes?.[Symbol.asyncDispose]())

const heardOn = (opening: Buffer): boolean => opening.includes('tidegate channels')

/** Sends numbers until it is told to stop. @returns how many were acknowledged */
async function count(channel: JoinedChannel, stop: AbortSignal): Promise<number> {
  let n = 0
  while (!stop.aborted) {
    n += 1
    await channel.send('n', n)
    await sleep(2)
  }
  return n
}

test.each(['is cut', 'goes silent'])(
  '[P4] [P8] what a node hears by %s: with a history all comes in order, without it is told how many did not',
  async fault => {
    const [ann, bob] = [person(), person()]
    const [atA, atB] = [await nodes.open(nodes.a, ann), await nodes.open(nodes.b, bob)]
    const topics = [
      { kept: true, topic: await nodes.roomOf([ann, bob], true) },
      { kept: false, topic: await nodes.roomOf([ann, bob]) },
    ]
    const stop = new AbortController()
    const channels = []
    for (const { kept, topic } of topics) {
      const [inA, inB] = [await atA.join(topic), await atB.join(topic)]
      const counting = count(inA, stop.signal)
      // Of a test that failed, its end is of no interest.
      counting.catch(() => {})
      channels.push({ kept, inA, inB, counting, before: 0 })
    }
    for (const { inB } of channels) await inB.waitFor(() => inB.messages.length > 20, patienceMs)
    if (fault === 'is cut') nodes.link.cut(heardOn)
    else nodes.link.freeze(['up', 'down'], heardOn)
    for (const channel of channels) channel.before = channel.inB.messages.length
    // Of a silence it is a probe that tells: it does not come back.
    for (const { inB, before } of channels) await inB.waitFor(() => inB.messages.length > before + 60, patienceMs)
    stop.abort()
    for (const { kept, inA, inB, counting } of channels) {
      const sent = await counting
      await inA.send('end', sent)
      await inB.waitFor(() => inB.messages.at(-1)?.event === 'end', patienceMs)
      let at = 0
      for (const each of inB.told) {
        if (each.kind === 'gap') at += each.missed ?? Number.NaN
        else if (each.kind === 'message' && each.event === 'n') {
          expect(each.payload).toBe(at + 1)
          at += 1
        }
      }
      expect(at).toBe(sent)
      const gaps = inB.told.filter(({ kind }) => kind === 'gap')
      if (kept) expect(gaps).toEqual([])
      else expect(gaps.length).toBeGreaterThan(0)
    }
  },
  3 * patienceMs,
)

test('[P7] a node hears only channels in which somebody is, and lets them go a while after the last has left', async () => {
  const ann = person()
  const topic = await nodes.roomOf([ann])
  const client = new Redis(nodes.redis.url)
  try {
    const heard = async (): Promise<boolean> => {
      const names = (await client.call('PUBSUB', 'SHARDCHANNELS')) as string[]
      const plain = (await client.call('PUBSUB', 'CHANNELS')) as string[]
      return [...names, ...plain].some(name => name.includes(encodeURIComponent(topic)))
    }
    expect(await heard()).toBe(false)
    const member = await nodes.open(nodes.a, ann)
    const inA = await member.join(topic)
    await inA.send('said', 'to nobody')
    expect(await heard()).toBe(true)
    member.close()
    await expect.poll(heard, { timeout: 20_000 }).toBe(false)
  } finally {
    client.disconnect()
  }
})

test('[P4] a node that leaves: its members are told to come back, resume at another, and nobody seems to have gone', async () => {
  const [ann, bob] = [person(), person()]
  const topic = await nodes.roomOf([ann, bob])
  const kept = await nodes.roomOf([ann, bob], true)
  const leaving = await start(nodes.database.url, nodes.redis.url)
  const watcher = await (await nodes.open(nodes.a, ann)).join(topic, { presence: true })
  const sender = await (await nodes.open(nodes.a, ann)).join(kept)
  const client = await nodes.open(leaving, bob)
  const inKept = await client.join(kept)
  await client.join(topic, { track: { meta: 'bob' } })
  await watcher.waitFor(() => watcher.told.some(each => each.kind === 'presence' && each.joined?.[0]?.key === bob))
  await sender.send('said', 1)
  await inKept.waitFor(() => inKept.messages.length === 1)
  const left = leaving.server.stop()
  await client.waitFor(() => !client.isOpen)
  expect(client.lastError?.code).toBe('GOING_AWAY')
  const back = await nodes.open(nodes.b, bob)
  await back.join(topic, { track: { meta: 'bob' } })
  await sender.send('said', 2)
  const again = await back.join(kept, { since: inKept.since! })
  await again.waitFor(() => again.messages.length === 1)
  expect([again.joined!.resumed, again.payloads]).toEqual([true, [2]])
  await left
  await sleep(graceMs + 1000)
  const leaves = watcher.told.flatMap(each => (each.kind === 'presence' ? (each.left ?? []) : []))
  expect(leaves).toEqual([])
  expect(watcher.told.at(-1)).toMatchObject({ kind: 'presence', count: 1 })
}, 60_000)

test('[P3] [P8] nothing comes from the database for five seconds: private channels hold, public ones do not, members are told stale', async () => {
  const [ann, bob] = [person(), person()]
  const topic = await nodes.roomOf([ann, bob])
  const sender = await nodes.open(nodes.a, ann)
  const client = await nodes.open(nodes.b, bob)
  const [inA, inB] = [await sender.join(topic), await client.join(topic)]
  const [newsA, newsB] = [await sender.join('news', { private: false }), await client.join('news', { private: false })]
  await inA.send('said', 'before')
  await inB.waitFor(() => inB.payloads.length === 1)
  nodes.toPostgres.isolate()
  // What was revoked since is not known: nobody private is told anything, nor heard.
  let refusal: unknown = null
  await expect
    .poll(
      async () => {
        try {
          await inA.send('said', 'meanwhile')
        } catch (error) {
          refusal = error
        }
        return refusal
      },
      { timeout: 30_000, interval: 500 },
    )
    .toMatchObject({ code: 'UNAVAILABLE' })
  await newsA.send('said', 'public')
  await newsB.waitFor(() => newsB.payloads.includes('public'))
  await client.waitFor(() => client.frames.some(frame => frame.type === 'heartbeat' && frame.stale), 20_000)
  nodes.toPostgres.thaw()
  await expect
    .poll(
      () =>
        inA.send('said', 'after').then(
          () => 'sent',
          (error: { code: string }) => error.code,
        ),
      { timeout: 30_000, interval: 500 },
    )
    .toBe('sent')
  await inB.waitFor(() => inB.payloads.at(-1) === 'after', 20_000)
  expect(inB.told.every(({ kind }) => kind === 'message')).toBe(true)
}, 90_000)
