// One member of a channel, ours or Socket.IO's: raw TCP, one read buffer for all of a thread, frames told apart by their first bytes.
import { connect as open, type Socket } from 'node:net'

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

/** What a member is told. */
export interface Told {
  opened(): void
  joined(): void
  delivered(text: () => string): void
  present(): void
}

const buffer = Buffer.allocUnsafeSlow(256 * 1024)

export class Member {
  isOpen = false
  hasJoined = false
  readonly #socket: Socket
  readonly #members: Members
  readonly #told: Told
  #isUpgraded = false
  #rest: Buffer | null = null

  constructor(of: Members, i: number, told: Told) {
    this.#members = of
    this.#told = told
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
      this.#told.opened()
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
    else if (letter === 'p') this.#told.present()
    else if (letter === 'e' || letter === 'g') throw new Error(bytes.toString('utf8', from, to))
  }

  #joined(): void {
    this.hasJoined = true
    this.#told.joined()
  }

  #delivered(bytes: Buffer, from: number, to: number): void {
    this.#told.delivered(() => bytes.toString('latin1', from, to))
  }

  /** A masked text frame of less than 64 KiB. */
  #send(text: string): void {
    const body = Buffer.from(text)
    const head = body.length < 126 ? [0x81, 0x80 | body.length] : [0x81, 0xfe, body.length >> 8, body.length & 0xff]
    this.#socket.write(Buffer.concat([Buffer.from([...head, 0, 0, 0, 0]), body]))
  }
}
