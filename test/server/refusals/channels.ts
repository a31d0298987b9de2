// What is asked of channels and refused, over each wire: who may not, what there is not, what does not fit.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type PeerCode, peerCodes } from '../../../src/protocol/codes.ts'
import { channelPolicies } from '../../support/channel-client.ts'
import { person, prepareDatabase, roomsSchema, tokenFor } from '../../support/node.ts'
import { TestDatabase } from '../../support/postgres.ts'
import { secretWord } from '../../support/refusals-schema.ts'
import { Bench, type FrameSocket, LoggedNode, leakOf, openSocket } from '../../support/refused.ts'

const rules = [
  { pattern: 'room:1', maxPayloadBytes: 100, presence: { maxMetaBytes: 100 } },
  { pattern: 'news', public: true, presence: false },
]

describe('channels', () => {
  let database: TestDatabase
  let bench: Bench
  let token: string
  const [ada, ben] = [person(), person()]

  beforeAll(async () => {
    database = await TestDatabase.create()
    await prepareDatabase(database, roomsSchema + channelPolicies, ['rooms', 'members', 'messages'])
    await database.query(`INSERT INTO members VALUES (1, '${ada}'), (1, '${ben}')`)
    const settings = { CHANNELS: JSON.stringify(rules), MAX_SUBSCRIPTIONS: '3', MAX_FRAME_BYTES: '10000' }
    token = await tokenFor(ben)
    bench = await Bench.open(await LoggedNode.start(database.url, settings), database, await tokenFor(ada))
  })

  afterAll(async () => {
    await bench?.[Symbol.asyncDispose]()
    await database?.[Symbol.asyncDispose]()
  })

  async function openSession(): Promise<FrameSocket> {
    const socket = await openSocket(bench.node.url)
    socket.send(JSON.stringify({ type: 'auth', token }))
    expect((await socket.next())?.type).toBe('welcome')
    return socket
  }

  async function next(socket: FrameSocket, type: string): Promise<Record<string, unknown>> {
    for (;;) {
      const frame = await socket.next()
      if (frame === null) throw new Error(`closed with ${socket.closeCode} while waiting for ${type}`)
      if (frame.type === type) return frame
    }
  }

  /** The frame is refused, and the connection and what else it is in stays. */
  async function isRefused(socket: FrameSocket, frame: object, code: PeerCode, ref?: number | null): Promise<void> {
    socket.send(JSON.stringify(frame))
    const error = await next(socket, 'error')
    expect(error).toMatchObject({ id: 7, code, retry: peerCodes[code].retry !== 'never' })
    expect(error.ref).toBe(ref)
    expect(leakOf(String(error.message), secretWord)).toBe(null)
    socket.send(JSON.stringify({ type: 'unsubscribe', id: 99 }))
    await next(socket, 'unsubscribed')
    await bench.wasRefused(frame, code)
  }

  const joins: readonly (readonly [name: string, join: object, code: PeerCode])[] = [
    ['a room of others', { topic: 'room:2' }, 'CHANNEL_REFUSED'],
    ['a topic that no policy knows', { topic: 'elsewhere' }, 'CHANNEL_REFUSED'],
    ['a public channel that no rule has', { topic: 'room:1', private: false }, 'CHANNEL_REFUSED'],
    ['an empty topic', { topic: '' }, 'TOPIC_INVALID'],
    ['a topic of NUL', { topic: 'room:\0' }, 'TOPIC_INVALID'],
    ['a topic of two lines', { topic: 'room:1\n' }, 'TOPIC_INVALID'],
    ['a topic of 256 characters', { topic: 'x'.repeat(256) }, 'TOPIC_INVALID'],
    ['the last of what is not kept', { topic: 'room:1', last: 1 }, 'HISTORY_OFF'],
    ['who is there, where nobody is told', { topic: 'news', private: false, presence: true }, 'PRESENCE_OFF'],
    ['being there, where nobody is', { topic: 'news', private: false, track: { meta: 1 } }, 'PRESENCE_OFF'],
    ['a position that is none', { topic: 'room:1', since: "' OR 1=1" }, 'POSITION_INVALID'],
  ]

  test.each(joins)('[P8] joining %s is refused over each wire', async (_, join, code) => {
    const socket = await openSession()
    await isRefused(socket, { type: 'join', id: 7, ...join }, code)
    socket.terminate()
    const { topic, since, track, ...rest } = join as { topic: string; since?: string; track?: { meta: unknown } }
    if (topic === '') return
    const parameters = new URLSearchParams(Object.entries(rest).map(([name, value]) => [name, String(value)]))
    if (since !== undefined) parameters.set('after', since)
    if (track !== undefined) parameters.set('track', JSON.stringify(track.meta))
    const path = `/v1/channels/${encodeURIComponent(topic)}?${parameters}`
    for (const accept of ['text/event-stream', 'application/json'])
      await isRefusedAt(path, { headers: { accept } }, code)
  })

  async function isRefusedAt(path: string, init: RequestInit, code: PeerCode): Promise<void> {
    const headers = { authorization: `Bearer ${token}`, ...(init.headers as Record<string, string>) }
    const response = await fetch(bench.node.url + path, { ...init, headers })
    const body = (await response.json()) as { code: string; message: string }
    expect([body.code, response.status], body.message).toEqual([code, peerCodes[code].status])
    expect(leakOf(body.message, secretWord)).toBe(null)
    await bench.wasRefused([path, init], code)
  }

  const large = 'x'.repeat(200)
  const asked: readonly (readonly [name: string, frame: object, code: PeerCode])[] = [
    ['a payload past the rule', { type: 'send', event: 'e', payload: large }, 'PAYLOAD_TOO_LARGE'],
    ['bytes past the rule', { type: 'send', event: 'e', binary: 'A'.repeat(200) }, 'PAYLOAD_TOO_LARGE'],
    ['a transaction that is none', { type: 'send', event: 'e', after: 'soon' }, 'TXID_INVALID'],
    ['a payload and bytes', { type: 'send', event: 'e', payload: 1, binary: 'AAAA' }, 'BAD_FRAME'],
    ['more of itself than the rule allows', { type: 'track', meta: large }, 'PAYLOAD_TOO_LARGE'],
    ["another's key", { type: 'track', meta: 1, key: ada }, 'SEND_REFUSED'],
  ]

  test('[P8] in a channel, what does not fit is refused by its ref, and the member stays where it is', async () => {
    const socket = await openSession()
    socket.send(JSON.stringify({ type: 'join', id: 7, topic: 'room:1' }))
    await next(socket, 'joined')
    for (const [, frame, code] of asked) {
      await isRefused(socket, { ...frame, id: 7, ref: 5 }, code, 5)
      await isRefused(socket, { ...frame, id: 7 }, code, null)
    }
    socket.send(JSON.stringify({ type: 'send', id: 7, ref: 6, event: 'e', payload: 1 }))
    expect(await next(socket, 'sent')).toMatchObject({ ref: 6 })
  })

  test('[P8] a channel twice, one too many, and a send to none are refused, and the connection stays', async () => {
    const socket = await openSession()
    socket.send(JSON.stringify({ type: 'join', id: 1, topic: 'room:1' }))
    await next(socket, 'joined')
    await isRefused(socket, { type: 'join', id: 7, topic: 'room:1' }, 'ALREADY_SUBSCRIBED')
    await isRefused(socket, { type: 'send', id: 7, ref: 1, event: 'e' }, 'NOT_JOINED', 1)
    await isRefused(socket, { type: 'untrack', id: 7 }, 'NOT_JOINED', null)
    for (const [id, table] of ['rooms', 'messages'].entries())
      socket.send(JSON.stringify({ type: 'subscribe', id: 2 + id, kind: 'live', table }))
    await isRefused(socket, { type: 'join', id: 7, topic: 'news', private: false }, 'TOO_MANY_SUBSCRIPTIONS')
  })

  test('[P3] a member that is removed is told CHANNEL_CLOSED by its id', async () => {
    const socket = await openSession()
    socket.send(JSON.stringify({ type: 'join', id: 7, topic: 'room:1' }))
    await next(socket, 'joined')
    await database.query(`DELETE FROM members WHERE user_id = '${ben}'`)
    expect(await next(socket, 'error')).toMatchObject({ id: 7, code: 'CHANNEL_CLOSED', retry: false })
    await database.query(`INSERT INTO members VALUES (1, '${ben}')`)
    await bench.wasRefused('a member removed', 'CHANNEL_CLOSED')
  })

  const post = (body: unknown, headers: Record<string, string> = {}): RequestInit => ({
    method: 'POST',
    body: typeof body === 'string' ? body : JSON.stringify(body),
    headers,
  })
  const bytes = { 'content-type': 'application/octet-stream' }
  const calls: readonly (readonly [name: string, code: PeerCode, path: string, init?: RequestInit])[] = [
    ['a message to others', 'SEND_REFUSED', '/v1/channels/room:2', post({ event: 'e' })],
    ['a message past the rule', 'PAYLOAD_TOO_LARGE', '/v1/channels/room:1', post({ event: 'e', payload: large })],
    ['a body past the limit', 'FRAME_TOO_LARGE', '/v1/channels/room:1', post('x'.repeat(10_001))],
    ['a body that is no JSON', 'BAD_FRAME', '/v1/channels/room:1', post('{')],
    ['a message without an event', 'BAD_FRAME', '/v1/channels/room:1', post({ payload: 1 })],
    ['a misspelt field', 'BAD_FRAME', '/v1/channels/room:1', post({ event: 'e', playload: 1 })],
    ['an empty list', 'BAD_FRAME', '/v1/channels/room:1', post([])],
    ['101 messages', 'BAD_FRAME', '/v1/channels/room:1', post(Array(101).fill({ event: 'e' }))],
    ['a message to no topic', 'BAD_FRAME', '/v1/channels', post({ messages: [{ event: 'e' }] })],
    ['bytes without an event', 'BAD_FRAME', '/v1/channels/room:1', post('bytes', bytes)],
    ['a topic of NUL', 'TOPIC_INVALID', '/v1/channels/%00', post({ event: 'e' })],
    ['half a character', 'TOPIC_INVALID', '/v1/channels/%c3', post({ event: 'e' })],
    ['a transaction of text', 'TXID_INVALID', '/v1/channels/room:1?after=soon', post({ event: 'e' })],
    ['another parameter', 'PARAMETER_INVALID', '/v1/channels/room:1?self=true', post({ event: 'e' })],
    ['a stream of nothing', 'PARAMETER_INVALID', '/v1/channels'],
    ['a stream that maybe is private', 'PARAMETER_INVALID', '/v1/channels/room:1?private=maybe'],
    ['one channel twice', 'ALREADY_SUBSCRIBED', '/v1/channels?c=room:1&c=room%3A1'],
    ['more channels than subscriptions', 'TOO_MANY_SUBSCRIPTIONS', '/v1/channels?c=a&c=b&c=c&c=d'],
    ['one of two that refuses', 'CHANNEL_REFUSED', '/v1/channels?c=room:1&c=room:2'],
    ['a history that is not kept', 'HISTORY_OFF', '/v1/channels/room:1/history'],
    ['who is there, where nobody is', 'PRESENCE_OFF', '/v1/channels/news/presence?private=false'],
    ['who is there among others', 'CHANNEL_REFUSED', '/v1/channels/room:2/presence'],
    ['a limit of none', 'PARAMETER_INVALID', '/v1/channels/room:1/presence?limit=0'],
    ['another thing of a channel', 'NOT_FOUND', '/v1/channels/room:1/members'],
    ['a PUT to a channel', 'METHOD_NOT_ALLOWED', '/v1/channels/room:1', { method: 'PUT' }],
  ]

  test.each(calls.map(([name, code, ...call]) => ({ name, code, call })))('[P8] $name is $code', ({ code, call }) => {
    const [path, init = {}] = call
    return isRefusedAt(path, init, code)
  })
})
