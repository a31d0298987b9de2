// A node's figures at one moment, and what lies between two of them. Pure.
import type { Counts, Figures } from '../figures/figures.ts'
import { type Stage, stages } from '../figures/stage.ts'
import { timingBounds } from '../figures/timing.ts'
import type { StageFigures } from './wire.ts'

/** Some 2 kB. */
export interface Sample {
  /** Steady milliseconds. */
  readonly atMs: number
  readonly commits: number
  readonly changes: number
  readonly deliveries: number
  readonly deliveredBytes: number
  /** Of each stage, as `Timing.counts`. */
  readonly timings: Readonly<Record<Stage, Float64Array>>
  readonly refusals: ReadonlyMap<string, number>
  readonly resyncs: ReadonlyMap<string, number>
}

export function sampleOf(figures: Figures, atMs: number): Sample {
  const { commits, changes, deliveries, deliveredBytes, timings, refusals, resyncs } = figures
  const counts = stages.map(stage => [stage, timings[stage].counts.slice()] as const)
  return {
    atMs,
    commits,
    changes,
    deliveries,
    deliveredBytes,
    timings: Object.fromEntries(counts) as Record<Stage, Float64Array>,
    refusals: copyOf(refusals),
    resyncs: copyOf(resyncs),
  }
}

const copyOf = (counts: Counts): Map<string, number> => new Map(counts.entries())

/** How often a second, to one decimal below ten; 0 between a sample and itself. */
export function perSecond(
  figure: 'commits' | 'changes' | 'deliveries' | 'deliveredBytes',
  before: Sample,
  after: Sample,
): number {
  const seconds = (after.atMs - before.atMs) / 1000
  return seconds <= 0 ? 0 : rounded((after[figure] - before[figure]) / seconds)
}

const rounded = (rate: number): number => (rate < 10 ? Math.round(rate * 10) / 10 : Math.round(rate))

/** Only some commits are timed, so the share of those that passed a stage stands for all.
 *  @param long for the quantiles, so many seconds before `after` */
export function stageFigures(long: Sample, before: Sample, after: Sample): StageFigures[] {
  const commits = perSecond('commits', before, after)
  const timed = (stage: Stage, since: Sample): Float64Array =>
    after.timings[stage].map((count, place) => count - since.timings[stage][place]!)
  // Each that is timed comes through the relay.
  const all = sum(timed('relay', before))
  return stages.map(stage => {
    const durations = timed(stage, long)
    const share = all === 0 ? 0 : sum(timed(stage, before)) / all
    return {
      stage,
      perSecond: rounded(commits * Math.min(1, share)),
      p50Ms: quantileMs(durations, 0.5),
      p99Ms: quantileMs(durations, 0.99),
    }
  })
}

const sum = (counts: Float64Array): number => counts.reduce((total, count) => total + count, 0)

/** Within its bucket durations are taken to be spread evenly, as Prometheus does; past the last bound, that bound.
 *  @param counts of each bucket of a Timing @returns milliseconds; null where nothing was timed */
export function quantileMs(counts: Float64Array, quantile: number): number | null {
  const total = sum(counts)
  if (total <= 0) return null
  let below = 0
  for (const [place, count] of counts.entries()) {
    if (below + count < quantile * total || count === 0) {
      below += count
      continue
    }
    const upper = timingBounds[place]
    const lower = place === 0 ? 0 : timingBounds[place - 1]!
    if (upper === undefined) return lower * 1000
    const within = Math.max(0, (quantile * total - below) / count)
    return Number(((lower + (upper - lower) * within) * 1000).toPrecision(3))
  }
  return timingBounds.at(-1)! * 1000
}

/** The most frequent, the first of them first. */
export function mostFrequent(
  before: ReadonlyMap<string, number>,
  after: ReadonlyMap<string, number>,
  most: number,
): { readonly code: string; readonly count: number }[] {
  return [...after]
    .map(([code, count]) => ({ code, count: count - (before.get(code) ?? 0) }))
    .filter(({ count }) => count > 0)
    .sort((a, b) => b.count - a.count || (a.code < b.code ? -1 : 1))
    .slice(0, most)
}
