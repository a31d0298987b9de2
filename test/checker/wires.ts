// One query over each wire, with a hand on the tap: a reader can stop taking and go on later.
import { once } from 'node:events'
import http from 'node:http'
import { WebSocket } from 'ws'
import type { CheckedQuery } from './world.ts'

export type Transport = 'websocket' | 'sse' | 'long-poll'
export const transports: readonly Transport[] = ['websocket', 'sse', 'long-poll']

export interface WireEvent {
  /** As on the wire; `position` when a position came alone. */
  readonly event: string
  /** With the tag, as it is sent back. */
  readonly position: string | null
  readonly data: unknown
}

export interface WireRequest {
  readonly url: string
  readonly transport: Transport
  readonly kind: 'live' | 'changes'
  readonly query: CheckedQuery
  readonly token: string
  readonly since: string | null
  onEvent(event: WireEvent): void
  /** The connection ended and nobody here ended it. */
  onEnd(): void
}

export interface Wire {
  /** Takes nothing until `resume`. */
  pause(): void
  resume(): void
  close(): void
}

/** A refusal before the first event. */
export class Refused extends Error {
  readonly code: string

  constructor(code: string, message: string) {
    super(`${code}: ${message}`)
    this.code = code
  }
}

/** @throws Refused, or what the network throws */
export function connect(request: WireRequest): Promise<Wire> {
  if (request.transport === 'websocket') return bySocket(request)
  return request.transport === 'sse' ? bySse(request) : byPolls(request)
}

function pathOf({ kind, query, since }: WireRequest, more: readonly string[] = []): string {
  const parts = [...more]
  if (query.filter !== '') parts.push(query.filter)
  if (query.select !== null) parts.push(`select=${query.select.join(',')}`)
  if (kind === 'changes' && query.events !== undefined) parts.push(`events=${query.events.join(',')}`)
  if (since !== null) parts.push(`after=${encodeURIComponent(since)}`)
  return `/v1/${kind}/${query.table}${parts.length === 0 ? '' : `?${parts.join('&')}`}`
}

async function bySocket(request: WireRequest): Promise<Wire> {
  const { url, token, kind, query, since } = request
  const socket = new WebSocket(`${url.replace('http', 'ws')}/v1/socket`, {
    headers: { authorization: `Bearer ${token}` },
  })
  let gone = false
  let tag = ''
  let broken: Error | null = null
  socket.on('error', error => {
    broken = error
  })
  await Promise.race([
    once(socket, 'open'),
    once(socket, 'close').then(() => {
      throw broken ?? new Error('closed before it opened')
    }),
  ])
  // A reader that lags still says that it is there.
  const alive = setInterval(() => {
    if (socket.readyState === WebSocket.OPEN) socket.send('{"type":"heartbeat"}')
  }, 300)
  socket.on('close', () => {
    clearInterval(alive)
    if (!gone) request.onEnd()
  })
  socket.on('message', data => {
    if (gone) return
    const frame = JSON.parse(String(data)) as {
      type: string
      tag?: string
      position?: string
      positions?: Record<string, string>
    }
    const { type } = frame
    if (type === 'welcome') return
    if (type === 'subscribed') tag = frame.tag!
    const position =
      type === 'heartbeat'
        ? (frame.positions!['1'] ?? null)
        : frame.position === undefined
          ? null
          : `${frame.position}.${tag}`
    request.onEvent({ event: type, position, data: frame })
  })
  socket.send(
    JSON.stringify({
      type: 'subscribe',
      id: 1,
      kind,
      table: query.table,
      ...(query.filter === '' ? {} : { filter: query.filter }),
      ...(query.select === null ? {} : { select: query.select }),
      ...(kind === 'changes' && query.events !== undefined ? { events: query.events } : {}),
      ...(since === null ? {} : { since }),
    }),
  )
  return {
    pause: () => socket.pause(),
    resume: () => socket.resume(),
    close: () => {
      gone = true
      clearInterval(alive)
      socket.terminate()
    },
  }
}

async function bySse(request: WireRequest): Promise<Wire> {
  let gone = false
  const asked = http.get(`${request.url}${pathOf(request)}`, {
    headers: { authorization: `Bearer ${request.token}`, accept: 'text/event-stream' },
    agent: false,
  })
  const [response] = (await once(asked, 'response')) as [http.IncomingMessage]
  response.setEncoding('utf8')
  asked.on('error', () => {})
  if (response.statusCode !== 200) throw await refusal(response)
  let text = ''
  response.on('data', (chunk: string) => {
    text += chunk
    for (let end = text.indexOf('\n\n'); end >= 0 && !gone; end = text.indexOf('\n\n')) {
      const block = text.slice(0, end)
      text = text.slice(end + 2)
      const event = eventOf(block)
      if (event !== null) request.onEvent(event)
    }
  })
  response.on('error', () => {})
  response.on('close', () => {
    if (!gone) request.onEnd()
  })
  return {
    pause: () => void response.pause(),
    resume: () => void response.resume(),
    close: () => {
      gone = true
      asked.destroy()
    },
  }
}

function eventOf(block: string): WireEvent | null {
  let event = 'message'
  let position: string | null = null
  let data = ''
  for (const line of block.split('\n')) {
    if (line.startsWith('id:')) position = line.slice(3).trim()
    else if (line.startsWith('event:')) event = line.slice(6).trim()
    else if (line.startsWith('data:')) data += line.slice(5).trim()
  }
  if (data === '') return position === null ? null : { event: 'position', position, data: null }
  return { event, position: position === '-' ? null : position, data: JSON.parse(data) as unknown }
}

async function refusal(response: http.IncomingMessage): Promise<Refused> {
  let body = ''
  for await (const chunk of response) body += chunk
  const { code, message } = JSON.parse(body) as { code: string; message: string }
  return new Refused(code, message)
}

interface PollBody {
  readonly events?: { event: string; data: unknown; id?: string }[]
  readonly position?: string
  readonly queries?: { resumed: boolean }[]
}

/** Each poll is a connection of its own; pausing is not asking again. */
async function byPolls(request: WireRequest): Promise<Wire> {
  const abort = new AbortController()
  let since = request.since
  const tap: { closed: { open: Promise<void>; turn: () => void } | null } = { closed: null }
  const poll = async (wait: number): Promise<void> => {
    const path = pathOf({ ...request, since }, since === null ? [] : [`wait=${wait}`])
    const response = await fetch(`${request.url}${path}`, {
      headers: { authorization: `Bearer ${request.token}`, accept: 'application/json' },
      signal: abort.signal,
    })
    if (response.status !== 200 && response.status !== 304) {
      const { code, message } = (await response.json()) as { code: string; message: string }
      throw new Refused(code, message)
    }
    const body = response.status === 304 ? {} : ((await response.json()) as PollBody)
    if (abort.signal.aborted) return
    const [told] = body.queries ?? []
    if (told !== undefined) request.onEvent({ event: 'subscribed', position: null, data: { resumed: told.resumed } })
    for (const { event, data, id } of body.events ?? []) request.onEvent({ event, position: id ?? null, data })
    const position = body.position ?? response.headers.get('tidegate-position')
    if (position === null || position === '-') return
    since = position
    request.onEvent({ event: 'position', position, data: null })
  }
  await poll(0)
  void (async () => {
    try {
      while (!abort.signal.aborted) {
        if (tap.closed !== null) await tap.closed.open
        else await poll(1)
      }
    } catch (error) {
      if (abort.signal.aborted) return
      if (error instanceof Refused)
        request.onEvent({ event: 'error', position: null, data: { code: error.code, message: error.message } })
      request.onEnd()
    }
  })()
  return {
    pause: () => {
      const { promise, resolve } = Promise.withResolvers<void>()
      tap.closed ??= { open: promise, turn: resolve }
    },
    resume: () => {
      tap.closed?.turn()
      tap.closed = null
    },
    close: () => {
      abort.abort()
      tap.closed?.turn()
    },
  }
}
