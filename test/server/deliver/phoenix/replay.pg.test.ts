// Messages from before the join, asked for by Supabase's clients of a whole node, while others go on sending.
import { createClient, type RealtimeChannel } from '@supabase/supabase-js'
import { createClient as createOldClient } from 'supabase-js-2025'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ChannelClient, channelPolicies } from '../../../support/channel-client.ts'
import { eventually } from '../../../support/eventually.ts'
import { person, prepareDatabase, roomsSchema, TestNode, tokenFor } from '../../../support/node.ts'
import { TestDatabase } from '../../../support/postgres.ts'

const [ann, bob] = [person(), person()]
let database: TestDatabase
let node: TestNode

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, roomsSchema + channelPolicies, ['rooms', 'members', 'messages'])
  for (const room of [1, 2, 3, 4, 5, 6, 7, 8, 9])
    await database.query(`INSERT INTO members VALUES (${room}, '${ann}'), (${room}, '${bob}')`)
  const rules = [
    { pattern: 'room:1', history: false, rate: { perSecond: 1000, burst: 2000 } },
    { pattern: '*', history: { length: 500, age: '10m' }, rate: { perSecond: 1000, burst: 2000 } },
  ]
  node = await TestNode.start(database.url, { CHANNELS: JSON.stringify(rules) })
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

interface Heard {
  readonly n: number
  readonly replayed: boolean
}

describe.each([
  ['of today', createClient as unknown as typeof createOldClient, '1.0.0'],
  ['of today', createClient as unknown as typeof createOldClient, '2.0.0'],
  ['of a year ago', createOldClient, '1.0.0'],
])('the client %s', (_, create, vsn) => {
  /** Rooms of their own: those that another version filled have messages already. */
  const used = { '1.0.0': 0, '2.0.0': 4 }[vsn]! + (create === createOldClient ? 2 : 0)

  async function join(topic: string, { replay }: { replay: { since: number; limit?: number } }) {
    const token = await tokenFor(bob)
    const client = create(node.url, token, { auth: { persistSession: false }, realtime: { vsn } as object })
    await client.realtime.setAuth(token)
    const config = { private: true, broadcast: { replay } }
    const channel = client.channel(topic, { config }) as unknown as RealtimeChannel
    const heard: Heard[] = []
    channel.on('broadcast', { event: 'n' }, ({ payload, meta }) => {
      heard.push({ n: payload.n, replayed: (meta as { replayed?: boolean }).replayed === true })
    })
    const status = await new Promise<string>(resolve =>
      channel.subscribe((status, error) => resolve(error === undefined ? status : `${status}: ${error.message}`)),
    )
    return { status, heard, [Symbol.dispose]: () => void client.realtime.disconnect() }
  }

  const topic = (place: number): string => `room:${2 + used + place}`

  test('is given the newest that were sent since, in their order and marked, and then what is said', async () => {
    using sender = await ChannelClient.open(node, await tokenFor(ann))
    const room = await sender.join(topic(0))
    for (let n = 1; n <= 20; n++) await room.send('n', { n })
    using member = await join(topic(0), { replay: { since: Date.now() - 60_000, limit: 7 } })
    expect(member.status).toBe('SUBSCRIBED')
    await room.send('n', { n: 21 })
    await eventually(() => expect(member.heard).toHaveLength(8))
    expect(member.heard).toEqual([14, 15, 16, 17, 18, 19, 20, 21].map(n => ({ n, replayed: n < 21 })))
  })

  test('is given nothing from before the time that it names, and all that is live, also where its clock is ahead', async () => {
    using sender = await ChannelClient.open(node, await tokenFor(ann))
    const room = await sender.join(topic(0))
    await room.send('n', { n: 100 })
    using member = await join(topic(0), { replay: { since: Date.now() + 3_600_000, limit: 25 } })
    for (let n = 101; n <= 105; n++) await room.send('n', { n })
    await eventually(() => expect(member.heard.at(-1)?.n).toBe(105))
    expect(member.heard).toEqual([101, 102, 103, 104, 105].map(n => ({ n, replayed: false })))
  })

  test('[P4] loses and repeats nothing between what is replayed and what is live, while others send', async () => {
    using sender = await ChannelClient.open(node, await tokenFor(ann))
    const room = await sender.join(topic(1))
    let [n, isSending] = [0, true]
    const sending = (async () => {
      while (isSending) await room.send('n', { n: ++n })
    })()
    try {
      await eventually(() => expect(n).toBeGreaterThan(30))
      for (let round = 0; round < 5; round++) {
        using member = await join(topic(1), { replay: { since: Date.now() - 60_000, limit: 25 } })
        const upTo = n + 20
        await eventually(() => expect(member.heard.at(-1)?.n ?? 0).toBeGreaterThan(upTo))
        const numbers = member.heard.map(one => one.n)
        expect(numbers).toEqual(numbers.map((_, place) => numbers[0]! + place))
        const replayed = member.heard.filter(one => one.replayed).length
        expect(replayed).toBeGreaterThan(0)
        expect(replayed).toBeLessThanOrEqual(25)
        expect(member.heard.slice(0, replayed).every(one => one.replayed)).toBe(true)
      }
    } finally {
      isSending = false
      await sending
    }
  })

  test('is told why there is no replay where the rule of the channel keeps nothing', async () => {
    using kept = await join('room:1', { replay: { since: 1 } })
    expect(kept.status).toMatch(/UnableToReplayMessages: the rule of the topic \\?"room:1\\?" keeps no history/)
  })
})

test('a message that is to be stored is sent where the channel keeps it, and refused where it would be lost', async () => {
  const token = await tokenFor(ann)
  const client = createClient(node.url, token, { auth: { persistSession: false } })
  await client.realtime.setAuth(token)
  for (const [topic, answer] of [
    ['room:1', 'error'],
    ['room:8', 'ok'],
  ] as const) {
    const channel = client.channel(topic, { config: { private: true, broadcast: { ack: true } } })
    await new Promise<void>(resolve =>
      channel.subscribe(status => {
        if (status === 'SUBSCRIBED') resolve()
      }),
    )
    expect(await channel.send({ type: 'broadcast', event: 'e', payload: { n: 1 }, persist: true })).toBe(answer)
    expect(await channel.send({ type: 'broadcast', event: 'e', payload: { n: 2 } })).toBe('ok')
  }
  await client.realtime.disconnect()
})
