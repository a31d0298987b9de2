// Every metric of a node, by name: what /metrics tells and docs/operations/metrics.md explains. Labels are codes, stages and kinds of
// ours, and the version: nothing of a client's.
import { totalmem } from 'node:os'
import { getHeapStatistics } from 'node:v8'
import { stages } from '../figures/stage.ts'
import { release } from '../nodes/release.ts'
import type { HistogramMetric, Metric, PlainMetric } from './metric.ts'

const yes = (is: boolean): number => (is ? 1 : 0)
const counter = (entry: Omit<PlainMetric, 'type'>): Metric => ({ type: 'counter', ...entry })
const gauge = (entry: Omit<PlainMetric, 'type'>): Metric => ({ type: 'gauge', ...entry })
const histogram = (entry: Omit<HistogramMetric, 'type'>): Metric => ({ type: 'histogram', ...entry })

const byCode = { name: 'code', values: '[a code](../errors.md)' }
const fine = 'None by itself.'
/** Where nothing limits a container, Node says 0 or more than there is. */
const memoryLimit = Math.min(process.constrainedMemory() || totalmem(), totalmem())

export const metrics: Readonly<Record<string, Metric>> = {
  tidegate_build_info: gauge({
    help: 'Which version runs; always 1.',
    unit: 'none',
    label: { name: 'version', values: 'of the package' },
    bad: 'Two versions for longer than a deploy takes.',
    read: () => [[release, 1]],
  }),
  tidegate_ready: gauge({
    help: 'Whether this node may be sent connections, as /ready?scope=node answers.',
    unit: '0 or 1',
    bad: '0 for longer than a start or a deploy takes.',
    read: ({ gauges }) => yes(gauges.isReady),
  }),
  tidegate_leader: gauge({
    help: 'Whether this node holds the replication slot.',
    unit: '0 or 1',
    bad: 'A sum over all nodes other than 1 for longer than ten seconds.',
    read: ({ gauges }) => yes(gauges.leads),
  }),
  tidegate_stale: gauge({
    help: 'Whether heartbeats written to the WAL do not come back: clients are told so.',
    unit: '0 or 1',
    bad: '1.',
    read: ({ gauges }) => yes(gauges.isStale),
  }),
  tidegate_draining: gauge({
    help: 'Whether this node is leaving and sends its connections away.',
    unit: '0 or 1',
    bad: '1 for longer than DRAIN_TIMEOUT_MS.',
    read: ({ gauges }) => yes(gauges.isDraining),
  }),
  tidegate_trouble: gauge({
    help: 'Whether something keeps changes from coming; tidegate_trouble_total says what.',
    unit: '0 or 1',
    bad: '1.',
    read: ({ gauges }) => yes(gauges.isInTrouble),
  }),
  tidegate_trouble_total: counter({
    help: 'Attempts that failed at what keeps changes coming, and slots that were given up for new ones, by code.',
    unit: 'attempts',
    label: { name: 'code', values: '[a code](../errors.md), or `OTHER`' },
    bad: 'It grows for longer than a minute.',
    read: ({ figures }) => figures.troubles.entries(),
  }),

  tidegate_slot_lag_bytes: gauge({
    help: "WAL behind the slot's confirmed_flush_lsn. A part of it is held back on purpose, to be read again after a restart.",
    unit: 'bytes',
    bad: 'Above half of tidegate_slot_wal_limit_bytes.',
    read: ({ gauges }) => gauges.slot?.lagBytes ?? null,
  }),
  tidegate_slot_lag_seconds: gauge({
    help: 'How old the oldest WAL is that the slot has not been acknowledged.',
    unit: 'seconds',
    bad: 'Far above WINDOW_MAX_AGE_MS on a single node, or RELAY_HOLD_MS with Redis.',
    read: ({ gauges }) => gauges.slot?.lagSeconds ?? null,
  }),
  tidegate_slot_retained_wal_bytes: gauge({
    help: 'WAL that the slot keeps Postgres from removing, behind its restart_lsn. A transaction that stays open holds it back too.',
    unit: 'bytes',
    bad: 'Above three quarters of tidegate_slot_wal_limit_bytes: past all of it the slot is dropped, and every client begins anew.',
    read: ({ gauges }) => gauges.slot?.retainedBytes ?? null,
  }),
  tidegate_slot_wal_limit_bytes: gauge({
    help: 'SLOT_MAX_BYTES.',
    unit: 'bytes',
    bad: fine,
    read: ({ gauges }) => gauges.slotMaxBytes,
  }),
  tidegate_slot_wal_status: gauge({
    help: 'What Postgres says of the WAL that the slot needs (pg_replication_slots.wal_status); always 1.',
    unit: 'none',
    label: { name: 'status', values: '`reserved`, `extended`, `unreserved`, `lost`' },
    bad: '`unreserved`: Postgres removes it at its next checkpoint. `lost`: it has, and every client begins anew.',
    read: ({ gauges }) => (gauges.slot === null ? [] : [[gauges.slot.walStatus, 1]]),
  }),
  tidegate_relay_lag_bytes: gauge({
    help: 'WAL that was written and has not come to this node, when Postgres was last asked.',
    unit: 'bytes',
    bad: 'It grows for longer than a minute.',
    read: ({ gauges }) => gauges.relayLagBytes,
  }),
  tidegate_relay_lag_seconds: gauge({
    help: 'How old the oldest WAL is that has not come to this node; to the second.',
    unit: 'seconds',
    bad: 'Above 10 for longer than a minute.',
    read: ({ gauges }) => gauges.relayLagSeconds,
  }),
  tidegate_node_lag_bytes: gauge({
    help: 'WAL that was written and has not been served by this node, when Postgres was last asked.',
    unit: 'bytes',
    bad: 'It grows while tidegate_relay_lag_bytes does not: this node serves slower than commits come.',
    read: ({ gauges }) => gauges.lagBytes,
  }),
  tidegate_node_lag_seconds: gauge({
    help: 'How long the newest heartbeat was on its whole way through the WAL to this node, or how long one has been awaited.',
    unit: 'seconds',
    bad: 'Above 1 while nothing large is committed.',
    read: ({ gauges }) => gauges.lagMs / 1000,
  }),

  tidegate_wal_messages_total: counter({
    help: 'Messages that came from the slot; only of the node that holds it.',
    unit: 'messages',
    bad: fine,
    read: ({ figures }) => figures.walMessages,
  }),
  tidegate_wal_bytes_total: counter({
    help: 'Their bytes, without those of the protocol around them.',
    unit: 'bytes',
    bad: fine,
    read: ({ figures }) => figures.walBytes,
  }),
  tidegate_commits_total: counter({
    help: 'Commits served, heartbeats among them.',
    unit: 'commits',
    bad: 'No growth within a minute: heartbeats alone make it grow.',
    read: ({ figures }) => figures.commits,
  }),
  tidegate_commit_bytes_total: counter({
    help: 'Bytes of those commits.',
    unit: 'bytes',
    bad: fine,
    read: ({ figures }) => figures.commitBytes,
  }),
  tidegate_changes_total: counter({
    help: 'Rows inserted, updated and deleted in those commits, whether or not anybody follows them.',
    unit: 'rows',
    bad: fine,
    read: ({ figures }) => figures.changes,
  }),
  tidegate_decisions_total: counter({
    help: 'Decisions about who may see what: rows judged here by compiled policies, questions to Postgres, and readers who shared a decision with others of their audience.',
    unit: 'decisions',
    label: { name: 'kind', values: '`compiled`, `asked`, `cached`' },
    bad: '`asked` grows with every commit: see which policy does not compile with tidegate explain.',
    read: ({ figures }) => [
      ['compiled', figures.decisionsCompiled],
      ['asked', figures.decisionsAsked],
      ['cached', figures.decisionsCached],
    ],
  }),
  tidegate_batches_total: counter({
    help: 'What commits told an audience, each encoded once.',
    unit: 'batches',
    bad: fine,
    read: ({ figures }) => figures.batches,
  }),
  tidegate_deliveries_total: counter({
    help: 'Events given to one connection each.',
    unit: 'events',
    bad: fine,
    read: ({ figures }) => figures.deliveries,
  }),
  tidegate_delivered_bytes_total: counter({
    help: 'Bytes written to the sockets of clients, heartbeats and answers among them.',
    unit: 'bytes',
    bad: 'Near what the network interface carries.',
    read: ({ figures }) => figures.deliveredBytes,
  }),
  tidegate_writes_total: counter({
    help: 'Writes to the sockets of clients.',
    unit: 'writes',
    bad: 'Near 230,000 a second: about what one core can do.',
    read: ({ figures }) => figures.writes,
  }),
  tidegate_frames_merged_total: counter({
    help: 'Frames that went out in one write behind another.',
    unit: 'frames',
    bad: fine,
    read: ({ figures }) => figures.mergedFrames,
  }),
  tidegate_commits_folded_total: counter({
    help: 'Commits folded into a later one for a reader that was behind: slow, or away.',
    unit: 'commits',
    bad: 'It grows as fast as tidegate_commits_total: most readers cannot keep up.',
    read: ({ figures }) => figures.foldedCommits,
  }),
  tidegate_stage_duration_seconds: histogram({
    help: 'How long commits took in each stage of their way: of every commit while there are few, of about 200 a second where there are many.',
    unit: 'seconds',
    label: { name: 'stage', values: stages.map(stage => `\`${stage}\``).join(', ') },
    bad: '`relay` far above the others: commits wait for those before them, or for Redis.',
    read: ({ figures }) => Object.entries(figures.timings),
  }),
  tidegate_commit_to_delivery_seconds: histogram({
    help: "From a commit's own time in Postgres until it was handed to sockets, of commits that concern somebody; sampled likewise. It compares the clocks of two machines.",
    unit: 'seconds',
    bad: 'A 99th percentile above 0.1.',
    read: ({ figures }) => [['', figures.endToEnd]],
  }),

  tidegate_snapshot_duration_seconds: histogram({
    help: 'How long first rows took, from the moment they were asked for until they were joined to the stream.',
    unit: 'seconds',
    bad: 'A 99th percentile above 5: queries without an index, or too few SNAPSHOT_CONCURRENCY.',
    read: ({ figures }) => [['', figures.snapshotTiming]],
  }),
  tidegate_snapshot_rows_total: counter({
    help: 'Rows of those snapshots.',
    unit: 'rows',
    bad: fine,
    read: ({ figures }) => figures.snapshotRows,
  }),
  tidegate_splices: gauge({
    help: 'Snapshots that are being read and joined to the stream.',
    unit: 'snapshots',
    bad: 'It stays above 0 while nobody comes.',
    read: ({ gauges }) => gauges.splices,
  }),

  tidegate_connections: gauge({
    help: 'WebSockets, event streams and requests held open.',
    unit: 'connections',
    bad: 'Above 0.9 of tidegate_connections_limit.',
    read: ({ gauges }) => gauges.connections,
  }),
  tidegate_connections_limit: gauge({
    help: 'MAX_CONNECTIONS.',
    unit: 'connections',
    bad: fine,
    read: ({ gauges }) => gauges.maxConnections,
  }),
  tidegate_connections_opened_total: counter({
    help: 'Connections that stood, polls among them.',
    unit: 'connections',
    bad: 'Far more than people who come: clients that connect anew again and again.',
    read: ({ figures }) => figures.connectionsOpened,
  }),
  tidegate_connections_closed_total: counter({
    help: 'Connections that ended, by the code that ended them.',
    unit: 'connections',
    label: {
      name: 'code',
      values: '[a code](../errors.md); `CLIENT_LEFT`: its client went; `ANSWERED`: a poll or request had its answer',
    },
    bad: '`SLOW_CONSUMER` or `HEARTBEAT_MISSED` for many at once: a network, or a node that is too busy. `RATE_LIMITED`: a client in a loop.',
    read: ({ figures }) => figures.closes.entries(),
  }),
  tidegate_refusals_total: counter({
    help: 'Subscriptions, frames, requests and connections before they stood that were refused, by code.',
    unit: 'refusals',
    label: byCode,
    bad: '`INTERNAL`: a defect, see the log. `TOO_MANY_CONNECTIONS`, `BUSY`, `UNAVAILABLE`: a limit was reached, or something is away.',
    read: ({ figures }) => figures.refusals.entries(),
  }),
  tidegate_resyncs_total: counter({
    help: 'Subscriptions that began anew, by code.',
    unit: 'subscriptions',
    label: { name: 'code', values: '[why a client starts over](../errors.md#why-a-client-starts-over)' },
    bad: '`EPOCH_CHANGED`: the slot was lost. `WINDOW_PASSED` for many: clients are away longer than the window reaches.',
    read: ({ figures }) => figures.resyncs.entries(),
  }),
  tidegate_queued_bytes: gauge({
    help: 'What waits for the sockets of clients, of all connections together.',
    unit: 'bytes',
    bad: 'It grows: clients take less than they are sent. Each is cut off at its own bound.',
    read: ({ gauges }) => gauges.queuedBytes,
  }),
  tidegate_subscriptions: gauge({
    help: 'Subscriptions of queries.',
    unit: 'subscriptions',
    bad: fine,
    read: ({ gauges }) => gauges.subscriptions,
  }),
  tidegate_audiences: gauge({
    help: 'Audiences: subscriptions that share a query, a role and the claims that matter are one.',
    unit: 'audiences',
    bad: 'As many as subscriptions, where policies read no more than memberships: something of each user is in its query or its policy.',
    read: ({ gauges }) => gauges.audiences,
  }),
  tidegate_queries: gauge({
    help: 'Different queries.',
    unit: 'queries',
    bad: fine,
    read: ({ gauges }) => gauges.queries,
  }),
  tidegate_window_bytes: gauge({
    help: 'Commits kept in memory, from which clients resume.',
    unit: 'bytes',
    bad: 'At WINDOW_MAX_BYTES: it reaches back less far than WINDOW_MAX_AGE_MS.',
    read: ({ gauges }) => gauges.windowBytes,
  }),
  tidegate_window_commits: gauge({
    help: 'How many commits those are.',
    unit: 'commits',
    bad: fine,
    read: ({ gauges }) => gauges.windowCommits,
  }),

  tidegate_channels: gauge({
    help: 'Channels with members on this node.',
    unit: 'channels',
    bad: fine,
    read: ({ gauges }) => gauges.channels,
  }),
  tidegate_channel_members: gauge({
    help: 'Their members on this node.',
    unit: 'members',
    bad: fine,
    read: ({ gauges }) => gauges.members,
  }),
  tidegate_presence_rooms: gauge({
    help: 'Channels in which connections of this node are present.',
    unit: 'channels',
    bad: 'It stays while members go.',
    read: ({ gauges }) => gauges.presenceRooms,
  }),

  tidegate_postgres_connections: gauge({
    help: 'Connections to Postgres in use, by what for; beside them the leader has one for replication.',
    unit: 'connections',
    label: {
      name: 'lane',
      values: '`upkeep`, `look`, `slot`, `catalog`, `reads`, `snapshots`, `asked`, `explain`',
    },
    bad: 'A sum that stays at tidegate_postgres_connections_limit.',
    read: ({ gauges }) => gauges.lanes.map(({ lane, inUse }) => [lane, inUse] as const),
  }),
  tidegate_postgres_waiting: gauge({
    help: 'Who waits for a connection to Postgres, by what for.',
    unit: 'requests',
    label: { name: 'lane', values: 'as above' },
    bad: 'Above 0 for longer than a minute: raise DATABASE_POOL, SNAPSHOT_CONCURRENCY or ASKED_CONCURRENCY.',
    read: ({ gauges }) => gauges.lanes.map(({ lane, waiting }) => [lane, waiting] as const),
  }),
  tidegate_postgres_connections_limit: gauge({
    help: 'DATABASE_POOL.',
    unit: 'connections',
    bad: fine,
    read: ({ gauges }) => gauges.maxDatabaseConnections,
  }),

  tidegate_memory_limit_bytes: gauge({
    help: 'Memory that this node may take: of its container, else of the machine, to be compared with process_resident_memory_bytes; and the heap of Node, with nodejs_heap_size_used_bytes.',
    unit: 'bytes',
    label: { name: 'of', values: '`process`, `heap`' },
    bad: fine,
    read: () => [
      ['process', memoryLimit],
      ['heap', getHeapStatistics().heap_size_limit],
    ],
  }),
  tidegate_traces_total: counter({
    help: 'Commits told to a collector of traces, where OTEL_EXPORTER_OTLP_ENDPOINT names one; beyond TRACES_PER_SECOND they are skipped.',
    unit: 'commits',
    label: { name: 'fate', values: '`sent`, `skipped`, `lost`' },
    bad: '`lost` grows: the collector does not take them.',
    read: ({ figures }) => figures.traces.entries(),
  }),
}
