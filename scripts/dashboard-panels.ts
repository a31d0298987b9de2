// What the dashboard shows: rows of panels, each with what to make of it.
import { stages } from '../src/server/figures/stage.ts'

/** Grafana's names of units. */
type Unit = 'short' | 'bytes' | 'Bps' | 's' | 'ops' | 'percentunit' | 'bool_yes_no' | 'none'

export interface Query {
  /** With `$instance` and `$__rate_interval`, which Grafana fills in. */
  readonly expr: string
  /** A template of Grafana: `{{instance}}`. */
  readonly legend: string
}

export interface Panel {
  readonly title: string
  readonly description: string
  readonly unit: Unit
  /** A figure instead of a graph. */
  readonly isFigure?: boolean
  readonly queries: readonly Query[]
}

export interface Row {
  readonly title: string
  readonly panels: readonly Panel[]
}

const of = (metric: string, labels = ''): string =>
  `${metric}{instance=~"$instance"${labels === '' ? '' : `, ${labels}`}}`
const rate = (metric: string, labels = ''): string => `rate(${of(metric, labels)}[$__rate_interval])`
const perNode = (expr: string): Query => ({ expr, legend: '{{instance}}' })
const quantile = (q: number, metric: string, by: string, labels = ''): string =>
  `histogram_quantile(${q}, sum by (${by}) (${rate(`${metric}_bucket`, labels)}))`
const p50AndP99 = (metric: string): readonly Query[] => [
  { expr: quantile(0.5, metric, 'le'), legend: 'p50' },
  { expr: quantile(0.99, metric, 'le'), legend: 'p99' },
]

const stage = 'tidegate_stage_duration_seconds'
const stageText: Readonly<Record<(typeof stages)[number], string>> = {
  wal: "From the commit's own time in Postgres until its last bytes came: two clocks. Only of the leader.",
  relay: 'Until it was at hand to be served: through Redis, and behind the commits before it.',
  decode: 'Its changes walked, of commits to tables that somebody follows.',
  authorize: 'Memberships moved and rows judged. High: policies that read much, or many audiences.',
  route: 'What it is for whom, and encoded once for all who get the same.',
  deliver: 'Handed to the queues of sockets. High: many readers, or a busy event loop.',
}

export const rows: readonly Row[] = [
  {
    title: 'Health',
    panels: [
      {
        title: 'Nodes ready',
        description:
          'Nodes that a balancer may send connections to. Less than there are: see the log of those that are not.',
        unit: 'none',
        isFigure: true,
        queries: [{ expr: `sum(${of('tidegate_ready')})`, legend: 'ready' }],
      },
      {
        title: 'Leaders',
        description: 'Nodes that hold the replication slot: 1, but for seconds when another takes over.',
        unit: 'none',
        isFigure: true,
        queries: [{ expr: `sum(${of('tidegate_leader')})`, legend: 'leaders' }],
      },
      {
        title: 'Nodes stale or in trouble',
        description:
          'Stale: clients are told that nothing new comes. In trouble: something is tried again until it works. Both want 0.',
        unit: 'none',
        isFigure: true,
        queries: [
          { expr: `sum(${of('tidegate_stale')})`, legend: 'stale' },
          { expr: `sum(${of('tidegate_trouble')})`, legend: 'in trouble' },
        ],
      },
      {
        title: 'Releases',
        description: 'Nodes of each release. Two releases for longer than a deploy takes: finish it, or take it back.',
        unit: 'none',
        isFigure: true,
        queries: [{ expr: `sum by (version) (${of('tidegate_build_info')})`, legend: '{{version}}' }],
      },
      {
        title: 'Lag of nodes',
        description:
          'How long the newest heartbeat was on its whole way, from a write to Postgres to this node. Above 1 s: a very large commit, or something is too slow.',
        unit: 's',
        queries: [perNode(of('tidegate_node_lag_seconds'))],
      },
      {
        title: 'Failed attempts',
        description: 'At what keeps changes coming, by code: docs/errors.md says what to do about each.',
        unit: 'ops',
        queries: [{ expr: `sum by (code) (${rate('tidegate_trouble_total')})`, legend: '{{code}}' }],
      },
    ],
  },
  {
    title: 'Path of a commit',
    panels: [
      {
        title: 'Commits and changes',
        description:
          'Commits served by a node, and rows in them; heartbeats alone are one every BEACON_MS. Every node serves all of them.',
        unit: 'ops',
        queries: [
          { expr: `max(${rate('tidegate_commits_total')})`, legend: 'commits' },
          { expr: `max(${rate('tidegate_changes_total')})`, legend: 'changes' },
        ],
      },
      {
        title: 'Bytes of the WAL',
        description: 'What the leader reads from the slot, and what every node reads of it.',
        unit: 'Bps',
        queries: [
          { expr: `sum(${rate('tidegate_wal_bytes_total')})`, legend: 'from the slot' },
          { expr: `max(${rate('tidegate_commit_bytes_total')})`, legend: 'served by a node' },
        ],
      },
      {
        title: 'Decisions',
        description:
          'Who may see what: judged here, asked of Postgres, or shared with others of an audience. Many asked: write their policies so that they compile (tidegate explain).',
        unit: 'ops',
        queries: [{ expr: `sum by (kind) (${rate('tidegate_decisions_total')})`, legend: '{{kind}}' }],
      },
      {
        title: 'Commit to delivery',
        description:
          "From a commit's own time in Postgres until it was handed to sockets: the clocks of two machines. p99 above 0.1 s: see which stage it is.",
        unit: 's',
        queries: p50AndP99('tidegate_commit_to_delivery_seconds'),
      },
      ...stages.map(
        (name): Panel => ({
          title: `Stage ${name}`,
          description: stageText[name],
          unit: 's',
          queries: [
            { expr: quantile(0.5, stage, 'le', `stage="${name}"`), legend: 'p50' },
            { expr: quantile(0.99, stage, 'le', `stage="${name}"`), legend: 'p99' },
          ],
        }),
      ),
    ],
  },
  {
    title: 'Delivery',
    panels: [
      {
        title: 'Deliveries and batches',
        description:
          'Events given to one connection each, and what commits told an audience, encoded once. Far apart is good: many share the work.',
        unit: 'ops',
        queries: [
          { expr: `sum(${rate('tidegate_deliveries_total')})`, legend: 'deliveries' },
          { expr: `sum(${rate('tidegate_batches_total')})`, legend: 'batches' },
        ],
      },
      {
        title: 'Bytes to clients',
        description: 'Written to sockets, heartbeats and answers among them. Near what the network carries: add nodes.',
        unit: 'Bps',
        queries: [perNode(rate('tidegate_delivered_bytes_total'))],
      },
      {
        title: 'Writes and merged frames',
        description:
          'Writes to sockets, and frames that went out behind others in one write. Under load most are merged.',
        unit: 'ops',
        queries: [
          { expr: `sum(${rate('tidegate_writes_total')})`, legend: 'writes' },
          { expr: `sum(${rate('tidegate_frames_merged_total')})`, legend: 'merged' },
        ],
      },
      {
        title: 'Waiting for sockets',
        description:
          'What clients have not taken yet, of all connections of a node. Each is cut off or folded at SEND_QUEUE_BYTES.',
        unit: 'bytes',
        queries: [perNode(of('tidegate_queued_bytes'))],
      },
      {
        title: 'Commits folded',
        description: 'Into later ones, for readers that were behind. As many as commits: most readers cannot keep up.',
        unit: 'ops',
        queries: [perNode(rate('tidegate_commits_folded_total'))],
      },
      {
        title: 'Window',
        description:
          'Commits kept in memory, from which clients resume. At WINDOW_MAX_BYTES it reaches back less far than WINDOW_MAX_AGE_MS.',
        unit: 'bytes',
        queries: [perNode(of('tidegate_window_bytes'))],
      },
    ],
  },
  {
    title: 'Clients and refusals',
    panels: [
      {
        title: 'Connections',
        description:
          'WebSockets, event streams and requests held open, and MAX_CONNECTIONS. Leave room for the clients of a node that dies.',
        unit: 'short',
        queries: [
          perNode(of('tidegate_connections')),
          { expr: `max(${of('tidegate_connections_limit')})`, legend: 'limit of a node' },
        ],
      },
      {
        title: 'Opened and closed',
        description:
          'Connections that began, and that ended, by code. SLOW_CONSUMER or HEARTBEAT_MISSED for many at once: a network, or a node that is too busy.',
        unit: 'ops',
        queries: [
          { expr: `sum(${rate('tidegate_connections_opened_total')})`, legend: 'opened' },
          { expr: `sum by (code) (${rate('tidegate_connections_closed_total')})`, legend: '{{code}}' },
        ],
      },
      {
        title: 'Refusals',
        description:
          'By code: docs/errors.md has each, docs/operations/limits.md those of limits. INTERNAL is a defect.',
        unit: 'ops',
        queries: [{ expr: `sum by (code) (${rate('tidegate_refusals_total')})`, legend: '{{code}}' }],
      },
      {
        title: 'Begun anew',
        description: 'Subscriptions that were sent all their rows again, by code. EPOCH_CHANGED: the slot was lost.',
        unit: 'ops',
        queries: [{ expr: `sum by (code) (${rate('tidegate_resyncs_total')})`, legend: '{{code}}' }],
      },
      {
        title: 'Subscriptions and audiences',
        description:
          'Subscriptions that share a query, a role and the claims that matter are one audience, and cost as one.',
        unit: 'short',
        queries: [
          { expr: `sum(${of('tidegate_subscriptions')})`, legend: 'subscriptions' },
          { expr: `sum(${of('tidegate_audiences')})`, legend: 'audiences' },
          { expr: `sum(${of('tidegate_queries')})`, legend: 'queries' },
        ],
      },
      {
        title: 'Channels',
        description: 'Channels with members, their members, and channels in which somebody is present, on all nodes.',
        unit: 'short',
        queries: [
          { expr: `sum(${of('tidegate_channels')})`, legend: 'channels' },
          { expr: `sum(${of('tidegate_channel_members')})`, legend: 'members' },
          { expr: `sum(${of('tidegate_presence_rooms')})`, legend: 'with presence' },
        ],
      },
    ],
  },
  {
    title: 'Postgres and the slot',
    panels: [
      {
        title: 'WAL that the slot retains',
        description:
          'Past the limit (SLOT_MAX_BYTES) the slot is dropped and every client starts over. Not acknowledged: a part is held back on purpose.',
        unit: 'bytes',
        queries: [
          { expr: `max(${of('tidegate_slot_retained_wal_bytes')})`, legend: 'retained' },
          { expr: `max(${of('tidegate_slot_lag_bytes')})`, legend: 'not acknowledged' },
          { expr: `max(${of('tidegate_slot_wal_limit_bytes')})`, legend: 'limit' },
        ],
      },
      {
        title: 'Age of what is not acknowledged',
        description: 'Of the oldest WAL. About WINDOW_MAX_AGE_MS on a single node, RELAY_HOLD_MS with Redis.',
        unit: 's',
        queries: [{ expr: `max(${of('tidegate_slot_lag_seconds')})`, legend: 'age' }],
      },
      {
        title: 'WAL not yet here',
        description:
          'Written and not yet come to a node, and not yet served by it. If the first grows: the leader, Redis or Postgres. If only the second: this node is too slow.',
        unit: 'bytes',
        queries: [
          { expr: of('tidegate_relay_lag_bytes'), legend: 'not come to {{instance}}' },
          { expr: of('tidegate_node_lag_bytes'), legend: 'not served by {{instance}}' },
        ],
      },
      {
        title: 'Connections to Postgres',
        description: 'In use, by what for, and DATABASE_POOL of all nodes.',
        unit: 'short',
        queries: [
          { expr: `sum by (lane) (${of('tidegate_postgres_connections')})`, legend: '{{lane}}' },
          { expr: `sum(${of('tidegate_postgres_connections_limit')})`, legend: 'limit' },
        ],
      },
      {
        title: 'Waiting for Postgres',
        description:
          'Requests that wait for a connection. Above 0 for minutes: raise DATABASE_POOL, SNAPSHOT_CONCURRENCY or ASKED_CONCURRENCY.',
        unit: 'short',
        queries: [{ expr: `sum by (lane) (${of('tidegate_postgres_waiting')})`, legend: '{{lane}}' }],
      },
      {
        title: 'First rows',
        description:
          'How long a subscription waits for its rows. p99 above 5 s: queries or policies without an index, or too few connections.',
        unit: 's',
        queries: p50AndP99('tidegate_snapshot_duration_seconds'),
      },
      {
        title: 'Rows of snapshots',
        description: 'Read for subscriptions that begin, and snapshots under way.',
        unit: 'short',
        queries: [
          { expr: `sum(${rate('tidegate_snapshot_rows_total')})`, legend: 'rows a second' },
          { expr: `sum(${of('tidegate_splices')})`, legend: 'under way' },
        ],
      },
    ],
  },
  {
    title: 'Memory and the event loop',
    panels: [
      {
        title: 'Memory',
        description: 'Of the process, beside what its container or machine allows. At the limit the process is killed.',
        unit: 'bytes',
        queries: [
          perNode(of('process_resident_memory_bytes')),
          { expr: `min(${of('tidegate_memory_limit_bytes', 'of="process"')})`, legend: 'limit' },
        ],
      },
      {
        title: 'Heap',
        description: 'Of JavaScript, and what Node allows itself.',
        unit: 'bytes',
        queries: [
          perNode(of('nodejs_heap_size_used_bytes')),
          { expr: `min(${of('tidegate_memory_limit_bytes', 'of="heap"')})`, legend: 'limit' },
        ],
      },
      {
        title: 'Processor',
        description: 'Cores that a node uses: its stream has one. Near 1: add a node.',
        unit: 'percentunit',
        queries: [perNode(rate('process_cpu_seconds_total'))],
      },
      {
        title: 'Turns of the event loop',
        description:
          'How late turns begin, at the 99th percentile, in steps of 10 ms. Above 0.1 s the node is too busy.',
        unit: 's',
        queries: [perNode(of('nodejs_eventloop_lag_p99_seconds'))],
      },
      {
        title: 'Open files',
        description: 'Of those that the process may open. Above 0.8 raise ulimit -n, or add a node.',
        unit: 'percentunit',
        queries: [perNode(`${of('process_open_fds')} / ${of('process_max_fds')}`)],
      },
      {
        title: 'Garbage collection',
        description: 'Share of the time that goes into it. Above 0.1: too much is in memory for its limit.',
        unit: 'percentunit',
        queries: [perNode(`sum by (instance) (${rate('nodejs_gc_duration_seconds_sum')})`)],
      },
    ],
  },
]
