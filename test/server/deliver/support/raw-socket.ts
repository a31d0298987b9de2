// A WebSocket client by hand, for what no well-behaved client sends, and for counting what arrives.
import { connect, type Socket } from 'node:net'
import type { TestGateway } from './gateway.ts'

export class RawSocket implements AsyncDisposable {
  readonly socket: Socket
  readonly chunks: Buffer[] = []
  readonly closed: Promise<void>
  head = ''

  private constructor(socket: Socket) {
    this.socket = socket
    this.closed = new Promise(resolve => socket.on('close', () => resolve()))
    socket.on('error', () => {})
  }

  /** Sends bytes and collects whatever comes. */
  static async connect({ port }: TestGateway, text: string): Promise<RawSocket> {
    const socket = connect(port, '127.0.0.1')
    const raw = new RawSocket(socket)
    await new Promise(resolve => socket.on('connect', resolve))
    socket.write(text)
    socket.on('data', chunk => raw.chunks.push(chunk))
    return raw
  }

  static async upgrade(node: TestGateway, token: string, headers = ''): Promise<RawSocket> {
    const raw = await RawSocket.connect(
      node,
      `GET /v1/socket HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer ${token}\r\n${headers}\r\n`,
    )
    await raw.until(text => text.includes('"welcome"'))
    raw.chunks.length = 0
    return raw
  }

  get text(): string {
    return Buffer.concat(this.chunks).toString('latin1')
  }

  async until(fits: (text: string) => boolean): Promise<void> {
    while (!fits(this.text)) {
      if (this.socket.destroyed) throw new Error(`closed after ${JSON.stringify(this.text)}`)
      await new Promise(resolve => setTimeout(resolve, 2))
    }
  }

  /** The code of the close frame that came last, once the connection is closed. */
  async closeCode(): Promise<number | null> {
    await this.closed
    let code: number | null = null
    for (const { opcode, payload } of framesOf(Buffer.concat(this.chunks))) {
      if (opcode === 8) code = payload.readUInt16BE(0)
    }
    return code
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.socket.destroy()
    await this.closed
  }
}

/** A client's frame, masked with zeros. */
export function clientFrame(payload: string | Buffer, { opcode = 1, fin = true, masked = true } = {}): Buffer {
  const data = Buffer.from(payload)
  const mask = masked ? 0x80 : 0
  const head = [fin ? 0x80 | opcode : opcode]
  if (data.length < 126) head.push(mask | data.length)
  else if (data.length < 65536) head.push(mask | 126, data.length >> 8, data.length & 255)
  else
    head.push(
      mask | 127,
      0,
      0,
      0,
      0,
      (data.length >>> 24) & 255,
      (data.length >> 16) & 255,
      (data.length >> 8) & 255,
      data.length & 255,
    )
  return Buffer.concat([Buffer.from(head), Buffer.alloc(masked ? 4 : 0), data])
}

/** The whole frames in a server's bytes. */
export function framesOf(bytes: Buffer): { opcode: number; payload: Buffer }[] {
  const frames: { opcode: number; payload: Buffer }[] = []
  let at = 0
  while (at + 2 <= bytes.length) {
    const short = bytes[at + 1]!
    const size = short < 126 ? 2 : short === 126 ? 4 : 10
    if (at + size > bytes.length) break
    const length =
      short < 126 ? short : short === 126 ? bytes.readUInt16BE(at + 2) : Number(bytes.readBigUInt64BE(at + 2))
    if (at + size + length > bytes.length) break
    frames.push({ opcode: bytes[at]! & 15, payload: bytes.subarray(at + size, at + size + length) })
    at += size + length
  }
  return frames
}
