// Transactions that somebody waits for, until everything they did has reached this client.
import type { ClientFrame, ServerFrame } from '../../protocol/messages.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'

interface Wait {
  readonly txid: string
  readonly resolve: () => void
  readonly reject: (error: TidegateError) => void
  /** Where its commit is in the stream, once the server has said so. */
  position: string | null
  /** Asks once more. */
  timer?: ReturnType<typeof setTimeout>
}

export interface WaitsOptions {
  readonly send: (frame: ClientFrame) => void
  /** Whether every query has what was committed up to there. */
  readonly reached: (position: string) => boolean
}

/** As many as the application waits for, each for its `timeoutMs` at most. */
export class Waits {
  readonly #options: WaitsOptions
  readonly #waits = new Map<number, Wait>()
  #lastRef = 0

  constructor(options: WaitsOptions) {
    this.#options = options
  }

  async add(txid: string, timeoutMs: number): Promise<void> {
    const ref = ++this.#lastRef
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const wait: Wait = { txid, resolve, reject, position: null }
    this.#waits.set(ref, wait)
    const late = new TidegateError('WAIT_TIMEOUT', `transaction ${txid} has not reached this client in ${timeoutMs} ms`)
    const timer = setTimeout(reject, timeoutMs, late)
    this.#send(ref, txid)
    try {
      await promise
    } finally {
      clearTimeout(timer)
      clearTimeout(wait.timer)
      this.#waits.delete(ref)
    }
  }

  /** Those that no answer has come for are asked of the new connection. */
  sendAll(): void {
    for (const [ref, { txid, position }] of this.#waits) if (position === null) this.#send(ref, txid)
  }

  receive(frame: ServerFrame): void {
    if (this.#waits.size === 0) return
    if (frame.type === 'waited') {
      const wait = this.#waits.get(frame.ref)
      if (wait !== undefined) wait.position = frame.position
    } else if (frame.type === 'error' && frame.id === undefined && typeof frame.ref === 'number') {
      const { ref, code, message, retry, retryAfterMs = 1000 } = frame
      const wait = this.#waits.get(ref)
      if (wait !== undefined && retry) wait.timer = setTimeout(() => this.#send(ref, wait.txid), retryAfterMs)
      else wait?.reject(new TidegateError(code as 'TXID_INVALID', message))
    }
    for (const { position, resolve } of this.#waits.values()) {
      if (position !== null && this.#options.reached(position)) resolve()
    }
  }

  end(): void {
    const closed = new TidegateError('CLIENT_CLOSED', 'the client was closed or logged out while it waited')
    for (const { reject } of this.#waits.values()) reject(closed)
  }

  #send(ref: number, txid: string): void {
    this.#options.send({ type: 'wait', ref, txid })
  }
}
