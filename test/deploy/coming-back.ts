// A reader of one live query that comes back by itself at its position, as a client does: through a balancer it never knows
// which node it meets.
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { WebSocket } from 'ws'
import { type SseEvent, SseStream, StrictRows } from '../support/node.ts'
import type { Transport } from '../support/readers.ts'

const pauseMs = 100
/** What a balancer or a node says when somebody else, or a later attempt, may do better. */
const passing = new Set([502, 503, 504])

export class ComingBack implements AsyncDisposable {
  readonly transport: Transport
  /** Strict: what comes twice, or changes what never came, is an error. */
  readonly rows = new StrictRows()
  /** What no coming back mends. */
  failure: unknown = null
  /** How often it was connected; of long-polls, how often one was answered after a failed one. */
  connections = 0
  readonly #url: string
  readonly #path: string
  readonly #token: string
  readonly #gone = new AbortController()
  readonly #running: Promise<void>
  #position: string | null = null

  constructor(transport: Transport, url: string, table: string, token: string) {
    this.transport = transport
    this.#url = url
    this.#path = `/v1/live/${table}`
    this.#token = token
    this.#running = this.#run(table)
  }

  get resyncs(): readonly string[] {
    return this.rows.resyncs
  }

  /** @throws what the reader met, or the time is over */
  async until(condition: (reader: this) => boolean, timeoutMs = 60_000): Promise<void> {
    const deadline = Date.now() + timeoutMs
    while (!condition(this)) {
      if (this.failure !== null) throw this.failure
      if (Date.now() > deadline)
        throw new Error(
          `${this.transport}: timed out with ${this.rows.rows.size} rows after ${this.connections} connections`,
        )
      await sleep(20)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#gone.abort()
    await this.#running
  }

  async #run(table: string): Promise<void> {
    const { signal } = this.#gone
    while (!signal.aborted && this.failure === null) {
      try {
        if (this.transport === 'websocket') await this.#overSocket(table)
        else if (this.transport === 'sse') await this.#overStream()
        else await this.#overPolls()
      } catch {
        // Refused or cut: the next attempt tells whether that lasts.
      }
      this.rows.interrupt()
      await sleep(pauseMs, undefined, { signal }).catch(() => {})
    }
  }

  #take(event: SseEvent): void {
    try {
      this.rows.take(event)
      if (event.event === 'error') {
        const { retry } = event.data as { retry: boolean }
        if (!retry) throw new Error(`told ${JSON.stringify(event.data)}`)
      }
      if (event.id !== '') this.#position = event.id
    } catch (error) {
      this.failure ??= error
    }
  }

  async #overSocket(table: string): Promise<void> {
    const headers = { authorization: `Bearer ${this.#token}` }
    const socket = new WebSocket(`${this.#url.replace('http', 'ws')}/v1/socket`, { headers })
    socket.on('error', () => {})
    const closed = once(socket, 'close')
    const leave = (): void => socket.terminate()
    this.#gone.signal.addEventListener('abort', leave)
    let tag = ''
    socket.on('open', () => {
      this.connections += 1
      const frame = { type: 'subscribe', id: 1, kind: 'live', table }
      socket.send(JSON.stringify(this.#position === null ? frame : { ...frame, since: this.#position }))
    })
    socket.on('message', data => {
      const { type, position, ...rest } = JSON.parse(String(data)) as { type: string; position?: string; tag?: string }
      if (type === 'subscribed') tag = rest.tag!
      if (type === 'welcome' || type === 'heartbeat') return
      const isState = type === 'snapshot' || type === 'delta'
      this.#take({ event: type, id: isState && position !== undefined ? `${position}.${tag}` : '', data: rest })
      if (type === 'error') socket.terminate()
    })
    await closed
    this.#gone.signal.removeEventListener('abort', leave)
  }

  async #overStream(): Promise<void> {
    const stream = await SseStream.open({ url: this.#url }, this.#path, this.#token, this.#position ?? undefined)
    if (stream.status !== 200) {
      this.#refused(stream.status, JSON.stringify(stream.errorBody))
      return
    }
    this.connections += 1
    const leave = (): void => stream.close()
    this.#gone.signal.addEventListener('abort', leave)
    for (const event of stream.events) this.#take(event)
    stream.onEvent = event => this.#take(event)
    while (!stream.ended) await sleep(20)
    this.#gone.signal.removeEventListener('abort', leave)
  }

  async #overPolls(): Promise<void> {
    let isBack = false
    while (!this.#gone.signal.aborted) {
      const after = this.#position === null ? '' : `?after=${encodeURIComponent(this.#position)}&wait=20`
      const response = await fetch(`${this.#url}${this.#path}${after}`, {
        headers: { authorization: `Bearer ${this.#token}`, accept: 'application/json' },
        signal: this.#gone.signal,
      })
      const text = await response.text()
      if (response.status !== 200 && response.status !== 304) {
        this.#refused(response.status, text)
        return
      }
      if (!isBack) this.connections += 1
      isBack = true
      if (response.status === 304) continue
      const { events = [], position } = JSON.parse(text) as { events?: SseEvent[]; position?: string }
      for (const event of events) this.#take({ ...event, id: '' })
      if (position !== undefined) this.#position = position
    }
  }

  #refused(status: number, text: string): void {
    if (!passing.has(status)) this.failure ??= new Error(`${this.transport}: answered ${status} ${text.slice(0, 300)}`)
  }
}
