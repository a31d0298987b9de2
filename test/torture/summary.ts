// The verdict of a run in one screen: what befell, what was told, what was untrue, and how long it took to recover.
import { count, deliveriesOf } from '../checker/tally.ts'
import { type Quantiles, quantilesOf } from './recovery.ts'
import type { TortureReport } from './torture.ts'

export interface Summary {
  readonly seed: number
  readonly isKept: boolean
  readonly verdict: string
  readonly minutes: number
  readonly nodes: number
  readonly faults: number
  readonly commits: number
  /** Deltas and changes that readers were told. */
  readonly deliveries: number
  readonly lost: number
  readonly repeated: number
  readonly leaked: number
  readonly wrong: number
  readonly resyncsWithoutCause: number
  /** By code and cause. */
  readonly resyncs: Readonly<Record<string, number>>
  readonly faultsByKind: Readonly<Record<string, number>>
  /** Milliseconds from a fault's beginning until all whom it concerned were told of something committed after it, and from its
   *  end, for those that were not told before. */
  readonly recoveryMs: Quantiles
  readonly recoveryAfterMs: Quantiles
  readonly recoveryMsByKind: Readonly<Record<string, Quantiles>>
}

export function summaryOf(report: TortureReport): Summary {
  const { found, faults, tally } = report
  const byKind: Record<string, number> = {}
  const times: Record<string, number[]> = {}
  for (const { name, recoveryMs } of faults) {
    count(byKind, name)
    if (recoveryMs === null) continue
    times[name] ??= []
    times[name].push(recoveryMs)
  }
  const untrue = Object.values(found).reduce((sum, n) => sum + n, 0)
  const recovered = faults.filter(({ affected, recoveryMs }) => affected > 0 && recoveryMs !== null)
  return {
    seed: report.seed,
    isKept: untrue === 0,
    verdict: untrue === 0 ? 'every promise checked was kept' : `BROKEN: ${untrue} untrue`,
    minutes: report.minutes,
    nodes: report.nodes,
    faults: faults.length,
    commits: report.commits,
    deliveries: deliveriesOf(tally),
    lost: found.lost,
    repeated: found.repeated,
    leaked: found.leaked,
    wrong: found.wrong,
    resyncsWithoutCause: found['resync without a cause'],
    resyncs: tally.resyncs,
    faultsByKind: sorted(byKind),
    recoveryMs: quantilesOf(recovered.map(({ recoveryMs }) => recoveryMs!)),
    recoveryAfterMs: quantilesOf(recovered.map(({ recoveryMs, overMs }) => Math.max(0, recoveryMs! - (overMs ?? 0)))),
    recoveryMsByKind: sorted(
      Object.fromEntries(Object.entries(times).map(([name, each]) => [name, quantilesOf(each)])),
    ),
  }
}

const sorted = <T>(record: Readonly<Record<string, T>>): Record<string, T> =>
  Object.fromEntries(Object.entries(record).sort(([a], [b]) => (a < b ? -1 : 1)))
