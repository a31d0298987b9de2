// When to read from the socket. A walsender makes one send() per row; a reader that wakes for each makes it twice as
// dear for both. So while behind, let the kernel gather for a millisecond and read it in one gulp; while not behind,
// read at once. And when nobody takes what was read, do not read at all.
//
// Drains of one backlog from PostgreSQL 15 over TCP on two busy cores, medians, rows/s and our CPU per row:
//   300,000 inserts, 1,000 a commit: 525,000 at 0.46 µs; without gathering 405,000 at 1.4 µs; pg_recvlogical 390,000
//   100,000 commits of one insert:   167,000 at 1.6 µs;  without gathering 106,000 at 2.1 µs; pg_recvlogical 116,000
// Gathering for 2 ms gained nothing, for 4 ms the window ran full (155,000).
import { Socket } from 'node:net'
import type { CopyStream } from './status-update.ts'

const bufferBytes = 256 * 1024
/** This many messages within a millisecond is a drain. 5,000 small commits a second are 20 and must not wait. */
const behindMessages = 64
const gulpMs = 1

export interface GulpReaderOptions {
  /** True while no more may be read. */
  readonly isFull: () => boolean
  /** Messages received in all. */
  readonly received: () => number
}

export class GulpReader {
  readonly #options: GulpReaderOptions
  #stream: CopyStream | null = null
  #onread = false
  #isTcp = false
  #lastReadAt = performance.now()
  #windowStart = 0
  #windowReceived = 0
  #gathering: NodeJS.Timeout | null = null
  #held = false

  constructor(options: GulpReaderOptions) {
    this.#options = options
  }

  /** The socket for node-postgres, which calls this as its `stream` option. TLS reads the handle itself, so there the
   *  plain socket is only carried, and reading is plain. */
  readonly socket = (config?: { ssl?: unknown }): Socket => {
    if (config?.ssl) return new Socket()
    const buffer = Buffer.allocUnsafeSlow(bufferBytes)
    const socket: Socket = new Socket({
      onread: {
        buffer,
        callback: bytes => {
          // A copy, because the parser keeps the unfinished rest and the next read overwrites the buffer.
          socket.emit('data', Buffer.from(buffer.subarray(0, bytes)))
          return this.#mayReadOn(bytes)
        },
      },
    })
    this.#onread = true
    return socket
  }

  /** From here on reads are counted and held; before, during the handshake, they are not. */
  attach(stream: CopyStream): void {
    this.#stream = stream
    this.#lastReadAt = performance.now()
    // Over a Unix socket, whose buffer is small, gathering costs ten times what it saves.
    this.#isTcp = stream instanceof Socket && stream.remoteAddress !== undefined
    if (this.#onread) return
    stream.on('data', () => {
      this.#lastReadAt = performance.now()
      if (this.#options.isFull()) this.#hold()
    })
  }

  /** True while the consumer's backpressure keeps the socket unread. */
  get isHeld(): boolean {
    return this.#held
  }

  /** Milliseconds since anything came, 0 while not reading. */
  silentMs(now: number): number {
    return this.#held ? 0 : now - this.#lastReadAt
  }

  /** The consumer took everything. */
  resume(): void {
    if (!this.#held) return
    this.#held = false
    this.#lastReadAt = performance.now()
    this.#stream?.resume()
  }

  stop(): void {
    if (this.#gathering !== null) clearTimeout(this.#gathering)
    this.#gathering = null
    this.#held = false
    this.#stream = null
  }

  /** @returns false to stop reading until `resume` of the socket, as net's `onread` wants it */
  #mayReadOn(bytes: number): boolean {
    if (this.#stream === null) return true
    const now = performance.now()
    this.#lastReadAt = now
    if (this.#options.isFull()) {
      this.#hold()
      return false
    }
    // More is there already: gathering would only let the window run full.
    if (bytes === bufferBytes || !this.#isTcp) return true
    const received = this.#options.received()
    const inWindow = received - this.#windowReceived
    if (inWindow < behindMessages) {
      if (now - this.#windowStart > gulpMs) this.#startWindow(now, received)
      return true
    }
    this.#startWindow(now, received)
    this.#gathering = setTimeout(() => {
      this.#gathering = null
      if (!this.#held) this.#stream?.resume()
    }, gulpMs)
    return false
  }

  #startWindow(now: number, received: number): void {
    this.#windowStart = now
    this.#windowReceived = received
  }

  #hold(): void {
    this.#held = true
    this.#stream?.pause()
  }
}
