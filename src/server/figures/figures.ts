// What a node counts, as plain numbers: whoever does the work adds to them, and nothing is computed until somebody looks
// (/metrics, the inspector). Counters only grow; what stands now (connections, queues) is asked of its owner instead.
import { type Stage, stages } from './stage.ts'
import { Timing } from './timing.ts'

/** How often something happened, by a label. Labels are codes of ours, never a client's text. */
export class Counts {
  readonly #counts = new Map<string, number>()

  /** Past `maxLabels` (a defect of ours) all others count as `other`. */
  add(label: string, by = 1): void {
    const known = this.#counts.has(label) || this.#counts.size < maxLabels ? label : 'other'
    this.#counts.set(known, (this.#counts.get(known) ?? 0) + by)
  }

  of(label: string): number {
    return this.#counts.get(label) ?? 0
  }

  entries(): Iterable<readonly [label: string, count: number]> {
    return this.#counts.entries()
  }
}

const maxLabels = 200

export class Figures {
  // wal: of the slot's holder
  walMessages = 0
  walBytes = 0

  // relay
  /** Commits served to whom they concern, heartbeats among them. */
  commits = 0
  commitBytes = 0

  // decode
  changes = 0

  // authorize. `compiled`: rows judged here; `asked`: questions to Postgres; `cached`: readers who got, with the first of their audience,
  // what was decided for it once.
  decisionsCompiled = 0
  decisionsAsked = 0
  decisionsCached = 0

  // route
  /** What commits tell an audience, encoded once and handed to all of it. */
  batches = 0

  // deliver
  /** Events given to one connection each. */
  deliveries = 0
  /** Written to sockets, answers and heartbeats among them. */
  deliveredBytes = 0
  /** To sockets, and answers to polls. */
  writes = 0
  /** Frames that went out in one write behind another. */
  mergedFrames = 0
  /** Commits folded into others for a reader that was behind: slow, or away. */
  foldedCommits = 0

  connectionsOpened = 0
  /** By the code that ended a connection: CLIENT_LEFT where it went by itself, ANSWERED where one answer was all. */
  readonly closes = new Counts()
  /** What was refused, by code: connections before they stood, subscriptions, frames, requests. */
  readonly refusals = new Counts()
  /** Subscriptions that began anew, by code. */
  readonly resyncs = new Counts()
  /** What kept changes from coming, by code: each attempt that failed. OTHER where it has none of ours. */
  readonly troubles = new Counts()

  /** Commits that an exporter of traces was told of: `sent`, `skipped` beyond TRACES_PER_SECOND, `lost` on the way to the collector. */
  readonly traces = new Counts()

  /** First rows read under a reader's rights and joined to the stream. */
  snapshots = 0
  snapshotRows = 0
  readonly snapshotTiming = new Timing()

  /** How long a commit took in each stage: of every commit while there are few, of about 200 a second where there are many. */
  readonly timings: Readonly<Record<Stage, Timing>> = Object.fromEntries(
    stages.map(stage => [stage, new Timing()]),
  ) as Record<Stage, Timing>
  /** From the commit's own time in Postgres until its deliveries were handed to sockets; clocks of two machines. */
  readonly endToEnd = new Timing()
}
