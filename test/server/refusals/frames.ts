// Frames, bodies and addresses that are not what the protocol describes: each is answered by its code, and nobody beside it
// notices.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { closeCodeOf, type PeerCode, peerCodes } from '../../../src/protocol/codes.ts'
import { person, prepareDatabase, roomsSchema, tokenFor } from '../../support/node.ts'
import { TestDatabase } from '../../support/postgres.ts'
import { secretWord } from '../../support/refusals-schema.ts'
import { Bench, type FrameSocket, LoggedNode, leakOf, openSocket } from '../../support/refused.ts'

describe('frames, bodies and addresses', () => {
  let database: TestDatabase
  let bench: Bench
  let token: string
  const [ada, ben] = [person(), person()]

  beforeAll(async () => {
    database = await TestDatabase.create()
    await prepareDatabase(database, roomsSchema, ['rooms', 'members', 'messages'])
    await database.query(`INSERT INTO members VALUES (1, '${ada}'), (2, '${ben}')`)
    const node = await LoggedNode.start(database.url, {
      MAX_FRAME_BYTES: '10000',
      MAX_SUBSCRIPTIONS: '3',
      RESUME_WAIT_MS: '100',
    })
    token = await tokenFor(ben)
    bench = await Bench.open(node, database, await tokenFor(ada))
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

  /** The error frame, then the close of its code. A frame past the limit is not read to its end: only the close says so. */
  async function isClosed(socket: FrameSocket, code: PeerCode): Promise<void> {
    const frame = code === 'FRAME_TOO_LARGE' ? { type: 'error', code, retry: false } : await socket.next()
    expect(frame).toMatchObject({ type: 'error', code, retry: peerCodes[code].retry !== 'never' })
    expect(leakOf('message' in frame! ? String(frame.message) : '', secretWord)).toBe(null)
    expect(await socket.next()).toBe(null)
    expect(socket.closeCode).toBe(closeCodeOf(code))
  }

  const subscribe = { type: 'subscribe', id: 1, kind: 'live', table: 'messages' }

  const frames: readonly (readonly [name: string, frame: unknown, code: PeerCode])[] = [
    ['that is no JSON', '{', 'BAD_FRAME'],
    ['that is empty', '', 'BAD_FRAME'],
    ['of a number', '7', 'BAD_FRAME'],
    ['of null', 'null', 'BAD_FRAME'],
    ['of a list', [subscribe], 'BAD_FRAME'],
    ['nested without end', '['.repeat(4000), 'BAD_FRAME'],
    ['without a type', { id: 1 }, 'BAD_FRAME'],
    ['of an unknown type', { type: 'publish' }, 'BAD_FRAME'],
    ['of the type __proto__', '{"type":"__proto__"}', 'BAD_FRAME'],
    ['of the type of a server', { type: 'snapshot', id: 1, rows: [], done: true }, 'BAD_FRAME'],
    ['without an id', { ...subscribe, id: undefined }, 'BAD_FRAME'],
    ['whose id is text', { ...subscribe, id: '1' }, 'BAD_FRAME'],
    ['whose id is negative', { ...subscribe, id: -1 }, 'BAD_FRAME'],
    ['whose id is no integer', { ...subscribe, id: 1.5 }, 'BAD_FRAME'],
    ['whose id is past 2^53', { ...subscribe, id: 2 ** 60 }, 'BAD_FRAME'],
    ['without a table', { ...subscribe, table: undefined }, 'BAD_FRAME'],
    ['whose table is an object', { ...subscribe, table: { toString: 1 } }, 'BAD_FRAME'],
    ['of an unknown kind', { ...subscribe, kind: 'dead' }, 'BAD_FRAME'],
    ['whose select is text', { ...subscribe, select: 'id' }, 'BAD_FRAME'],
    ['whose filter is a list', { ...subscribe, filter: ['id=eq.1'] }, 'BAD_FRAME'],
    ['with an unknown event', { ...subscribe, kind: 'changes', events: ['drop'] }, 'BAD_FRAME'],
    ['to leave nothing', { type: 'unsubscribe' }, 'BAD_FRAME'],
    ['with a token that is none', { type: 'auth', token: 7 }, 'BAD_FRAME'],
    ['of bytes', Buffer.from(JSON.stringify(subscribe)), 'BAD_FRAME'],
    ['whose id is 1e309', '{"type":"unsubscribe","id":1e309}', 'BAD_FRAME'],
    ['whose id is 2^53 + 1', '{"type":"unsubscribe","id":9007199254740993}', 'BAD_FRAME'],
    ['whose id is true', '{"type":"unsubscribe","id":true}', 'BAD_FRAME'],
    ['whose id is a list', '{"type":"unsubscribe","id":[1]}', 'BAD_FRAME'],
    ['whose last id of two is text', '{"type":"unsubscribe","id":1,"id":"1"}', 'BAD_FRAME'],
    ['with a field of the name __proto__', '{"type":"heartbeat","__proto__":{"id":1}}', 'BAD_FRAME'],
    ['with a field of the name constructor', '{"type":"heartbeat","constructor":1}', 'BAD_FRAME'],
    ['of the type constructor', '{"type":"constructor"}', 'BAD_FRAME'],
    ['of a nested type', `{"type":${'['.repeat(3000)}${']'.repeat(3000)}}`, 'BAD_FRAME'],
    ['with two values', '{"type":"heartbeat"}{"type":"heartbeat"}', 'BAD_FRAME'],
    ['with a byte order mark', '\ufeff{"type":"heartbeat"}', 'BAD_FRAME'],
    ['in single quotes', "{'type':'heartbeat'}", 'BAD_FRAME'],
    ['whose filter is null', { ...subscribe, filter: null }, 'BAD_FRAME'],
    ['whose since is a number', { ...subscribe, since: 5 }, 'BAD_FRAME'],
    ['whose select is empty', { ...subscribe, select: [] }, 'BAD_FRAME'],
    ['whose select names nothing', { ...subscribe, select: [''] }, 'BAD_FRAME'],
    ['whose filter is misspelt', { ...subscribe, fliter: 'id=eq.1' }, 'BAD_FRAME'],
    ['whose events are empty', { ...subscribe, kind: 'changes', events: [] }, 'BAD_FRAME'],
    ['past the limit', { ...subscribe, filter: `body=eq.${'x'.repeat(10_000)}` }, 'FRAME_TOO_LARGE'],
    ['that waits for nothing', { type: 'wait', ref: 1 }, 'BAD_FRAME'],
    ['that waits for a number', { type: 'wait', ref: 1, txid: 735 }, 'BAD_FRAME'],
    ['that waits under no number', { type: 'wait', txid: '735' }, 'BAD_FRAME'],
    ['with a broken token to renew by', { type: 'auth', token: 'hunter2' }, 'TOKEN_INVALID'],
  ]

  const dataOf = (frame: unknown): string | Buffer =>
    typeof frame === 'string' || Buffer.isBuffer(frame) ? frame : JSON.stringify(frame)

  test.each(frames)('[P7] a frame %s closes its own connection', async (_, frame, code) => {
    const socket = await openSession()
    socket.send(dataOf(frame))
    await isClosed(socket, code)
    await bench.wasRefused(dataOf(frame), code)
  })

  const texts = frames.filter(([, frame, code]) => !Buffer.isBuffer(frame) && code !== 'TOKEN_INVALID')
  test.each(texts)(
    '[P7] a frame %s is refused in a POST that holds it, and nothing of the POST is done',
    async (...row) => {
      const [, frame, code] = row
      const body = `{"frames":[${dataOf({ ...subscribe, id: 50 })},${dataOf(frame)}]}`
      for (const path of ['/v1/stream', '/v1/poll']) {
        const headers = { authorization: `Bearer ${token}` }
        const response = await fetch(bench.node.url + path, { method: 'POST', headers, body })
        const answer = (await response.json()) as { code: string; message: string }
        expect([answer.code, response.status], answer.message).toEqual([code, peerCodes[code].status])
        expect(leakOf(answer.message, secretWord)).toBe(null)
      }
      await bench.wasRefused(['in a POST', body], code)
    },
  )

  test.each([
    ['a subscribe frame', subscribe],
    ['an unsubscribe frame', { type: 'unsubscribe', id: 1 }],
  ])('%s before any token', async (_, frame) => {
    const socket = await openSocket(bench.node.url)
    socket.send(dataOf(frame))
    await isClosed(socket, 'TOKEN_MISSING')
    await bench.wasRefused(['before any token', frame], 'TOKEN_MISSING')
  })

  test('an id in use closes; the same query, and one subscription too many, are refused and the connection stays', async () => {
    const socket = await openSession()
    const until = async (type: string) => {
      for (;;) {
        const frame = await socket.next()
        if (frame === null || frame.type === type) return frame
      }
    }
    socket.send(dataOf(subscribe))
    await until('subscribed')
    socket.send(dataOf({ ...subscribe, id: 2 }))
    expect(await until('error')).toMatchObject({ id: 2, code: 'ALREADY_SUBSCRIBED' })
    for (const [id, table] of ['rooms', 'members'].entries()) {
      socket.send(dataOf({ ...subscribe, id: 10 + id, table }))
      await until('subscribed')
    }
    socket.send(dataOf({ ...subscribe, id: 3, filter: 'id=eq.1' }))
    expect(await until('error')).toMatchObject({ id: 3, code: 'TOO_MANY_SUBSCRIPTIONS' })
    socket.send(dataOf(subscribe))
    expect(await until('error')).toMatchObject({ code: 'BAD_FRAME' })
    expect(await until('nothing more')).toBe(null)
    expect(socket.closeCode).toBe(closeCodeOf('BAD_FRAME'))
    await bench.wasRefused('a query twice', 'ALREADY_SUBSCRIBED')
    await bench.wasRefused('a fourth subscription', 'TOO_MANY_SUBSCRIPTIONS')
    await bench.wasRefused('an id in use', 'BAD_FRAME')
  })

  const json = { accept: 'application/json' }
  type Call = readonly [name: string, code: PeerCode, path: string, init?: RequestInit]
  const post = (body: string): RequestInit => ({ method: 'POST', body })

  const calls: readonly Call[] = [
    ['an address that is none', 'NOT_FOUND', '/v1/everything'],
    ['a live query without a table', 'FILTER_INVALID', '/v1/live'],
    ['a deeper address', 'NOT_FOUND', '/v1/live/messages/1'],
    ['a POST to a stream', 'METHOD_NOT_ALLOWED', '/v1/live/messages', post('')],
    ['a GET of a ticket', 'METHOD_NOT_ALLOWED', '/v1/tickets'],
    ['a plain GET of the socket', 'METHOD_NOT_ALLOWED', '/v1/socket'],
    ['a table that is not percent-encoded', 'TABLE_UNKNOWN', '/v1/live/%zz'],
    ['a table of half a character', 'TABLE_UNKNOWN', '/v1/live/%c3'],
    ['a table of NUL', 'TABLE_UNKNOWN', '/v1/live/%00'],
    ['a wait that is no number', 'FILTER_INVALID', '/v1/live/messages?wait=long'],
    ['a negative wait', 'FILTER_INVALID', '/v1/live/messages?wait=-1'],
    ['two waits', 'FILTER_INVALID', '/v1/live/messages?wait=1&wait=2'],
    ['two positions', 'FILTER_INVALID', '/v1/live/messages?after=a&after=b'],
    ['a table and q', 'FILTER_INVALID', '/v1/live/messages?q=rooms'],
    ['a filter beside q', 'FILTER_INVALID', '/v1/live?q=rooms&id=eq.1'],
    ['more queries than subscriptions', 'TOO_MANY_SUBSCRIPTIONS', '/v1/live?q=a&q=b&q=c&q=d'],
    ['one unknown table of two', 'TABLE_UNKNOWN', '/v1/live?q=rooms&q=nothing'],
    ['select twice', 'FILTER_INVALID', '/v1/live/messages?select=id&select=body'],
    ['an empty select', 'FILTER_INVALID', '/v1/live/messages?select='],
    ['a select with an open quote', 'FILTER_INVALID', '/v1/live/messages?select=%22id'],
    ['a position in the header', 'POSITION_INVALID', '/v1/live/messages', { headers: { 'last-event-id': 'x' } }],
    ['an own write that is no JSON', 'BAD_FRAME', '/v1/wait', post('x')],
    ['an own write without a txid', 'BAD_FRAME', '/v1/wait', post('{}')],
    ['a txid of text', 'TXID_INVALID', '/v1/wait', post('{"txid":"1 OR 1=1"}')],
    ['a negative txid', 'TXID_INVALID', '/v1/wait', post('{"txid":"-1"}')],
    ['a txid of 2^64', 'TXID_INVALID', '/v1/wait', post('{"txid":"18446744073709551616"}')],
    ['a txid of a fraction', 'BAD_FRAME', '/v1/wait', post('{"txid":1.5}')],
    ['a txid of null', 'BAD_FRAME', '/v1/wait', post('{"txid":null}')],
    ['a txid of the future', 'TXID_INVALID', '/v1/wait', post('{"txid":"9223372036854775807"}')],
    ['a txid of zero', 'TXID_INVALID', '/v1/wait', post('{"txid":"0"}')],
    ['a GET of a stream of frames', 'METHOD_NOT_ALLOWED', '/v1/stream'],
    ['a GET of a poll of frames', 'METHOD_NOT_ALLOWED', '/v1/poll'],
    ['a stream of no frames', 'BAD_FRAME', '/v1/stream', post('{}')],
    ['a stream of no list of frames', 'BAD_FRAME', '/v1/stream', post('{"frames":{}}')],
    ['a stream that begins with a number', 'BAD_FRAME', '/v1/stream', post('{"seq":1,"frames":[]}')],
    ['frames for no stream', 'STREAM_UNKNOWN', '/v1/stream/nothing', post('{"seq":1,"frames":[]}')],
    ['frames for a stream of no node', 'STREAM_UNKNOWN', '/v1/stream/a.b0', post('{"seq":1,"frames":[]}')],
    ['a deeper stream', 'NOT_FOUND', '/v1/stream/a/b', post('{"seq":1,"frames":[]}')],
    ['a poll that waits for text', 'BAD_FRAME', '/v1/poll', post('{"frames":[],"wait":"long"}')],
    ['a poll that waits for less than nothing', 'BAD_FRAME', '/v1/poll', post('{"frames":[],"wait":-1}')],
    ['a poll that leaves', 'BAD_FRAME', '/v1/poll', post('{"frames":[{"type":"unsubscribe","id":1}]}')],
    ['a poll with a token inside', 'BAD_FRAME', '/v1/poll', post('{"frames":[{"type":"auth","token":"x"}]}')],
    [
      'a poll of frames past the limit',
      'FRAME_TOO_LARGE',
      '/v1/poll',
      post(`{"frames":[],"here":"${'x'.repeat(40_000)}"}`),
    ],
    ['a body past the limit', 'FRAME_TOO_LARGE', '/v1/wait', post('x'.repeat(10_001))],
  ]

  test.each(calls.map(([name, code, ...call]) => ({ name, code, call })))('$name is $code', async ({ code, call }) => {
    const [path, init = {}] = call
    const headers = { ...json, authorization: `Bearer ${token}`, ...init.headers }
    const response = await fetch(bench.node.url + path, { ...init, headers })
    const body = (await response.json()) as { code: string; message: string; retry: boolean }
    expect([body.code, response.status], body.message).toEqual([code, peerCodes[code].status])
    expect(leakOf(body.message, secretWord)).toBe(null)
    await bench.wasRefused([path, init.body], code)
  })

  test.each(['garbage', '%00', "' OR 1=1", 'x'.repeat(5000)])('the ticket %j is TICKET_INVALID', async ticket => {
    const response = await fetch(`${bench.node.url}/v1/live/messages?ticket=${encodeURIComponent(ticket)}`, {
      headers: json,
    })
    expect([response.status, ((await response.json()) as { code: string }).code]).toEqual([401, 'TICKET_INVALID'])
    await bench.wasRefused(['ticket', ticket], 'TICKET_INVALID')
  })
})
