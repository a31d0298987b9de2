// Asks a node for something over each wire and tells how it was answered; and a node whose log a test reads.
import { once } from 'node:events'
import { pino } from 'pino'
import { WebSocket } from 'ws'
import { closeCodeOf, type PeerCode, peerCodes } from '../../src/protocol/codes.ts'
import { loadConfig } from '../../src/server/config/config.ts'
import { startServer, type TidegateServer } from '../../src/server/server.ts'
import { jwtSecret, LiveSse, SseStream } from './node.ts'
import type { TestDatabase } from './postgres.ts'
import { streamedFrames, type Wire } from './readers.ts'
import { secretWord } from './refusals-schema.ts'

export interface Ask {
  readonly kind?: 'live' | 'changes'
  /** As SQL would name it; encoded here. */
  readonly table: string
  /** As in a URL's query. */
  readonly filter?: string
  readonly select?: readonly string[]
  readonly events?: readonly string[]
  /** Where the client claims to stand: `since`, `after`. */
  readonly since?: string
  /** The refusal comes after the subscription was taken up. */
  readonly isRefusedLate?: true
}

export interface Answer {
  /** null when it was accepted. */
  readonly code: string | null
  readonly message: string
  readonly retry: boolean
  readonly retryAfterMs: number | null
  /** HTTP status; null over a WebSocket, and where the stream had begun. */
  readonly status: number | null
  /** Close code; null when the connection stayed, or over HTTP. */
  readonly closeCode: number | null
  readonly resync: string | null
}

const accepted: Answer = {
  code: null,
  message: '',
  retry: false,
  retryAfterMs: null,
  status: 200,
  closeCode: null,
  resync: null,
}

type ErrorBody = { code: string; message: string; retry: boolean; retryAfterMs?: number }

const refused = (body: ErrorBody, status: number | null, closeCode: number | null): Answer => ({
  code: body.code,
  message: body.message,
  retry: body.retry,
  retryAfterMs: body.retryAfterMs ?? null,
  status,
  closeCode,
  resync: null,
})

/** One question over one wire, answered when the first rows are whole or it is refused. @param token null to send none */
export async function ask(transport: Wire, url: string, token: string | null, question: Ask): Promise<Answer> {
  if (transport === 'websocket') return askBySocket(url, token, question)
  if (transport === 'frame-stream' || transport === 'frame-poll') return askByFrames(transport, url, token, question)
  const headers = token === null ? {} : { authorization: `Bearer ${token}` }
  if (transport === 'long-poll') {
    const response = await fetch(url + pathOf(question), { headers: { ...headers, accept: 'application/json' } })
    const text = await response.text()
    if (response.status === 304) return accepted
    const body = JSON.parse(text)
    if (response.status !== 200) return refused(body, response.status, null)
    const event = (body.events as { event: string; data: { code: string } }[]).find(each => each.event === 'resync')
    return { ...accepted, resync: event?.data.code ?? null }
  }
  using stream = await SseStream.open({ url }, pathOf(question), token ?? '')
  if (stream.status !== 200) return refused(stream.errorBody as ErrorBody, stream.status, null)
  const first = await stream.until(
    ({ event, data }) =>
      event === 'error' || event === 'heartbeat' || (event === 'snapshot' && (data as { done: boolean }).done),
  )
  if (first.event === 'error') return refused(first.data as ErrorBody, null, null)
  const resync = stream.events.find(({ event }) => event === 'resync')?.data as { code: string } | undefined
  return { ...accepted, resync: resync?.code ?? null }
}

/** The address of a question, as SSE and long-poll have it. */
export function pathOf({ kind = 'live', table, filter, select, events, since, isRefusedLate }: Ask): string {
  const parts: string[] = isRefusedLate === true ? ['wait=20'] : []
  if (filter !== undefined) parts.push(filter)
  if (select !== undefined)
    parts.push(`select=${encodeURIComponent(select.map(name => `"${name.replaceAll('"', '""')}"`).join(','))}`)
  if (events !== undefined) parts.push(`events=${encodeURIComponent(events.join(','))}`)
  if (since !== undefined) parts.push(`after=${encodeURIComponent(since)}`)
  return `/v1/${kind}/${encodeURIComponent(table)}${parts.length === 0 ? '' : '?'}${parts.join('&')}`
}

async function askByFrames(
  wire: 'frame-stream' | 'frame-poll',
  url: string,
  token: string | null,
  question: Ask,
): Promise<Answer> {
  const { kind = 'live', table, filter, select, events, since, isRefusedLate } = question
  const frames = [{ type: 'subscribe', id: 7, kind, table, filter, select, events, since }]
  const ending = new AbortController()
  const response = await fetch(`${url}/v1/${wire === 'frame-poll' ? 'poll' : 'stream'}`, {
    method: 'POST',
    headers: token === null ? {} : { authorization: `Bearer ${token}` },
    body: JSON.stringify({ frames, ...(wire === 'frame-poll' && isRefusedLate === true ? { wait: 20 } : {}) }),
    signal: ending.signal,
  })
  if (response.status !== 200) return refused((await response.json()) as ErrorBody, response.status, null)
  try {
    let resync: string | null = null
    for await (const frame of wire === 'frame-poll' ? polledFrames(response) : streamedFrames(response)) {
      if (frame.type === 'error') return refused(frame as unknown as ErrorBody, null, null)
      if (frame.type === 'resync') resync = frame.code as string
      const isReady = frame.type === 'snapshot' && frame.done === true
      const isTakenUp = frame.type === 'subscribed' && (kind === 'changes' || frame.resumed === true)
      if (isReady || (isTakenUp && isRefusedLate !== true)) return { ...accepted, resync }
    }
    throw new Error('it ended without an error frame')
  } finally {
    ending.abort()
  }
}

async function* polledFrames(response: Response): AsyncGenerator<Frame> {
  yield* ((await response.json()) as { frames: Frame[] }).frames
}

async function askBySocket(url: string, token: string | null, question: Ask): Promise<Answer> {
  const { kind = 'live', table, filter, select, events, since } = question
  const socket = await openSocket(url)
  if (token !== null) socket.send(JSON.stringify({ type: 'auth', token }))
  const parts = { type: 'subscribe', id: 7, kind, table, filter, select, events, since }
  socket.send(JSON.stringify(parts))
  let resync: string | null = null
  for (;;) {
    const frame = await socket.next()
    if (frame === null) throw new Error('the connection closed without an error frame')
    if (frame.type === 'error') {
      if (frame.id === 7) {
        // The connection stays: it answers the next frame.
        socket.send(JSON.stringify({ type: 'unsubscribe', id: 99 }))
        while ((await socket.next())?.type !== 'unsubscribed') {
          if (socket.closeCode !== null) throw new Error(`closed with ${socket.closeCode}`)
        }
        socket.terminate()
        return refused(frame as unknown as ErrorBody, null, null)
      }
      while ((await socket.next()) !== null) {}
      return refused(frame as unknown as ErrorBody, null, socket.closeCode)
    }
    if (frame.type === 'resync') resync = frame.code as string
    const isReady = frame.type === 'snapshot' && frame.done === true
    const isTakenUp = frame.type === 'subscribed' && (kind === 'changes' || frame.resumed === true)
    if (isReady || (isTakenUp && question.isRefusedLate !== true)) {
      socket.terminate()
      return { ...accepted, resync }
    }
  }
}

type Frame = { readonly type: string; readonly [field: string]: unknown }

export interface FrameSocket {
  send(data: string | Buffer): void
  /** The next frame; null when the connection is closed. */
  next(): Promise<Frame | null>
  readonly closeCode: number | null
  terminate(): void
}

/** A WebSocket whose first frame must bring the token. */
export async function openSocket(url: string): Promise<FrameSocket> {
  const socket = new WebSocket(socketUrl(url))
  const frames: Frame[] = []
  let closeCode: number | null = null
  let wake = (): void => {}
  socket.on('message', data => {
    frames.push(JSON.parse(String(data)) as Frame)
    wake()
  })
  socket.on('close', code => {
    closeCode = code
    wake()
  })
  socket.on('error', () => {})
  await once(socket, 'open')
  return {
    get closeCode() {
      return closeCode
    },
    async next() {
      while (frames.length === 0) {
        if (closeCode !== null) return null
        await new Promise<void>(resolve => {
          wake = resolve
        })
      }
      return frames.shift()!
    },
    send: data => socket.send(data),
    terminate: () => socket.terminate(),
  }
}

const socketUrl = (url: string): string => `${url.replace('http', 'ws')}/v1/socket`

/** How a WebSocket's handshake with a Bearer token is answered. */
export async function askHandshake(url: string, token: string): Promise<Answer> {
  const socket = new WebSocket(socketUrl(url), { headers: { authorization: `Bearer ${token}` } })
  const refusal = once(socket, 'unexpected-response').then(async ([, response]) => {
    const chunks: Buffer[] = []
    for await (const chunk of response as AsyncIterable<Buffer>) chunks.push(chunk)
    const { statusCode } = response as { statusCode: number }
    return refused(JSON.parse(Buffer.concat(chunks).toString()) as ErrorBody, statusCode, null)
  })
  const open = once(socket, 'open').then(() => accepted)
  const answer = await Promise.race([refusal, open])
  if (answer === accepted) socket.terminate()
  return answer
}

/** What every answer of this code must carry, whichever wire it came by. @returns what is wrong, or null */
export function misfitOf(answer: Answer, code: PeerCode): string | null {
  const entry = peerCodes[code]
  if (answer.code !== code) return `code ${answer.code}: ${answer.message}`
  if (answer.status !== null && answer.status !== entry.status) return `status ${answer.status}`
  if (answer.closeCode !== null && answer.closeCode !== closeCodeOf(code)) return `close code ${answer.closeCode}`
  if (answer.retry !== (entry.retry !== 'never')) return `retry ${answer.retry}`
  if ((entry.retry === 'now' || entry.retry === 'later') && answer.retryAfterMs === null) return 'no retryAfterMs'
  if (answer.message === '') return 'no message'
  const leak = leakOf(answer.message, secretWord)
  return leak === null ? null : `the message shows ${JSON.stringify(leak)}: ${answer.message}`
}

/** Stack traces, paths, SQL, tokens, and the words of Postgres, Node or a library about what they were asked. A remedy may
 *  name a function of Postgres's, or the statement to run. */
const inside =
  /[\r\n]| at \S+ \(|:\d+:\d+|node_modules|node:|\.[jt]s\b|\/(work|tmp|home|usr)\/|syntax error|at or near|\bSELECT\b.*\bFROM\b|\$\d\b.*\bFROM\b|invalid (input|byte)|relation ""|does not exist|violates|permission denied|Unexpected token|in JSON at|of undefined|is not a function|Maximum call stack|eyJ|ECONN/

/** What a message shows and must not, or null. What the peer sent itself is quoted as JSON, and not looked at. */
export function leakOf(message: string, secret: string): string | null {
  if (message.includes(secret)) return secret
  return inside.exec(message.replace(/"(?:[^"\\]|\\.)*"/g, '""'))?.[0] ?? null
}

interface LogLine {
  readonly level: number
  readonly msg: string
}

/** A node in this process whose log lines of warnings and errors are kept. */
export class LoggedNode {
  readonly server: TidegateServer
  readonly url: string
  readonly lines: LogLine[]

  private constructor(server: TidegateServer, lines: LogLine[]) {
    this.server = server
    this.url = `http://127.0.0.1:${server.port}`
    this.lines = lines
  }

  static async start(databaseUrl: string, settings: Record<string, string> = {}): Promise<LoggedNode> {
    const config = loadConfig({
      DATABASE_URL: databaseUrl,
      JWT_SECRET: jwtSecret,
      PORT: '0',
      BEACON_MS: '1000',
      ...settings,
    })
    const lines: LogLine[] = []
    const log = pino({ level: 'warn' }, { write: (line: string) => void lines.push(JSON.parse(line) as LogLine) })
    const server = await startServer(config, { log })
    await server.ready()
    return new LoggedNode(server, lines)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server.stop()
  }
}

/** Every refusal that a neighbour's delivery has followed: the input and its code, each pair once. */
export const ledger = new Set<string>()

/** A node, and a neighbour who follows room 1 since before anything was refused. */
export class Bench {
  readonly node: LoggedNode
  readonly #database: TestDatabase
  readonly #neighbour: LiveSse
  #sent = 0

  private constructor(node: LoggedNode, database: TestDatabase, neighbour: LiveSse) {
    this.node = node
    this.#database = database
    this.#neighbour = neighbour
  }

  /** @param token of a member of room 1 */
  static async open(node: LoggedNode, database: TestDatabase, token: string): Promise<Bench> {
    return new Bench(node, database, await (await LiveSse.open(node, '/v1/live/messages', token)).exact())
  }

  /** Something was refused: the neighbour is told of its next row all the same, of each row once, and the log has at most
   *  one warning of what happened. @throws when that is not so */
  async wasRefused(input: unknown, code: PeerCode): Promise<void> {
    const { stream, rows } = this.#neighbour
    const id = 1_000_000 + this.#sent
    this.#sent += 1
    await this.#database.query('INSERT INTO messages VALUES ($1, 1, $2, $2)', [id, 'x'])
    await stream.waitFor(() => rows.rows.has(`[${id}]`) || this.#neighbour.failure !== null || stream.ended)
    if (this.#neighbour.failure !== null) throw this.#neighbour.failure
    const inserts = rows.history.filter(line => line.includes('"op":"insert"')).length
    if (stream.ended || rows.resyncs.length > 0 || inserts !== this.#sent)
      throw new Error(`the neighbour was told ${inserts} rows of ${this.#sent}, and ${rows.resyncs.length} resyncs`)
    const { lines } = this.node
    if (lines.length > 1 || lines.some(({ level }) => level >= 50)) throw new Error(JSON.stringify(lines))
    lines.length = 0
    ledger.add(JSON.stringify([input instanceof Uint8Array ? Buffer.from(input).toString('hex') : input, code]))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#neighbour.stream.close()
    await this.node[Symbol.asyncDispose]()
  }
}
