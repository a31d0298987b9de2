export interface OperatorEntry {
  /** One sentence: what it means. */
  readonly meaning: string
  /** One sentence: what to type or set. */
  readonly remedy: string
}

const operator = (meaning: string, remedy: string): OperatorEntry => ({ meaning, remedy })

/** Codes that stop the operator's command, or that the log names; the message has the values. */
export const operatorCodes = {
  CONFIG_INVALID: operator(
    'An option is missing or has a value that does not fit.',
    'Set it as the message says; every option is in docs/configuration.md.',
  ),
  DATABASE_UNREACHABLE: operator(
    'No connection to DATABASE_URL.',
    'Check host, port, password and pg_hba.conf with: psql "$DATABASE_URL" -c "SELECT 1"',
  ),
  DATABASE_POOLED: operator(
    'A pooler in transaction mode stands between this node and Postgres, where it needs a session of its own.',
    'Let DATABASE_REPLICATION_URL lead to Postgres itself, and DATABASE_URL to the pooler as before.',
  ),
  WAL_LEVEL: operator('wal_level is not logical.', 'ALTER SYSTEM SET wal_level = logical; then restart Postgres.'),
  NOT_REPLICATION: operator('The login has no REPLICATION attribute.', 'ALTER ROLE <login> REPLICATION;'),
  VERSION_UNSUPPORTED: operator('Postgres is older than 14.', 'Upgrade Postgres; 14 to 18 are supported.'),
  PUBLICATION_MISSING: operator('The publication does not exist.', 'Run tidegate migrate.'),
  SLOT_BUSY: operator(
    'Another process streams from the slot.',
    'Stop the other one, or give this one another TIDEGATE_NAME.',
  ),
  SLOT_BLOCKED: operator(
    'The slot cannot be created: a long transaction holds it up, or max_replication_slots is used up.',
    'End the transactions that the message names, or drop a slot that nobody uses.',
  ),
  SLOT_LOST: operator(
    'The slot was invalidated or dropped; a new epoch starts.',
    'Nothing now: clients start over. Raise max_slot_wal_keep_size or keep Tidegate running.',
  ),
  SLOT_AHEAD: operator(
    'The slot has been acknowledged past what this relay holds.',
    'Nothing now: clients start over. Let nothing else read from the slot.',
  ),
  SLOT_OVER_LIMIT: operator(
    'The slot retains more WAL than SLOT_MAX_BYTES; it was dropped to protect the disk.',
    'Nothing now: clients start over. Find what held it back in the log, or raise SLOT_MAX_BYTES.',
  ),
  HISTORY_DIVERGED: operator(
    'The database does not have all that was told: a standby was promoted that lacked it, or a backup restored; a new epoch starts.',
    'Nothing now: clients start over. Name the slots of standbys that may be promoted in synchronized_standby_slots (Postgres 17 and later).',
  ),
  DATABASE_STANDBY: operator(
    'DATABASE_URL leads to a server in recovery, from which no node can lead.',
    'Promote it, or let DATABASE_URL lead to the primary; it goes on by itself.',
  ),
  LEADER_SILENT: operator(
    "The leader's process showed no sign of life for four seconds; its session was ended and another node leads.",
    'Look at that node: it was paused, cut off from Redis, or killed.',
  ),
  WAL_UNREADABLE: operator(
    'A replication message is of an unknown kind or malformed; the session starts over.',
    'Report it with the versions of Postgres and Tidegate if it comes again.',
  ),
  DESCRIPTORS_SHORT: operator(
    'The process may open fewer files than MAX_CONNECTIONS takes; the node holds fewer connections, as many as it can.',
    'Raise the limit (ulimit -n, LimitNOFILE=, --ulimit nofile=), or lower MAX_CONNECTIONS; the message has the numbers.',
  ),
  SPOOL_FAILED: operator(
    'A transaction too large for memory could not be written to, or read from, the temporary folder.',
    'Free space there, or name another folder with TMPDIR.',
  ),
  RELAY_UNREACHABLE: operator(
    'No connection to REDIS_URL, or it does not answer; clients are told stale, and nothing is lost: the slot keeps what is not stored.',
    'Check it with: redis-cli -u "$REDIS_URL" PING; it is tried again until it answers.',
  ),
  REDIS_VERSION: operator('Redis is older than 6.2.', 'Upgrade Redis; 7.2 or later for RELAY_DURABILITY=aof.'),
  RELAY_MOVED: operator(
    'The journal in Redis does not end where this node left it: another node took over, or Redis lost something.',
    'Nothing now: it is read again, and refilled from the slot. If it comes often, look at the persistence and failover of Redis.',
  ),
  RELAY_FULL: operator(
    'Redis is out of memory and stores no more; clients are told stale, and the slot keeps what comes.',
    'Raise maxmemory, or lower RELAY_MAX_BYTES; a commit of many rows needs room for all of them at once.',
  ),
  RELAY_NOT_DURABLE: operator(
    'Redis does not confirm what RELAY_DURABILITY asks for; changes are sent, and the slot is not acknowledged.',
    'Bring the replica back, or mend the append-only file; until then the WAL grows, up to SLOT_MAX_BYTES.',
  ),
  JOURNAL_UNREADABLE: operator(
    'A block of the journal in Redis is of a newer format, or damaged.',
    'Upgrade this node to the release that wrote it; if all nodes run the same one, report it with the log.',
  ),
  STREAM_BEHIND: operator(
    'Postgres answers, but what is written to it does not come back through the WAL; clients are told stale.',
    'Look for a very large transaction or a busy machine; it catches up by itself. If not, restart and report it.',
  ),
  TRACING_MISSING: operator(
    'OTEL_EXPORTER_OTLP_ENDPOINT is set, and the packages that send traces are not installed.',
    'npm install @opentelemetry/api @opentelemetry/sdk-trace @opentelemetry/resources @opentelemetry/exporter-trace-otlp-http; or unset it.',
  ),
  TRACING_UNREACHABLE: operator(
    'The collector of traces does not take them; they are lost until it does, and nothing else is harmed.',
    'Check OTEL_EXPORTER_OTLP_ENDPOINT, and that the collector takes OTLP over HTTP there.',
  ),
  LSN_WENT_BACKWARDS: operator(
    'An acknowledgement would move the slot back.',
    'Report it with the log: this is a fault of Tidegate.',
  ),
  PRIVILEGE_MISSING: operator('The login lacks a privilege.', 'Run the statement in the message.'),
  LOCK_TIMEOUT: operator(
    'Another transaction held a table longer than the lock timeout; nothing was changed.',
    'Run the command again when no long transaction or VACUUM holds the table.',
  ),
  NODES_TOO_FEW: operator(
    'Fewer than two nodes live under this name, so there is nothing to spread.',
    'Check TIDEGATE_NAME and REDIS_URL, and that the nodes run with the same; then start another one.',
  ),
  NODE_TOO_OLD: operator(
    'The command runs on a version of Node that lacks what Tidegate needs.',
    'Install Node 24 or later, or run the Docker image.',
  ),
  SERVICES_MISSING: operator(
    'startTidegate of tidegate/testing has no Postgres or Redis: no address was given, and Docker cannot start one.',
    'Start Docker and npm install --save-dev testcontainers, or give addresses by the options databaseUrl and redisUrl.',
  ),
} satisfies Record<string, OperatorEntry>

export type OperatorCode = keyof typeof operatorCodes
