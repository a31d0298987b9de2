// What of a commit's way stands in its trace: one span for all of it, and one for each stage. Counts, positions and names of tables;
// never a value.
import type { CommitTrace, StageSpan } from '../figures/commit-trace.ts'
import type { Stage } from '../figures/stage.ts'

export type SpanAttributes = Readonly<Record<string, string | number | readonly string[]>>

export interface PlannedSpan {
  readonly name: string
  /** Milliseconds since 1970, with fractions. */
  readonly startedAtMs: number
  readonly endedAtMs: number
  readonly attributes: SpanAttributes
}

export interface PlannedTrace {
  readonly root: PlannedSpan
  /** In the order of the path. */
  readonly stages: readonly PlannedSpan[]
}

/** What a stage counts: see `StageSpan`. */
const counted: Readonly<Record<Stage, string>> = {
  wal: 'bytes',
  relay: 'bytes',
  decode: 'changes',
  authorize: 'decisions',
  route: 'batches',
  deliver: 'deliveries',
}

/** The root lasts from the first beginning to the last end, whichever clock they are of. */
export function planSpans(trace: CommitTrace): PlannedTrace {
  const stages = trace.spans.map(stageSpan)
  const { lsn, xid, tables, bytes, changes, audiences, deliveries } = trace
  const decisions = trace.spans.find(({ stage }) => stage === 'authorize')?.count ?? 0
  return {
    root: {
      name: 'commit',
      startedAtMs: Math.min(trace.committedAtMs, ...stages.map(({ startedAtMs }) => startedAtMs)),
      endedAtMs: Math.max(trace.committedAtMs, ...stages.map(({ endedAtMs }) => endedAtMs)),
      attributes: {
        'tidegate.lsn': lsn,
        'tidegate.xid': xid,
        'tidegate.tables': tables,
        'tidegate.bytes': bytes,
        'tidegate.changes': changes,
        'tidegate.decisions': decisions,
        'tidegate.audiences': audiences,
        'tidegate.deliveries': deliveries,
      },
    },
    stages,
  }
}

const stageSpan = ({ stage, startedAtMs, durationMs, count }: StageSpan): PlannedSpan => ({
  name: stage,
  startedAtMs,
  endedAtMs: startedAtMs + durationMs,
  attributes: { [`tidegate.${counted[stage]}`]: count },
})
