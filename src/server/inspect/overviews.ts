// How the node stands, and what it did within the last second, ten seconds and minute: from samples of its figures.
import type { Figures } from '../figures/figures.ts'
import type { Gauges } from '../figures/gauges.ts'
import { steadyNow } from '../steady-clock.ts'
import { mostFrequent, perSecond, type Sample, sampleOf, stageFigures } from './sample.ts'
import type { Overview } from './wire.ts'

/** What stands now, as far as it is told. */
export type InspectedGauges = Pick<
  Gauges,
  | 'leads'
  | 'isStale'
  | 'slot'
  | 'slotMaxBytes'
  | 'lagBytes'
  | 'lagMs'
  | 'connections'
  | 'subscriptions'
  | 'audiences'
  | 'queuedBytes'
>

export interface OverviewsOptions {
  readonly figures: Figures
  readonly gauges: () => InspectedGauges
  readonly nodeId: string
  readonly release: string
  /** Steady milliseconds. */
  readonly steadyNow?: () => number
}

const sampleEveryMs = 1000
const longMs = 10_000
/** One a second: a minute of them. */
const maxSamples = 61
const maxCodes = 10

export class Overviews {
  readonly #options: OverviewsOptions
  readonly #now: () => number
  /** The oldest first, at most `maxSamples`: some 100 kB. */
  readonly #samples: Sample[] = []
  readonly #timer: NodeJS.Timeout
  /** A second is over. */
  onSample: () => void = () => {}

  /** Samples from now on, whether somebody looks or not: 10 µs a second. */
  constructor(options: OverviewsOptions) {
    this.#options = options
    this.#now = options.steadyNow ?? steadyNow
    this.#sample()
    this.#timer = setInterval(() => {
      this.#sample()
      this.onSample()
    }, sampleEveryMs)
    this.#timer.unref()
  }

  now(): Overview {
    const { gauges, nodeId, release } = this.#options
    const samples = this.#samples
    const after = samples.at(-1)!
    const before = samples.at(-2) ?? after
    const oldest = samples[0]!
    // The first that is not older; a timer may come a little late.
    const long = samples.find(({ atMs }) => after.atMs - atMs <= longMs + sampleEveryMs / 2) ?? oldest
    const stand = gauges()
    return {
      at: new Date().toISOString(),
      release,
      node: nodeId,
      leads: stand.leads,
      stale: stand.isStale,
      lagMs: Math.round(stand.lagMs),
      lagBytes: stand.lagBytes,
      retainedWalBytes: stand.slot?.retainedBytes ?? null,
      slotMaxBytes: stand.slotMaxBytes,
      connections: stand.connections,
      subscriptions: stand.subscriptions,
      audiences: stand.audiences,
      queuedBytes: stand.queuedBytes,
      commitsPerSecond: perSecond('commits', before, after),
      changesPerSecond: perSecond('changes', before, after),
      deliveriesPerSecond: perSecond('deliveries', before, after),
      bytesPerSecond: perSecond('deliveredBytes', before, after),
      stages: stageFigures(long, before, after),
      refusals: mostFrequent(oldest.refusals, after.refusals, maxCodes),
      resyncs: mostFrequent(oldest.resyncs, after.resyncs, maxCodes),
    }
  }

  close(): void {
    clearInterval(this.#timer)
  }

  #sample(): void {
    this.#samples.push(sampleOf(this.#options.figures, this.#now()))
    if (this.#samples.length > maxSamples) this.#samples.shift()
  }
}
