// The metrics of a node as text for Prometheus. Nothing is kept between two scrapes: each line is read from its owner.
import { collectDefaultMetrics, type MetricObjectWithValues, type MetricValue, Registry } from 'prom-client'
import type { Figures } from '../figures/figures.ts'
import type { Gauges } from '../figures/gauges.ts'
import { type Timing, timingBounds } from '../figures/timing.ts'
import type { Metric, Reading } from './metric.ts'
import { metrics } from './table.ts'

export interface MetricsOptions {
  readonly figures: Figures
  readonly gauges: () => Gauges
}

export class NodeMetrics {
  readonly #options: MetricsOptions
  readonly #registry = new Registry()
  #reading: Reading | null = null

  constructor(options: MetricsOptions) {
    this.#options = options
    for (const [name, metric] of Object.entries(metrics)) {
      const get = (): Told => ({
        name,
        help: metric.help,
        type: metric.type,
        values: valuesOf(name, metric, this.#reading!),
      })
      // Its registry asks no more of a metric than these; its own classes cannot take what was counted elsewhere.
      this.#registry.registerMetric({ name, get } as never)
    }
  }

  get contentType(): string {
    return this.#registry.contentType
  }

  /** Of the node, and of the process that it runs in. */
  async text(): Promise<string> {
    const { figures, gauges } = this.#options
    this.#reading = { figures, gauges: gauges() }
    // All of the node's are read in this turn.
    const [own, process] = await Promise.all([this.#registry.metrics(), processMetrics().metrics()])
    return `${own}\n${process}`
  }
}

type Told = Pick<MetricObjectWithValues<Value>, 'name' | 'help' | 'values'> & { readonly type: Metric['type'] }
type Value = MetricValue<string> & { metricName?: string }

let ofProcess: Registry | null = null

/** Memory, descriptors, the event loop: one for all servers in a process, whose observers last as long as it does. */
function processMetrics(): Registry {
  if (ofProcess === null) {
    ofProcess = new Registry()
    collectDefaultMetrics({ register: ofProcess })
  }
  return ofProcess
}

function valuesOf(name: string, metric: Metric, reading: Reading): Value[] {
  const labels = (label: string): Record<string, string> =>
    metric.label === undefined ? {} : { [metric.label.name]: label }
  if (metric.type === 'histogram')
    return [...metric.read(reading)].flatMap(([label, timing]) => histogramOf(name, labels(label), timing))
  const read = metric.read(reading)
  if (read === null) return []
  if (typeof read === 'number') return [{ value: read, labels: {} }]
  return Array.from(read, ([label, value]) => ({ value, labels: labels(label) }))
}

/** Buckets that hold all that is shorter, as Prometheus has them. */
function histogramOf(name: string, labels: Record<string, string>, { counts, count, sumSeconds }: Timing): Value[] {
  let below = 0
  const buckets = Array.from(counts, (inBucket, place) => {
    below += inBucket
    const le = place < timingBounds.length ? String(timingBounds[place]) : '+Inf'
    return { metricName: `${name}_bucket`, labels: { ...labels, le }, value: below }
  })
  return [
    ...buckets,
    { metricName: `${name}_sum`, labels, value: sumSeconds },
    { metricName: `${name}_count`, labels, value: count },
  ]
}
