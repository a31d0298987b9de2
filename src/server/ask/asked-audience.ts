// An asked audience: the subscribers of one query, role and claims whose rows only Postgres can tell. It holds what they
// have as keys and hashes, asks again whenever that may have changed, and tells the difference, stamped with the position
// of the snapshot. One check at a time; what happens during it is looked at by the next.
import type { Anchor, Row } from '../../predicate/algebra.ts'
import { keyOf } from '../../predicate/compare.ts'
import { cover } from '../../predicate/keys.ts'
import { type Position, WHOLE_COMMIT } from '../../protocol/position.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Table } from '../catalog/table.ts'
import { Batch, type Receivers } from '../route/batch.ts'
import { Members } from '../route/members.ts'
import type { Outgoing } from '../route/outgoing.ts'
import type { Query } from '../route/query.ts'
import type { Reader } from '../snapshot/reader.ts'
import { Answers, type Difference } from './answers.ts'
import type { Asker, View } from './asker.ts'
import { isTransient } from './failures.ts'
import { type Looked, look, tooLarge } from './look.ts'
import { anewOf, eventsOf, snapshotOf } from './tell.ts'

/** A subscriber that waits to be brought to where the audience stands. */
export interface Waiting {
  /** Where it stands; null: it holds nothing. */
  readonly from: Position | null
  /** Takes what brings it to `at`, in the same turn in which it must join the members. */
  told(events: readonly Outgoing[], at: Position): void
  /** What has changed since its position is not remembered. */
  forgotten(): void
  fail(error: unknown): void
}

export interface AskedAudienceOptions {
  readonly query: Query
  readonly reader: Reader
  readonly tag: string
  readonly asker: Asker
  readonly epoch: string
  /** Commit LSN of the newest commit served. */
  readonly headLsn: () => bigint
  readonly seed: bigint
  readonly maxRows: number
  readonly recheckMs: number
  /** 0 to 1. */
  readonly random: () => number
  /** It has ended. */
  readonly onFailure: (error: unknown) => void
}

/** Keys that a check asks for one by one; more, and it asks for all rows. */
const maxKeys = 1_000
const firstRetryMs = 20
const maxRetryMs = 500
const awayRetryMs = 1_000
/** How long one who joins waits for a snapshot that fits to the stream. */
const patienceMs = 30_000

export class AskedAudience implements Receivers {
  readonly query: Query
  readonly tag: string
  readonly members = new Members()
  toldLsn = 0n
  readonly #options: AskedAudienceOptions
  readonly #anchors: readonly Anchor[] | null
  #answers: Answers | null = null
  /** Up to where its answer is known. */
  #lsn = 0n
  /** What may have changed since: all, by a commit of this position; */
  #movedLsn: bigint | null = null
  /** and the rows of these keys. */
  readonly #touched = new Map<string, bigint>()
  readonly #waiting = new Map<Waiting, number>()
  #isRunning = false
  #isEnded = false
  /** How long the last question took. */
  #pace: number | null = null
  #retryMs = firstRetryMs
  #askedMs = Number.NEGATIVE_INFINITY
  #timer: NodeJS.Timeout | null = null

  constructor(options: AskedAudienceOptions) {
    this.#options = options
    this.query = options.query
    this.tag = options.tag
    this.#anchors = cover(options.query.filter)
  }

  get table(): Table {
    return this.query.table
  }

  get size(): number {
    return this.#answers?.size ?? 0
  }

  position(): Position {
    return { epoch: this.#options.epoch, lsn: this.#lsn, index: WHOLE_COMMIT }
  }

  /** Whether the difference to this position could be told. */
  remembers(position: Position): boolean {
    return position.lsn <= this.#lsn && (this.#answers?.since(position) ?? null) !== null
  }

  /** Nothing has been told since: who stands there stands with the members. */
  isCurrent(position: Position): boolean {
    return this.remembers(position) && this.#answers!.since(position)!.size === 0
  }

  /** Tells it how to come to where the members stand, by a snapshot taken from now on. */
  ask(waiting: Waiting): void {
    if (waiting.from !== null && this.#isFresh() && this.isCurrent(waiting.from)) {
      waiting.told([], this.position())
      this.#arm(Math.max(1, this.#options.recheckMs - this.#sinceAskedMs()))
      return
    }
    this.#waiting.set(waiting, performance.now())
    this.#kick()
  }

  /** Somebody is a member again: while nobody was, nothing was asked, whatever happened and however long it took. */
  attended(): void {
    if (this.#movedLsn !== null || this.#touched.size > 0) this.#kick()
    else this.#arm(Math.max(1, this.#options.recheckMs - this.#sinceAskedMs()))
  }

  leave(waiting: Waiting): void {
    this.#waiting.delete(waiting)
  }

  /** Whether a row of its table could be one of its rows, by the values of its columns. */
  concerns(row: Row): boolean {
    if (this.#anchors === null) return true
    const { columns } = this.query.table
    return this.#anchors.some(anchor => {
      if (anchor.kind !== 'const') return true
      const text = row.text(anchor.column)
      return text === undefined || (text !== null && anchor.keys.includes(keyOf(columns[anchor.column]!.type, text)))
    })
  }

  /** A commit changed the row of this key. */
  touched(key: string, lsn: bigint): void {
    if (this.#touched.size >= maxKeys) this.moved(lsn)
    else {
      this.#touched.set(key, lsn)
      this.#kick()
    }
  }

  /** Something happened after which any row may be there or not. @param lsn of its commit; 0: no commit's */
  moved(lsn: bigint): void {
    this.#touched.clear()
    if (this.#movedLsn === null || lsn > this.#movedLsn) this.#movedLsn = lsn
    this.#kick()
  }

  /** Nobody is told anything any more, but those who wait: that it is over. */
  end(error: unknown): void {
    this.#isEnded = true
    this.#disarm()
    const waiting = [...this.#waiting.keys()]
    this.#waiting.clear()
    for (const one of waiting) one.fail(error)
  }

  #isFresh(): boolean {
    return (
      this.#answers !== null &&
      this.#movedLsn === null &&
      this.#touched.size === 0 &&
      this.#lsn >= this.#options.headLsn() &&
      performance.now() - this.#askedMs < this.#options.recheckMs
    )
  }

  /** Nobody follows it: it is asked again when somebody does. */
  #isIdle(): boolean {
    return this.members.size === 0 && this.#waiting.size === 0
  }

  #kick(): void {
    if (this.#isRunning || this.#isEnded || this.#isIdle()) return
    this.#isRunning = true
    this.#disarm()
    // What else the commits of this turn touch is asked for together.
    setImmediate(() => void this.#check())
  }

  #arm(ms: number): void {
    if (this.#timer !== null || this.#isRunning || this.#isEnded) return
    this.#timer = setTimeout(() => {
      this.#timer = null
      if (!this.#isIdle()) this.moved(0n)
    }, ms)
    this.#timer.unref()
  }

  #disarm(): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
  }

  async #check(): Promise<void> {
    const { asker, reader, recheckMs, random } = this.#options
    let waiting: Waiting[] = []
    try {
      const { result, tookMs } = await asker.run(
        { query: this.query, reader },
        {
          pace: this.#pace,
          begin: () => {
            waiting = [...this.#waiting.keys()]
            return this.#wantedLsn()
          },
        },
        async view => ({ looked: await this.#look(view, waiting), view }),
      )
      this.#pace = tookMs
      this.#isRunning = false
      if (this.#isEnded) return
      const isTold = this.#take(result.looked, result.view, waiting)
      const isWaitingForSql = this.#wantedLsn() > this.#lsn || !isTold
      if (isWaitingForSql) this.#again()
      else {
        this.#retryMs = firstRetryMs
        if (this.#movedLsn !== null || this.#touched.size > 0 || this.#waiting.size > 0) this.#kick()
        // Spread, so that those that began together are not asked for together for ever.
        else if (!this.#isIdle()) this.#arm(Math.max(1, recheckMs * (0.9 + 0.1 * random()) - this.#sinceAskedMs()))
      }
    } catch (error) {
      this.#isRunning = false
      if (!this.#isEnded) this.#failed(error)
    }
  }

  #sinceAskedMs(): number {
    return performance.now() - this.#askedMs
  }

  #wantedLsn(): bigint {
    let wanted = this.#movedLsn ?? 0n
    for (const lsn of this.#touched.values()) if (lsn > wanted) wanted = lsn
    return wanted
  }

  async #look(view: View, waiting: readonly Waiting[]): Promise<Looked> {
    const { seed, maxRows } = this.#options
    const isWhole = this.#answers === null || waiting.length > 0 || this.#movedLsn !== null
    const due = [...this.#touched].filter(([, lsn]) => lsn <= view.standing.lsn).map(([key]) => key)
    return look(view, {
      query: this.query,
      seed,
      maxRows,
      answers: this.#answers,
      keys: isWhole ? null : due,
      wantsRows:
        this.query.kind === 'live' &&
        waiting.some(({ from }) => from === null || (this.#isLimited && this.#sinceOf(from) === null)),
      alsoKeys: waiting.flatMap(({ from }) => (from === null ? [] : [...(this.#sinceOf(from)?.keys() ?? [])])),
    })
  }

  #sinceOf(from: Position): ReadonlyMap<string, string | null> | null {
    return from.lsn > this.#lsn ? null : (this.#answers?.since(from) ?? null)
  }

  /** In one turn: what was found is told, and those who waited join. @returns false when no position is left for it */
  #take(looked: Looked, view: View, waiting: readonly Waiting[]): boolean {
    const { standing, takenAtMicros } = view
    const { epoch, maxRows } = this.#options
    const answers = this.#answers ?? new Answers(standing.lsn, this.#isLimited)
    const differences = this.#answers === null ? [] : looked.differences
    let lsn = laterOf(standing.lsn, this.#lsn)
    // What the same commits show otherwise than before, because of the time or by chance, has a position of its own.
    if (differences.length > 0 && lsn === this.#lsn) lsn += 1n
    if (lsn > standing.limit && differences.length > 0) return false
    const before = waiting.map(({ from }) => (from === null ? null : this.#sinceOf(from)))
    if (this.#answers === null) {
      answers.begin(looked.hashes)
      this.#answers = answers
    } else if (differences.length > 0) answers.tell(differences, looked.rows, lsn)
    if (answers.size > maxRows) throw tooLarge(this.query, maxRows)
    answers.digest = looked.digest
    this.#lsn = lsn
    if (looked.isWhole) this.#askedMs = performance.now()
    if (this.#movedLsn !== null && looked.isWhole && this.#movedLsn <= standing.lsn) this.#movedLsn = null
    for (const [key, touchedLsn] of this.#touched) if (touchedLsn <= standing.lsn) this.#touched.delete(key)
    const telling = { epoch, lsn, takenAtMicros, isOwn: false }
    if (differences.length > 0 && this.members.size > 0) {
      const events = eventsOf(this.query, differences, telling)
      if (events.length > 0) this.members.deliver(new Batch(this, events, lsn))
    }
    this.toldLsn = lsn
    this.#tellWaiting(waiting, before, looked, { ...telling, isOwn: true })
    return true
  }

  #tellWaiting(
    waiting: readonly Waiting[],
    before: readonly (ReadonlyMap<string, string | null> | null)[],
    looked: Looked,
    telling: Parameters<typeof eventsOf>[2],
  ): void {
    const at = this.position()
    let snapshot: readonly Outgoing[] | null = null
    for (const [i, one] of waiting.entries()) {
      // It may have gone meanwhile.
      if (!this.#waiting.delete(one)) continue
      const since = before[i]
      if (one.from !== null && since == null && this.#isLimited) one.told(anewOf(this.query, looked.rows, telling), at)
      else if (one.from !== null && since == null) one.forgotten()
      else if (one.from === null) {
        if (this.query.kind === 'live') snapshot ??= snapshotOf(this.query, rowsOf(looked), at)
        one.told(snapshot ?? [], at)
      } else {
        const own = this.#ownDifferences(since!, looked)
        if (own === null) one.forgotten()
        else one.told(eventsOf(this.query, own, telling), at)
      }
    }
  }

  /** From what a reader held to what the members hold now; null where the query did not return a row again that it had just
   *  returned, as one by chance may do. */
  #ownDifferences(since: ReadonlyMap<string, string | null>, looked: Looked): Difference[] | null {
    // Of a query with a limit only who held what the members held can be told where rows go.
    if (this.#isLimited) return since.size === 0 ? [...looked.differences] : null
    const gone: Difference[] = []
    const there: Difference[] = []
    const keys = new Map([...since, ...looked.differences.filter(({ key }) => !since.has(key)).map(heldBefore)])
    for (const [key, before] of keys) {
      const wasHeld = before !== null
      if (this.#answers!.has(key)) {
        // It changed, and changed back: of rows nothing is new, of events something happened.
        if (this.query.kind === 'live' && before === this.#answers!.hashOf(key)) continue
        const found = looked.rows.get(key)
        if (found === undefined) return null
        there.push({ op: wasHeld ? 'update' : 'insert', key, row: found.row })
      } else if (wasHeld) gone.push({ op: 'delete', key, row: null })
    }
    return [...gone, ...there]
  }

  get #isLimited(): boolean {
    return this.query.ordering?.limit != null
  }

  #again(): void {
    const ms = this.#retryMs
    this.#retryMs = Math.min(maxRetryMs, ms * 2)
    this.#disarm()
    this.#timer = setTimeout(() => {
      this.#timer = null
      this.#kick()
    }, ms)
    this.#timer.unref()
  }

  #failed(error: unknown): void {
    if (!isTransient(error)) {
      // It could read before: what it may read now, the next attempt is told once the catalog has been looked at.
      const isNews = this.#answers !== null && error instanceof TidegateError && error.code === 'TABLE_REFUSED'
      this.#options.onFailure(isNews ? refusedNow(this.query, error) : error)
      return
    }
    const isAway = error instanceof TidegateError
    const now = performance.now()
    for (const [one, sinceMs] of this.#waiting) {
      if (!isAway && now - sinceMs < patienceMs) continue
      this.#waiting.delete(one)
      one.fail(isAway ? error : notSettled(this.query, error))
    }
    if (this.#movedLsn === null) this.#movedLsn = 0n
    if (isAway) this.#retryMs = awayRetryMs
    this.#again()
  }
}

const laterOf = (a: bigint, b: bigint): bigint => (b > a ? b : a)

/** By what this very look found: what was held is no more. */
const heldBefore = ({ key, op }: Difference): [string, string | null] => [key, op === 'insert' ? null : '']

const rowsOf = (looked: Looked): Row[] => [...looked.rows.values()].map(({ row }) => row)

const refusedNow = ({ table }: Query, cause: unknown): TidegateError =>
  new TidegateError('UNSUBSCRIBED_TABLE_CHANGED', `privileges on ${table.schema}.${table.name} changed`, {
    cause,
    retryAfterMs: 1000,
  })

const notSettled = ({ table }: Query, cause: unknown): TidegateError =>
  new TidegateError('BUSY', `what Postgres shows of ${table.schema}.${table.name} does not settle`, {
    cause,
  })
