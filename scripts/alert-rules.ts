// What somebody is told of, by Prometheus: docs/operations/alerts.yml and alerts.md are written from this table.
import { type OperatorCode, operatorCodes } from '../src/protocol/operator-codes.ts'
import { alarms } from './alarms.ts'

export interface AlertRule {
  readonly name: string
  /** now: wake somebody. today: it waits for the morning. */
  readonly severity: 'now' | 'today'
  /** How long it must be so, as Prometheus writes times. */
  readonly for: string
  readonly expr: string
  /** One line, for a telephone; a template of Prometheus. */
  readonly summary: string
  readonly means: string
  readonly todo: string
}

/** What a counter grew by, by deployment and code. `increase` alone sees nothing of a series that begins with its first event. */
const grown = (selector: string, window: string): string =>
  `sum by (job, code) ((${selector} unless ${selector} offset ${window}) or increase(${selector}[${window}]))`

/** Also true of other programs under the same Prometheus. */
const ofNodes = 'and on (job, instance) tidegate_build_info'

/** Those that the log names, and tidegate_trouble_total counts. What lasts is tried again at least every ten seconds. */
const codes: readonly OperatorCode[] = [
  'DATABASE_UNREACHABLE',
  'DATABASE_STANDBY',
  'DATABASE_POOLED',
  'RELAY_UNREACHABLE',
  'RELAY_FULL',
  'RELAY_NOT_DURABLE',
  'JOURNAL_UNREADABLE',
  'STREAM_BEHIND',
  'SLOT_BLOCKED',
  'SPOOL_FAILED',
  'PUBLICATION_MISSING',
  'SLOT_LOST',
  'SLOT_AHEAD',
  'SLOT_OVER_LIMIT',
  'HISTORY_DIVERGED',
  'SLOT_BUSY',
  'WAL_UNREADABLE',
  'LSN_WENT_BACKWARDS',
  'PRIVILEGE_MISSING',
]

/** `TidegateSlotLost` */
const nameOf = (code: string): string =>
  `Tidegate${code.replace(/([A-Z])([A-Z]*)_?/g, (_, first: string, rest: string) => first + rest.toLowerCase())}`

function ofCode(code: OperatorCode): AlertRule {
  const { meaning, remedy } = operatorCodes[code]
  const isNow = alarms[code] === 'now'
  const selector = `tidegate_trouble_total{code="${code}"}`
  return {
    name: nameOf(code),
    severity: isNow ? 'now' : 'today',
    // A failover of Postgres or Redis is over by then.
    for: isNow ? '90s' : '0s',
    expr: `${grown(selector, isNow ? '1m' : '10m')} > 0`,
    summary: `${code} in {{ $labels.job }}`,
    means: meaning,
    todo: remedy,
  }
}

const node = '{{ $labels.instance }}'
const deployment = '{{ $labels.job }}'
const shutOut = 'TOO_MANY_CONNECTIONS|BUSY|UNAVAILABLE|INDEX_FULL|ASKED_TOO_MANY'

export const alertRules: readonly AlertRule[] = [
  {
    name: 'TidegateNodeDown',
    severity: 'now',
    for: '1m',
    expr: 'up == 0 and on (job, instance) max_over_time(tidegate_build_info[1d])',
    summary: `${node} does not answer`,
    means: 'A node that answered within the last day does not. Its clients have gone to others, if there are any.',
    todo: 'Look whether the process runs, and at the end of its log. A new OPERATOR_TOKEN that Prometheus does not have looks the same: its page of targets then says 401.',
  },
  {
    name: 'TidegateAbsent',
    severity: 'now',
    for: '5m',
    expr: 'absent(tidegate_build_info)',
    summary: 'No node of Tidegate is known',
    means: 'Prometheus knows of no node at all: none runs, or its configuration does not find them.',
    todo: 'Look whether nodes run, then at the targets of Prometheus.',
  },
  {
    name: 'TidegateNotReady',
    severity: 'now',
    for: '1m',
    expr: 'tidegate_ready == 0 unless tidegate_draining == 1',
    summary: `${node} takes nobody in`,
    means: 'The node runs and does not stop, but has not taken up the stream, or is the only one that is cut off.',
    todo: 'Ask /ready?scope=node of it: `why` says what it waits for. tidegate doctor, where it runs, says what is wrong.',
  },
  {
    name: 'TidegateStale',
    severity: 'now',
    for: '30s',
    expr: 'tidegate_stale == 1',
    summary: `clients of ${node} are told stale`,
    means: 'Heartbeats written to the WAL do not come back: clients stay connected and see nothing new.',
    todo: 'Another alarm, or a code in the log, says why. Of one node alone: look at its way to Redis, or restart it. Of all: look at Postgres, Redis and the leader.',
  },
  {
    name: 'TidegateDrainingLong',
    severity: 'today',
    for: '15m',
    expr: 'tidegate_draining == 1',
    summary: `${node} is leaving and does not end`,
    means: 'A node that was told to stop still runs.',
    todo: 'See DRAIN_DELAY_MS, DRAIN_SPREAD_MS and DRAIN_TIMEOUT_MS; if they have passed, kill it and report its log.',
  },
  {
    name: 'TidegateNoLeader',
    severity: 'now',
    for: '30s',
    expr: 'sum by (job) (tidegate_leader) == 0',
    summary: `no node of ${deployment} leads`,
    means: 'No node holds the replication slot: nobody is told anything new, and the WAL grows.',
    todo: 'Look at the logs: each node says what it waits for. If another program holds the slot (pg_replication_slots.active_pid), stop it.',
  },
  {
    name: 'TidegateTwoLeaders',
    severity: 'now',
    for: '1m',
    expr: 'sum by (job) (tidegate_leader) > 1',
    summary: `several nodes of ${deployment} lead`,
    means:
      'Nodes hold different slots: they follow different databases, or run under different names. If they share a Redis, none of them can go on.',
    todo: 'Compare DATABASE_URL and TIDEGATE_NAME of the nodes. Two deployments want two jobs in Prometheus.',
  },
  {
    name: 'TidegateNodeBehind',
    severity: 'today',
    for: '2m',
    expr: 'tidegate_node_lag_seconds > 2',
    summary: `${node} is {{ $value | humanizeDuration }} behind`,
    means: 'Commits reach the clients of this node late: it is too busy, or what it reads comes late.',
    todo: 'Compare tidegate_relay_lag_bytes and tidegate_node_lag_bytes. If both grow: the leader, Redis or Postgres. If the second alone: this node serves more than it can; look at its processor, and add a node.',
  },
  {
    name: 'TidegateSlotHalf',
    severity: 'today',
    for: '5m',
    expr: 'max by (job) (tidegate_slot_retained_wal_bytes / tidegate_slot_wal_limit_bytes) > 0.5',
    summary: `the slot of ${deployment} is at {{ $value | humanizePercentage }} of its limit`,
    means: 'The slot keeps Postgres from removing WAL: more than half of SLOT_MAX_BYTES.',
    todo: 'See "When the slot grows" in docs/operations.md: mostly a transaction that stays open, or a Redis that cannot store.',
  },
  {
    name: 'TidegateSlotThreeQuarters',
    severity: 'now',
    for: '1m',
    expr: 'max by (job) (tidegate_slot_retained_wal_bytes / tidegate_slot_wal_limit_bytes) > 0.75',
    summary: `the slot of ${deployment} is at {{ $value | humanizePercentage }} of its limit`,
    means: 'Past all of SLOT_MAX_BYTES the slot is dropped to protect the disk, and every client starts over.',
    todo: 'End the oldest transaction (pg_stat_activity by xact_start, pg_prepared_xacts), or mend Redis. If the disk has room, restart the nodes with a larger SLOT_MAX_BYTES, and raise max_slot_wal_keep_size first.',
  },
  {
    name: 'TidegateSlotInDanger',
    severity: 'now',
    for: '30s',
    expr: 'max by (job, status) (tidegate_slot_wal_status{status=~"unreserved|lost"}) == 1',
    summary: `the WAL of the slot of ${deployment} is {{ $labels.status }}`,
    means:
      'unreserved: Postgres removes WAL that the slot needs at its next checkpoint, because of max_slot_wal_keep_size. lost: it has; the slot is replaced, and every client starts over.',
    todo: 'ALTER SYSTEM SET max_slot_wal_keep_size to more than SLOT_MAX_BYTES, then SELECT pg_reload_conf(); then find what holds the slot back.',
  },
  ...codes.map(ofCode),
  {
    name: 'TidegateResyncs',
    severity: 'today',
    for: '0s',
    expr: `${grown('tidegate_resyncs_total', '5m')} > 100 and ${grown('tidegate_resyncs_total', '5m')} > on (job) group_left () 0.2 * sum by (job) (tidegate_subscriptions)`,
    summary: `{{ $value | humanize }} subscriptions of ${deployment} began anew ({{ $labels.code }})`,
    means:
      'More than a hundred subscriptions, and more than a fifth of them, began anew within five minutes: each asks Postgres for its rows.',
    todo: 'EPOCH_CHANGED: the slot was replaced, the log says why. WINDOW_PASSED: clients were away for longer than WINDOW_MAX_AGE_MS or WINDOW_MAX_BYTES reach. POLICY_CHANGED: somebody changed a policy or a table.',
  },
  {
    name: 'TidegateRefuses',
    severity: 'now',
    for: '2m',
    expr: `${grown(`tidegate_refusals_total{code=~"${shutOut}"}`, '1m')} > 0`,
    summary: `${deployment} refuses clients ({{ $labels.code }})`,
    means:
      'For two minutes clients were refused again and again because a limit of the nodes was reached, or something is away.',
    todo: 'TOO_MANY_CONNECTIONS, INDEX_FULL: add a node. BUSY: raise DATABASE_POOL and SNAPSHOT_CONCURRENCY, or add a node. ASKED_TOO_MANY: write the policies so that they compile. UNAVAILABLE: another alarm says what is away. docs/operations/limits.md has each of them.',
  },
  {
    name: 'TidegateDefect',
    severity: 'today',
    for: '0s',
    expr: `${grown('tidegate_refusals_total{code="INTERNAL"}', '10m')} > 0`,
    summary: `${deployment} failed at what a client asked for`,
    means: 'A fault of Tidegate: what a client asked for was refused, and nothing was told in its place.',
    todo: 'Report it with the line of the log that says so, and its stack.',
  },
  {
    name: 'TidegateConnectionsNearLimit',
    severity: 'today',
    for: '5m',
    expr: 'tidegate_connections / tidegate_connections_limit > 0.9',
    summary: `${node} holds {{ $value | humanizePercentage }} of the connections it may`,
    means: 'Soon it refuses clients (TOO_MANY_CONNECTIONS). A node that dies sends its clients to the others too.',
    todo: 'Add a node and run tidegate rebalance, or raise MAX_CONNECTIONS if memory and files allow.',
  },
  {
    name: 'TidegatePostgresWaiting',
    severity: 'today',
    for: '5m',
    expr: 'sum by (job, instance) (tidegate_postgres_waiting) > 0',
    summary: `${node} waits for connections to Postgres`,
    means:
      'First rows, questions or reads of memberships wait for one of DATABASE_POOL connections for minutes: subscribing is slow.',
    todo: 'Raise DATABASE_POOL and SNAPSHOT_CONCURRENCY or ASKED_CONCURRENCY; look for slow queries in pg_stat_activity.',
  },
  {
    name: 'TidegateQueues',
    severity: 'today',
    for: '2m',
    expr: 'tidegate_queued_bytes > 256 * 1024 * 1024',
    summary: `{{ $value | humanize1024 }}B wait for sockets of ${node}`,
    means:
      'Clients take less than they are sent, or the network does. Each is bounded by SEND_QUEUE_BYTES; all together they fill memory.',
    todo: 'Look at the network of the node. If few clients are slow, nothing: they are folded or cut off. If many are, lower SEND_QUEUE_BYTES or add nodes.',
  },
  {
    name: 'TidegateSnapshotsSlow',
    severity: 'today',
    for: '5m',
    expr: 'histogram_quantile(0.99, sum by (job, le) (rate(tidegate_snapshot_duration_seconds_bucket[5m]))) > 5',
    summary: `first rows take {{ $value | humanizeDuration }} in ${deployment}`,
    means: 'One in a hundred subscriptions waits for its first rows for more than five seconds.',
    todo: 'Queries or policies without an index (EXPLAIN them as the role), or too few connections: SNAPSHOT_CONCURRENCY and DATABASE_POOL.',
  },
  {
    name: 'TidegateEventLoop',
    severity: 'today',
    for: '5m',
    expr: `nodejs_eventloop_lag_p99_seconds > 0.1 ${ofNodes}`,
    summary: `${node} is busy: turns take {{ $value | humanizeDuration }}`,
    means: 'The node is too busy: everything that it sends waits for its turns.',
    todo: 'Look at its rows in the dashboard: more commits, more clients, or asked policies. Add a node; on a small machine give it a whole core.',
  },
  {
    name: 'TidegateMemory',
    severity: 'today',
    for: '5m',
    expr: 'process_resident_memory_bytes / on (job, instance) tidegate_memory_limit_bytes{of="process"} > 0.9 or nodejs_heap_size_used_bytes / on (job, instance) tidegate_memory_limit_bytes{of="heap"} > 0.9',
    summary: `${node} uses {{ $value | humanizePercentage }} of its memory`,
    means:
      'Of its container or the machine, or of the heap that Node allows itself: past it the process is killed, and its clients go to others.',
    todo: 'Compare connections, WINDOW_MAX_BYTES and memberships with the sizes in docs/operations.md; give it more memory, or add a node. If it grows while nothing else does, report it.',
  },
  {
    name: 'TidegateDescriptors',
    severity: 'today',
    for: '5m',
    expr: `process_open_fds / process_max_fds > 0.8 ${ofNodes}`,
    summary: `${node} has {{ $value | humanizePercentage }} of the files open that it may`,
    means: 'Near the limit of open files it takes no further connections.',
    todo: 'Raise it (ulimit -n, LimitNOFILE=, --ulimit nofile=) and restart, or add a node.',
  },
  {
    name: 'TidegateReleasesMixed',
    severity: 'today',
    for: '1h',
    expr: 'count by (job) (count by (job, version) (tidegate_build_info)) > 1',
    summary: `${deployment} runs {{ $value }} releases`,
    means: 'Nodes of several releases run beside each other for longer than a deploy takes.',
    todo: 'Finish the deploy, or take it back.',
  },
]
