// Channels of one node over event streams and long-polls, as they are over a WebSocket.
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { PresenceEvent } from '../../../src/protocol/messages.ts'
import { ChannelClient, channelPolicies } from '../../support/channel-client.ts'
import { person, prepareDatabase, roomsSchema, SseStream, TestNode, tokenFor } from '../../support/node.ts'
import { TestDatabase } from '../../support/postgres.ts'

let database: TestDatabase
let node: TestNode
const [ann, bob] = [person(), person()]

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, roomsSchema + channelPolicies, ['rooms', 'members', 'messages'])
  await database.query(`INSERT INTO members VALUES (1, '${ann}'), (1, '${bob}'), (2, '${ann}'), (2, '${bob}')`)
  const kept = { pattern: 'room:2', history: { length: 1000, age: '10m' } }
  node = await TestNode.start(database.url, { CHANNELS: JSON.stringify([kept]) })
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

interface Polled {
  readonly events: readonly { event: string; data: Record<string, unknown> }[]
  readonly position: string
  readonly connection: string
  readonly poll: string
  readonly here?: string
}

/** Polls on and on, as the page of the protocol says. */
class Poller {
  readonly told: { event: string; data: Record<string, unknown> }[] = []
  readonly #path: string
  readonly #token: string
  #after: string | null = null
  #last: Polled | null = null
  polls = 0

  constructor(path: string, token: string) {
    this.#path = path
    this.#token = token
  }

  get last(): Polled {
    return this.#last!
  }

  /** @returns the status */
  async poll(waitSeconds = 0): Promise<number> {
    const url = new URL(node.url + this.#path)
    if (this.#after !== null) url.searchParams.set('after', this.#after)
    if (this.#last !== null) url.searchParams.set('poll', this.#last.poll)
    if (this.#last?.here !== undefined) url.searchParams.set('here', this.#last.here)
    url.searchParams.set('wait', String(waitSeconds))
    const response = await fetch(url, {
      headers: { authorization: `Bearer ${this.#token}`, accept: 'application/json' },
    })
    const text = await response.text()
    if (response.status !== 200 && response.status !== 304) throw new Error(text)
    this.polls += 1
    this.#after = response.headers.get('tidegate-position') ?? this.#after
    if (response.status === 200) {
      this.#last = JSON.parse(text) as Polled
      this.told.push(...this.#last.events)
    }
    return response.status
  }

  async until(isTrue: () => boolean): Promise<void> {
    for (const deadline = Date.now() + 10_000; !isTrue(); ) {
      if (Date.now() > deadline) throw new Error(`polled ${this.polls} times: ${JSON.stringify(this.told.slice(-5))}`)
      await this.poll(1)
    }
  }
}

/** Who is there after these events. */
function hereAfter(events: readonly { event: string; data: Record<string, unknown> }[]): string[] {
  const members = new Map<string, string>()
  for (const { event, data } of events) {
    if (event !== 'presence') continue
    const { here, joined = [], updated = [], left = [] } = data as unknown as PresenceEvent
    if (here !== undefined) members.clear()
    for (const { ref, key } of [...(here ?? []), ...joined, ...updated]) members.set(ref, key)
    for (const { ref } of left) members.delete(ref)
  }
  return [...members.values()].sort()
}

test('[P4] a channel with a history, told by an event stream that breaks off and by polls, is what was sent, in order and once', async () => {
  const token = await tokenFor(ann)
  using sender = await ChannelClient.open(node, await tokenFor(bob))
  const channel = await sender.join('room:2')
  const poller = new Poller('/v1/channels/room:2', token)
  await poller.poll()
  const streamed: unknown[] = []
  let id = ''
  for (let round = 0; round < 4; round++) {
    using stream = await SseStream.open(
      node,
      `/v1/channels/room:2${id === '' ? '' : `?after=${encodeURIComponent(id)}`}`,
      token,
    )
    await stream.until(({ event }) => event === 'joined')
    for (let n = 0; n < 25; n++) {
      await channel.send('e', round * 25 + n)
      // The last of them while nobody listens.
      if (n === 19) {
        const last = await stream.until(
          ({ event, data }) => event === 'message' && (data as { payload: number }).payload === round * 25 + n,
        )
        id = last.id!
        streamed.push(
          ...stream.events
            .filter(({ event }) => event === 'message')
            .map(({ data }) => (data as { payload: number }).payload),
        )
        stream.close()
      }
    }
  }
  using rest = await SseStream.open(node, `/v1/channels/room:2?after=${encodeURIComponent(id)}`, token)
  await rest.until(({ event, data }) => event === 'message' && (data as { payload: number }).payload === 99)
  streamed.push(
    ...rest.events.filter(({ event }) => event === 'message').map(({ data }) => (data as { payload: number }).payload),
  )
  const sent = Array.from({ length: 100 }, (_, n) => n)
  expect(streamed).toEqual(sent)
  await poller.until(() => poller.told.length >= 100)
  expect(poller.told.map(({ data }) => data.payload)).toEqual(sent)
  const page = await fetch(`${node.url}/v1/channels/room:2/history?last=3`, {
    headers: { authorization: `Bearer ${token}` },
  })
  const { messages } = (await page.json()) as { messages: { payload: number }[] }
  expect(messages.map(({ payload }) => payload)).toEqual([97, 98, 99])
})

test('[P4] of a channel without a history, a poll is told how many it missed between two', async () => {
  using sender = await ChannelClient.open(node, await tokenFor(bob))
  const channel = await sender.join('room:1')
  const poller = new Poller('/v1/channels/room:1', await tokenFor(ann))
  await poller.poll()
  for (const payload of [1, 2, 3]) await channel.send('e', payload)
  expect(await poller.poll(5)).toBe(200)
  expect(poller.told).toMatchObject([{ event: 'gap', data: { code: 'MESSAGES_LOST', missed: 3 } }])
  expect(await poller.poll()).toBe(304)
})

test('whoever polls is there as one, stays between its polls, and is told who else is; while nothing changes it waits', async () => {
  const track = encodeURIComponent(JSON.stringify({ name: 'ann' }))
  const poller = new Poller(`/v1/channels/room:1?presence=true&track=${track}`, await tokenFor(ann))
  using other = await ChannelClient.open(node, await tokenFor(bob))
  const channel = await other.join('room:1', { presence: true })
  await poller.until(() => hereAfter(poller.told).includes(ann))
  await channel.waitFor(() =>
    channel.told.some(told => told.kind === 'presence' && told.joined?.some(({ key }) => key === ann)),
  )
  // What it was told last may still be of before its own entry.
  for (let n = 0; n < 3 && (await poller.poll(1)) === 200; n++) {}
  const [told, polls] = [channel.told.length, poller.polls]
  for (let n = 0; n < 3; n++) expect(await poller.poll(0.5)).toBe(304)
  expect([channel.told.length, poller.polls]).toEqual([told, polls + 3])
  await channel.track({ name: 'bob' })
  await poller.until(() => hereAfter(poller.told).includes(bob))
  expect(hereAfter(poller.told)).toEqual([ann, bob].sort())
  await channel.untrack()
  await poller.until(() => !hereAfter(poller.told).includes(bob))
  expect(hereAfter(poller.told)).toEqual([ann])
})

test('a message to a poll or a stream by its name comes to it alone', async () => {
  const poller = new Poller('/v1/channels/room:1', await tokenFor(ann))
  await poller.poll()
  using stream = await SseStream.open(node, '/v1/channels/room:1', await tokenFor(ann))
  const joined = await stream.until(({ event }) => event === 'joined')
  using sender = await ChannelClient.open(node, await tokenFor(bob))
  const channel = await sender.join('room:1')
  const waiting = poller.poll(10)
  const names = [poller.last.connection, (joined.data as { connection: string }).connection]
  await new Promise(resolve => setTimeout(resolve, 100))
  await channel.send('e', 'to the stream', { to: { connection: names[1]! } })
  await channel.send('e', 'to the poll', { to: { connection: names[0]! } })
  await waiting
  expect(poller.told.map(({ data }) => data.payload)).toEqual(['to the poll'])
  await channel.send('e', 'to all')
  await stream.until(({ event, data }) => event === 'message' && (data as { payload: unknown }).payload === 'to all')
  const told = stream.events
    .filter(({ event }) => event === 'message')
    .map(({ data }) => (data as { payload: unknown }).payload)
  expect(told).toEqual(['to the stream', 'to all'])
})
