// A crowd of WebSockets in a process of its own, over raw TCP with one read buffer for all. Each follows one query
// strictly: an id that comes twice, a resync or an error is told, and at the end how many ids came and their sum.
import { connect, type Socket } from 'node:net'
import { answer } from './child.ts'

export interface Who {
  readonly token: string
  readonly kind: 'live' | 'changes'
}

const buffer = Buffer.allocUnsafeSlow(256 * 1024)
const clients: Client[] = []
const faults: string[] = []
/** How often somebody was told to come back later, by code. */
let putOff: Record<string, number> = {}
let rowsReceived = 0
let lastAt = 0
let latencies: number[] = []
let wake: () => void = () => {}
let port = 0

/** Microseconds on a clock that the machine's processes share. */
const nowUs = (): number => (performance.timeOrigin + performance.now()) * 1000

const textOf = (bytes: Buffer, from: number, to: number): string => bytes.toString('utf8', from, to)

class Client {
  readonly #who: Who
  #socket: Socket | null = null
  #rest: Buffer | null = null
  #upgraded = false
  #tag = ''
  /** Where it stands, as `since` takes it. */
  #position: string | null = null
  readonly ids = new Set<number>()
  /** Of this connection: subscribed, and for a first one the snapshot whole. */
  isLive = false
  readonly #numbersLatency: boolean

  constructor(who: Who, numbersLatency: boolean) {
    this.#who = who
    this.#numbersLatency = numbersLatency
  }

  /** Tries until it is let in. */
  come(): void {
    this.isLive = false
    this.#upgraded = false
    this.#rest = null
    const callback = (length: number): boolean => this.#take(socket, length)
    const socket: Socket = connect({ port, host: '127.0.0.1', onread: { buffer, callback } })
    this.#socket = socket
    socket.setNoDelay(true)
    socket.on('error', () => {})
    socket.on('close', () => {
      if (this.#socket === socket) setTimeout(() => this.#socket === socket && this.come(), 50 + Math.random() * 100)
    })
    socket.write(
      `GET /v1/socket HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
        `Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\nAuthorization: Bearer ${this.#who.token}\r\n\r\n`,
    )
  }

  /** @param comesBack as a client whose connection broke; else it stays away */
  cut(comesBack: boolean): void {
    const socket = this.#socket
    if (!comesBack) this.#socket = null
    this.isLive = false
    socket?.resetAndDestroy()
  }

  leave(): void {
    const socket = this.#socket
    this.#socket = null
    socket?.destroy()
  }

  #take(socket: Socket, length: number): boolean {
    if (socket !== this.#socket) return true
    let bytes = buffer.subarray(0, length)
    if (this.#rest !== null) bytes = Buffer.concat([this.#rest, bytes])
    let at = 0
    for (let end = this.#message(bytes, at); end > 0; end = this.#message(bytes, at)) at = end
    this.#rest = at === bytes.length ? null : Buffer.from(bytes.subarray(at))
    return true
  }

  /** @returns where the message that begins at `at` ends; 0 when it is not whole */
  #message(bytes: Buffer, at: number): number {
    if (!this.#upgraded) {
      const end = bytes.indexOf('\r\n\r\n', at)
      if (end < 0) return 0
      const head = textOf(bytes, at, end)
      if (!head.startsWith('HTTP/1.1 101')) {
        // BUSY and TOO_MANY_CONNECTIONS come back by themselves: `close` follows.
        if (!head.startsWith('HTTP/1.1 503')) faults.push(`refused: ${head.split('\r\n')[0]}`)
        return end + 4
      }
      this.#upgraded = true
      const frame = { type: 'subscribe', id: 1, kind: this.#who.kind, table: 'messages' }
      this.#send(this.#position === null ? frame : { ...frame, since: this.#position })
      return end + 4
    }
    if (bytes.length < at + 2) return 0
    const short = bytes[at + 1]!
    const head = short < 126 ? 2 : short === 126 ? 4 : 10
    if (bytes.length < at + head) return 0
    const length =
      short < 126 ? short : short === 126 ? bytes.readUInt16BE(at + 2) : Number(bytes.readBigUInt64BE(at + 2))
    const end = at + head + length
    if (bytes.length < end) return 0
    if ((bytes[at]! & 15) === 1) this.#frame(textOf(bytes, at + head, end))
    return end
  }

  #frame(text: string): void {
    const frame = JSON.parse(text)
    if (frame.type === 'subscribed') {
      this.#tag = frame.tag
      if (this.#position !== null && !frame.resumed) faults.push(`not resumed: ${text}`)
      if (this.#position !== null || this.#who.kind === 'changes') this.#isLive()
    } else if (frame.type === 'snapshot') {
      for (const { id } of frame.rows) this.#row(id, 0)
      if (frame.done) this.#isLive()
    } else if (frame.type === 'delta') {
      for (const { op, key, row } of frame.changes) {
        if (op === 'insert') this.#row(key.id, Number(row.body))
        else faults.push(text)
      }
    } else if (frame.type === 'change') this.#row(frame.key.id, Number(frame.new.body))
    else if (frame.type === 'error' && frame.retry) this.#comeLater(frame)
    else if (frame.type === 'resync' || frame.type === 'error') faults.push(text)
    else if (frame.type === 'heartbeat') this.#position = frame.positions?.['1'] ?? this.#position
    const isState = frame.type === 'snapshot' || frame.type === 'delta' || frame.type === 'change'
    if (isState && frame.position !== undefined) this.#position = `${frame.position}.${this.#tag}`
    wake()
  }

  #comeLater({ code, retryAfterMs }: { code: string; retryAfterMs?: number }): void {
    putOff[code] = (putOff[code] ?? 0) + 1
    const socket = this.#socket
    setTimeout(() => this.#socket === socket && this.cut(true), retryAfterMs ?? 1000)
  }

  #isLive(): void {
    this.isLive = true
  }

  #row(id: number, sentUs: number): void {
    if (this.ids.has(id)) faults.push(`row ${id} came twice`)
    this.ids.add(id)
    rowsReceived += 1
    lastAt = nowUs()
    if (this.#numbersLatency && sentUs > 0) latencies.push(lastAt - sentUs)
  }

  /** A masked text frame, its mask zero. */
  #send(frame: object): void {
    const body = Buffer.from(JSON.stringify(frame))
    const head = body.length < 126 ? [0x81, 0x80 | body.length] : [0x81, 0xfe, body.length >> 8, body.length & 0xff]
    this.#socket!.write(Buffer.concat([Buffer.from([...head, 0, 0, 0, 0]), body]))
  }
}

async function until(condition: () => boolean, what: () => string, timeoutMs = 90_000): Promise<void> {
  const deadline = Date.now() + timeoutMs
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`timed out: ${what()}; ${faults.slice(0, 5).join()}`)
    await Promise.race([
      new Promise<void>(resolve => (wake = resolve)),
      new Promise(resolve => setTimeout(resolve, 20)),
    ])
  }
}

const waiting = (): string => `${clients.filter(client => !client.isLive).length} of ${clients.length} are not live`

const answers = {
  /** Opens one socket for each, so many at a time, and resolves when all are live. */
  async come(options: { port: number; who: readonly Who[]; atOnce: number; latencies?: boolean }) {
    port = options.port
    const begun = nowUs()
    for (let from = 0; from < options.who.length; from += options.atOnce) {
      const batch = options.who
        .slice(from, from + options.atOnce)
        .map(who => new Client(who, options.latencies ?? false))
      clients.push(...batch)
      for (const client of batch) client.come()
      await until(() => batch.every(client => client.isLive), waiting)
    }
    return { tookMs: (nowUs() - begun) / 1000 }
  },
  /** Resets every socket in one turn; each comes back at its position. */
  cut() {
    for (const client of clients) client.cut(true)
  },
  /** Resolves when everybody is live again. */
  async back() {
    await until(() => clients.every(client => client.isLive), waiting)
    return { atUs: nowUs() }
  },
  mark() {
    rowsReceived = 0
  },
  /** Resolves when so many rows have come since the mark, in all. */
  async received({ rows }: { rows: number }) {
    await until(
      () => rowsReceived >= rows,
      () => `${rowsReceived} of ${rows} rows`,
    )
    return { atUs: lastAt }
  },
  /** Resolves when everybody has this row. */
  async reached({ id }: { id: number }) {
    const lacking = (): Client[] => clients.filter(client => !client.ids.has(id))
    await until(
      () => lacking().length === 0,
      () => `${lacking().length} of ${clients.length} lack row ${id}`,
    )
  },
  latencies() {
    const sorted = latencies.sort((a, b) => a - b)
    latencies = []
    const at = (part: number): number =>
      (sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? 0) / 1000
    return { count: sorted.length, p50: at(0.5), p99: at(0.99), most: at(1) }
  },
  leave() {
    for (const client of clients.splice(0)) client.leave()
  },
  /** What each has been told, in the order in which they came. */
  told: () => clients.map(({ ids }) => ({ rows: ids.size, sum: [...ids].reduce((sum, id) => sum + id, 0) })),
  faults: () => faults,
  putOff() {
    const counts = putOff
    putOff = {}
    return counts
  },
}
export type ClientAnswers = typeof answers

answer(answers)
