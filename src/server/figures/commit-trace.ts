// One commit's way through a node, for whoever watches: the inspector, or an exporter of traces. Positions, counts and times;
// never a value of a row.
import type { Stage } from './stage.ts'

export interface StageSpan {
  readonly stage: Stage
  /** Milliseconds since 1970, with fractions. */
  readonly startedAtMs: number
  readonly durationMs: number
  /** What the stage did: bytes (wal, relay), changes (decode), decisions (authorize), batches (route), deliveries (deliver). */
  readonly count: number
}

export interface CommitTrace {
  readonly xid: number
  /** As Postgres prints it: `0/16B3748`. */
  readonly lsn: string
  /** Milliseconds since 1970, by Postgres's clock. */
  readonly committedAtMs: number
  readonly bytes: number
  readonly changes: number
  /** `public.messages`; at most 20. */
  readonly tables: readonly string[]
  /** Those concerned. */
  readonly audiences: number
  readonly deliveries: number
  /** In the order of the path; a stage that had nothing to do is left out. */
  readonly spans: readonly StageSpan[]
}

export type TraceListener = (trace: CommitTrace) => void

/** Where traces go. While nobody watches, nothing is recorded. */
export class CommitTraces {
  readonly #listeners = new Set<TraceListener>()

  get isWatched(): boolean {
    return this.#listeners.size > 0
  }

  /** A listener must not throw, and returns at once. @returns ends it */
  watch(listener: TraceListener): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  record(trace: CommitTrace): void {
    for (const listener of this.#listeners) listener(trace)
  }
}
