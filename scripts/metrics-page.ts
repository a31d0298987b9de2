// docs/operations/metrics.md, from the table of metrics.
import { timingBounds } from '../src/server/figures/timing.ts'
import type { Metric } from '../src/server/metrics/metric.ts'
import { metrics } from '../src/server/metrics/table.ts'

export function metricsPage(): string {
  return `${[
    '# Metrics',
    '',
    "`GET /metrics` answers in Prometheus's text format, with `Authorization: Bearer <OPERATOR_TOKEN>`, on `ADMIN_PORT` if that is set, and not",
    'at all without a token:',
    '',
    '```yaml',
    'scrape_configs:',
    '  - job_name: tidegate',
    '    scrape_interval: 15s',
    '    authorization: { credentials_file: /etc/prometheus/tidegate-operator-token }',
    '    static_configs: [{ targets: ["tidegate-1:4000", "tidegate-2:4000"] }]',
    '```',
    '',
    '[alerts.md](alerts.md) has rules for it, [grafana.json](grafana.json) is a dashboard to import into Grafana.',
    '',
    'Scrape every node. Each tells of itself alone; of the slot, which is one, every node tells what Postgres told it within the last second, so',
    'take the `max` over nodes. Counters begin at 0 when a process starts. A label is a code, a stage or a kind from a fixed list: tokens, values',
    'of rows, topics and names of tables are in none. Between two scrapes nothing is computed. One scrape of a node with 5,000 connections takes',
    'less than 10 ms.',
    '',
    `Histograms have buckets up to ${timingBounds.map(String).join(', ')} seconds.`,
    '',
    'This page is written by `npm run docs` from the table in `src/server/metrics/table.ts`.',
    '',
    ...table(),
    '',
    '## Stages',
    '',
    "A commit's way through a node, as `tidegate_stage_duration_seconds` has it. Columns are decoded when somebody asks for them, so that most of",
    'the decoding lies in `authorize` and `route`.',
    '',
    '| Stage | What is timed |',
    '| --- | --- |',
    "| `wal` | from the commit's time in Postgres until its last bytes came; only where the slot is held |",
    "| `relay` | from there until it was at hand to be served: through Redis where there is one, and behind the commits before it. Where the slot is not held it begins with the commit's time in Postgres |",
    '| `decode` | its changes walked and folded by row; only of a commit that somebody follows a table of, and that fits into memory (`SPOOL_BYTES`), as the stages behind it |',
    '| `authorize` | memberships moved, rows judged |',
    '| `route` | what it is for whom, encoded once for all who get the same |',
    '| `deliver` | handed to the queues of sockets; the first of a turn of the event loop is written at once, the others at its end |',
    '',
    '`wal`, and `relay` where the slot is not held, compare the clocks of two machines: a skew of them shows there.',
    '',
    '## Of the process',
    '',
    'Beside them stand what `prom-client` tells of every Node process: `process_cpu_seconds_total`, `process_resident_memory_bytes`,',
    '`process_open_fds` and `process_max_fds` (alarm above 0.8), `nodejs_eventloop_lag_p99_seconds` (of 10 ms steps, so that 0.011 is an idle',
    'process; above 0.1 the node is too busy), `nodejs_heap_size_used_bytes`, `nodejs_gc_duration_seconds` and others.',
  ].join('\n')}\n`
}

const labelOf = ({ label }: Metric): string => (label === undefined ? '' : `\`${label.name}\`: ${label.values}`)

function table(): string[] {
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`
  return [
    line(['Metric', 'Type', 'Label', 'Unit', 'Meaning', 'Bad']),
    line(['---', '---', '---', '---', '---', '---']),
    ...Object.entries(metrics).map(([name, metric]) =>
      line([`\`${name}\``, metric.type, labelOf(metric), metric.unit, metric.help, metric.bad]),
    ),
  ]
}
