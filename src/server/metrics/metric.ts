// What a metric is: a line of the table, read when somebody asks for it. Types only.
import type { Figures } from '../figures/figures.ts'
import type { Gauges } from '../figures/gauges.ts'
import type { Timing } from '../figures/timing.ts'

/** Of a node, at one moment. */
export interface Reading {
  readonly figures: Figures
  readonly gauges: Gauges
}

/** By label; the empty text where there is none. */
export type Values = Iterable<readonly [label: string, value: number]>

interface Described {
  /** What it says, in a sentence. */
  readonly help: string
  /** Seconds, bytes, or what is counted. */
  readonly unit: string
  /** Its one label, and what that can be; left out: it has none. */
  readonly label?: { readonly name: string; readonly values: string }
  /** What a bad value looks like. */
  readonly bad: string
}

export interface PlainMetric extends Described {
  readonly type: 'counter' | 'gauge'
  /** A number where there is no label. Null: it is not known, and nothing is told. */
  read(reading: Reading): number | null | Values
}

export interface HistogramMetric extends Described {
  readonly type: 'histogram'
  read(reading: Reading): Iterable<readonly [label: string, timing: Timing]>
}

export type Metric = PlainMetric | HistogramMetric
