// One query over each wire, with a hand on the tap: a reader can stop taking and go on later.
import http from 'node:http'
import { WebSocket } from 'ws'
import type { Transport } from '../support/readers.ts'

export interface WireEvent {
  /** As on the wire; `heard` for a sign of life that is none of these. */
  readonly event: string
  /** What to come back with from here. */
  readonly position: string | null
  readonly data: unknown
}

export interface WireRequest {
  readonly url: string
  readonly transport: Transport
  readonly kind: 'live' | 'changes'
  /** `messages?id=lt.10`, without what follows. */
  readonly table: string
  readonly filter: string
  readonly token: string
  readonly since: string | null
  onEvent(event: WireEvent): void
  /** The connection ended and nobody here ended it. @param code that the server gave, else `closed` */
  onEnd(code: string): void
}

export interface Wire {
  /** Takes nothing until `resume`. */
  pause(): void
  resume(): void
  close(): void
}

/** Begins at once; whatever goes wrong is told by `onEnd`. */
export function connect(request: WireRequest): Wire {
  if (request.transport === 'websocket') return bySocket(request)
  return request.transport === 'sse' ? bySse(request) : byPolls(request)
}

const pathOf = ({ kind, table, filter, since }: WireRequest, more = ''): string =>
  `/v1/${kind}/${table}?${filter}${since === null ? '' : `&after=${encodeURIComponent(since)}${more}`}`

function bySocket(request: WireRequest): Wire {
  const { url, token, kind, table, filter, since } = request
  const socket = new WebSocket(`${url.replace('http', 'ws')}/v1/socket`, {
    headers: { authorization: `Bearer ${token}` },
  })
  let gone = false
  let tag = ''
  let code = 'closed'
  // A reader that takes nothing still says that it is there.
  const alive = setInterval(() => {
    if (socket.readyState === WebSocket.OPEN) socket.send('{"type":"heartbeat"}')
  }, 300)
  socket.on('error', () => {})
  socket.on('open', () => {
    const frame = { type: 'subscribe', id: 1, kind, table, filter }
    socket.send(JSON.stringify(since === null ? frame : { ...frame, since }))
  })
  socket.on('close', (_, reason) => {
    clearInterval(alive)
    if (!gone) request.onEnd(/^[A-Z_]+(?=:)/.exec(String(reason))?.[0] ?? code)
  })
  socket.on('message', data => {
    if (gone) return
    const frame = JSON.parse(String(data)) as {
      type: string
      code?: string
      tag?: string
      position?: string
      positions?: Record<string, string>
    }
    const { type } = frame
    if (type === 'welcome') return
    if (type === 'subscribed') tag = frame.tag!
    if (type === 'error') {
      code = frame.code!
      socket.close()
      return
    }
    const position =
      type === 'heartbeat' ? frame.positions!['1'] : frame.position === undefined ? null : `${frame.position}.${tag}`
    request.onEvent({ event: type, position: position ?? null, data: frame })
  })
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

function bySse(request: WireRequest): Wire {
  let gone = false
  let code = 'closed'
  let taken: http.IncomingMessage | null = null
  const end = (): void => {
    if (!gone) request.onEnd(code)
    gone = true
  }
  const asked = http.get(`${request.url}${pathOf(request)}`, {
    headers: { authorization: `Bearer ${request.token}`, accept: 'text/event-stream' },
    agent: false,
  })
  asked.on('error', end)
  asked.on('response', response => {
    taken = response
    let text = ''
    response.setEncoding('utf8')
    response.on('error', () => {})
    response.on('close', () => {
      if (response.statusCode !== 200) code = codeIn(text)
      end()
    })
    response.on('data', (chunk: string) => {
      text += chunk
      if (response.statusCode !== 200) return
      for (let at = text.indexOf('\n\n'); at >= 0 && !gone; at = text.indexOf('\n\n')) {
        const event = eventOf(text.slice(0, at))
        text = text.slice(at + 2)
        if (event?.event === 'error') code = (event.data as { code: string }).code
        else if (event !== null) request.onEvent(event)
      }
    })
  })
  return {
    pause: () => void taken?.pause(),
    resume: () => void taken?.resume(),
    close: () => {
      gone = true
      asked.destroy()
    },
  }
}

function codeIn(body: string): string {
  try {
    return (JSON.parse(body) as { code: string }).code
  } catch {
    return 'closed'
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
  if (data === '') return null
  return { event, position: position === '-' ? null : position, data: JSON.parse(data) as unknown }
}

interface PollBody {
  readonly events?: { event: string; data: unknown; id?: string }[]
  readonly position?: string
}

/** Each poll is a connection of its own. Pausing is to take no answer: one that is large stays in the network. */
function byPolls(request: WireRequest): Wire {
  let gone = false
  let since = request.since
  let asked: http.ClientRequest | null = null
  let taken: http.IncomingMessage | null = null
  let paused = false
  const end = (code: string): void => {
    if (!gone) request.onEnd(code)
    gone = true
  }
  const poll = (): void => {
    if (gone) return
    asked = http.get(`${request.url}${pathOf({ ...request, since }, '&wait=1')}`, {
      headers: { authorization: `Bearer ${request.token}`, accept: 'application/json' },
      agent: false,
    })
    asked.on('error', () => end('closed'))
    asked.on('response', response => {
      taken = response
      if (paused) response.pause()
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (chunk: string) => {
        text += chunk
      })
      response.on('error', () => {})
      response.on('close', () => {
        if (gone) return
        if (!response.complete || (response.statusCode !== 200 && response.statusCode !== 304)) return end(codeIn(text))
        const body = response.statusCode === 304 ? {} : (JSON.parse(text) as PollBody)
        for (const { event, data, id } of body.events ?? []) request.onEvent({ event, position: id ?? null, data })
        const told = body.position ?? String(response.headers['tidegate-position'] ?? '-')
        if (told !== '-') since = told
        const data = { stale: response.headers['tidegate-stale'] === 'true' }
        request.onEvent({ event: 'heard', position: since, data })
        poll()
      })
    })
  }
  poll()
  return {
    pause: () => {
      paused = true
      taken?.pause()
    },
    resume: () => {
      paused = false
      taken?.resume()
    },
    close: () => {
      gone = true
      asked?.destroy()
    },
  }
}
