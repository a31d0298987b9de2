// One query read over each transport, able to leave and to come back at its position.
import { once } from 'node:events'
import { WebSocket } from 'ws'
import type { ChangeEvent } from '../../src/protocol/messages.ts'
import { type SseEvent, SseStream, StrictRows } from './node.ts'
import type { OrderedRows } from './ordered-rows.ts'

export type Transport = 'websocket' | 'sse' | 'long-poll'
export const transports: readonly Transport[] = ['websocket', 'sse', 'long-poll']

/** The two last carry the frames of a WebSocket without one. */
export type Wire = Transport | 'frame-stream' | 'frame-poll'
export const wires: readonly Wire[] = [...transports, 'frame-stream', 'frame-poll']

type Frame = { readonly type: string; readonly [field: string]: unknown }

/** The frames of an answer to POST /v1/stream, as they come. */
export async function* streamedFrames(response: Response): AsyncGenerator<Frame> {
  let text = ''
  for await (const part of response.body!.pipeThrough(new TextDecoderStream())) {
    const events = (text + part).split('\n\n')
    text = events.pop()!
    for (const event of events) yield JSON.parse(event.slice('data: '.length)) as Frame
  }
}

interface PollBody {
  readonly events?: SseEvent[]
  readonly queries?: readonly object[]
  readonly position?: string
  readonly message?: string
}

export interface Place {
  /** Base address of the node, without a slash at the end. */
  readonly url: string
}

/** An order and a limit, and what takes the rows. */
export interface Window {
  readonly order: string
  readonly limit: number
  readonly rows: OrderedRows
}

/** A reader of one query. `events` are all it was ever told, over all its connections. */
export class Reader {
  readonly transport: Wire
  readonly kind: 'live' | 'changes'
  readonly table: string
  readonly token: string
  readonly rows: StrictRows
  readonly window: Window | null
  readonly changes: ChangeEvent[] = []
  readonly events: string[] = []
  failure: unknown = null
  /** Where it stands, as the server told it. */
  position: string | null = null
  #leave: () => Promise<void> = async () => {}
  #setPaused: (isPaused: boolean) => void = () => {}

  constructor(
    transport: Wire,
    kind: 'live' | 'changes',
    table: string,
    token: string,
    key: readonly string[] = ['id'],
    window: Window | null = null,
  ) {
    this.window = window
    this.transport = transport
    this.kind = kind
    this.table = table
    this.token = token
    this.rows = new StrictRows(key)
  }

  get resyncs(): readonly string[] {
    return (this.window?.rows ?? this.rows).resyncs
  }

  /** Connects, at its position if it has one. */
  async come(place: Place): Promise<void> {
    if (this.transport === 'websocket') return this.#comeBySocket(place)
    if (this.transport === 'frame-stream') return this.#comeByStream(place)
    if (this.transport === 'frame-poll') return this.#comeByFramePolls(place)
    return this.transport === 'sse' ? this.#comeBySse(place) : this.#comeByPolls(place)
  }

  /** Goes away without a word. */
  async leave(): Promise<void> {
    await this.#leave()
  }

  /** Over a WebSocket: takes nothing from its socket until `go`. */
  pause(): void {
    this.#setPaused(true)
  }

  go(): void {
    this.#setPaused(false)
  }

  /** Resolves when the condition holds. @throws when it does not within the time */
  async until(condition: () => boolean, timeoutMs = 30_000): Promise<void> {
    const deadline = Date.now() + timeoutMs
    while (!condition()) {
      if (this.failure !== null) throw this.failure
      if (Date.now() > deadline) {
        throw new Error(
          `${this.transport} ${this.kind}: timed out; the last events: ${this.events.slice(-5).join(' ').slice(0, 2000)}`,
        )
      }
      await new Promise(resolve => setTimeout(resolve, 5))
    }
  }

  #take(event: SseEvent): void {
    this.events.push(`${event.event} ${JSON.stringify(event.data)}`.slice(0, 300))
    if (event.id !== '') this.position = event.id
    try {
      if (event.event === 'change') this.changes.push(event.data as ChangeEvent)
      else (this.window?.rows ?? this.rows).take(event)
      if (event.event === 'error') throw new Error(`error event: ${JSON.stringify(event.data)}`)
    } catch (error) {
      this.failure ??= error
    }
  }

  /** With more parameters. */
  #path(more: Readonly<Record<string, string>> = {}): string {
    const { order, limit } = this.window ?? {}
    const own = order === undefined ? {} : { order, limit: String(limit) }
    const parameters = new URLSearchParams({ ...own, ...more })
    return `/v1/${this.kind}/${this.table}${parameters.size === 0 ? '' : `?${parameters}`}`
  }

  async #comeBySse(place: Place): Promise<void> {
    const stream = await SseStream.open(place, this.#path(), this.token, this.position ?? undefined)
    if (stream.status !== 200) throw new Error(`SSE answered ${stream.status} ${JSON.stringify(stream.errorBody)}`)
    for (const event of stream.events) this.#take(event)
    stream.onEvent = event => this.#take(event)
    this.#leave = async () => stream.close()
  }

  async #comeByPolls(place: Place): Promise<void> {
    const abort = new AbortController()
    const loop = (async () => {
      while (!abort.signal.aborted) {
        const after = this.position === null ? {} : { after: this.position, wait: '20' }
        const response = await fetch(`${place.url}${this.#path(after)}`, {
          headers: { authorization: `Bearer ${this.token}`, accept: 'application/json' },
          signal: abort.signal,
        })
        if (response.status === 304) continue
        const body = (await response.json()) as PollBody
        if (abort.signal.aborted) return
        if (response.status !== 200) throw new Error(`poll answered ${response.status} ${body.message}`)
        if (this.window !== null) this.#take({ event: 'subscribed', id: '', data: body.queries![0] })
        for (const event of body.events ?? []) this.#take({ ...event, id: event.id ?? '' })
        if (body.position !== undefined) this.position = body.position
      }
    })().catch(error => {
      if (!abort.signal.aborted) this.failure ??= error
    })
    this.#leave = async () => {
      abort.abort()
      await loop
    }
  }

  async #comeBySocket(place: Place): Promise<void> {
    const socket = new WebSocket(`${place.url.replace('http', 'ws')}/v1/socket`, {
      headers: { authorization: `Bearer ${this.token}` },
    })
    let gone = false
    socket.on('error', error => {
      if (!gone) this.failure ??= error
    })
    await once(socket, 'open')
    const take = this.#frames()
    socket.on('message', data => {
      if (!gone) take(JSON.parse(String(data)) as Frame)
    })
    this.#setPaused = isPaused => {
      if (isPaused) socket.pause()
      else socket.resume()
    }
    socket.send(JSON.stringify(this.#entry()))
    this.#leave = async () => {
      gone = true
      socket.terminate()
    }
  }

  async #comeByStream(place: Place): Promise<void> {
    const abort = new AbortController()
    const response = await this.#post(place, 'stream', { frames: [this.#entry()] }, abort.signal)
    const take = this.#frames()
    const loop = (async () => {
      for await (const frame of streamedFrames(response)) if (!abort.signal.aborted) take(frame)
      throw new Error('the stream ended')
    })().catch(error => {
      if (!abort.signal.aborted) this.failure ??= error
    })
    this.#leave = async () => {
      abort.abort()
      await loop
    }
  }

  async #comeByFramePolls(place: Place): Promise<void> {
    const abort = new AbortController()
    const loop = (async () => {
      let poll = {}
      while (!abort.signal.aborted) {
        const wait = this.position === null ? 0 : 20
        const response = await this.#post(place, 'poll', { frames: [this.#entry()], wait, ...poll }, abort.signal)
        const { frames, ...rest } = (await response.json()) as { frames: Frame[] }
        if (abort.signal.aborted) return
        poll = rest
        const take = this.#frames()
        for (const frame of frames) {
          take(frame)
          // What no event has moved.
          if (frame.type === 'heartbeat')
            this.position = (frame.positions as Record<string, string>)[1] ?? this.position
        }
      }
    })().catch(error => {
      if (!abort.signal.aborted) this.failure ??= error
    })
    this.#leave = async () => {
      abort.abort()
      await loop
    }
  }

  async #post({ url }: Place, path: string, body: object, signal: AbortSignal): Promise<Response> {
    const headers = { authorization: `Bearer ${this.token}` }
    const response = await fetch(`${url}/v1/${path}`, { method: 'POST', headers, body: JSON.stringify(body), signal })
    if (response.status !== 200) throw new Error(`${path} answered ${response.status} ${await response.text()}`)
    return response
  }

  #entry(): object {
    const { order, limit } = this.window ?? {}
    const frame = { type: 'subscribe', id: 1, kind: this.kind, table: this.table, order, limit }
    return this.position === null ? frame : { ...frame, since: this.position }
  }

  /** Takes the frames of one connection. */
  #frames(): (frame: Frame) => void {
    let tag = ''
    return ({ type, position, ...rest }) => {
      if (type === 'subscribed') tag = rest.tag as string
      if (type === 'welcome' || type === 'heartbeat') return
      const isState = type === 'snapshot' || type === 'delta' || type === 'change'
      this.#take({ event: type, id: isState && position !== undefined ? `${position}.${tag}` : '', data: rest })
    }
  }
}
