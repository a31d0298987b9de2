// Where this node's stream of row changes stands, as channels need it: what was revoked up to there is known here.
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Head } from '../relay/head.ts'
import type { MemoryRelay } from '../relay/memory-relay.ts'
import type { Stamp } from './message.ts'

export interface StreamStandOptions {
  readonly window: Pick<MemoryRelay, 'epoch' | 'life'>
  readonly head: Pick<Head, 'lsn' | 'movedAtMs' | 'change'>
  /** The epoch in which the deployment is, which this node may not have heard of. */
  readonly epochNow: () => Promise<string>
  /** Resolves when the stream has come to where the database was when this was called. */
  readonly caughtUp: () => Promise<void>
  /** Makes the stream move, if it can: writes a message of ours into the WAL. */
  readonly nudge: () => Promise<unknown>
  /** Steady milliseconds. */
  readonly now: () => number
}

/** So long without anything from the stream, and it is not taken for the truth any more. */
const stillMs = 5000
const nudgeMs = 500
const patienceMs = 2000
const lookAgainMs = 100
const maxEpochs = 16

export class StreamStand {
  readonly #options: StreamStandOptions
  #nudgedAtMs = Number.NEGATIVE_INFINITY
  /** Epochs that are over, by which stamps of them are known to be passed. The newest few. */
  readonly #over: string[] = []
  #last = ''
  #isLearning = false
  /** Of the window's life in which the stream had caught up. */
  #caughtUp: { readonly life: number; readonly done: Promise<void> } | null = null

  constructor(options: StreamStandOptions) {
    this.#options = options
  }

  where(): Stamp {
    const { window, head } = this.#options
    return { epoch: window.epoch, lsn: head.lsn }
  }

  /** Whether what the stamp names has been served here. */
  hasPassed({ epoch, lsn }: Stamp): boolean {
    const { window, head } = this.#options
    if (this.#last !== window.epoch) {
      if (this.#last !== '') this.#isOver(this.#last)
      this.#last = window.epoch
    }
    if (lsn === 0n) return true
    if (epoch === window.epoch) return head.lsn >= lsn
    if (this.#over.includes(epoch)) return true
    void this.#learn(epoch)
    return false
  }

  /** What was revoked may not be known here: nothing private is sent or given meanwhile. */
  standsStill(): boolean {
    const { head, now, nudge } = this.#options
    if (now() - head.movedAtMs <= stillMs) return false
    // It may only be that nothing was written.
    if (now() - this.#nudgedAtMs > nudgeMs) {
      this.#nudgedAtMs = now()
      nudge().catch(() => {})
    }
    return true
  }

  /** Whether a message may be told: what was revoked before its stamp is known here. Of public channels nothing can be. */
  mayTell(stamp: Stamp, isPrivate: boolean): boolean {
    return this.hasPassed(stamp) && !(isPrivate && this.standsStill())
  }

  /** Resolves when it may. @throws UNAVAILABLE */
  async untilMayTell(stamp: Stamp, isPrivate: boolean): Promise<void> {
    if (!this.mayTell(stamp, isPrivate)) await this.untilPassed(stamp)
    if (!this.mayTell(stamp, isPrivate)) await this.untilMoving()
  }

  /** @throws UNAVAILABLE when it stands still */
  untilMoving(): Promise<void> {
    return this.#until(() => !this.standsStill(), 'the stream of the database stands still: who may send is not known')
  }

  /** Resolves when what another node had served has been served here too. @throws UNAVAILABLE */
  untilPassed(stamp: Stamp): Promise<void> {
    return this.#until(
      () => this.hasPassed(stamp),
      'this node has not come as far in the stream of the database as another one',
    )
  }

  async #until(isSo: () => boolean, trouble: string): Promise<void> {
    const { head, now } = this.#options
    const until = now() + patienceMs
    while (!isSo()) {
      if (now() >= until) throw new TidegateError('UNAVAILABLE', trouble, { retryAfterMs: 1000 })
      await Promise.race([head.change(), new Promise(resolve => setTimeout(resolve, lookAgainMs))])
    }
  }

  /** A node that starts reads again what was told before: nobody enters before it has come to now. @throws UNAVAILABLE */
  untilCaughtUp(): Promise<void> {
    const { window, caughtUp } = this.#options
    if (window.epoch === '')
      return Promise.reject(new TidegateError('UNAVAILABLE', 'the server is starting', { retryAfterMs: 500 }))
    if (this.#caughtUp?.life !== window.life) {
      const attempt = { life: window.life, done: caughtUp() }
      this.#caughtUp = attempt
      attempt.done.catch(() => {
        if (this.#caughtUp === attempt) this.#caughtUp = null
      })
    }
    return this.#caughtUp!.done
  }

  /** An epoch that is not ours is over, or newer than what this node has heard of. */
  async #learn(epoch: string): Promise<void> {
    if (this.#isLearning) return
    this.#isLearning = true
    try {
      const { epochNow, window } = this.#options
      if ((await epochNow()) === window.epoch && epoch !== window.epoch) this.#isOver(epoch)
    } catch {
      // Asked again with the next look.
    } finally {
      this.#isLearning = false
    }
  }

  #isOver(epoch: string): void {
    if (this.#over.includes(epoch)) return
    this.#over.push(epoch)
    if (this.#over.length > maxEpochs) this.#over.shift()
  }
}
