// Members of one channel, many sockets in one process, ours or Socket.IO's: raw TCP, one read buffer for all, frames counted by
// their first bytes. The first socket also sends.
import { connect as open, type Socket } from 'node:net'
import { answer } from './child.ts'

export type Kind = 'tidegate' | 'socket.io'

export interface Members {
  readonly kind: Kind
  /** Of the nodes: members are spread over them evenly. */
  readonly ports: readonly number[]
  readonly count: number
  /** One each, or one for all; none for Socket.IO. */
  readonly tokens: readonly string[]
  readonly topic: string
  readonly presence: boolean
}

export interface Broadcasts {
  readonly count: number
  /** So many are on their way at a time. */
  readonly ahead: number
  /** JSON text. */
  readonly payload: string
}

export interface Latencies {
  readonly deliveries: number
  /** Milliseconds from the sender's clock to the member's. */
  readonly p50: number
  readonly p99: number
  readonly max: number
}

const buffer = Buffer.allocUnsafeSlow(256 * 1024)
const members: Member[] = []
let received = 0
let present = 0
let isTimed = false
let latencies: number[] = []
let wake: () => void = () => {}

const microsNow = (): number => Math.round((performance.timeOrigin + performance.now()) * 1000)

async function until(condition: () => boolean, what: string, timeoutMs = 180_000): Promise<void> {
  const deadline = Date.now() + timeoutMs
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`timed out: ${what}; ${received} received`)
    let timer: NodeJS.Timeout | undefined
    await Promise.race([
      new Promise<void>(resolve => (wake = resolve)),
      new Promise(resolve => (timer = setTimeout(resolve, 50))),
    ])
    clearTimeout(timer)
  }
}

class Member {
  isOpen = false
  hasJoined = false
  readonly #socket: Socket
  readonly #members: Members
  #isUpgraded = false
  #rest: Buffer | null = null

  constructor(of: Members, i: number) {
    this.#members = of
    const port = of.ports[i % of.ports.length]!
    const token = of.tokens.length === 0 ? null : of.tokens[i % of.tokens.length]!
    this.#socket = open({
      ...{ port, host: '127.0.0.1', noDelay: true },
      onread: {
        buffer,
        callback: length => {
          this.#take(length)
          return true
        },
      },
    })
    this.#socket.on('error', error => process.stderr.write(`a member's socket broke: ${error.message}\n`))
    const path = of.kind === 'socket.io' ? '/socket.io/?EIO=4&transport=websocket' : '/v1/socket'
    const lines = [
      `GET ${path} HTTP/1.1`,
      ...[`Host: 127.0.0.1:${port}`, 'Upgrade: websocket', 'Connection: Upgrade', 'Sec-WebSocket-Version: 13'],
      `Sec-WebSocket-Key: ${Buffer.from('0123456789abcdef').toString('base64')}`,
      ...(token === null ? [] : [`Authorization: Bearer ${token}`]),
    ]
    this.#socket.write(`${lines.join('\r\n')}\r\n\r\n`)
  }

  join(): void {
    const { kind, topic, presence } = this.#members
    if (kind === 'socket.io') this.#send('40')
    else {
      const track = presence ? { presence, track: { meta: {} } } : {}
      this.#send(JSON.stringify({ type: 'join', id: 1, topic, self: true, ...track }))
    }
  }

  send(payload: string): void {
    const { kind } = this.#members
    this.#send(
      kind === 'socket.io' ? `42["send",${payload}]` : `{"type":"send","id":1,"event":"m","payload":${payload}}`,
    )
  }

  destroy(): void {
    this.#socket.destroy()
  }

  #take(length: number): void {
    let bytes = buffer.subarray(0, length)
    if (this.#rest !== null) bytes = Buffer.concat([this.#rest, bytes])
    let at = 0
    if (!this.#isUpgraded) {
      at = bytes.indexOf('\r\n\r\n') + 4
      if (at < 4 || !bytes.toString('latin1', 0, 12).endsWith('101')) throw new Error(bytes.toString('latin1'))
      this.#isUpgraded = true
      this.isOpen = true
      wake()
    }
    while (bytes.length >= at + 2) {
      const short = bytes[at + 1]!
      const head = short < 126 ? 2 : short === 126 ? 4 : 10
      if (bytes.length < at + head) break
      const body =
        short < 126 ? short : short === 126 ? bytes.readUInt16BE(at + 2) : Number(bytes.readBigUInt64BE(at + 2))
      if (bytes.length < at + head + body) break
      this.#frame(bytes, at + head, at + head + body)
      at += head + body
    }
    this.#rest = at === bytes.length ? null : Buffer.from(bytes.subarray(at))
  }

  #frame(bytes: Buffer, from: number, to: number): void {
    if (this.#members.kind === 'socket.io') {
      // `42[...]` is an event, `40` that it is connected, `2` a ping.
      if (bytes[from + 1] === 0x32) this.#delivered(bytes, from, to)
      else if (bytes[from + 1] === 0x30) this.#joined()
      else if (bytes[from] === 0x32) this.#send('3')
      return
    }
    // The letter after `{"type":"`.
    const letter = String.fromCharCode(bytes[from + 9]!)
    if (letter === 'm') this.#delivered(bytes, from, to)
    else if (letter === 'j') this.#joined()
    else if (letter === 'p') present += 1
    else if (letter === 'e' || letter === 'g') throw new Error(bytes.toString('utf8', from, to))
  }

  #joined(): void {
    this.hasJoined = true
    wake()
  }

  #delivered(bytes: Buffer, from: number, to: number): void {
    received += 1
    if (isTimed) {
      const sent = /"sent_us":(\d+)/.exec(bytes.toString('latin1', from, to))
      if (sent !== null) latencies.push(microsNow() - Number(sent[1]))
    }
    wake()
  }

  /** A masked text frame of less than 64 KiB. */
  #send(text: string): void {
    const body = Buffer.from(text)
    const head = body.length < 126 ? [0x81, 0x80 | body.length] : [0x81, 0xfe, body.length >> 8, body.length & 0xff]
    this.#socket.write(Buffer.concat([Buffer.from([...head, 0, 0, 0, 0]), body]))
  }
}

async function connect(of: Members): Promise<void> {
  for (const member of members.splice(0)) member.destroy()
  // So many at a time that the listening queue of a server does not overflow.
  for (let from = 0; from < of.count; from += 200) {
    const batch: Member[] = []
    for (let i = from; i < Math.min(from + 200, of.count); i++) batch.push(new Member(of, i))
    members.push(...batch)
    await until(() => batch.every(member => member.isOpen), `opening of ${from}`)
  }
}

answer(
  {
    connect,
    /** All of them, evenly over the time. @returns milliseconds until the last had joined */
    async join({ overMs }: { overMs: number }) {
      const beganAt = performance.now()
      for (const [i, member] of members.entries()) {
        const aheadMs = beganAt + (overMs * i) / members.length - performance.now()
        if (aheadMs > 5) await new Promise(resolve => setTimeout(resolve, aheadMs))
        else if (overMs === 0 && i % 200 === 0)
          await until(() => members.slice(0, i).every(m => m.hasJoined), `joining`)
        member.join()
      }
      await until(() => members.every(member => member.hasJoined), 'joining')
      return performance.now() - beganAt
    },
    /** Resolves when every member has got every one of them. @returns deliveries */
    async broadcast({ count, ahead, payload }: Broadcasts) {
      received = 0
      for (let i = 0; i < count; i++) {
        members[0]!.send(payload)
        await until(() => received >= (i + 1 - (ahead - 1)) * members.length, `broadcast ${i}`)
      }
      await until(() => received >= count * members.length, 'the last broadcast')
      return received
    },
    /** Broadcasts that say when they were sent, and what their members say of it. */
    async timed({ everyMs, forMs }: { everyMs: number; forMs: number }): Promise<Latencies> {
      isTimed = true
      latencies = []
      let sent = 0
      const beganAt = performance.now()
      while (performance.now() - beganAt < forMs) {
        members[0]!.send(`{"sent_us":${microsNow()}}`)
        sent += 1
        await new Promise(resolve => setTimeout(resolve, beganAt + sent * everyMs - performance.now()))
      }
      await until(() => latencies.length >= sent * members.length, 'the last timed broadcast')
      isTimed = false
      const sorted = latencies.sort((a, b) => a - b)
      const at = (p: number): number => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * p))]! / 1000
      return { deliveries: sorted.length, p50: at(0.5), p99: at(0.99), max: at(1) }
    },
    counts: () => ({ received, present }),
  },
  () => {},
)
