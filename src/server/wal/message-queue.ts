// What has been read from the walsender and not been taken yet. Bounded by bytes: when it is full, the socket is not
// read, Postgres's send blocks, and the rest stays in the database's WAL.
import type { WalMessage } from './wal-source.ts'

const slabBytes = 256 * 1024

/** A message whose position becomes a bigint when someone asks: at 300,000 messages a second hardly anyone does. */
class ReceivedMessage implements WalMessage {
  readonly data: Buffer | null
  readonly #high: number
  readonly #low: number

  constructor(data: Buffer | null, high: number, low: number) {
    this.data = data
    this.#high = high
    this.#low = low
  }

  get walEnd(): bigint {
    return lsnOf(this.#high, this.#low)
  }
}

export class MessageQueue {
  readonly #maxBytes: number
  #messages: ReceivedMessage[] = []
  #bytes = 0
  #received = 0
  #lastHigh = 0
  #lastLow = 0
  #wake: (() => void) | null = null

  /** @param maxBytes what may wait; one message more than it may come in, as what was read from the socket is kept */
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes
  }

  /** @param high the upper 32 bits of the message's position */
  push(data: Buffer | null, high: number, low: number): void {
    this.#messages.push(new ReceivedMessage(data, high, low))
    this.#bytes += data === null ? 0 : data.length
    this.#received += 1
    this.#lastHigh = high
    this.#lastLow = low
    this.#wake?.()
  }

  get isEmpty(): boolean {
    return this.#messages.length === 0
  }

  get isFull(): boolean {
    return this.#bytes >= this.#maxBytes
  }

  get bytes(): number {
    return this.#bytes
  }

  /** Messages received in all. */
  get received(): number {
    return this.#received
  }

  /** Position of the message received last. */
  get lastLsn(): bigint {
    return lsnOf(this.#lastHigh, this.#lastLow)
  }

  /** Everything that waits, in order. */
  take(): readonly WalMessage[] {
    const messages = this.#messages
    this.#messages = []
    this.#bytes = 0
    return messages
  }

  /** Resolves at the next message, or at `rouse`. */
  changed(): Promise<void> {
    return new Promise(resolve => {
      this.#wake = () => {
        this.#wake = null
        resolve()
      }
    })
  }

  rouse(): void {
    this.#wake?.()
  }
}

const lsnOf = (high: number, low: number): bigint => (BigInt(high) << 32n) | BigInt(low)

/** Copies messages out of the parser's buffer into slabs. Without it a message that waits would change under its holder:
 *  pg-protocol moves the unfinished rest of a read to the front of the same buffer. */
export class MessageCopier {
  #slab = Buffer.allocUnsafeSlow(slabBytes)
  #used = 0

  /** @param from where in `bytes` the message begins */
  copy(bytes: Buffer, from: number): Buffer {
    const length = bytes.length - from
    // A large one alone, or it would throw away most of a slab.
    if (length > slabBytes / 8) return Buffer.from(bytes.subarray(from))
    if (this.#used + length > slabBytes) {
      this.#slab = Buffer.allocUnsafeSlow(slabBytes)
      this.#used = 0
    }
    const start = this.#used
    this.#used = start + length
    bytes.copy(this.#slab, start, from)
    return this.#slab.subarray(start, this.#used)
  }
}
