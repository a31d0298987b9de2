// Requests as bytes: valid ones broken a little, cut in two, sent one behind the other, and noise.
import { connect } from 'node:net'
import type { PeerCode } from '../../src/protocol/codes.ts'
import type { Random } from '../checker/random.ts'
import { jsonOf, sendOf, topicOf } from './channels.ts'
import { conditionText, filterOf } from './filters.ts'
import { frameOf } from './frames.ts'
import { mutateBytes, mutateJson, mutateText, nasty, noise } from './mutate.ts'
import type { Actor, Run } from './run.ts'

const paths = [
  '/health',
  '/ready',
  '/ready?scope=node',
  '/v1/live/things',
  '/v1/live/public.notes?select=id,body',
  '/v1/changes/messages?events=insert,delete',
  '/v1/live?q=things&q=notes%3Fid%3Deq.1',
  '/v1/live/notes?after=1f2e3d4c-16b3748.x7Kd_92m&wait=1',
  '/v1/live/notes?ticket=abcdefgh',
  '/v1/tickets',
  '/v1/wait',
  '/v1/socket',
  '/v1/nothing',
  '/',
  '*',
  'http://127.0.0.1/v1/live/things',
  '//v1/live/things',
  '/v1/live/%2e%2e',
  '/v1/../v1/live/things',
]

const framePaths = [
  '/v1/stream',
  '/v1/stream/hQ3p9wVYxYB0m0v0y7H8kA',
  '/v1/stream/hQ3p9wVYxYB0m0v0y7H8kA.5f0c1d2e3b4a5968',
  '/v1/stream/%00.%00',
  '/v1/poll',
  '/v1/poll',
]

/** What opens a stream, is sent to one, or polls: broken a little, now and then. */
function framesBodyOf(random: Random, run: Run): string {
  const frames = Array.from({ length: random.pick([0, 1, 2, 5, 300]) }, () => frameOf(random, run))
  const body: Record<string, unknown> = { frames }
  if (random.once(3)) body.seq = random.pick([1, 0, 7, -1, 1.5, '1'])
  if (random.once(4)) body.wait = random.pick([0, 0.01, -1, 1e9, '1'])
  if (random.once(4)) body.here = random.pick(['1=abcdefghijklmnop', '=,=', ...nasty])
  if (random.once(6)) body.poll = random.pick(['k', '', ...nasty])
  if (random.once(6)) body.close = random.pick([true, false])
  const text = random.once(3) ? mutateJson(random, body) : JSON.stringify(body)
  return Buffer.from(text).toString('latin1')
}

const channelPaths = [
  '/v1/channels',
  '/v1/channels?c=room:1&c=room:2%3Fpresence=true',
  '/v1/channels?c=open:1%3Fprivate=false%26last=3%26track=%7B%7D',
  '/v1/channels/room:1',
  '/v1/channels/room:1?event=bytes',
  '/v1/channels/open:1?private=false&event=bytes',
  '/v1/channels/open:1?private=false&wait=0.1&last=2',
  '/v1/channels/room:1?presence=true&track=1e400&wait=0.1&key=%F0%9F%98%80',
  '/v1/channels/open:1/history?private=false&limit=3',
  '/v1/channels/room:2/history?after=1f2e3d4c-3&limit=1000',
  '/v1/channels/room:2/history?before=1f2e3d4c-ffffffffffffffff&last=2',
  '/v1/channels/room:1/presence?limit=1&after=zzz',
  '/v1/channels/room:3/presence',
  '/v1/channels/%00',
  '/v1/channels/%F0%9F%98',
  '/v1/channels//history',
]

function channelBodyOf(random: Random, run: Run, path: string): string {
  const one = (): string => jsonOf(random, sendOf(random, run))
  if (path.includes('event=')) return noise(random, random.below(300)).toString('latin1')
  const several = Array.from({ length: random.pick([0, 1, 3, 100, 101]) }, one)
  if (/^\/v1\/channels(\?|$)/.test(path)) {
    const topics = several.map(text => text.replace('{', () => `{"topic":${JSON.stringify(topicOf(random))},`))
    return Buffer.from(`{"messages":[${topics.join(',')}]}`).toString('latin1')
  }
  return Buffer.from(random.once(2) ? one() : `[${several.join(',')}]`).toString('latin1')
}

const oddHeaders = [
  'Idempotency-Key: k',
  `Idempotency-Key: ${'k'.repeat(250)}`,
  `Idempotency-Key: ${'k'.repeat(251)}`,
  'Idempotency-Key: \xff{}*',
  'Idempotency-Key: a\r\nIdempotency-Key: b',
  'Content-Type: application/octet-stream',
  'Content-Type: application/octet-stream; charset=x',
  'Content-Length: 5\r\nTransfer-Encoding: chunked',
  'Content-Length: 5\r\nContent-Length: 6',
  'Content-Length: -1',
  'Content-Length: 1e3',
  'Content-Length: 99999999999999999999',
  'Transfer-Encoding: chunked, identity',
  'Transfer-Encoding: gzip',
  'Transfer-Encoding : chunked',
  ' folded: x',
  'Expect: 100-continue',
  'Expect: 200-ok',
  'Upgrade: h2c',
  'Upgrade: websocket\r\nConnection: Upgrade',
  'Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x',
  'Connection: close',
  'Connection: keep-alive, Upgrade, upgrade',
  'Origin: https://evil.example',
  'Origin: null',
  'Origin: \x80',
  'Last-Event-ID: x~y',
  'Last-Event-ID: 1f2e3d4c-16b3748.x7Kd_92m',
  'Accept: text/event-stream;q=0, application/json',
  'X-Long: '.padEnd(9000, 'x'),
  'X-Longer: '.padEnd(20_000, 'x'),
  'Host: other',
  'X-Nul: a\0b',
  'X: y'.padEnd(10, '\t'),
]

function requestOf(random: Random, run: Run): string {
  let path = random.pick(random.pick([paths, channelPaths, framePaths]))
  if (random.once(4)) {
    const joint = path.includes('?') ? '&' : '?'
    const text = conditionText(filterOf(random, 3)).replace(/[^\x21-\x7e]/g, '')
    path += joint + (random.once(3) ? mutateText(random, text) : text)
  }
  if (random.once(6)) path = mutateText(random, path)
  if (random.once(20)) path += random.pick(nasty)
  const isSend = path.includes('/channels') && random.once(2)
  const isOfFrames = /^\/v1\/(stream|poll)/.test(path)
  const isPost = isSend || isOfFrames || path.includes('tickets') || path === '/v1/wait'
  const usual = isPost ? 'POST' : 'GET'
  const method = random.once(8)
    ? random.pick(['GET', 'POST', 'HEAD', 'OPTIONS', 'PUT', 'DELETE', 'CONNECT', 'TRACE', 'PRI', 'get', 'X'])
    : usual
  const body = isSend
    ? channelBodyOf(random, run, path)
    : isOfFrames
      ? framesBodyOf(random, run)
      : isPost
        ? random.pick(['', '{}', '{"txid":"5"}', '{"txid":1e3}', '{"txid":"99999999"}', '{', '\xff\xfe'])
        : ''
  const token = random.once(10) ? mutateText(random, run.token).replace(/[\r\n]/g, '') : run.token
  const headers = [
    `Host: 127.0.0.1:${run.port}`,
    ...(random.once(12) ? [] : [`Authorization: Bearer ${token}`]),
    ...(random.once(3) ? [] : ['Accept: application/json']),
    ...(isPost ? [`Content-Length: ${Buffer.byteLength(body, 'latin1')}`] : []),
    ...(isSend && path.includes('event=') ? ['Content-Type: application/octet-stream'] : []),
    ...(random.once(3) ? [random.pick(oddHeaders)] : []),
  ]
  return `${method} ${path} HTTP/${random.once(15) ? random.pick(['1.0', '2.0', '0.9', '1.2']) : '1.1'}\r\n${headers.join('\r\n')}\r\n\r\n${body}`
}

export const requests: Actor = async (run, random) => {
  while (!run.isOver()) {
    run.oracle.count('requests')
    const several = random.once(8) ? 3 : 1
    const text = Array.from({ length: several }, () => requestOf(random, run)).join('')
    let data: Buffer = Buffer.from(text, 'latin1')
    if (random.once(4)) data = mutateBytes(random, data)
    if (random.once(40)) data = noise(random, 1 + random.below(3000))
    judge(run, data, await exchange(run, random, data))
  }
}

/** Everything that comes until the answer is whole, the connection ends, or nothing more is to be expected. */
async function exchange(run: Run, random: Random, data: Buffer): Promise<string> {
  const socket = connect(run.port, '127.0.0.1')
  let text = ''
  const closed = new Promise<void>(resolve => socket.on('close', () => resolve()))
  socket.on('error', () => {})
  const end = (): void => void socket.destroy()
  let quiet = setTimeout(end, 1500)
  socket.on('data', chunk => {
    text += chunk.toString('latin1')
    clearTimeout(quiet)
    quiet = setTimeout(end, 30)
  })
  const cut = random.once(4) ? random.below(data.length) : data.length
  socket.write(data.subarray(0, cut))
  // Half a request is never answered before its time is over.
  if (random.once(10)) quiet.refresh()
  else socket.write(data.subarray(cut))
  await closed
  clearTimeout(quiet)
  return text
}

const fine = new Set([100, 101, 200, 204, 304])

function judge(run: Run, data: Buffer, text: string): void {
  const input = data.toString('latin1')
  if (text === '') return
  const head = /^HTTP\/1\.1 (\d{3}) /.exec(text)
  if (head === null) {
    run.oracle.fail(`an answer that is no HTTP: ${text.slice(0, 200)}`, input)
    return
  }
  const status = Number(head[1])
  if (status === 200) judgeFrames(run, input, text)
  if (fine.has(status) && !text.includes('{"results":')) return
  const start = text.indexOf('\r\n\r\n')
  // Of HEAD there is a head only.
  if (/^HEAD /.test(input)) return
  const length = /\r\ncontent-length: (\d+)/i.exec(text.slice(0, start))?.[1]
  const body = Buffer.from(text.slice(start + 4, start + 4 + Number(length ?? 0)), 'latin1').toString()
  // Not a refusal: a machine that is too busy is told so.
  if (status === 503 && body.startsWith('{"ready":false')) return
  try {
    const { results } = JSON.parse(body) as { results?: readonly { error?: unknown }[] }
    if (results !== undefined) {
      // A list is answered one by one; its status is that of the first refusal where all were refused.
      for (const [at, { error }] of results.entries())
        if (error !== undefined) run.oracle.refusal(error, at === 0 && status !== 200 ? status : null, input)
      return
    }
    run.oracle.refusal(JSON.parse(body), status, input) satisfies PeerCode | null
  } catch {
    run.oracle.fail(`${status} without a body of ours: ${text.slice(0, 400)}`, input)
  }
}

/** The frames of streams, each one whole, and of polls. */
function judgeFrames(run: Run, input: string, text: string): void {
  const told = Buffer.from(text, 'latin1').toString()
  for (const [, frame] of told.matchAll(/^data: (\{"type":.*\})\n\n/gm)) run.oracle.frame(frame!, input)
  const polled = /^\{"frames":\[.*\],"poll":.*\}$/m.exec(told)
  if (polled === null) return
  const { frames } = JSON.parse(polled[0]) as { frames: unknown[] }
  for (const frame of frames) run.oracle.frame(JSON.stringify(frame), input)
}
