// The clients of a measurement, many sockets in one process: raw TCP, one read buffer for all, and nothing decoded that
// nobody asked for, so that the client is not what limits the figure.
import { closeSync, openSync, readSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { answer } from './child.ts'

export interface Connect {
  /** `changes` and `phoenix`: events of changes, by our own frames and by Supabase's. */
  readonly kind: 'tidegate' | 'changes' | 'phoenix' | 'sse' | 'bare' | 'socket.io'
  readonly port: number
  readonly creditPort: number | null
  readonly count: number
  /** One each, or one for all. */
  readonly tokens: readonly string[]
  /** The `filter`, `select` and table of a live query. */
  readonly table: string
  readonly filter: string
  readonly select: string | null
  /** Live queries of each socket but the first, which has one; those beyond the first differ in their filter. */
  readonly queries?: number
}

type Mode = 'joining' | 'learning' | 'counting' | 'rows' | 'latency'

const buffer = Buffer.allocUnsafeSlow(256 * 1024)
const sockets: Reader[] = []
let mode: Mode = 'joining'
/** Bytes of one delivery on the wire; 0 until learned. */
let deliveryBytes = 0
let received = 0
let broadcast = 0
let credited = 0
let creditSocket: Socket | null = null
let lastText = ''
let latencies: number[] = []
let gate: Gate | null = null
let wake: () => void = () => {}

async function until(condition: () => boolean, what: string, timeoutMs = 300_000): Promise<void> {
  const deadline = Date.now() + timeoutMs
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`timed out: ${what}; ${received} received`)
    await Promise.race([
      new Promise<void>(resolve => (wake = resolve)),
      new Promise(resolve => setTimeout(resolve, 50)),
    ])
  }
}

/** Counts deliveries in, and says so for every whole broadcast. */
function count(deliveries: number): void {
  received += deliveries
  if (mode !== 'counting') {
    wake()
    return
  }
  const whole = Math.floor(received / broadcast)
  if (whole === credited) return
  creditSocket!.write(Buffer.alloc(whole - credited))
  credited = whole
  gate?.pass()
}

interface GateOptions {
  readonly path: string
  readonly turns: number
}

/** Lets this process read only between two broadcasts of the sender, never while it writes one: what a write costs then does
 *  not hang on how much the other end of loopback TCP does with the same socket at the same moment. */
class Gate {
  readonly #fd: number
  readonly #turns: number
  #turn = 0

  constructor({ path, turns }: GateOptions) {
    this.#fd = openSync(path, 'r+')
    this.#turns = turns
  }

  /** A broadcast has been received whole: blocks until the next has been written. The first came through an open gate. */
  pass(): void {
    this.#turn += 1
    if (this.#turn === this.#turns) return
    if (this.#turn === 1) readSync(this.#fd, Buffer.alloc(1))
    readSync(this.#fd, Buffer.alloc(1))
  }

  close(): void {
    closeSync(this.#fd)
  }
}

/** First bytes of frames. */
const textFrame = 0x81
const ping = 0x89
const pong = 0x8a

const phoenixTopic = 'realtime:bench'
const phoenixChange = `[null,null,"${phoenixTopic}","postgres_changes",`

abstract class Reader {
  readonly socket: Socket
  joined = false
  rows = 0
  #rest: Buffer | null = null

  constructor(port: number) {
    this.socket = connect({
      port,
      host: '127.0.0.1',
      onread: {
        buffer,
        callback: bytes => {
          this.#take(bytes)
          return true
        },
      },
    })
    this.socket.setNoDelay(true)
    this.socket.on('error', error => process.stderr.write(`a client's socket broke: ${error.message}\n`))
  }

  /** One frame or event, without its framing. */
  protected abstract message(text: string, wireBytes: number): void
  /** @returns how many bytes of `bytes`, from `at`, the next message takes; 0 when it is not whole */
  protected abstract lengthAt(bytes: Buffer, at: number): number
  protected abstract textOf(bytes: Buffer, at: number, length: number): string

  #take(length: number): void {
    if (mode === 'counting' && this.#rest === null && length % deliveryBytes === 0) {
      count(length / deliveryBytes)
      return
    }
    let bytes = buffer.subarray(0, length)
    if (this.#rest !== null) bytes = Buffer.concat([this.#rest, bytes])
    let at = 0
    for (let next = this.lengthAt(bytes, at); next > 0; next = this.lengthAt(bytes, at)) {
      if (mode === 'counting' && next === deliveryBytes) count(1)
      else this.message(this.textOf(bytes, at, next), next)
      at += next
    }
    this.#rest = at === bytes.length ? null : Buffer.from(bytes.subarray(at))
  }

  protected delivered(text: string, wireBytes: number): void {
    if (mode === 'learning') {
      deliveryBytes = wireBytes
      lastText = text
      count(1)
    } else if (mode === 'rows') {
      const rows = text.split('"op":"insert"').length - 1
      this.rows += rows
      count(rows)
    } else if (mode === 'latency') {
      const now = (performance.timeOrigin + performance.now()) * 1000
      for (const match of text.matchAll(/"sent_us":(\d+)/g)) latencies.push(now - Number(match[1]))
    }
  }
}

class WebSocketReader extends Reader {
  #upgraded = false
  readonly #greetings: readonly string[]
  #snapshots = 0
  readonly #kind: Connect['kind']

  constructor({
    port,
    kind,
    token,
    greetings,
  }: { port: number; kind: Connect['kind']; token: string; greetings: readonly string[] }) {
    super(port)
    this.#kind = kind
    this.#greetings = greetings
    const path =
      kind === 'socket.io'
        ? '/socket.io/?EIO=4&transport=websocket'
        : kind === 'phoenix'
          ? `/realtime/v1/websocket?apikey=${token}&vsn=2.0.0`
          : '/v1/socket'
    const authorization = token === '' || kind === 'phoenix' ? '' : `Authorization: Bearer ${token}\r\n`
    this.socket.write(
      `GET ${path} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
        `Sec-WebSocket-Key: ${Buffer.from('0123456789abcdef').toString('base64')}\r\nSec-WebSocket-Version: 13\r\n${authorization}\r\n`,
    )
  }

  protected lengthAt(bytes: Buffer, at: number): number {
    if (!this.#upgraded) {
      const end = bytes.indexOf('\r\n\r\n', at)
      return end < 0 ? 0 : end + 4 - at
    }
    if (bytes.length < at + 2) return 0
    const short = bytes[at + 1]!
    if (short < 126) return bytes.length >= at + 2 + short ? 2 + short : 0
    if (bytes.length < at + 10) return 0
    const length = short === 126 ? 4 + bytes.readUInt16BE(at + 2) : 10 + Number(bytes.readBigUInt64BE(at + 2))
    return bytes.length >= at + length ? length : 0
  }

  protected textOf(bytes: Buffer, at: number, length: number): string {
    if (!this.#upgraded) return bytes.toString('latin1', at, at + length)
    const short = bytes[at + 1]!
    const from = at + (short < 126 ? 2 : short === 126 ? 4 : 10)
    if (bytes[at] === ping) {
      this.#write(pong, bytes.subarray(from, at + length))
      return ''
    }
    return bytes.toString('utf8', from, at + length)
  }

  protected message(text: string, wireBytes: number): void {
    if (!this.#upgraded) {
      if (!text.startsWith('HTTP/1.1 101')) throw new Error(`the server refused: ${text}`)
      this.#upgraded = true
      if (this.#kind === 'bare') this.joined = true
      else for (const greeting of this.#greetings) this.#send(greeting)
    } else if (this.#kind === 'socket.io') {
      if (text.startsWith('40')) this.joined = true
      else if (text.startsWith('42')) this.delivered(text, wireBytes)
      else if (text === '2') this.#send('3')
    } else if (this.#kind === 'bare') this.delivered(text, wireBytes)
    else if (this.#kind === 'phoenix') this.#phoenix(text, wireBytes)
    else if (text.startsWith('{"type":"change"')) this.delivered(text, wireBytes)
    else if (text.startsWith('{"type":"subscribed"')) this.joined ||= this.#kind === 'changes'
    else if (text.startsWith('{"type":"delta"')) this.delivered(text, wireBytes)
    else if (text.startsWith('{"type":"snapshot"')) {
      if (text.includes('"done":true')) this.#snapshots += 1
      this.joined ||= this.#snapshots === this.#greetings.length
    } else if (text.startsWith('{"type":"error"') || text.startsWith('{"type":"resync"')) throw new Error(text)
    wake()
  }

  /** `[join_ref,ref,topic,event,payload]` */
  #phoenix(text: string, wireBytes: number): void {
    if (text.startsWith(phoenixChange)) this.delivered(text, wireBytes)
    else if (text.includes('"phx_reply",{"status":"ok"')) this.joined = true
    else if (text.includes('"status":"error"') || text.includes('"phx_error"')) throw new Error(text)
  }

  #send(text: string): void {
    this.#write(textFrame, Buffer.from(text))
  }

  /** A masked frame of less than 126 bytes, or of less than 64 KiB. */
  #write(kind: number, body: Buffer): void {
    const head = body.length < 126 ? [kind, 0x80 | body.length] : [kind, 0xfe, body.length >> 8, body.length & 0xff]
    this.socket.write(Buffer.concat([Buffer.from([...head, 0, 0, 0, 0]), body]))
  }
}

class EventStreamReader extends Reader {
  #answered = false

  constructor({ port, token, path }: { port: number; token: string; path: string }) {
    super(port)
    this.socket.write(
      `GET ${path} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nAccept: text/event-stream\r\nAuthorization: Bearer ${token}\r\n\r\n`,
    )
  }

  protected lengthAt(bytes: Buffer, at: number): number {
    const separator = this.#answered ? '\n\n' : '\r\n\r\n'
    const end = bytes.indexOf(separator, at)
    return end < 0 ? 0 : end + separator.length - at
  }

  protected textOf(bytes: Buffer, at: number, length: number): string {
    return bytes.toString('utf8', at, at + length)
  }

  protected message(text: string, wireBytes: number): void {
    if (!this.#answered) {
      if (!text.startsWith('HTTP/1.1 200')) throw new Error(`the server refused: ${text}`)
      this.#answered = true
    } else if (text.startsWith('event: delta')) this.delivered(text, wireBytes)
    else if (text.startsWith('event: snapshot')) this.joined ||= text.includes('"done":true')
    else if (text.startsWith('event: error') || text.startsWith('event: resync')) throw new Error(text)
    wake()
  }
}

function greetingsOf({ kind, table, filter, select, queries = 1 }: Connect, i: number): string[] {
  if (kind === 'bare') return []
  if (kind === 'socket.io') return ['40']
  if (kind === 'changes') return [JSON.stringify({ type: 'subscribe', id: 1, kind, table, filter })]
  if (kind === 'phoenix') {
    const binding = { event: '*', schema: 'public', table, ...(filter === '' ? {} : { filter }) }
    return [JSON.stringify(['1', '1', phoenixTopic, 'phx_join', { config: { postgres_changes: [binding] } }])]
  }
  return Array.from({ length: i === 0 ? 1 : queries }, (_, query) => {
    const frame = {
      type: 'subscribe',
      id: query + 1,
      kind: 'live',
      table,
      filter: query === 0 ? filter : `id=gt.${query}`,
    }
    return JSON.stringify(select === null ? frame : { ...frame, select: select.split(',') })
  })
}

function open(options: Connect, i: number): Reader {
  const { kind, port, tokens, table, filter, select } = options
  const token = tokens.length === 0 ? '' : tokens[i % tokens.length]!
  if (kind !== 'sse') return new WebSocketReader({ port, kind, token, greetings: greetingsOf(options, i) })
  const query = [filter, select === null ? '' : `select=${select}`].filter(part => part !== '').join('&')
  return new EventStreamReader({ port, token, path: `/v1/live/${table}?${query}` })
}

const percentile = (sorted: readonly number[], p: number): number =>
  sorted[Math.min(sorted.length - 1, Math.floor((sorted.length * p) / 100))] ?? Number.NaN

answer(
  {
    async connect(options: Connect) {
      mode = 'joining'
      for (const reader of sockets.splice(0)) reader.socket.destroy()
      if (options.creditPort !== null)
        creditSocket = connect({ port: options.creditPort, host: '127.0.0.1', noDelay: true })
      // So many at a time that the listening queue of a server does not overflow.
      for (let from = 0; from < options.count; from += 200) {
        const batch: Reader[] = []
        for (let i = from; i < Math.min(from + 200, options.count); i++) batch.push(open(options, i))
        sockets.push(...batch)
        await until(() => batch.every(reader => reader.joined), `joining of ${from}`)
      }
    },
    /** Learns a delivery's size from the next one, which everybody gets. */
    learn() {
      mode = 'learning'
      received = 0
    },
    async learned({ deliveries }: { deliveries: number }) {
      await until(() => received >= deliveries, 'the first delivery')
      return { deliveryBytes, text: lastText }
    },
    count({ perBroadcast, gate: through = null }: { perBroadcast: number; gate?: GateOptions | null }) {
      mode = 'counting'
      received = 0
      credited = 0
      broadcast = perBroadcast
      gate?.close()
      gate = through === null ? null : new Gate(through)
    },
    received: () => received,
    rows() {
      mode = 'rows'
      received = 0
      for (const reader of sockets) reader.rows = 0
    },
    /** Resolves when so many rows have come. @returns rows by socket */
    async rowsReceived({ rows }: { rows: number }) {
      await until(() => received >= rows, `${rows} rows`)
      return sockets.map(reader => reader.rows)
    },
    latency() {
      mode = 'latency'
      latencies = []
    },
    /** @param deliveries to wait for: more, or fewer, are an error */
    async latencies({ deliveries = null }: { deliveries?: number | null }) {
      if (deliveries !== null) {
        await until(() => latencies.length >= deliveries, `${deliveries} timed deliveries`)
        if (latencies.length > deliveries)
          throw new Error(`${latencies.length} deliveries came; ${deliveries} were owed`)
      }
      const sorted = latencies.sort((a, b) => a - b)
      latencies = []
      const at = (p: number): number => percentile(sorted, p) / 1000
      return { deliveries: sorted.length, p50: at(50), p90: at(90), p99: at(99), p999: at(99.9) }
    },
  },
  () => {},
)
