// Times some commits on their way: all while there are few, about 200 a second where there are many, one at a time. Of the others
// nothing is looked at but whether one is being timed.
//
// What a commit tells may wait in an outbox for the commits behind it. Its way ends when that was handed out: `handingOut` and
// `handedOut` say when, `served` that nothing more of it will.
import type { Arrivals } from './arrivals.ts'
import type { CommitTrace, CommitTraces, StageSpan } from './commit-trace.ts'
import type { Figures } from './figures.ts'
import { type Stage, stages } from './stage.ts'
import { wallNow } from './wall-clock.ts'

/** What is told of a commit. */
export interface TimedCommit {
  readonly xid: number
  readonly commitLsn: bigint
  /** Since 2000. */
  readonly committedAtMicros: bigint
  readonly bytes: number
  readonly changeCount: number
  readonly layouts: readonly { readonly schema: string; readonly name: string }[]
}

export interface CommitClockOptions {
  readonly figures: Figures
  readonly traces: CommitTraces
  readonly arrivals: Arrivals
  /** Milliseconds since 1970, with fractions. */
  readonly now?: () => number
}

/** How many are timed a second, and at once after a rest. */
const timedPerSecond = 200
const burst = 20
/** How many pass between two looks at the clock when none is due. */
const lookEvery = 32
/** At most 100 a second are traced. */
const traceEveryMs = 10
const maxTables = 20
const msTo2000 = 946_684_800_000

interface Span {
  startedAtMs: number
  durationMs: number
  count: number
}

/** One commit's way, while it is timed. */
class Sample {
  readonly commit: TimedCommit
  readonly committedAtMs: number
  readonly spans = new Map<Stage, Span>()
  audiences = 0
  deliveries = 0
  #stage: Stage | null = null
  #sinceMs = 0

  constructor(commit: TimedCommit) {
    this.commit = commit
    this.committedAtMs = Number(commit.committedAtMicros) / 1000 + msTo2000
  }

  get stage(): Stage | null {
    return this.#stage
  }

  turnTo(stage: Stage | null, nowMs: number): void {
    if (this.#stage !== null) this.#span(this.#stage, this.#sinceMs).durationMs += nowMs - this.#sinceMs
    this.#stage = stage
    this.#sinceMs = nowMs
    if (stage !== null) this.#span(stage, nowMs)
  }

  /** @param count what the stage did: see StageSpan */
  add(stage: Stage, startedAtMs: number, endedAtMs: number, count: number): void {
    const span = this.#span(stage, startedAtMs)
    span.durationMs += Math.max(0, endedAtMs - startedAtMs)
    span.count += count
  }

  count(stage: Stage, count: number): void {
    this.#span(stage, this.#sinceMs).count += count
  }

  #span(stage: Stage, startedAtMs: number): Span {
    let span = this.spans.get(stage)
    if (span === undefined) {
      span = { startedAtMs, durationMs: 0, count: 0 }
      this.spans.set(stage, span)
    }
    return span
  }
}

export class CommitClock {
  readonly #figures: Figures
  readonly #traces: CommitTraces
  readonly #arrivals: Arrivals
  readonly #now: () => number
  #tokens = burst
  #refilledAtMs = Number.NEGATIVE_INFINITY
  #skipped = 0
  /** The one that is timed, until its way has ended. */
  #sample: Sample | null = null
  /** The same while the commit itself is being served. */
  #serving: Sample | null = null
  #deliveriesBefore = 0
  #stageBefore: Stage | null = null
  #tracedAtMs = Number.NEGATIVE_INFINITY

  constructor({ figures, traces, arrivals, now = wallNow }: CommitClockOptions) {
    this.#figures = figures
    this.#traces = traces
    this.#arrivals = arrivals
    this.#now = now
  }

  /** Commits come that were waited for. Call once for all that come together. */
  look(): void {
    const nowMs = this.#now()
    // The first look, and one at a clock that was set.
    const passedMs = Math.min(Math.max(0, nowMs - this.#refilledAtMs), 1000)
    this.#tokens = Math.min(burst, this.#tokens + (passedMs * timedPerSecond) / 1000)
    this.#refilledAtMs = nowMs
  }

  /** A commit begins to be served. */
  begin(commit: TimedCommit): void {
    if (this.#sample !== null || !this.#isDue()) return
    this.#tokens -= 1
    const sample = new Sample(commit)
    const nowMs = this.#now()
    const arrivedAtMs = this.#arrivals.of(commit.commitLsn)
    const { committedAtMs } = sample
    if (arrivedAtMs !== null) sample.add('wal', committedAtMs, arrivedAtMs, commit.bytes)
    sample.add('relay', arrivedAtMs ?? committedAtMs, nowMs, commit.bytes)
    this.#sample = sample
    this.#serving = sample
  }

  /** Whether the commit being served is timed. */
  get isServing(): boolean {
    return this.#serving !== null
  }

  turnTo(stage: Stage | null): void {
    if (this.#serving !== null) this.#serving.turnTo(stage, this.#now())
  }

  /** Of the commit being served. @param count what the stage did: see StageSpan */
  count(stage: Stage, count: number): void {
    if (this.#serving !== null) this.#serving.count(stage, count)
  }

  concerned(audiences: number): void {
    if (this.#serving !== null) this.#serving.audiences += audiences
  }

  /** What the timed commit told is about to be handed to sockets. */
  handingOut(): void {
    const sample = this.#sample
    if (sample === null) return
    this.#stageBefore = sample.stage
    this.#deliveriesBefore = this.#figures.deliveries
    sample.turnTo('deliver', this.#now())
  }

  handedOut(): void {
    const sample = this.#sample
    if (sample === null) return
    const nowMs = this.#now()
    const deliveries = this.#figures.deliveries - this.#deliveriesBefore
    sample.count('deliver', deliveries)
    sample.deliveries += deliveries
    sample.turnTo(this.#stageBefore, nowMs)
    if (this.#serving === null) this.#end(sample, nowMs)
  }

  /** Its commit has been served. @param isWaiting something of it will be handed out later */
  served(isWaiting: boolean): void {
    const sample = this.#serving
    if (sample === null) return
    const nowMs = this.#now()
    sample.turnTo(null, nowMs)
    this.#serving = null
    if (!isWaiting) this.#end(sample, nowMs)
  }

  /** Nothing more comes of what was timed: a commit that was broken off is forgotten. */
  rest(): void {
    if (this.#sample !== null && this.#serving === null) this.#end(this.#sample, this.#now())
    this.#sample = null
    this.#serving = null
  }

  #isDue(): boolean {
    if (this.#tokens >= 1) return true
    this.#skipped += 1
    if (this.#skipped < lookEvery) return false
    this.#skipped = 0
    this.look()
    return this.#tokens >= 1
  }

  #end(sample: Sample, nowMs: number): void {
    this.#sample = null
    const { timings, endToEnd } = this.#figures
    for (const [stage, { durationMs }] of sample.spans) timings[stage].observe(durationMs / 1000)
    if (sample.deliveries > 0) endToEnd.observe(Math.max(0, nowMs - sample.committedAtMs) / 1000)
    if (!this.#traces.isWatched || nowMs - this.#tracedAtMs < traceEveryMs) return
    this.#tracedAtMs = nowMs
    this.#traces.record(traceOf(sample))
  }
}

function traceOf({ commit, committedAtMs, spans, audiences, deliveries }: Sample): CommitTrace {
  const { xid, commitLsn, bytes, changeCount, layouts } = commit
  const names = new Set(layouts.map(({ schema, name }) => `${schema}.${name}`))
  return {
    xid,
    lsn: `${(commitLsn >> 32n).toString(16).toUpperCase()}/${(commitLsn & 0xffffffffn).toString(16).toUpperCase()}`,
    committedAtMs,
    bytes,
    changes: changeCount,
    tables: [...names].slice(0, maxTables),
    audiences,
    deliveries,
    spans: stages.flatMap((stage): StageSpan[] => {
      const span = spans.get(stage)
      return span === undefined ? [] : [{ stage, ...span }]
    }),
  }
}
