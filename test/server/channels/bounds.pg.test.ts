// Members that do not read, and senders that do not stop: nobody beside them waits, and the node holds no more than it says.
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { defaultRule } from '../../../src/server/channels/rules.ts'
import { NodeProcess } from '../../faults/node-process.ts'
import { ChannelClient, channelPolicies, type JoinedChannel } from '../../support/channel-client.ts'
import { person, prepareDatabase, roomsSchema, tokenFor } from '../../support/node.ts'
import { TestDatabase } from '../../support/postgres.ts'
import { expectWithin } from '../../support/within.ts'

const fast = { perSecond: 10_000, burst: 10_000 }
const bufferBytes = 262_144
const sendQueueBytes = 65_536
const kept = 10
const rules = [
  { pattern: 'room:1', backpressure: 'buffer', bufferBytes, rate: fast },
  { pattern: 'room:2', backpressure: 'drop-oldest', bufferBytes, rate: fast },
  { pattern: 'room:3', backpressure: 'latest', bufferBytes, rate: fast },
  { pattern: 'room:4', history: { length: kept, age: '10m' }, rate: fast },
  { pattern: 'room:6', rate: fast },
  { pattern: 'once:*', public: true },
]
/** More than the kernel's buffers and the queue hold. */
const count = 250
/** Exactly what the rule allows, with its quotes. */
const largest = 'x'.repeat(defaultRule.maxPayloadBytes - 2)

let database: TestDatabase
let node: NodeProcess
const [ann, bob, eve] = [person(), person(), person()]
const clients: ChannelClient[] = []

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, roomsSchema + channelPolicies, ['rooms', 'members', 'messages'])
  await database.query(
    `INSERT INTO members SELECT g, u FROM unnest('{${ann},${bob},${eve}}'::uuid[]) u, generate_series(1, 6) g`,
  )
  node = await NodeProcess.start(database.url, {
    CHANNELS: JSON.stringify(rules),
    SEND_QUEUE_BYTES: String(sendQueueBytes),
    MAX_FRAMES_PER_SECOND: '10000',
  })
}, 60_000)

afterEach(() => {
  for (const client of clients.splice(0)) client.cut()
})

afterAll(async () => {
  await node?.kill()
  await database?.[Symbol.asyncDispose]()
})

async function join(sub: string, topic: string): Promise<[ChannelClient, JoinedChannel]> {
  const client = await ChannelClient.open(node, await tokenFor(sub))
  clients.push(client)
  return [client, await client.join(topic)]
}

/** Buffers are given back a moment after the collection that finds them free. */
async function weigh(): Promise<number> {
  const weights: number[] = []
  for (let times = 0; times < 4; times++) weights.push(await node.weigh())
  return Math.min(...weights)
}

const placesOf = ({ messages }: JoinedChannel): number[] => messages.map(({ event }) => Number(event.slice(1)))
const counted = (to: number, from = 1): number[] => Array.from({ length: to - from + 1 }, (_, i) => from + i)

/** Sends the largest there may be, each once the one before was taken; says how long the neighbour waited at most. */
async function flood(sender: JoinedChannel, neighbour: JoinedChannel, eventOf: (n: number) => string): Promise<number> {
  let slowest = 0
  for (let n = 1; n <= count; n++) {
    const sentAt = performance.now()
    await sender.send(eventOf(n), largest)
    await neighbour.waitFor(() => neighbour.messages.length === n)
    slowest = Math.max(slowest, performance.now() - sentAt)
  }
  return slowest
}

test.each([
  ['buffer', 'room:1'],
  ['drop-oldest', 'room:2'],
  ['latest', 'room:3'],
  ['a history', 'room:4'],
])(
  '[P7] a member that does not read, with %s: its neighbour waits for nothing, and memory stays bounded',
  {
    timeout: 60_000,
  },
  async (way, topic) => {
    const [[, sender], [, neighbour], [slow, inSlow]] = await Promise.all([
      join(ann, topic),
      join(bob, topic),
      join(eve, topic),
    ])
    // What the node keeps for whoever comes back is there before.
    for (let n = 0; n < kept; n++) await sender.send('n0', largest)
    await inSlow.waitFor(() => inSlow.messages.length === kept)
    await neighbour.waitFor(() => neighbour.messages.length === kept)
    inSlow.told.length = 0
    neighbour.told.length = 0
    const before = await weigh()
    slow.pause()
    const eventOf = (n: number): string => (way === 'latest' ? `n${n % 2}` : `n${n}`)
    const slowest = await flood(sender, neighbour, eventOf)
    const grown = (await weigh()) - before
    console.log(`${way}: the neighbour waited ${slowest.toFixed(0)} ms at most, the node grew by ${grown} bytes`)
    if (way !== 'latest') expect(placesOf(neighbour)).toEqual(counted(count))
    expectWithin(slowest, 2000)
    // What waits is held as text and as the bytes of its frame, one event past each bound; and what the socket has not taken.
    expect(grown).toBeLessThan(2 * (bufferBytes + sendQueueBytes + 2 * largest.length) + 1_000_000)
    slow.goOn()
    if (way === 'buffer') await inSlow.waitFor(() => inSlow.ended !== null)
    else {
      await inSlow.waitFor(
        () => inSlow.told.at(-1)?.kind === 'resync' || inSlow.messages.at(-1)?.event === eventOf(count),
      )
      await sender.send('end', null)
      await inSlow.waitFor(() => inSlow.messages.at(-1)?.event === 'end')
    }
    const got = placesOf(inSlow).filter(place => !Number.isNaN(place))
    const missed = inSlow.told.filter(each => each.kind === 'gap').reduce((sum, gap) => sum + gap.missed!, 0)
    const resyncs = inSlow.told.filter(each => each.kind === 'resync').map(({ code }) => code)
    if (way === 'buffer') {
      expect([inSlow.ended?.code, got]).toEqual(['SLOW_CONSUMER', counted(got.length)])
    } else if (way === 'a history') {
      expect([resyncs, got]).toEqual([['HISTORY_PASSED'], counted(got.length)])
    } else {
      expect([got.length + missed, missed > 0, resyncs]).toEqual([count, true, []])
    }
  },
)

test('[P8] a payload at the limit goes, one byte more does not', async () => {
  const [, inRoom] = await join(ann, 'room:6')
  await inRoom.send('fits', largest)
  await expect(inRoom.send('too large', `${largest}x`)).rejects.toMatchObject({ code: 'PAYLOAD_TOO_LARGE' })
})

test('[P7] a flood of sends waits in its own socket: others do not, and nothing piles up', {
  timeout: 60_000,
}, async () => {
  const [[flooder, inFlood], [, sender], [, neighbour]] = await Promise.all([
    join(eve, 'room:5'),
    join(ann, 'room:6'),
    join(bob, 'room:6'),
  ])
  const before = await weigh()
  const payload = 'x'.repeat(10_000)
  for (let n = 0; n < 3000; n++) flooder.say({ type: 'send', id: inFlood.id, event: 'flood', payload })
  let slowest = 0
  let grown = 0
  for (let n = 1; n <= 100; n++) {
    const sentAt = performance.now()
    await sender.send('n', n)
    await neighbour.waitFor(() => neighbour.messages.length === n)
    slowest = Math.max(slowest, performance.now() - sentAt)
    if (n % 25 === 0) grown = Math.max(grown, (await weigh()) - before)
  }
  console.log(`beside a flood: ${slowest.toFixed(0)} ms at most, the node grew by ${grown} bytes`)
  expectWithin(slowest, 2000)
  // What may wait, and one read of the socket.
  expect(grown).toBeLessThan(2_000_000)
  expect(neighbour.payloads).toEqual(counted(100))
})

test('[P7] a topic for each message: what a node alone remembers of twenty thousand that nobody is in', {
  timeout: 60_000,
}, async () => {
  const headers = { authorization: `Bearer ${await tokenFor(ann)}`, 'content-type': 'application/json' }
  const post = async (from: number): Promise<void> => {
    const messages = Array.from({ length: 100 }, (_, i) => ({
      topic: `once:${from + i}`,
      private: false,
      event: 'e',
      payload: i,
    }))
    const body = JSON.stringify({ messages })
    const answer = await fetch(`${node.url}/v1/channels`, { method: 'POST', headers, body })
    const { results } = (await answer.json()) as { results: { error?: unknown }[] }
    expect([answer.status, results.filter(({ error }) => error !== undefined)]).toEqual([200, []])
  }
  for (let from = 0; from < 1000; from += 100) await post(from)
  const before = await weigh()
  for (let from = 1000; from < 21_000; from += 100) await post(from)
  const each = ((await weigh()) - before) / 20_000
  console.log(`a topic that was published to once takes ${each.toFixed(0)} bytes of a node alone`)
  // Its number, for a day or until there are 100,000.
  expect(each).toBeLessThan(800)
})
