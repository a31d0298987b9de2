// What is no HTTP, or HTTP that two readers could read in two ways, and WebSocket frames that break the standard: each is
// answered by a code, or the socket is closed with one.
import { connect } from 'node:net'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { closeCodeOf, type PeerCode, peerCodes } from '../../../src/protocol/codes.ts'
import { person, prepareDatabase, roomsSchema, tokenFor } from '../../support/node.ts'
import { TestDatabase } from '../../support/postgres.ts'
import { secretWord } from '../../support/refusals-schema.ts'
import { Bench, LoggedNode, leakOf } from '../../support/refused.ts'
import { clientFrame, framesOf } from '../deliver/support/raw-socket.ts'

describe('requests and frames as bytes', () => {
  let database: TestDatabase
  let bench: Bench
  let token: string
  const ada = person()

  beforeAll(async () => {
    database = await TestDatabase.create()
    await prepareDatabase(database, roomsSchema, ['rooms', 'members', 'messages'])
    await database.query(`INSERT INTO members VALUES (1, '${ada}')`)
    const node = await LoggedNode.start(database.url, { HANDSHAKE_MS: '300', MAX_FRAME_BYTES: '1024' })
    token = await tokenFor(person())
    bench = await Bench.open(node, database, await tokenFor(ada))
  })

  afterAll(async () => {
    await bench?.[Symbol.asyncDispose]()
    await database?.[Symbol.asyncDispose]()
  })

  /** Sends bytes and reads until `isWhole`, or until the server has closed. */
  async function answerTo(data: Buffer, isWhole: (bytes: Buffer) => boolean = () => false): Promise<Buffer> {
    const socket = connect(bench.node.server.port, '127.0.0.1')
    const chunks: Buffer[] = []
    socket.on('error', () => {})
    socket.on('data', chunk => {
      chunks.push(chunk)
      if (isWhole(Buffer.concat(chunks))) socket.destroy()
    })
    socket.write(data)
    await new Promise<void>(resolve => socket.on('close', () => resolve()))
    return Buffer.concat(chunks)
  }

  const host = 'Host: 127.0.0.1\r\n'
  const chunked = 'Transfer-Encoding: chunked\r\n'
  const upgrade = `${host}Connection: Upgrade\r\nUpgrade: websocket\r\n`
  const websocketKey = 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n'
  const long = 'x'.repeat(17_000)

  const requests: readonly (readonly [name: string, text: string, code: PeerCode, status?: number])[] = [
    ['words', 'HELLO\r\n\r\n', 'BAD_FRAME'],
    ['a TLS hello', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03', 'BAD_FRAME'],
    ['a request of HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'BAD_FRAME'],
    ['another version', `GET /health HTTP/9.9\r\n${host}\r\n`, 'BAD_FRAME'],
    ['a method in lower case', `get /health HTTP/1.1\r\n${host}\r\n`, 'BAD_FRAME'],
    ['no method', ` /health HTTP/1.1\r\n${host}\r\n`, 'BAD_FRAME'],
    ['a NUL in the address', `GET /hea\0lth HTTP/1.1\r\n${host}\r\n`, 'BAD_FRAME'],
    ['a space in the address', `GET /v1/live/a b HTTP/1.1\r\n${host}\r\n`, 'BAD_FRAME'],
    ['a NUL in a header', `GET /health HTTP/1.1\r\n${host}X: a\0b\r\n\r\n`, 'BAD_FRAME'],
    ['a header without a colon', `GET /health HTTP/1.1\r\n${host}X\r\n\r\n`, 'BAD_FRAME'],
    ['a header with a space before its colon', `GET /health HTTP/1.1\r\n${host}X : y\r\n\r\n`, 'BAD_FRAME'],
    ['a folded header', `GET /health HTTP/1.1\r\n${host}X: y\r\n z\r\n\r\n`, 'BAD_FRAME'],
    ['no Host', 'GET /v1/live/messages HTTP/1.1\r\n\r\n', 'BAD_FRAME'],
    [
      'a length and chunks',
      `POST /v1/wait HTTP/1.1\r\n${host}Content-Length: 4\r\n${chunked}\r\n0\r\n\r\n`,
      'BAD_FRAME',
    ],
    [
      'chunks and a length',
      `POST /v1/wait HTTP/1.1\r\n${host}${chunked}Content-Length: 4\r\n\r\n0\r\n\r\n`,
      'BAD_FRAME',
    ],
    ['two lengths', `POST /v1/wait HTTP/1.1\r\n${host}Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcd`, 'BAD_FRAME'],
    ['a negative length', `POST /v1/wait HTTP/1.1\r\n${host}Content-Length: -1\r\n\r\n`, 'BAD_FRAME'],
    ['a length with a sign', `POST /v1/wait HTTP/1.1\r\n${host}Content-Length: +4\r\n\r\nabcd`, 'BAD_FRAME'],
    ['a length of 2^64', `POST /v1/wait HTTP/1.1\r\n${host}Content-Length: 18446744073709551616\r\n\r\n`, 'BAD_FRAME'],
    [
      'chunks of chunks',
      `POST /v1/wait HTTP/1.1\r\n${host}Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n`,
      'BAD_FRAME',
    ],
    ['a chunk without a length', `POST /v1/wait HTTP/1.1\r\n${host}${chunked}\r\nzz\r\n`, 'BAD_FRAME'],
    ['a chunk longer than it says', `POST /v1/wait HTTP/1.1\r\n${host}${chunked}\r\n1\r\nabcdef\r\n`, 'BAD_FRAME'],
    ['an address past the limit', `GET /${long} HTTP/1.1\r\n${host}\r\n`, 'FRAME_TOO_LARGE', 431],
    ['a header past the limit', `GET /health HTTP/1.1\r\n${host}X: ${long}\r\n\r\n`, 'FRAME_TOO_LARGE', 431],
    ['many headers past the limit', `GET / HTTP/1.1\r\n${host}${'X: y\r\n'.repeat(4000)}\r\n`, 'FRAME_TOO_LARGE', 431],
    ['headers that never end', `GET /v1/live/messages HTTP/1.1\r\n${host}X: y`, 'BAD_FRAME'],
    ['CONNECT', `CONNECT a.example:443 HTTP/1.1\r\n${host}\r\n`, 'METHOD_NOT_ALLOWED'],
    ['TRACE', `TRACE /v1/live/messages HTTP/1.1\r\n${host}\r\n`, 'METHOD_NOT_ALLOWED'],
    ['a whole URL as address', `GET http://127.0.0.1/v1/live/messages HTTP/1.1\r\n${host}\r\n`, 'NOT_FOUND'],
    ['an address with dots', `GET /v1/live/../../etc/passwd HTTP/1.1\r\n${host}\r\n`, 'NOT_FOUND'],
    ['two slashes', `GET //v1/live/messages HTTP/1.1\r\n${host}\r\n`, 'NOT_FOUND'],
    ['an asterisk', `OPTIONS * HTTP/1.1\r\n${host}\r\n`, 'NOT_FOUND'],
    ['an expectation', `GET /nothing HTTP/1.1\r\n${host}Expect: more\r\n\r\n`, 'NOT_FOUND'],
    [
      'another origin',
      `GET /v1/live/messages HTTP/1.1\r\n${host}Origin: https://evil.example\r\n\r\n`,
      'ORIGIN_REFUSED',
    ],
    ['the origin null', `GET /v1/live/messages HTTP/1.1\r\n${host}Origin: null\r\n\r\n`, 'ORIGIN_REFUSED'],
    ['an origin that is none', `GET /v1/live/messages HTTP/1.1\r\n${host}Origin: ://\r\n\r\n`, 'ORIGIN_REFUSED'],
    [
      'a name and a password',
      `GET /v1/live/messages HTTP/1.1\r\n${host}Authorization: Basic YTpi\r\n\r\n`,
      'TOKEN_INVALID',
    ],
    ['two tokens', `GET /v1/live/messages HTTP/1.1\r\n${host}Authorization: Bearer a b\r\n\r\n`, 'TOKEN_INVALID'],
    ['no token', `GET /v1/live/messages HTTP/1.1\r\n${host}\r\n`, 'TOKEN_MISSING'],
    ['a token in the address', `GET /v1/live/messages?token=x HTTP/1.1\r\n${host}\r\n`, 'TOKEN_MISSING'],
    [
      'a handshake without a key',
      `GET /v1/socket HTTP/1.1\r\n${upgrade}Sec-WebSocket-Version: 13\r\n\r\n`,
      'BAD_FRAME',
    ],
    ['a handshake of an old version', `GET /v1/socket HTTP/1.1\r\n${upgrade}${websocketKey}\r\n`, 'BAD_FRAME'],
    ['a handshake by POST', `POST /v1/socket HTTP/1.1\r\n${upgrade}${websocketKey}\r\n`, 'METHOD_NOT_ALLOWED'],
    ['a handshake elsewhere', `GET /v1/elsewhere HTTP/1.1\r\n${upgrade}${websocketKey}\r\n`, 'NOT_FOUND'],
  ]

  const isWhole = (bytes: Buffer): boolean => bytes.toString('latin1').endsWith('}')

  test.each(requests.map(([name, ...asked]) => ({ name, asked })))('[P8] $name', async ({ asked }) => {
    const [text, code, status = peerCodes[code].status] = asked
    const answer = (await answerTo(Buffer.from(text, 'latin1'), isWhole)).toString()
    expect(answer).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `))
    expect(answer.match(/HTTP\/1\.1/g)).toHaveLength(1)
    const body = JSON.parse(answer.slice(answer.indexOf('\r\n\r\n'))) as {
      code: string
      message: string
      retry: boolean
    }
    expect(body).toMatchObject({ code, retry: peerCodes[code].retry !== 'never' })
    expect(leakOf(body.message, secretWord)).toBe(null)
    await bench.wasRefused(text, code)
  })

  const text = JSON.stringify({ type: 'heartbeat' })
  const flipped = (frame: Buffer, bits: number): Buffer =>
    Buffer.concat([Buffer.from([frame[0]! ^ bits]), frame.subarray(1)])
  const part = (payload: string | Buffer, opcode: number, fin: boolean): Buffer => clientFrame(payload, { opcode, fin })

  const frames: readonly (readonly [name: string, frames: Buffer, code: PeerCode])[] = [
    ['without a mask', clientFrame(text, { masked: false }), 'BAD_FRAME'],
    ['with the first reserved bit', flipped(clientFrame(text), 0x40), 'BAD_FRAME'],
    ['with the second reserved bit', flipped(clientFrame(text), 0x20), 'BAD_FRAME'],
    ['with the third reserved bit', flipped(clientFrame(text), 0x10), 'BAD_FRAME'],
    ['of opcode 3', part(text, 3, true), 'BAD_FRAME'],
    ['of opcode 15', part(text, 15, true), 'BAD_FRAME'],
    ['that goes on with nothing', part(text, 0, true), 'BAD_FRAME'],
    ['that begins inside another', Buffer.concat([part('{', 1, false), part(text, 1, true)]), 'BAD_FRAME'],
    ['of text that is no UTF-8', clientFrame(Buffer.from([0x22, 0xc3, 0x28, 0x22])), 'BAD_FRAME'],
    ['of half a character', clientFrame(Buffer.from([0xed, 0xa0, 0x80])), 'BAD_FRAME'],
    ['of a long ping', part('x'.repeat(126), 9, true), 'BAD_FRAME'],
    ['of half a ping', part('x', 9, false), 'BAD_FRAME'],
    ['of a close of one byte', part('x', 8, true), 'BAD_FRAME'],
    ['of a close of a code that is none', part(Buffer.from([0x03, 0xec]), 8, true), 'BAD_FRAME'],
    ['of bytes', part(text, 2, true), 'BAD_FRAME'],
    ['of bytes, in two parts', Buffer.concat([part('{', 2, false), part('}', 0, true)]), 'BAD_FRAME'],
    ['that says 2^63 bytes', Buffer.from([0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), 'FRAME_TOO_LARGE'],
    ['of 1,025 bytes', clientFrame(text.padEnd(1025)), 'FRAME_TOO_LARGE'],
    [
      'of 1,200 bytes in three parts',
      Buffer.concat([part('x'.repeat(400), 1, false), part('x'.repeat(400), 0, false), part('x'.repeat(400), 0, true)]),
      'FRAME_TOO_LARGE',
    ],
    [
      'of a hundred parts',
      Buffer.concat([part('[', 1, false), ...Array.from({ length: 99 }, () => part('', 0, false))]),
      'FRAME_TOO_LARGE',
    ],
  ]

  test.each(frames)('[P7] a frame %s closes its own connection', async (_, data, code) => {
    const head = `GET /v1/socket HTTP/1.1\r\n${upgrade}Sec-WebSocket-Version: 13\r\n${websocketKey}Authorization: Bearer ${token}\r\n\r\n`
    const answer = await answerTo(Buffer.concat([Buffer.from(head), data]), bytes => {
      const end = bytes.indexOf('\r\n\r\n') + 4
      return end >= 4 && framesOf(bytes.subarray(end)).some(({ opcode }) => opcode === 8)
    })
    const close = framesOf(answer.subarray(answer.indexOf('\r\n\r\n') + 4)).find(({ opcode }) => opcode === 8)
    expect(close?.payload.readUInt16BE(0)).toBe(closeCodeOf(code))
    expect(close!.payload.subarray(2).toString()).toMatch(new RegExp(`^${code}: `))
    await bench.wasRefused(data, code)
  })
})
