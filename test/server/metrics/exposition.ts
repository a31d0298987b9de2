// Prometheus's text format, read as strictly as its page says and a bit more: what a scraper would let pass, fails here.
// Source: https://prometheus.io/docs/instrumenting/exposition_formats/

export interface Series {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
}

export interface Family {
  readonly help: string
  readonly type: 'counter' | 'gauge' | 'histogram' | 'summary'
  readonly series: readonly Series[]
}

export class Exposition {
  readonly families: ReadonlyMap<string, Family>

  constructor(text: string) {
    this.families = parse(text)
  }

  /** Of one series; 0 where it is not there: it has not happened yet. */
  value(name: string, labels: Readonly<Record<string, string>> = {}): number {
    return this.find(name, labels) ?? 0
  }

  find(name: string, labels: Readonly<Record<string, string>> = {}): number | undefined {
    const key = keyOf({ name, labels })
    for (const { series } of this.families.values())
      for (const each of series) if (keyOf(each) === key) return each.value
    return undefined
  }

  /** Of all its labels. */
  sum(name: string): number {
    return (this.families.get(name)?.series ?? []).reduce((sum, { value }) => sum + value, 0)
  }
}

const types = new Set(['counter', 'gauge', 'histogram', 'summary'])
const suffixes: Readonly<Record<string, readonly string[]>> = {
  counter: [''],
  gauge: [''],
  histogram: ['_bucket', '_sum', '_count'],
  summary: ['', '_sum', '_count'],
}

const keyOf = ({ name, labels }: Pick<Series, 'name' | 'labels'>): string =>
  JSON.stringify([name, Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1))])

function parse(text: string): Map<string, Family> {
  if (!text.endsWith('\n')) throw new Error('the last line does not end')
  const families = new Map<string, Family & { series: Series[] }>()
  const seen = new Set<string>()
  let open: { name: string; help: string } | null = null
  let name = ''
  for (const line of text.slice(0, -1).split('\n')) {
    if (line === '') continue
    const help = /^# HELP ([a-zA-Z_:][a-zA-Z0-9_:]*) (\S.*)$/.exec(line)
    const type = /^# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*) (\w+)$/.exec(line)
    if (help !== null) {
      if (open !== null) throw new Error(`${open.name} has help and no type`)
      if (families.has(help[1]!)) throw new Error(`${help[1]} stands in two places`)
      open = { name: help[1]!, help: help[2]! }
    } else if (type !== null) {
      if (open === null || open.name !== type[1]) throw new Error(`${type[1]} has a type before its help`)
      if (!types.has(type[2]!)) throw new Error(`${type[1]} is a ${type[2]}`)
      name = open.name
      families.set(name, { help: open.help, type: type[2] as Family['type'], series: [] })
      open = null
    } else {
      if (line.startsWith('#')) throw new Error(`neither help nor type: ${line}`)
      const series = seriesOf(line)
      const family = families.get(name)
      if (open !== null || family === undefined) throw new Error(`before its type: ${line}`)
      if (!suffixes[family.type]!.some(suffix => series.name === name + suffix))
        throw new Error(`within ${name}: ${line}`)
      const key = keyOf(series)
      if (seen.has(key)) throw new Error(`twice: ${line}`)
      seen.add(key)
      family.series.push(series)
    }
  }
  for (const [name, family] of families) check(name, family)
  return families
}

function seriesOf(line: string): Series {
  const match = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$/.exec(line)
  if (match === null) throw new Error(`no series: ${line}`)
  const labels: Record<string, string> = {}
  let rest = match[2] ?? ''
  while (rest !== '') {
    const label = /^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,(?=.)|$)/.exec(rest)
    if (label === null) throw new Error(`no label: ${rest} in ${line}`)
    if (label[1]! in labels) throw new Error(`a label twice: ${line}`)
    labels[label[1]!] = label[2]!.replace(/\\(.)/g, (_, letter) => (letter === 'n' ? '\n' : letter))
    rest = rest.slice(label[0].length)
  }
  return { name: match[1]!, labels, value: numberOf(match[3]!) }
}

function numberOf(text: string): number {
  if (/^\+?inf$/i.test(text)) return Number.POSITIVE_INFINITY
  if (/^-inf$/i.test(text)) return Number.NEGATIVE_INFINITY
  if (/^nan$/i.test(text)) return Number.NaN
  if (!/^-?\d+(\.\d+)?(e[+-]?\d+)?$/.test(text)) throw new Error(`no number: ${text}`)
  return Number(text)
}

function check(name: string, { type, series }: Family): void {
  if (type === 'counter') {
    if (!name.endsWith('_total')) throw new Error(`the counter ${name} does not end in _total`)
    if (series.some(({ value }) => !(value >= 0))) throw new Error(`the counter ${name} is negative`)
  }
  if (type === 'histogram') checkHistogram(name, series)
}

function checkHistogram(name: string, series: readonly Series[]): void {
  const groups = new Map<string, Series[]>()
  for (const each of series) {
    const { le: _, ...labels } = each.labels
    const key = JSON.stringify(labels)
    groups.set(key, [...(groups.get(key) ?? []), each])
  }
  for (const [labels, group] of groups) {
    const buckets = group.filter(each => each.name === `${name}_bucket`)
    const bounds = buckets.map(({ labels }) => numberOf(labels.le!))
    const count = group.find(each => each.name === `${name}_count`)?.value
    const sum = group.find(each => each.name === `${name}_sum`)?.value
    const isRising = (values: readonly number[]): boolean =>
      values.every((value, place) => place === 0 || value >= values[place - 1]!)
    if (bounds.at(-1) !== Number.POSITIVE_INFINITY || !isRising(bounds) || new Set(bounds).size !== bounds.length)
      throw new Error(`the buckets of ${name}${labels} are ${bounds}`)
    if (!isRising(buckets.map(({ value }) => value))) throw new Error(`the buckets of ${name}${labels} do not add up`)
    if (count === undefined || buckets.at(-1)!.value !== count) throw new Error(`${name}${labels} has no count of all`)
    if (sum === undefined || sum < 0) throw new Error(`${name}${labels} has no sum`)
  }
}
