// A node's connections to Postgres: DATABASE_POOL of them, and the leader's replication session beside them. Each kind of use
// has a lane, which is used like a pool of its own.
//
// The guarantee: a heartbeat, a fence, a sample and a look at the slot wait for nothing that may stand; a look whether the
// catalog changed only for those; a read of the catalog, by which the stream goes on after a change, only for reads of the
// catalog besides. The simple way is a pool for each, which takes twenty connections of every node and leaves most of them
// idle. Here all share one, and limits say how many a lane, or some of them together, may have (`limitsOf`):
//
//   asked + snapshots + reads + explain              at most two less than all
//   those + catalog + slot                           at most one less than all
//   those + look + upkeep                            all
//
// Nothing can stand for ever: whoever holds a connection waits for Postgres, within its statement's timeout, and beyond that
//   asked        for the stream, two seconds at most
//   explain      for a connection of the catalog lane
//   slot         for what the journal holds and for the session that starts, fifteen seconds at most
//   all others   for nothing: a read waits for the stream after it has given its connection back.
// The stream waits for the look and catalog lanes only, and they always have a connection that none of asked, snapshots, reads
// and explain can take; so there is no circle, also at the minimum of four. Nor do locks make one: what meets a table that a
// migration has locked gives its connection back after a tenth of a second, and tries again later (locked.ts).
//
// What may be slow does not fill what is left: of four connections one is for first snapshots, which may take half a
// minute; the other is for short reads, by key, and for questions, which a timeout of a second ends.
import type pg from 'pg'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { LaneUse } from '../figures/gauges.ts'
import { createPool, isQueryTimeout, type Lane } from './database.ts'
import { type Limit, Places } from './places.ts'
import { PreferringClient } from './postgres-url.ts'

/** In the order in which they are served; slot and catalog take turns, and so do the last four.
 *  - `upkeep`: heartbeats, fences, samples, looks at the slot: a millisecond each
 *  - `look`: whether the catalog changed
 *  - `slot`: makes a slot, which may take half a minute
 *  - `catalog`: what a table is, and who may read it
 *  - `reads`: rows by key, as the login
 *  - `snapshots`: what a subscription begins with, as its reader
 *  - `asked`: questions of policies that do not compile
 *  - `explain`: for operators */
export type LaneName = 'upkeep' | 'look' | 'slot' | 'catalog' | 'reads' | 'snapshots' | 'asked' | 'explain'

const ranks: Readonly<Record<LaneName, number>> = {
  upkeep: 0,
  look: 1,
  slot: 2,
  catalog: 2,
  reads: 3,
  snapshots: 3,
  asked: 3,
  explain: 3,
}

/** What a reader begins with, or is asked for, each in a transaction of its own, may go through a pooler in transaction mode. All others never
 *  do: they need a session, or grants and revocations wait for them, which are exact whatever becomes of the pooler. */
const pooledLanes: readonly LaneName[] = ['snapshots', 'asked']

export interface ConnectionsOptions {
  /** DATABASE_REPLICATION_URL: the database itself, where `databaseUrl` may lead to a pooler; null: there is none in between. */
  readonly sessionUrl?: string | null
  /** DATABASE_POOL */
  readonly connections: number
  /** SNAPSHOT_CONCURRENCY */
  readonly snapshots: number
  /** ASKED_CONCURRENCY */
  readonly asked: number
}

export interface LaneOptions {
  /** A query that takes longer fails, and its connection is replaced: only a dead network is left by then. */
  readonly queryTimeoutMs: number
  /** Who waits longer for a connection is told that the database is away; left out: they wait for as long as it takes. */
  readonly waitMs?: number
  /** How many may wait; past it BUSY. */
  readonly queueLimit?: number
}

/** One for upkeep, one for the catalog, one for what may be slow, one for what is short. */
export const fewestConnections = 4

/** Statements that set no timeout of their own end before the query's own timeout: a server that is left alone with one
 *  keeps its connection until it is done. */
const statementTimeoutMs = 9_500
const defaultQueueLimit = 10_000
/** How long a connection that was closed is counted still, unless Postgres lets go of it before. */
const closingMs = 1000

/** What `places` may be taken at a time. */
export function limitsOf({ connections, snapshots, asked }: ConnectionsOptions): readonly Limit<LaneName>[] {
  const work: readonly LaneName[] = ['reads', 'snapshots', 'asked', 'explain']
  return [
    { of: ['upkeep', 'look', 'slot', 'catalog', ...work], most: connections },
    { of: ['slot', 'catalog', ...work], most: connections - 1 },
    { of: work, most: connections - 2 },
    { of: ['upkeep'], most: 2 },
    { of: ['look'], most: 1 },
    { of: ['slot'], most: 1 },
    { of: ['catalog'], most: Math.min(4, connections - 2) },
    { of: ['reads', 'snapshots'], most: snapshots },
    { of: ['snapshots', 'explain'], most: snapshotPlaces({ connections, snapshots }) },
    { of: ['explain'], most: 1 },
    { of: ['asked'], most: askedPlaces({ connections, asked }) },
  ]
}

/** Questions at a time: ASKED_CONCURRENCY, as far as the pool has room. Two at least, or one that is slow would keep the
 *  others waiting. */
export const askedPlaces = ({ connections, asked }: Pick<ConnectionsOptions, 'connections' | 'asked'>): number =>
  Math.min(asked, Math.max(2, connections - 3))

/** First snapshots at a time: SNAPSHOT_CONCURRENCY less one, for reads by key, as far as the pool has room. */
export const snapshotPlaces = ({
  connections,
  snapshots,
}: Pick<ConnectionsOptions, 'connections' | 'snapshots'>): number =>
  Math.min(connections - 3, Math.max(1, snapshots - 1))

export class Connections {
  /** Of sessions of their own. */
  readonly #pool: pg.Pool
  /** Through the pooler; null where all are of their own. */
  readonly #pooled: pg.Pool | null
  readonly #places: Places<LaneName>

  constructor(databaseUrl: string, options: ConnectionsOptions) {
    const { sessionUrl = null, connections: maxConnections } = options
    const pool = { maxConnections, statementTimeoutMs, Client: LentClient }
    this.#pool =
      sessionUrl === null
        ? createPool(databaseUrl, pool)
        : createPool(sessionUrl, { ...pool, name: 'DATABASE_REPLICATION_URL' })
    this.#pooled = sessionUrl === null ? null : createPool(databaseUrl, { ...pool, isPooled: true })
    this.#places = new Places(limitsOf(options), ranks)
  }

  lane(name: LaneName, { queryTimeoutMs, waitMs, queueLimit = defaultQueueLimit }: LaneOptions): Lane {
    const isPooled = this.#pooled !== null && pooledLanes.includes(name)
    const pool = isPooled ? this.#pooled! : this.#pool
    const connect = async (): Promise<pg.PoolClient> => {
      await this.#places.take(name, { waitMs, queueLimit })
      try {
        const client = await pool.connect()
        lend(client as unknown as LentClient & pg.PoolClient, queryTimeoutMs, () => this.#places.free(name))
        return client
      } catch (error) {
        this.#places.free(name)
        throw error
      }
    }
    const query = async (...args: readonly unknown[]): Promise<unknown> => {
      const client = await connect()
      let failed = true
      try {
        const result: unknown = await client.query(...(args as [string]))
        failed = false
        return result
      } finally {
        client.release(failed)
      }
    }
    return { connect, query: query as pg.Pool['query'], isPooled }
  }

  /** What they are used for now. */
  get use(): readonly LaneUse[] {
    return this.#places.use.map(({ name, taken, waiting }) => ({ lane: name, inUse: taken, waiting }))
  }

  /** Refuses who waits, and closes as they are given back. */
  async end(): Promise<void> {
    this.#places.close(new TidegateError('UNAVAILABLE', 'the server is stopping', { retryAfterMs: 500 }))
    await Promise.all([this.#pool.end(), this.#pooled?.end()])
  }
}

/** A connection that gives every query the timeout of the lane it is lent to. */
class LentClient extends PreferringClient {
  queryTimeoutMs = 0
  /** Postgres is still at a query that was given up. */
  isOvertaken = false
  hasEnded = false

  constructor(config?: pg.ClientConfig) {
    super(config)
    this.once('end', () => {
      this.hasEnded = true
    })
  }

  /** As `pg.Client.query`, without callbacks. */
  override query(first: unknown, values?: unknown): never {
    const query = typeof first === 'string' ? { text: first, ...(values === undefined ? {} : { values }) } : first
    const timed = { query_timeout: this.queryTimeoutMs, ...(query as pg.QueryConfig) }
    const result = super.query(timed)
    result.catch((error: unknown) => {
      this.isOvertaken ||= isQueryTimeout(error)
    })
    return result as never
  }
}

/** Makes the next release of a connection give its place back, once. */
function lend(client: LentClient & pg.PoolClient, queryTimeoutMs: number, free: () => void): void {
  client.queryTimeoutMs = queryTimeoutMs
  const release = client.release
  client.release = failed => {
    // Others get it next: not within a transaction of somebody else's, and not behind a query that is not over.
    const isGone = Boolean(failed) || client.isOvertaken || client.getTransactionStatus() !== 'I'
    release(isGone)
    if (!isGone || client.hasEnded) {
      free()
      return
    }
    // Postgres counts it until it is closed.
    const timer = setTimeout(done, closingMs)
    client.once('end', done)
    function done(): void {
      clearTimeout(timer)
      client.off('end', done)
      free()
    }
  }
}
