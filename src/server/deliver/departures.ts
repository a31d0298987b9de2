// Which connections this node gave up, for the log: the first of its kind at once, and those that follow within a minute as one
// number. A network that drops ten thousand phones is one event, and must not be ten thousand lines.
import { type PeerCode, peerCodes } from '../../protocol/codes.ts'
import type { Log } from '../log/log.ts'

export type Wire = 'WebSocket' | 'event stream' | 'long-poll'
type Fault = Extract<PeerCode, 'HEARTBEAT_MISSED' | 'SLOW_CONSUMER'>

const togetherMs = 60_000

export class Departures {
  readonly #log: Log
  readonly #togetherMs: number
  /** How many are not told yet, by code: at most the two. */
  readonly #untold = new Map<Fault, number>()

  constructor(log: Log, options: { togetherMs?: number } = {}) {
    this.#log = log
    this.#togetherMs = options.togetherMs ?? togetherMs
  }

  gaveUp(code: Fault, wire: Wire): void {
    const untold = this.#untold.get(code)
    if (untold !== undefined) {
      this.#untold.set(code, untold + 1)
      return
    }
    this.#log.info(
      { code, wire },
      `closed: ${peerCodes[code].meaning} Its client may come back and resume; further ones are told together, once a minute`,
    )
    this.#count(code)
  }

  #count(code: Fault): void {
    this.#untold.set(code, 0)
    setTimeout(() => {
      const count = this.#untold.get(code) ?? 0
      this.#untold.delete(code)
      if (count === 0) return
      this.#log.info({ code, count }, `closed ${count} more: ${peerCodes[code].meaning}`)
      this.#count(code)
    }, this.#togetherMs).unref()
  }
}
