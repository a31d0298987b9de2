// A reader whose socket can be left unread, and the server's queues, so that a test can wait until frames wait in one.
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { vi } from 'vitest'
import { WebSocket } from 'ws'
import { SendQueue } from '../../src/server/deliver/send-queue.ts'
import { type SseEvent, StrictRows } from './node.ts'

export const slowWires = ['websocket', 'sse'] as const
export type SlowWire = (typeof slowWires)[number]

export class SlowReader {
  /** Of each query of the stream. */
  readonly queries: StrictRows[] = []
  readonly events: SseEvent[] = []
  failure: unknown = null
  readonly socket: Socket
  readonly close: () => void

  private constructor(socket: Socket, close: () => void) {
    this.socket = socket
    this.close = close
  }

  /** @param path as in `/v1/<path>`; over a WebSocket `live/<table>` or `changes/<table>` */
  static async open(node: { url: string }, wire: SlowWire, path: string, token: string): Promise<SlowReader> {
    return wire === 'sse' ? SlowReader.stream(node, path, token) : SlowReader.#bySocket(node, path, token)
  }

  get rows(): StrictRows {
    return this.rowsOf(0)
  }

  rowsOf(q: number): StrictRows {
    this.queries[q] ??= new StrictRows()
    return this.queries[q]
  }

  /** @param from another stream whose first events this one has, to come back after them */
  static async stream(
    { url }: { url: string },
    path: string,
    token: string,
    from: readonly SseEvent[] = [],
  ): Promise<SlowReader> {
    const { hostname, port } = new URL(url)
    const socket = connect({ host: hostname, port: Number(port) })
    const reader = new SlowReader(socket, () => socket.destroy())
    for (const event of from) reader.#take(event)
    for (const rows of reader.queries) rows.interrupt()
    let text = ''
    let id = from.at(-1)?.id ?? ''
    socket.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk
      for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
        const block = text.slice(0, end)
        text = text.slice(end + 2)
        id = /^id: ?(.*)$/m.exec(block)?.[1] ?? id
        const data = /^data: ?(.*)$/m.exec(block)?.[1]
        if (data !== undefined)
          reader.#take({ event: /^event: ?(\w+)$/m.exec(block)?.[1] ?? '', id, data: JSON.parse(data) })
      }
    })
    const headers = `Host: x\r\nAuthorization: Bearer ${token}\r\nAccept: text/event-stream`
    const last = id === '' ? '' : `\r\nLast-Event-ID: ${id}`
    socket.write(`GET /v1/${path} HTTP/1.1\r\n${headers}${last}\r\n\r\n`)
    await reader.until(() => reader.events.length > from.length)
    return reader
  }

  static async #bySocket({ url }: { url: string }, path: string, token: string): Promise<SlowReader> {
    const ws = new WebSocket(`${url.replace('http', 'ws')}/v1/socket`, {
      headers: { authorization: `Bearer ${token}` },
    })
    const [response] = (await once(ws, 'upgrade')) as [{ socket: Socket }]
    const reader = new SlowReader(response.socket, () => ws.terminate())
    let tag = ''
    ws.on('message', text => {
      const { type, position, ...data } = JSON.parse(String(text)) as { type: string; position?: string; tag?: string }
      tag = data.tag ?? tag
      const isState = type === 'snapshot' || type === 'delta' || type === 'change'
      const id = isState && position !== undefined ? `${position}.${tag}` : (reader.events.at(-1)?.id ?? '')
      reader.#take({ event: type, id, data })
    })
    if (ws.readyState !== WebSocket.OPEN) await once(ws, 'open')
    const [kind, table] = path.split('/')
    ws.send(JSON.stringify({ type: 'subscribe', id: 1, kind, table }))
    await reader.until(() => reader.of('subscribed').length > 0)
    return reader
  }

  of(event: string): SseEvent[] {
    return this.events.filter(each => each.event === event)
  }

  /** Whether any event holds this text. */
  heard(text: string): boolean {
    return this.events.some(({ data }) => JSON.stringify(data).includes(text))
  }

  async until(condition: () => boolean, timeoutMs = 20_000): Promise<void> {
    const deadline = Date.now() + timeoutMs
    while (!condition()) {
      if (this.failure !== null) throw this.failure
      if (Date.now() > deadline) {
        const last = this.events.slice(-6).map(event => JSON.stringify(event).slice(0, 200))
        throw new Error(`timed out; the last events:\n${last.join('\n')}`)
      }
      await new Promise(resolve => setTimeout(resolve, 5))
    }
  }

  #take(event: SseEvent): void {
    this.events.push(event)
    try {
      if (event.event === 'error') throw new Error(JSON.stringify(event.data))
      this.rowsOf((event.data as { q?: number }).q ?? 0).take(event)
    } catch (error) {
      this.failure ??= error
    }
  }
}

/** The kernel moves bytes from the one socket to the other, tries again a fifth of a second later, and then takes no more. */
const settledMs = 400

/** The queues of the servers in this process that have sent anything, found by what passes them. */
export class Queues {
  readonly #pushed = vi.spyOn(SendQueue.prototype, 'push')
  readonly #batches = vi.spyOn(SendQueue.prototype, 'pushBatch')
  readonly takenBack = vi.spyOn(SendQueue.prototype, 'takeBack')

  /** Makes the one queue whose reader does not read hold what it is given from now on.
   *  @param write commits something for the reader, large enough to fill what the kernel holds soon */
  async stall(write: () => Promise<void>): Promise<SendQueue> {
    const deadline = Date.now() + 30_000
    for (let since = Date.now(); Date.now() < deadline; ) {
      const stalled = this.#all().filter(queue => queue.stalledSince !== null)
      if (stalled.length !== 1) {
        await write()
        since = Date.now()
      } else if (Date.now() - since < settledMs) await new Promise(resolve => setTimeout(resolve, 2))
      else {
        // What the kernel may take yet stands before what the test writes next.
        for (let more = 0; more < 8; more++) await write()
        return stalled[0]!
      }
    }
    throw new Error('the kernel takes everything')
  }

  /** How many events were taken back so far. */
  get taken(): number {
    return this.takenBack.mock.results.reduce((sum, { value }) => sum + (value as ReadonlyMap<object, object>).size, 0)
  }

  #all(): SendQueue[] {
    return [...new Set([...this.#pushed.mock.contexts, ...this.#batches.mock.contexts])] as SendQueue[]
  }

  [Symbol.dispose](): void {
    vi.restoreAllMocks()
  }
}
