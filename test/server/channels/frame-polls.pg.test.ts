// Channels of one node over polls of frames: one connection to others, whose own messages do not come back.
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { ClientFrame, ServerFrame } from '../../../src/protocol/messages.ts'
import { ChannelClient, channelPolicies } from '../../support/channel-client.ts'
import { person, prepareDatabase, roomsSchema, TestNode, tokenFor } from '../../support/node.ts'
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

/** In one channel, poll after poll. */
class Poller {
  readonly told: ServerFrame[] = []
  readonly #join: Extract<ClientFrame, { type: 'join' }>
  readonly #token: string
  #brought: { poll?: string; here?: string } = {}

  constructor(topic: string, token: string, more: Partial<Extract<ClientFrame, { type: 'join' }>> = {}) {
    this.#join = { type: 'join', id: 1, topic, ...more }
    this.#token = token
  }

  async poll(wait = 0): Promise<readonly ServerFrame[]> {
    const response = await this.#post('/v1/poll', { frames: [this.#join], wait, ...this.#brought })
    const { frames, ...brought } = (await response.json()) as { frames: ServerFrame[]; poll: string; here?: string }
    this.#brought = brought
    const since = frames.findLast(frame => frame.type === 'heartbeat')?.positions[1]
    if (since !== undefined) this.#join.since = since
    this.told.push(...frames)
    return frames
  }

  async send(payload: string): Promise<void> {
    const address = `/v1/channels/${this.#join.topic}?poll=${this.#brought.poll}`
    expect((await this.#post(address, { event: 'e', payload })).status).toBe(200)
  }

  async until(isTrue: () => boolean): Promise<void> {
    while (!isTrue()) await this.poll(1)
  }

  #post(path: string, body: object): Promise<Response> {
    const headers = { authorization: `Bearer ${this.#token}` }
    return fetch(node.url + path, { method: 'POST', headers, body: JSON.stringify(body) })
  }
}

const payloadsOf = (frames: readonly ServerFrame[]): unknown[] =>
  frames.flatMap(frame => (frame.type === 'message' ? [frame.payload] : []))

test('[P4] of a channel with a history a client that polls gets all that others say, once and in order, and nothing of its own', async () => {
  const ada = new Poller('room:2', await tokenFor(ann))
  using ben = await ChannelClient.open(node, await tokenFor(bob))
  const room = await ben.join('room:2')
  await ada.poll()
  for (let n = 0; n < 30; n += 1) {
    await room.send('e', `ben ${n}`)
    await ada.send(`ada ${n}`)
    if (n % 4 === 0) await ada.poll(n % 8 === 0 ? 1 : 0)
  }
  await ada.until(() => payloadsOf(ada.told).includes('ben 29'))
  expect(payloadsOf(ada.told)).toEqual(Array.from({ length: 30 }, (_, n) => `ben ${n}`))
  const heard = room.told.flatMap(told => (told.kind === 'message' ? [told] : []))
  const { connection } = ada.told.find(frame => frame.type === 'welcome')!
  for (const { sender } of heard) expect(sender).toEqual({ user: ann, connection })
})

test('whoever polls is there as one, and is told who else is only when that changes', async () => {
  const ada = new Poller('room:1', await tokenFor(ann), { presence: true, track: { meta: 'ada' } })
  const countsOf = (frames: readonly ServerFrame[]): unknown[] =>
    frames.flatMap(frame => (frame.type === 'presence' ? [frame.count] : []))
  await ada.poll()
  await ada.until(() => countsOf(ada.told).at(-1) === 1)
  await ada.poll()
  // The same one is there at each poll: nothing is to be told, and the poll waits.
  for (let n = 0; n < 3; n += 1) expect(countsOf(await ada.poll(0.2))).toEqual([])
  const waiting = ada.poll(20)
  using ben = await ChannelClient.open(node, await tokenFor(bob))
  const room = await ben.join('room:1', { presence: true, track: { meta: 'ben' } })
  expect(countsOf(await waiting)).toEqual([2])
  const others = new Set(
    room.told.flatMap(told => (told.kind === 'presence' ? (told.here ?? []) : [])).map(({ connection }) => connection),
  )
  expect(others.has(ada.told.find(frame => frame.type === 'welcome')!.connection)).toBe(true)
})
