// A strict reader that does as it is told: it comes back when the goodbye says, at the position it was given, and keeps count.
import { once } from 'node:events'
import { request } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { WebSocket } from 'ws'
import type { ChangeEvent, ErrorEvent, ServerFrame } from '../../src/protocol/messages.ts'
import { type SseEvent, SseStream, StrictRows } from '../support/node.ts'
import type { Transport } from '../support/readers.ts'

/** One absence: from the goodbye until it was served again. */
export interface Absence {
  readonly hintMs: number
  readonly awayMs: number
}

export class Returning implements AsyncDisposable {
  readonly transport: Transport
  readonly kind: 'live' | 'changes'
  readonly rows = new StrictRows()
  readonly changes: ChangeEvent[] = []
  readonly absences: Absence[] = []
  /** What no goodbye announced, and what should not have come. */
  readonly failures: string[] = []
  readonly #url: string
  readonly #token: string
  readonly #over = new AbortController()
  readonly #running: Promise<void>
  #position: string | null = null
  #goodbye: { readonly at: number; readonly hintMs: number } | null = null
  #isServed = false

  constructor(transport: Transport, kind: 'live' | 'changes', url: string, token: string) {
    this.transport = transport
    this.kind = kind
    this.#url = url
    this.#token = token
    this.#running = this.#run()
  }

  /** It has a position to come back with. */
  get isSettled(): boolean {
    return this.#isServed && this.#position !== null
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#over.abort()
    await this.#running
  }

  async #run(): Promise<void> {
    const { signal } = this.#over
    while (!signal.aborted) {
      try {
        if (this.transport === 'websocket') await this.#overSocket()
        else if (this.transport === 'sse') await this.#overStream()
        else await this.#overPoll()
      } catch (error) {
        if (!signal.aborted) this.failures.push(String(error))
      }
      if (signal.aborted) return
      if (this.transport === 'long-poll' && this.#goodbye === null) continue
      this.rows.interrupt()
      this.#isServed = false
      if (this.#goodbye === null) this.failures.push('cut off without a goodbye')
      await sleep(this.#goodbye?.hintMs ?? 100, undefined, { signal }).catch(() => {})
    }
  }

  #served(): void {
    this.#isServed = true
    if (this.#goodbye === null) return
    const { at, hintMs } = this.#goodbye
    this.absences.push({ hintMs, awayMs: performance.now() - at })
    this.#goodbye = null
  }

  #take(event: SseEvent): void {
    try {
      if (event.event === 'subscribed') this.#served()
      if (event.event === 'change') this.changes.push(event.data as ChangeEvent)
      else if (event.event === 'error') this.#farewell(event.data as ErrorEvent)
      else this.rows.take(event)
      if (event.id !== '') this.#position = event.id
    } catch (error) {
      this.failures.push(String(error))
    }
  }

  #farewell({ code, message, retryAfterMs }: ErrorEvent): void {
    // One that meets a node that is leaving is sent on: it is away since the first goodbye.
    if (code === 'GOING_AWAY' && this.#goodbye === null)
      this.#goodbye = { at: performance.now(), hintMs: retryAfterMs! }
    else this.failures.push(`${code}: ${message}`)
  }

  async #overSocket(): Promise<void> {
    const headers = { authorization: `Bearer ${this.#token}` }
    const socket = new WebSocket(`${this.#url.replace('http', 'ws')}/v1/socket`, { headers })
    const leave = (): void => socket.terminate()
    this.#over.signal.addEventListener('abort', leave)
    let tag = ''
    socket.on('message', data => {
      const frame = JSON.parse(String(data)) as ServerFrame
      if (frame.type === 'welcome') {
        const subscribe = { type: 'subscribe', id: 1, kind: this.kind, table: 'messages' }
        socket.send(JSON.stringify(this.#position === null ? subscribe : { ...subscribe, since: this.#position }))
        return
      }
      if (frame.type === 'heartbeat') {
        this.#position = frame.positions[1] ?? this.#position
        return
      }
      if (frame.type === 'subscribed') tag = frame.tag
      const { type, ...rest } = frame
      const isState = type === 'snapshot' || type === 'delta' || type === 'change'
      const id = isState && frame.position !== undefined ? `${frame.position}.${tag}` : ''
      this.#take({ event: type, id, data: rest })
    })
    // An upgrade that is refused is an error of the socket.
    socket.on('error', error => this.failures.push(String(error)))
    await once(socket, 'close')
    this.#over.signal.removeEventListener('abort', leave)
  }

  async #overStream(): Promise<void> {
    const path = `/v1/${this.kind}/messages`
    const stream = await SseStream.open({ url: this.#url }, path, this.#token, this.#position ?? undefined)
    if (stream.status !== 200) {
      this.#farewell(stream.errorBody as ErrorEvent)
      return
    }
    const leave = (): void => stream.close()
    this.#over.signal.addEventListener('abort', leave)
    for (const event of stream.events) this.#take(event)
    stream.onEvent = event => this.#take(event)
    while (!stream.ended) await sleep(20)
    this.#over.signal.removeEventListener('abort', leave)
  }

  async #overPoll(): Promise<void> {
    const after = this.#position === null ? '' : `?after=${encodeURIComponent(this.#position)}&wait=20`
    const answer = await this.#get(`/v1/${this.kind}/messages${after}`)
    this.#position = answer.position ?? this.#position
    if (answer.status === 503) {
      this.#farewell(JSON.parse(answer.text))
      return
    }
    if (answer.status !== 200 && answer.status !== 304) throw new Error(`${answer.status} ${answer.text}`)
    this.#served()
    if (answer.status === 304) return
    for (const event of (JSON.parse(answer.text) as { events: SseEvent[] }).events) this.#take({ ...event, id: '' })
  }

  /** Over a connection of its own each time: one that is kept stays with its node. */
  async #get(path: string): Promise<{ status: number; position: string | null; text: string }> {
    const headers = { authorization: `Bearer ${this.#token}`, accept: 'application/json' }
    const asked = request(this.#url + path, { agent: false, headers, signal: this.#over.signal }).end()
    const [response] = (await once(asked, 'response')) as [import('node:http').IncomingMessage]
    const text = Buffer.concat(await response.toArray()).toString()
    const position = response.headers['tidegate-position']
    return { status: response.statusCode!, position: typeof position === 'string' ? position : null, text }
  }
}
