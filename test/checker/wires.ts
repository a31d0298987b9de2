// Several queries over each wire, with a hand on the tap: a reader can stop taking and go on later.
import { once } from 'node:events'
import http from 'node:http'
import { WebSocket } from 'ws'
import type { CheckedQuery } from './world.ts'

export type Transport = 'websocket' | 'sse' | 'long-poll'
export const transports: readonly Transport[] = ['websocket', 'sse', 'long-poll']

export interface WireEvent {
  /** As on the wire; `position` when a position came alone. */
  readonly event: string
  /** Of its query, with the tag, as it is sent back. */
  readonly position: string | null
  readonly data: unknown
}

/** One query of a connection. All of an SSE stream or a poll are of one kind. */
export interface Asked {
  readonly kind: 'live' | 'changes'
  readonly query: CheckedQuery
  readonly since: string | null
}

export interface WireRequest {
  readonly url: string
  readonly transport: Transport
  readonly token: string
  readonly asked: readonly Asked[]
  /** How long an answer may take; left out, for ever. */
  readonly timeoutMs?: number
  /** A connection was answered: each poll is one. Comes before its events. @param askedAt performance.now() */
  onReached?(localPort: number, askedAt: number): void
  /** @param place of the query among those asked, those added later included */
  onEvent(place: number, event: WireEvent): void
  /** The connection ended and nobody here ended it. */
  onEnd(end: Ending): void
}

export interface Ending {
  /** `closed` when nothing was said. */
  readonly code: string
  readonly isRetryable: boolean
}

export interface Wire {
  /** Takes nothing until `resume`. */
  pause(): void
  resume(): void
  close(): void
  /** Asks for one query more, and lets go of one: a WebSocket only. @returns its place */
  readonly add?: (asked: Asked) => number
  readonly remove?: (place: number) => void
}

/** A refusal before the first event. */
export class Refused extends Error {
  readonly ending: Ending

  constructor({ code, message, retry }: { code: string; message: string; retry: boolean }) {
    super(`${code}: ${message}`)
    this.ending = { code, isRetryable: retry }
  }
}

export const closed: Ending = { code: 'closed', isRetryable: true }

/** @throws Refused, or what the network throws */
export function connect(request: WireRequest): Promise<Wire> {
  if (request.transport === 'websocket') return bySocket(request)
  return request.transport === 'sse' ? bySse(request) : byPolls(request)
}

interface Frame {
  readonly type: string
  readonly id?: number
  readonly query?: number
  readonly tag?: string
  readonly position?: string
  readonly positions?: Readonly<Record<string, string>>
}

async function bySocket(request: WireRequest): Promise<Wire> {
  const { url, token, timeoutMs } = request
  const askedAt = performance.now()
  const socket = new WebSocket(`${url.replace('http', 'ws')}/v1/socket`, {
    headers: { authorization: `Bearer ${token}` },
    ...(timeoutMs === undefined ? {} : { handshakeTimeout: timeoutMs }),
  })
  socket.on('upgrade', response => request.onReached?.(response.socket.localPort!, askedAt))
  let gone = false
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
  let ending = closed
  socket.on('close', () => {
    clearInterval(alive)
    if (!gone) request.onEnd(ending)
  })
  const tags = new Map<number, string>()
  const places = new Map<number, number>()
  /** Unsubscribed, and not answered yet: their frames may still come. */
  const leaving = new Set<number>()
  const take = (frame: Frame): void => {
    const { type, id, position } = frame
    if (type === 'welcome') return
    if (type === 'unsubscribed') {
      leaving.delete(id!)
      return
    }
    if (type === 'heartbeat') {
      for (const [place, text] of Object.entries(frame.positions!))
        if (!leaving.has(Number(place)))
          request.onEvent(Number(place), { event: type, position: text === '-' ? null : text, data: null })
      return
    }
    if (type === 'error' && id === undefined) {
      const { code, retry } = frame as Frame & { code: string; retry: boolean }
      ending = { code, isRetryable: retry }
      return
    }
    if (id !== undefined && leaving.has(id)) return
    if (type === 'subscribed') {
      tags.set(id!, frame.tag!)
      places.set(frame.query!, id!)
    }
    const place = id ?? places.get(frame.query!)
    if (place === undefined) {
      // Deltas name the query only, and another subscription of this connection may have been of the same one.
      if (leaving.size === 0)
        request.onEnd({ code: `a ${type} of query ${frame.query}, which nobody here follows`, isRetryable: false })
      return
    }
    request.onEvent(place, {
      event: type,
      position: position === undefined ? null : `${position}.${tags.get(place)}`,
      data: frame,
    })
  }
  socket.on('message', data => {
    if (!gone) take(JSON.parse(String(data)) as Frame)
  })
  let next = 0
  const add = ({ kind, query, since }: Asked): number => {
    const id = next++
    socket.send(
      JSON.stringify({
        type: 'subscribe',
        id,
        kind,
        table: query.table,
        ...(query.filter === '' ? {} : { filter: query.filter }),
        ...(query.select === null ? {} : { select: query.select }),
        ...(kind === 'changes' && query.events !== undefined ? { events: query.events } : {}),
        ...(since === null ? {} : { since }),
      }),
    )
    return id
  }
  for (const asked of request.asked) add(asked)
  return {
    pause: () => socket.pause(),
    resume: () => socket.resume(),
    close: () => {
      gone = true
      clearInterval(alive)
      socket.terminate()
    },
    add,
    remove: place => {
      for (const [query, id] of places) if (id === place) places.delete(query)
      leaving.add(place)
      socket.send(JSON.stringify({ type: 'unsubscribe', id: place }))
    },
  }
}

/** The URL of one query, or of several in one stream. */
function pathOf(asked: readonly Asked[], since: readonly (string | null)[], more: readonly string[]): string {
  const { kind } = asked[0]!
  const after = since.every(part => part === null) ? null : since.map(part => part ?? '-').join('~')
  const whole = [...more, ...(after === null ? [] : [`after=${encodeURIComponent(after)}`])]
  const queries = asked.map(({ query }) => {
    const parts: string[] = []
    if (query.filter !== '') parts.push(query.filter)
    if (query.select !== null) parts.push(`select=${query.select.join(',')}`)
    if (kind === 'changes' && query.events !== undefined) parts.push(`events=${query.events.join(',')}`)
    return { table: query.table, parts }
  })
  const [first] = queries
  if (queries.length === 1) return `/v1/${kind}/${first!.table}${searchOf([...whole, ...first!.parts])}`
  const q = queries.map(({ table, parts }) => `q=${encodeURIComponent(`${table}${searchOf(parts)}`)}`)
  return `/v1/${kind}${searchOf([...q, ...whole])}`
}

const searchOf = (parts: readonly string[]): string => (parts.length === 0 ? '' : `?${parts.join('&')}`)

/** Hands a stream's events to their queries, and to the others where they stand after them. */
class Places {
  readonly #request: WireRequest
  readonly since: (string | null)[]

  constructor(request: WireRequest) {
    this.#request = request
    this.since = request.asked.map(({ since }) => since)
  }

  take(event: string, id: string | null, data: unknown): void {
    const place = (data as { q?: number } | null)?.q
    const parts = id?.split('~').map(part => (part === '-' ? null : part)) ?? null
    const own = this.since.length === 1 ? 0 : place
    if (own !== undefined) this.#tell(own, event, parts?.[own] ?? null, data)
    if (parts === null) return
    for (const [other, part] of parts.entries()) {
      if (other !== own && part !== null && part !== this.since[other]) this.#tell(other, 'position', part, null)
      this.since[other] = part
    }
  }

  /** All of them stand there. */
  stand(id: string): void {
    for (const [place, part] of id.split('~').entries()) {
      this.since[place] = part === '-' ? null : part
      if (part !== '-') this.#tell(place, 'position', part, null)
    }
  }

  #tell(place: number, event: string, position: string | null, data: unknown): void {
    this.#request.onEvent(place, { event, position, data })
  }
}

async function bySse(request: WireRequest): Promise<Wire> {
  let gone = false
  const places = new Places(request)
  const path = pathOf(request.asked, places.since, [])
  const { asked, response } = await get(request, path, 'text/event-stream')
  response.setEncoding('utf8')
  if (response.statusCode !== 200) throw await refusal(response)
  let text = ''
  let ending = closed
  const take = (block: string): void => {
    const { event, id, data } = eventOf(block)
    if (event === 'error') {
      const { code, retry } = data as { code: string; retry: boolean }
      ending = { code, isRetryable: retry }
    } else if (data !== null || id !== null) places.take(event, id, data)
  }
  response.on('data', (chunk: string) => {
    text += chunk
    for (let end = text.indexOf('\n\n'); end >= 0 && !gone; end = text.indexOf('\n\n')) {
      const block = text.slice(0, end)
      text = text.slice(end + 2)
      take(block)
    }
  })
  response.on('error', () => {})
  response.on('close', () => {
    if (!gone) request.onEnd(ending)
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

/** Over a connection of its own. Resolves with the head of the answer. */
async function get(
  { url, token, timeoutMs, onReached }: WireRequest,
  path: string,
  accept: string,
  signal?: AbortSignal,
): Promise<{ asked: http.ClientRequest; response: http.IncomingMessage }> {
  const askedAt = performance.now()
  const asked = http.get(`${url}${path}`, {
    headers: { authorization: `Bearer ${token}`, accept },
    agent: false,
    ...(signal === undefined ? {} : { signal }),
  })
  const giveUp = (): void => void asked.destroy(new Error('no answer in time'))
  const timer = timeoutMs === undefined ? undefined : setTimeout(giveUp, timeoutMs)
  try {
    const [response] = (await once(asked, 'response')) as [http.IncomingMessage]
    asked.on('error', () => {})
    onReached?.(response.socket.localPort!, askedAt)
    return { asked, response }
  } finally {
    clearTimeout(timer)
  }
}

function eventOf(block: string): { event: string; id: string | null; data: unknown } {
  let event = 'position'
  let id: string | null = null
  let data = ''
  for (const line of block.split('\n')) {
    if (line.startsWith('id:')) id = line.slice(3).trim()
    else if (line.startsWith('event:')) event = line.slice(6).trim()
    else if (line.startsWith('data:')) data += line.slice(5).trim()
  }
  return { event, id, data: data === '' ? null : (JSON.parse(data) as unknown) }
}

async function refusal(response: http.IncomingMessage): Promise<Refused> {
  return new Refused(JSON.parse(await bodyOf(response)) as { code: string; message: string; retry: boolean })
}

async function bodyOf(response: http.IncomingMessage): Promise<string> {
  response.setEncoding('utf8')
  let body = ''
  for await (const chunk of response) body += chunk
  return body
}

interface PollBody {
  readonly events?: readonly { readonly event: string; readonly data: unknown; readonly id?: string }[]
  readonly position?: string
  readonly queries?: readonly { readonly resumed: boolean }[]
}

/** Each poll is a connection of its own; pausing is not asking again. */
async function byPolls(request: WireRequest): Promise<Wire> {
  const abort = new AbortController()
  const places = new Places(request)
  const tap: { closed: { open: Promise<void>; turn: () => void } | null } = { closed: null }
  const poll = async (wait: number): Promise<void> => {
    const isFresh = places.since.every(part => part === null)
    const path = pathOf(request.asked, places.since, isFresh ? [] : [`wait=${wait}`])
    const { response } = await get(request, path, 'application/json', abort.signal)
    if (response.statusCode !== 200 && response.statusCode !== 304) throw await refusal(response)
    const text = await bodyOf(response)
    const body = response.statusCode === 304 ? {} : (JSON.parse(text) as PollBody)
    if (abort.signal.aborted) return
    for (const [place, { resumed }] of (body.queries ?? []).entries())
      request.onEvent(place, { event: 'subscribed', position: null, data: { resumed } })
    for (const { event, data, id } of body.events ?? []) places.take(event, id ?? null, data)
    const position = body.position ?? (response.headers['tidegate-position'] as string | undefined) ?? '-'
    if (position !== '-') places.stand(position)
  }
  await poll(0)
  void (async () => {
    try {
      while (!abort.signal.aborted) {
        if (tap.closed !== null) await tap.closed.open
        else await poll(1)
      }
    } catch (error) {
      if (!abort.signal.aborted) request.onEnd(error instanceof Refused ? error.ending : closed)
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
