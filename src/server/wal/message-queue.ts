// What has been read from the walsender and not been taken yet. Bounded by bytes: when it is full, the socket is not
// read, Postgres's send blocks, and the rest stays in the database's WAL.
import { parseLsn } from './lsn.ts'
import type { WalMessage } from './wal-source.ts'

const slabBytes = 256 * 1024

/** A message whose position is parsed when someone asks: at 300,000 messages a second hardly anyone does. */
class ReceivedMessage implements WalMessage {
  readonly data: Buffer | null
  readonly walEndText: string

  constructor(data: Buffer | null, walEndText: string) {
    this.data = data
    this.walEndText = walEndText
  }

  get walEnd(): bigint {
    return parseLsn(this.walEndText)
  }
}

export class MessageQueue {
  readonly #maxBytes: number
  #messages: ReceivedMessage[] = []
  #bytes = 0
  #received = 0
  #lastText = '0/0'
  #wake: (() => void) | null = null

  /** @param maxBytes what may wait; one message more than it may come in, as what was read from the socket is kept */
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes
  }

  push(data: Buffer | null, walEndText: string): void {
    this.#messages.push(new ReceivedMessage(data, walEndText))
    this.#bytes += data === null ? 0 : data.length
    this.#received += 1
    this.#lastText = walEndText
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
    return parseLsn(this.#lastText)
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

/** Copies messages out of the parser's buffer into slabs. Without it a message that waits would change under its holder:
 *  pg-protocol moves the unfinished rest of a read to the front of the same buffer. */
export class MessageCopier {
  #slab = Buffer.allocUnsafeSlow(slabBytes)
  #used = 0

  copy(bytes: Buffer): Buffer {
    // A large one alone, or it would throw away most of a slab.
    if (bytes.length > slabBytes / 8) return Buffer.from(bytes)
    if (this.#used + bytes.length > slabBytes) {
      this.#slab = Buffer.allocUnsafeSlow(slabBytes)
      this.#used = 0
    }
    const end = this.#used + bytes.length
    const copy = this.#slab.subarray(this.#used, end)
    copy.set(bytes)
    this.#used = end
    return copy
  }
}
