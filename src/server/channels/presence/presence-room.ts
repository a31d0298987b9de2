// This node's own entries in one channel. What its connections wish is the truth; what the ledger holds is brought in line with it,
// one call at a time: what changes meanwhile goes with the next. So a call that failed, or whose answer was lost, needs no undoing:
// its entries are compared again.
import { TidegateError } from '../../../protocol/tidegate-error.ts'
import type { PresenceRule } from '../rules.ts'
import type { PresenceDraft } from './presence.ts'
import {
  type Applied,
  NotSent,
  type Place,
  type PresenceLedger,
  type PresenceOp,
  type PresenceStanding,
} from './presence-ledger.ts'

export interface PresenceRoomOptions {
  readonly channel: string
  readonly ledger: PresenceLedger
  /** Milliseconds, steady. */
  readonly now: () => number
  /** Nothing of this node is in the channel, nor owed to it. */
  readonly onIdle: () => void
}

type Wish =
  | { readonly kind: 'here'; readonly place: Place }
  | { readonly kind: 'gone' }
  | { readonly kind: 'broken'; readonly untilMs: number }

/** One connection. */
interface Own {
  readonly connection: string
  readonly sinceMs: number
  /** Null before the ledger gave it one. */
  ref: string | null
  wish: Wish
  /** What it would have put, had it not gone before: what that would have taken over goes with it. */
  unsent: PresenceDraft | null
  /** What the ledger has of it. */
  held: Place | 'none' | 'broken' | 'unknown'
  /** What it was last known to have: to go back to when an update fails. */
  confirmed: Place | null
  /** Whoever waits for what is wished. */
  asked: PromiseWithResolvers<void> | null
}

/** Of one call to the ledger, which holds up everybody else's: about 5 ms of Redis. */
const maxOps = 500
const maxChars = 256 * 1024
const gone: Wish = { kind: 'gone' }

export class PresenceRoom {
  readonly #options: PresenceRoomOptions
  /** By connection. While the ledger is away: those it had, and those of the call that failed. */
  readonly #owns = new Map<string, Own>()
  /** Those whose wish is not what the ledger has; of broken ones, which are told at once, in a set of their own. */
  readonly #changed = new Set<Own>()
  readonly #breaking = new Set<Own>()
  /** Broken ones that the ledger has: to take them out still, where they are to be gone. */
  readonly #broken = new Set<Own>()
  #standing: PresenceStanding | null = null
  #dueMs: number | null = null
  #gathering: NodeJS.Timeout | null = null
  #expiring: NodeJS.Timeout | null = null
  /** What was gathered is to be sent; some grace is over. */
  #isGathered = false
  #isExpired = false
  #running: Promise<void> | null = null
  #isAway = false
  #diffMs = 0

  constructor(options: PresenceRoomOptions) {
    this.#options = options
  }

  /** Connections here: for what is held, and tests. */
  get size(): number {
    return this.#owns.size
  }

  get isAway(): boolean {
    return this.#isAway
  }

  /** Some entries here are broken, whoever broke them: they must be taken out in time. */
  get isExpecting(): boolean {
    return this.#dueMs !== null
  }

  track(draft: PresenceDraft, rule: Pick<PresenceRule, 'graceMs' | 'diffMs'>): Promise<void> {
    if (this.#isAway) return failed()
    let own = this.#owns.get(draft.connection)
    if (own === undefined) {
      const { connection } = draft
      own = {
        connection,
        sinceMs: this.#options.now(),
        ref: null,
        wish: gone,
        unsent: null,
        held: 'none',
        confirmed: null,
        asked: null,
      }
      this.#owns.set(connection, own)
    }
    own.wish = { kind: 'here', place: { draft, graceMs: rule.graceMs } }
    own.unsent = null
    this.#diffMs = rule.diffMs
    return this.#ask(own)
  }

  untrack(connection: string, how: 'gone' | 'broken'): Promise<void> {
    const own = this.#owns.get(connection)
    if (own === undefined) return Promise.resolve()
    const graceMs = own.wish.kind === 'here' ? own.wish.place.graceMs : 0
    if (how === 'gone' && own.wish.kind === 'here' && own.held === 'none') own.unsent = own.wish.place.draft
    if (how === 'gone' || (own.wish.kind === 'here' && graceMs === 0)) own.wish = gone
    else if (own.wish.kind === 'here') own.wish = { kind: 'broken', untilMs: this.#options.now() + graceMs }
    own.confirmed = null
    if (!this.#isAway) return this.#ask(own)
    this.#mark(own)
    return failed()
  }

  /** Looks after the grace of entries that another node left behind. */
  expect(dueMs: number): void {
    this.#expectIn(dueMs)
  }

  /** What the ledger has of this node is not known any more, or lost. */
  restore(): void {
    for (const own of this.#owns.values()) {
      if (own.held === 'broken') continue
      // What is on its way for the first time may be lost too.
      if (own.held !== 'none') own.held = 'unknown'
      this.#mark(own)
    }
    this.#isGathered = true
    this.#run()
  }

  /** The ledger answers again. */
  retry(): void {
    if (!this.#isAway) return
    this.#isAway = false
    this.#isGathered = true
    this.#run()
  }

  /** All of this node's leave now; those that broke before keep their grace. Never rejects. */
  async close(): Promise<void> {
    for (const own of this.#owns.values())
      if (own.wish.kind !== 'broken') {
        own.wish = gone
        this.#mark(own)
      }
    this.#isGathered = true
    this.#run()
    await this.#running
    clearTimeout(this.#gathering ?? undefined)
    clearTimeout(this.#expiring ?? undefined)
    this.#gathering = this.#expiring = null
  }

  #ask(own: Own): Promise<void> {
    this.#mark(own)
    if (own.asked === null) {
      own.asked = Promise.withResolvers()
      // Whoever does not wait need not hear that it failed.
      own.asked.promise.catch(() => {})
    }
    const { promise } = own.asked
    if (own.wish.kind === 'broken') this.#run()
    else
      this.#gathering ??= setTimeout(() => {
        this.#gathering = null
        this.#isGathered = true
        this.#run()
      }, this.#diffMs)
    return promise
  }

  #mark(own: Own): void {
    this.#changed.delete(own)
    this.#breaking.delete(own)
    const set = own.wish.kind === 'broken' ? this.#breaking : this.#changed
    set.add(own)
  }

  #run(): void {
    if (this.#running !== null || this.#isAway) return
    this.#running = this.#work().finally(() => {
      this.#running = null
      this.#rest()
    })
  }

  async #work(): Promise<void> {
    while (!this.#isAway) {
      const batch = this.#take()
      if (batch.length === 0 && !this.#isExpired) return
      this.#isExpired = false
      const wishes = batch.map(own => own.wish)
      const asked = batch.map(own => own.asked)
      for (const own of batch) own.asked = null
      const ops = batch.map(own => this.#opOf(own))
      try {
        const { channel, ledger } = this.#options
        const applied = await ledger.apply(channel, ops, this.#standing)
        batch.forEach((own, place) => {
          this.#applied(own, ops[place]!, wishes[place]!, asked[place]!, applied.refs[place] ?? null)
        })
        this.#stand(applied)
      } catch (error) {
        this.#isAway = true
        batch.forEach((own, place) => {
          if (!(error instanceof NotSent)) own.held = 'unknown'
          this.#mark(own)
          if (asked[place] != null) this.#refuse(own, asked[place], wishes[place]!, error)
        })
        for (const own of [...this.#changed, ...this.#breaking])
          if (own.asked !== null) {
            const { asked } = own
            own.asked = null
            this.#refuse(own, asked, own.wish, error)
          }
      }
    }
  }

  /** Those whose turn it is; what need not be told is settled. */
  #take(): Own[] {
    const batch: Own[] = []
    let chars = 0
    const from = (set: Set<Own>): void => {
      for (const own of set) {
        if (batch.length >= maxOps || chars >= maxChars) return
        set.delete(own)
        if (own.held === 'none' && own.wish.kind !== 'here' && own.unsent === null) {
          this.#forget(own)
          continue
        }
        batch.push(own)
        if (own.wish.kind === 'here') chars += own.wish.place.draft.meta.length
      }
    }
    from(this.#breaking)
    if (this.#isGathered) from(this.#changed)
    if (this.#changed.size === 0) this.#isGathered = false
    return batch
  }

  #opOf({ ref, sinceMs, connection, wish, unsent }: Own): PresenceOp {
    if (wish.kind === 'here') return { kind: 'put', ref, place: wish.place, sinceMs }
    const graceMs = wish.kind === 'broken' ? wish.untilMs - this.#options.now() : 0
    return graceMs > 0 ? { kind: 'break', connection, graceMs } : { kind: 'leave', connection, unsent }
  }

  #applied(own: Own, op: PresenceOp, wish: Wish, asked: PromiseWithResolvers<void> | null, ref: string | null): void {
    this.#broken.delete(own)
    if (op.kind === 'put') {
      own.ref = ref
      own.held = own.confirmed = op.place
    } else if (op.kind === 'break') {
      own.held = 'broken'
      this.#broken.add(own)
    } else own.held = 'none'
    if (own.held === 'none' && own.wish === wish) this.#forget(own)
    asked?.resolve()
  }

  #refuse(own: Own, asked: PromiseWithResolvers<void>, wish: Wish, error: unknown): void {
    if (wish.kind === 'here' && own.wish === wish) {
      own.wish = own.confirmed === null ? gone : { kind: 'here', place: own.confirmed }
      this.#mark(own)
    }
    if (own.held === 'none' && own.wish.kind !== 'here') this.#forget(own)
    asked.reject(unavailable(error))
  }

  /** There is nothing of it, and shall be nothing. */
  #forget(own: Own): void {
    own.asked?.resolve()
    own.asked = null
    if (this.#owns.get(own.connection) === own) this.#owns.delete(own.connection)
    this.#broken.delete(own)
    this.#changed.delete(own)
    this.#breaking.delete(own)
  }

  #stand({ epoch, seq, dueMs }: Applied): void {
    const before = this.#standing
    this.#standing = { epoch, seq }
    for (const own of this.#broken) {
      // Taken over, or gone.
      if (dueMs !== null && own.wish.kind === 'broken' && own.wish.untilMs > this.#options.now()) break
      if (own.wish.kind === 'broken') this.#forget(own)
    }
    if (dueMs !== null) this.#expectIn(dueMs)
    else {
      this.#dueMs = null
      clearTimeout(this.#expiring ?? undefined)
      this.#expiring = null
    }
    if (before !== null && before.epoch !== epoch) this.restore()
  }

  #expectIn(dueMs: number): void {
    this.#dueMs = dueMs
    clearTimeout(this.#expiring ?? undefined)
    this.#expiring = setTimeout(() => {
      this.#expiring = null
      this.#isExpired = true
      this.#run()
    }, dueMs + 1)
  }

  #rest(): void {
    const isBusy = this.#owns.size > 0 || this.#dueMs !== null || this.#gathering !== null || this.#running !== null
    if (!isBusy) this.#options.onIdle()
    else if (!this.#isAway && (this.#isExpired || this.#breaking.size > 0 || this.#isGathered)) this.#run()
  }
}

const unavailable = (cause?: unknown): TidegateError =>
  new TidegateError('UNAVAILABLE', 'presence cannot be stored now', { cause })

function failed(): Promise<never> {
  const rejected = Promise.reject(unavailable())
  rejected.catch(() => {})
  return rejected
}
