// Who uses a node's connections to Postgres, and how long each may wait.
import type { Config } from '../config/config.ts'
import type { LaneUse } from '../figures/gauges.ts'
import { Connections } from '../postgres/connections.ts'
import { createPool, type Lane } from '../postgres/database.ts'
import { assertOwnSession, assertSameDatabase } from '../wal/own-session.ts'
import { reach } from '../wal/preflight.ts'

/** How long a read as the login, or a wait for the stream, may take. */
export const snapshotTimeoutMs = 30_000

export interface Lanes {
  readonly upkeep: Lane
  readonly look: Lane
  readonly catalog: Lane
  readonly reads: Lane
  readonly snapshots: Lane
  readonly asked: Lane
  readonly explain: Lane
  /** For the slot: looks at it, and takes turns in making it. */
  readonly slotUpkeep: Lane
  readonly slotTurns: Lane
  /** What they are used for now. */
  use(): readonly LaneUse[]
  /** Refuses who waits, and closes as they are given back. */
  end(): Promise<void>
}

export function openLanes(config: Config): Lanes {
  const connections = new Connections(config.databaseUrl, {
    sessionUrl: config.databaseReplicationUrl,
    connections: config.databasePool,
    snapshots: config.snapshotConcurrency,
    asked: config.askedConcurrency,
  })
  const waits = { queryTimeoutMs: 10_000, waitMs: 10_000 }
  const slotWaits = { queryTimeoutMs: 5000, waitMs: 10_000 }
  // Past the statement's own limit only a dead network is left.
  const snapshotWaits = { queryTimeoutMs: snapshotTimeoutMs + 5000 }
  return {
    upkeep: connections.lane('upkeep', waits),
    look: connections.lane('look', waits),
    catalog: connections.lane('catalog', waits),
    reads: connections.lane('reads', snapshotWaits),
    snapshots: connections.lane('snapshots', { queryTimeoutMs: config.snapshotTimeoutMs + 5000 }),
    asked: connections.lane('asked', { ...waits, queryTimeoutMs: config.askedTimeoutMs + 5000 }),
    explain: connections.lane('explain', { ...waits, queryTimeoutMs: 15_000 }),
    slotUpkeep: connections.lane('upkeep', slotWaits),
    slotTurns: connections.lane('slot', slotWaits),
    use: () => connections.use,
    end: () => connections.end(),
  }
}

/** Refuses a DATABASE_REPLICATION_URL that leads to a pooler, or elsewhere than DATABASE_URL does. Without it there is nothing to compare.
 *  @throws CONFIG_INVALID, DATABASE_POOLED, DATABASE_UNREACHABLE */
export async function assertOneDatabase(config: Pick<Config, 'databaseUrl' | 'databaseReplicationUrl'>): Promise<void> {
  const { databaseUrl, databaseReplicationUrl: sessionUrl } = config
  if (sessionUrl === null) return
  const most = { maxConnections: 1, queryTimeoutMs: 10_000 }
  const own = createPool(sessionUrl, { ...most, name: 'DATABASE_REPLICATION_URL' })
  const pooled = createPool(databaseUrl, { ...most, isPooled: true })
  try {
    await reach(sessionUrl, () => assertOwnSession(own))
    await reach(databaseUrl, () => assertSameDatabase(pooled, own))
  } finally {
    await Promise.all([own.end(), pooled.end()])
  }
}
