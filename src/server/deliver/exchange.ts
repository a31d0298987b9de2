// One HTTP request and its answer: reads the body within its limit, answers in JSON, and tells refusals like every wire.
import type { IncomingMessage, ServerResponse } from 'node:http'
import { peerCodes } from '../../protocol/codes.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Log } from '../log/log.ts'
import { corsHeaders } from './origin.ts'
import { type Refusal, refusalOf } from './refusal.ts'

const sliceBytes = 64 * 1024

export interface Exchange {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  /** Still percent-encoded, without the query. */
  readonly path: string
  readonly parameters: URLSearchParams
  readonly origin: string | undefined
  /** CORS headers for whoever asks; set once the origin is known to be allowed. */
  cors: Readonly<Record<string, string>>
}

export function exchangeOf(request: IncomingMessage, response: ServerResponse): Exchange {
  const { path, parameters } = splitUrl(request.url ?? '/')
  return { request, response, path, parameters, origin: request.headers.origin, cors: { Vary: 'Origin' } }
}

/** Only the path and the query: a Host header or an absolute URL says nothing that is used here. */
export function splitUrl(url: string): { path: string; parameters: URLSearchParams } {
  const mark = url.indexOf('?')
  if (mark === -1) return { path: url, parameters: new URLSearchParams() }
  return { path: url.slice(0, mark), parameters: new URLSearchParams(url.slice(mark + 1)) }
}

/** Runs once when the answer is over or the client has gone. Node tells a response that waits behind another of its
 *  connection of neither once an Upgrade or CONNECT has come behind it: then only the socket is closed. */
export function whenOver({ request, response }: Exchange, act: () => void): void {
  const { socket } = request
  const over = (): void => {
    response.off('close', over)
    socket.off('close', over)
    act()
  }
  response.on('close', over)
  // As many as requests wait on it, each of which holds a place.
  socket.setMaxListeners(0).on('close', over)
}

export const isGone = ({ request, response }: Exchange): boolean => response.destroyed || request.socket.destroyed

export function allowCors(exchange: Exchange): void {
  exchange.cors = corsHeaders(exchange.origin)
}

export function answerJson(
  exchange: Exchange,
  status: number,
  body: string | Buffer,
  headers: Readonly<Record<string, string>> = {},
): void {
  const { response, request } = exchange
  if (response.headersSent || response.destroyed) return
  const bytes = typeof body === 'string' ? Buffer.from(body) : body
  // A body nobody read would be taken for the next request on this connection.
  const connection: Record<string, string> = request.complete ? {} : { Connection: 'close' }
  response.writeHead(status, {
    'Content-Type': 'application/json; charset=utf-8',
    'Content-Length': String(bytes.length),
    'Cache-Control': 'no-store',
    ...exchange.cors,
    ...connection,
    ...headers,
  })
  endInSlices(response, bytes)
}

/** Each slice when those before have been taken: so a peer that takes something is told from one that takes nothing. */
function endInSlices(response: ServerResponse, body: Buffer): void {
  let at = 0
  const go = (): void => {
    while (at + sliceBytes < body.length) {
      const slice = body.subarray(at, at + sliceBytes)
      at += sliceBytes
      if (!response.write(slice)) {
        response.once('drain', go)
        return
      }
    }
    response.end(body.subarray(at))
  }
  go()
}

/** Status, body and Retry-After of a refusal. */
export function answerRefusal(exchange: Exchange, error: unknown, log: Log, random: () => number): Refusal {
  const refusal = refusalOf(error, log, random)
  answerJson(exchange, peerCodes[refusal.code].status, JSON.stringify(refusal), retryAfterHeader(refusal.retryAfterMs))
  return refusal
}

/** Whole seconds, rounded up: the header knows no less. */
export const retryAfterHeader = (retryAfterMs: number | undefined): Record<string, string> =>
  retryAfterMs === undefined ? {} : { 'Retry-After': String(Math.ceil(retryAfterMs / 1000)) }

/** @throws FRAME_TOO_LARGE, before the rest of it is read */
export const readBody = async (request: IncomingMessage, maxBytes: number): Promise<string> =>
  (await readBytes(request, maxBytes)).toString()

/** @throws FRAME_TOO_LARGE, before the rest of it is read */
export async function readBytes(request: IncomingMessage, maxBytes: number): Promise<Buffer> {
  const tooLarge = () => new TidegateError('FRAME_TOO_LARGE', `the body is larger than ${maxBytes} bytes`)
  if (Number(request.headers['content-length'] ?? 0) > maxBytes) throw tooLarge()
  const chunks: Buffer[] = []
  let bytes = 0
  return new Promise((resolve, reject) => {
    request.on('data', (chunk: Buffer) => {
      bytes += chunk.length
      if (bytes > maxBytes) {
        request.pause()
        reject(tooLarge())
        return
      }
      chunks.push(chunk)
    })
    request.on('end', () => resolve(Buffer.concat(chunks)))
    // A client that goes in the middle is no fault of ours, which would go into the log.
    const endedEarly = (cause?: unknown): void =>
      reject(new TidegateError('BAD_FRAME', 'the body ended early', { cause }))
    request.on('error', endedEarly)
    request.on('close', endedEarly)
  })
}
