// What breaks, and what comes close to it, as Prometheus would have scraped it every 15 seconds: for each alert, series with which it
// fires and others with which it does not. Source: Prometheus, Unit Testing for Rules (the notation of values: `0x9` ten times 0,
// `0+1x9` growing by one, `_` no sample).

export type Series = Readonly<Record<string, string>>

export interface AlertCase {
  readonly alert: string
  /** When it is looked at; nothing is scraped every 15 s up to there unless the series say so. */
  readonly at: string
  readonly fires: Series
  readonly quiet: Series
  /** How many, where it fires; 1 if left out. */
  readonly count?: number
}

const on = (instance: string, labels = ''): string =>
  `{job="tidegate", instance="${instance}"${labels === '' ? '' : `, ${labels}`}}`
const metric = (name: string, labels = '', instance = 'a'): string => `tidegate_${name}${on(instance, labels)}`
const info = (version = '1.0.0', instance = 'a'): string => metric('build_info', `version="${version}"`, instance)
const trouble = (code: string): string => metric('trouble_total', `code="${code}"`)
const resyncs = metric('resyncs_total', 'code="WINDOW_PASSED"')
const limit = metric('slot_wal_limit_bytes')
const retained = metric('slot_retained_wal_bytes')
const ofProcess = metric('memory_limit_bytes', 'of="process"')
const ofHeap = metric('memory_limit_bytes', 'of="heap"')

/** Tried in vain again and again, and a failover that is over after half a minute. */
const now = (alert: string, code: string): AlertCase => ({
  alert,
  at: '5m',
  fires: { [trouble(code)]: '_x3 1+3x20' },
  quiet: { [trouble(code)]: '_x3 1+3x2 7x20' },
})

/** Once within ten minutes, by a node that had not told of it before, and once long ago. */
const today = (alert: string, code: string): AlertCase => ({
  alert,
  at: '15m',
  fires: { [trouble(code)]: '_x40 1x30' },
  quiet: { [trouble(code)]: '_x2 1x60' },
})

/** Cumulative, of which all but a few in a hundred take less than a tenth of a second, and `slow` more than 5. */
const snapshots = (fast: number, slow: number): Series => ({
  [metric('snapshot_duration_seconds_bucket', 'le="0.1"')]: `0+${fast}x40`,
  [metric('snapshot_duration_seconds_bucket', 'le="5"')]: `0+${fast}x40`,
  [metric('snapshot_duration_seconds_bucket', 'le="10"')]: `0+${fast + slow}x40`,
  [metric('snapshot_duration_seconds_bucket', 'le="+Inf"')]: `0+${fast + slow}x40`,
})

export const alertCases: readonly AlertCase[] = [
  {
    alert: 'TidegateNodeDown',
    at: '5m',
    fires: { [info()]: '1x4 _x20', [`up${on('a')}`]: '1x4 0x20' },
    // Another's program, and a node that was away for a restart.
    quiet: { [info()]: '1x40', [`up${on('b')}`]: '0x40', [`up${on('a')}`]: '1x4 0x3 1x20' },
  },
  { alert: 'TidegateAbsent', at: '12m', fires: { [info()]: '1x4' }, quiet: { [info()]: '1x60' } },
  {
    alert: 'TidegateNotReady',
    at: '3m',
    fires: { [metric('ready')]: '0x20', [metric('draining')]: '0x20' },
    quiet: { [metric('ready')]: '0x20', [metric('draining')]: '1x20' },
  },
  {
    alert: 'TidegateStale',
    at: '2m',
    fires: { [metric('stale')]: '0x2 1x10' },
    quiet: { [metric('stale')]: '0x2 1x1 0x10' },
  },
  {
    alert: 'TidegateDrainingLong',
    at: '20m',
    fires: { [metric('draining')]: '1x100' },
    quiet: { [metric('draining')]: '0x50 1x50' },
  },
  {
    alert: 'TidegateNoLeader',
    at: '2m',
    fires: { [metric('leader')]: '0x10', [metric('leader', '', 'b')]: '0x10' },
    quiet: { [metric('leader')]: '0x10', [metric('leader', '', 'b')]: '1x10' },
  },
  {
    alert: 'TidegateTwoLeaders',
    at: '3m',
    fires: { [metric('leader')]: '1x20', [metric('leader', '', 'b')]: '1x20' },
    // Scraped while one gave it to the other.
    quiet: { [metric('leader')]: '1x20', [metric('leader', '', 'b')]: '0x3 1x1 0x20' },
  },
  {
    alert: 'TidegateNodeBehind',
    at: '5m',
    fires: { [metric('node_lag_seconds')]: '0x2 3x30' },
    quiet: { [metric('node_lag_seconds')]: '0x2 9x5 0.1x30' },
  },
  {
    alert: 'TidegateSlotHalf',
    at: '10m',
    fires: { [limit]: '1000x60', [retained]: '510x60' },
    quiet: { [limit]: '1000x60', [retained]: '490x60' },
  },
  {
    alert: 'TidegateSlotThreeQuarters',
    at: '3m',
    fires: { [limit]: '1000x20', [retained]: '751x20' },
    quiet: { [limit]: '1000x20', [retained]: '749x20' },
  },
  {
    alert: 'TidegateSlotInDanger',
    at: '2m',
    fires: { [metric('slot_wal_status', 'status="unreserved"')]: '1x20' },
    quiet: { [metric('slot_wal_status', 'status="extended"')]: '1x20' },
  },
  now('TidegateDatabaseUnreachable', 'DATABASE_UNREACHABLE'),
  now('TidegateDatabaseStandby', 'DATABASE_STANDBY'),
  now('TidegateDatabasePooled', 'DATABASE_POOLED'),
  now('TidegateRelayUnreachable', 'RELAY_UNREACHABLE'),
  now('TidegateRelayFull', 'RELAY_FULL'),
  now('TidegateRelayNotDurable', 'RELAY_NOT_DURABLE'),
  now('TidegateJournalUnreadable', 'JOURNAL_UNREADABLE'),
  now('TidegateStreamBehind', 'STREAM_BEHIND'),
  now('TidegateSlotBlocked', 'SLOT_BLOCKED'),
  now('TidegateSpoolFailed', 'SPOOL_FAILED'),
  now('TidegatePublicationMissing', 'PUBLICATION_MISSING'),
  today('TidegateSlotLost', 'SLOT_LOST'),
  today('TidegateSlotAhead', 'SLOT_AHEAD'),
  today('TidegateSlotOverLimit', 'SLOT_OVER_LIMIT'),
  today('TidegateHistoryDiverged', 'HISTORY_DIVERGED'),
  today('TidegateSlotBusy', 'SLOT_BUSY'),
  today('TidegateWalUnreadable', 'WAL_UNREADABLE'),
  today('TidegateLsnWentBackwards', 'LSN_WENT_BACKWARDS'),
  today('TidegatePrivilegeMissing', 'PRIVILEGE_MISSING'),
  {
    alert: 'TidegateResyncs',
    at: '8m',
    fires: { [resyncs]: '_x20 150x20', [metric('subscriptions')]: '200x40' },
    // Many, of very many.
    quiet: { [resyncs]: '_x20 150x20', [metric('subscriptions')]: '5000x40' },
  },
  {
    alert: 'TidegateRefuses',
    at: '6m',
    fires: {
      [metric('refusals_total', 'code="TOO_MANY_CONNECTIONS"')]: '_x4 1+2x30',
      [metric('refusals_total', 'code="BUSY"')]: '0+1x30',
    },
    quiet: {
      [metric('refusals_total', 'code="TOO_MANY_CONNECTIONS"')]: '_x4 1+2x4 9x30',
      [metric('refusals_total', 'code="FILTER_INVALID"')]: '0+5x30',
    },
    count: 2,
  },
  {
    alert: 'TidegateDefect',
    at: '10m',
    fires: { [metric('refusals_total', 'code="INTERNAL"')]: '_x20 1x40' },
    quiet: { [metric('refusals_total', 'code="TOKEN_EXPIRED"')]: '_x20 1x40' },
  },
  {
    alert: 'TidegateConnectionsNearLimit',
    at: '8m',
    fires: { [metric('connections')]: '9100x40', [metric('connections_limit')]: '10000x40' },
    quiet: { [metric('connections')]: '8900x40', [metric('connections_limit')]: '10000x40' },
  },
  {
    alert: 'TidegatePostgresWaiting',
    at: '8m',
    fires: {
      [metric('postgres_waiting', 'lane="snapshots"')]: '1x40',
      [metric('postgres_waiting', 'lane="reads"')]: '0x40',
    },
    quiet: { [metric('postgres_waiting', 'lane="snapshots"')]: '9x18 0x1 9x40' },
  },
  {
    alert: 'TidegateQueues',
    at: '5m',
    fires: { [metric('queued_bytes')]: '300000000x40' },
    quiet: { [metric('queued_bytes')]: '200000000x40' },
  },
  { alert: 'TidegateSnapshotsSlow', at: '10m', fires: snapshots(90, 10), quiet: snapshots(9990, 10) },
  {
    alert: 'TidegateEventLoop',
    at: '8m',
    fires: { [info()]: '1x40', [`nodejs_eventloop_lag_p99_seconds${on('a')}`]: '0.12x40' },
    quiet: {
      [info()]: '1x40',
      [`nodejs_eventloop_lag_p99_seconds${on('a')}`]: '0.02x40',
      [`nodejs_eventloop_lag_p99_seconds${on('another')}`]: '5x40',
    },
  },
  {
    alert: 'TidegateMemory',
    at: '8m',
    fires: {
      [`process_resident_memory_bytes${on('a')}`]: '950x40',
      [ofProcess]: '1000x40',
      [`nodejs_heap_size_used_bytes${on('b')}`]: '950x40',
      [ofHeap.replace('"a"', '"b"')]: '1000x40',
    },
    quiet: {
      [`process_resident_memory_bytes${on('a')}`]: '850x40',
      [ofProcess]: '1000x40',
      [`nodejs_heap_size_used_bytes${on('a')}`]: '850x40',
      [ofHeap]: '1000x40',
    },
    count: 2,
  },
  {
    alert: 'TidegateDescriptors',
    at: '8m',
    fires: { [info()]: '1x40', [`process_open_fds${on('a')}`]: '81x40', [`process_max_fds${on('a')}`]: '100x40' },
    quiet: { [info()]: '1x40', [`process_open_fds${on('a')}`]: '79x40', [`process_max_fds${on('a')}`]: '100x40' },
  },
  {
    alert: 'TidegateReleasesMixed',
    at: '90m',
    fires: { [info()]: '1x400', [info('1.1.0', 'b')]: '1x400' },
    quiet: { [info()]: '1x400', [info('1.1.0', 'b')]: '1x100', [info('1.0.0', 'c')]: '1x400' },
  },
]
