// Brings what commits say in channels with history into their histories: in order, once, however often it must be tried. Done by
// the node that leads; the history itself knows which of it came already.
import type { Log } from '../../log/log.ts'
import { repeated } from '../../log/log-repeated.ts'
import type { Draft } from '../message.ts'
import type { ChannelRelay } from '../relay/channel-relay.ts'
import type { ChannelRules } from '../rules.ts'

export interface WalAppenderOptions {
  readonly relay: Pick<ChannelRelay, 'publishAll'>
  readonly rules: ChannelRules
  readonly log: Log
}

/** Characters of payloads that wait: past it the stream of row changes waits too, rather than that one is lost. */
const maxChars = 16 * 1024 * 1024
const atOnce = 200
const leastRetryMs = 100
const mostRetryMs = 5000

export class WalAppender {
  readonly #options: WalAppenderOptions
  #queue: Draft[] = []
  #chars = 0
  #isAppending = false
  #isClosed = false
  #room: (() => void)[] = []

  constructor(options: WalAppenderOptions) {
    this.#options = options
  }

  append(draft: Draft): void {
    if (this.#isClosed) return
    this.#queue.push(draft)
    this.#chars += charsOf(draft)
    if (!this.#isAppending) void this.#run()
  }

  /** Null when there is room. */
  room(): Promise<void> | null {
    if (this.#chars <= maxChars || this.#isClosed) return null
    return new Promise(resolve => this.#room.push(resolve))
  }

  close(): void {
    this.#isClosed = true
    this.#wake()
  }

  async #run(): Promise<void> {
    this.#isAppending = true
    const { relay, rules, log } = this.#options
    let wait = leastRetryMs
    while (this.#queue.length > 0 && !this.#isClosed) {
      const { lsn } = this.#queue[0]!.stamp
      const next = this.#queue.findIndex(({ stamp }) => stamp.lsn !== lsn)
      const drafts = this.#queue.slice(0, Math.min(next < 0 ? this.#queue.length : next, atOnce))
      try {
        await relay.publishAll(drafts, ({ channel }) => ({
          history: rules.of(channel).history,
          idempotency: null,
        }))
      } catch (error) {
        repeated(log).warn({ err: error }, 'messages of a commit could not be appended to their history; trying again')
        await new Promise(resolve => setTimeout(resolve, wait))
        wait = Math.min(2 * wait, mostRetryMs)
        continue
      }
      wait = leastRetryMs
      this.#queue = this.#queue.slice(drafts.length)
      for (const draft of drafts) this.#chars -= charsOf(draft)
      if (this.#chars <= maxChars) this.#wake()
    }
    this.#isAppending = false
  }

  #wake(): void {
    for (const resolve of this.#room.splice(0)) resolve()
  }
}

/** What it takes beside its payload is about as much as 200 characters. */
const charsOf = ({ payload }: Draft): number => payload.length + 200
