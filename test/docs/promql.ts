// Which metrics and labels an expression of Prometheus names.
import { metrics } from '../../src/server/metrics/table.ts'

export interface Named {
  readonly metrics: readonly string[]
  readonly labels: readonly string[]
}

export function namesIn(expr: string): Named {
  const selectors = [...expr.matchAll(/\{([^}]*)\}/g)].flatMap(match => [...match[1]!.matchAll(/(\w+)\s*[=!]/g)])
  const lists = [...expr.matchAll(/\b(?:by|on|group_left|group_right|without|ignoring)\s*\(([^)]*)\)/g)]
  const listed = lists.flatMap(match => match[1]!.split(',').map(label => label.trim()))
  const bare = expr.replace(/\{[^}]*\}|"[^"]*"/g, '')
  return {
    metrics: [...new Set(bare.match(/\b(?:tidegate|process|nodejs)_\w+|\bup\b/g) ?? [])],
    labels: [...new Set([...selectors.map(match => match[1]!), ...listed.filter(label => label !== '')])],
  }
}

/** Of all nodes' processes, by prom-client. */
const ofProcess = new Set([
  'up',
  'process_cpu_seconds_total',
  'process_resident_memory_bytes',
  'process_open_fds',
  'process_max_fds',
  'nodejs_eventloop_lag_p99_seconds',
  'nodejs_heap_size_used_bytes',
  'nodejs_gc_duration_seconds_sum',
])

/** What is named and does not exist. */
export function unknownIn(expr: string): readonly string[] {
  const named = namesIn(expr)
  const baseOf = (name: string): string => (name in metrics ? name : name.replace(/_(bucket|sum|count)$/, ''))
  const isKnown = (name: string): boolean => ofProcess.has(name) || baseOf(name) in metrics
  const labels = new Set(['job', 'instance', 'le'])
  for (const name of named.metrics) {
    const label = metrics[baseOf(name)]?.label?.name
    if (label !== undefined) labels.add(label)
  }
  return [...named.metrics.filter(name => !isKnown(name)), ...named.labels.filter(label => !labels.has(label))]
}
