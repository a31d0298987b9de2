// The asked audiences of a node: made when the first subscriber asks, warm for a grace after the last has gone, bounded for
// each table, and told of every commit that touches what they read.
import { createHash, randomBytes } from 'node:crypto'
import type { Row } from '../../predicate/algebra.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { PromiseCache } from '../catalog/promise-cache.ts'
import type { Table } from '../catalog/table.ts'
import type { Commit } from '../decode/change.ts'
import { knownKey } from '../decode/fold.ts'
import type { Log } from '../log/log.ts'
import { repeated } from '../log/log-repeated.ts'
import { answered, type Lane } from '../postgres/database.ts'
import type { Head } from '../relay/head.ts'
import type { MemoryRelay } from '../relay/memory-relay.ts'
import type { Query, QueryRegistry } from '../route/query.ts'
import { sameColumns } from '../route/router.ts'
import type { Reader } from '../snapshot/reader.ts'
import { AskedAudience } from './asked-audience.ts'
import type { Asker } from './asker.ts'
import { tablesRead } from './tables-read.ts'

export interface AskedLimits {
  readonly maxAudiencesPerTable: number
  readonly maxRows: number
  readonly recheckMs: number
  readonly graceMs: number
}

export interface AskedAudiencesOptions {
  readonly asker: Asker
  /** For the catalog. */
  readonly pool: Lane
  readonly relay: MemoryRelay
  readonly head: Head
  readonly queries: QueryRegistry
  readonly limits: AskedLimits
  readonly log: Log
  /** 0 to 1. */
  readonly random: () => number
}

export interface AskedRequest {
  readonly query: Omit<Query, 'number' | 'text'>
  readonly reader: Reader
}

/** Someone who uses an audience, wherever it stands. */
export interface AskedUser {
  /** Nothing more comes: of the audience, or of what made it. */
  end(error: unknown): void
}

interface Held {
  readonly audience: AskedAudience
  readonly request: AskedRequest
  readonly key: string
  readonly users: Set<AskedUser>
  reads: ReadonlySet<number>
  grace: NodeJS.Timeout | null
}

/** Commits with more changes are not looked into. */
const maxChanges = 1_000
/** Tables of which it is known what their policies read. */
const maxReads = 1_000
/** Failures remembered, so that those who come back too early are refused without asking. */
const maxFailures = 1_000
const failureMs = 4_000

export class AskedAudiences {
  readonly #options: AskedAudiencesOptions
  readonly #held = new Map<string, Held>()
  /** By the table of the query, and by those that its policies read. */
  readonly #byTable = new Map<number, Set<Held>>()
  readonly #byRead = new Map<number, Set<Held>>()
  readonly #reads = new PromiseCache<number, ReadonlySet<number>>(maxReads)
  readonly #failures = new Map<string, { readonly error: unknown; readonly untilMs: number }>()

  constructor(options: AskedAudiencesOptions) {
    this.#options = options
  }

  get size(): number {
    return this.#held.size
  }

  /** Rows known by key and hash, in all audiences. */
  get rows(): number {
    return [...this.#held.values()].reduce((sum, { audience }) => sum + audience.size, 0)
  }

  keyOf({ query, reader }: AskedRequest): string {
    const acquired = this.#options.queries.acquire(query)
    this.#options.queries.release(acquired)
    return keyOf(acquired, reader)
  }

  /** The audience of this query, role and claims. `leave` when the user goes.
   *  @throws ASKED_TOO_MANY, what a moment ago ended the same audience, and UNAVAILABLE */
  async join(request: AskedRequest, user: AskedUser): Promise<AskedAudience> {
    const key = this.keyOf(request)
    const failure = this.#failures.get(key)
    if (failure !== undefined && performance.now() < failure.untilMs) throw failure.error
    // What it reads is known before it stands: a commit in between would be looked at too late.
    const reads = await this.#tablesRead(request.query.table)
    const held = this.#held.get(key) ?? this.#open(key, request, reads)
    this.#endGrace(held)
    held.users.add(user)
    return held.audience
  }

  leave(audience: AskedAudience, user: AskedUser): void {
    const held = this.#heldOf(audience)
    if (held === undefined || !held.users.delete(user) || held.users.size > 0) return
    held.grace = setTimeout(() => this.#close(held), this.#options.limits.graceMs)
    held.grace.unref()
  }

  /** A commit has been served. */
  served(commit: Commit): void {
    if (this.#held.size === 0) return
    const moved = new Set<Held>()
    for (const oid of commit.relations) for (const held of this.#byRead.get(oid) ?? []) moved.add(held)
    const isLarge = commit.spooled || commit.changeCount > maxChanges
    let looksInto = false
    for (const oid of commit.relations) {
      for (const held of this.#byTable.get(oid) ?? []) {
        if (isLarge) moved.add(held)
        else if (!moved.has(held)) looksInto = true
      }
    }
    for (const { audience } of moved) audience.moved(commit.commitLsn)
    if (looksInto) this.#lookInto(commit, moved)
  }

  /** Those with users, for whoever looks on: some who come or go meanwhile are in it or not. */
  *listing(): Generator<readonly [AskedAudience, Iterable<AskedUser>], void> {
    for (const { audience, users } of this.#held.values()) if (users.size > 0) yield [audience, users]
  }

  /** Users of every audience, for looking at each again when the catalog changed. */
  users(): AskedUser[] {
    return [...this.#held.values()].flatMap(({ users }) => [...users])
  }

  /** The catalog changed: what stays is asked again, whatever its policies read now. */
  async recheck(): Promise<void> {
    this.#failures.clear()
    this.#reads.clear()
    for (const held of [...this.#held.values()]) {
      if (held.users.size === 0) this.#close(held)
      else {
        held.audience.moved(0n)
        const reads = await this.#tablesRead(held.audience.table).catch(() => held.reads)
        if (this.#held.get(held.key) !== held) continue
        for (const oid of held.reads) remove(this.#byRead, oid, held)
        held.reads = reads
        for (const oid of reads) add(this.#byRead, oid, held)
      }
    }
  }

  /** Ends every audience of these tables, or all. */
  retire(oids: ReadonlySet<number> | null, errorOf: (table: Table) => TidegateError): void {
    for (const held of [...this.#held.values()]) {
      const { table } = held.audience
      if (oids === null || oids.has(table.oid)) this.#end(held, errorOf(table), () => errorOf(table))
    }
  }

  close(): void {
    for (const held of [...this.#held.values()]) this.#close(held)
  }

  #tablesRead({ oid }: Table): Promise<ReadonlySet<number>> {
    return answered(this.#reads.get(oid, () => tablesRead(this.#options.pool, oid)))
  }

  #open(key: string, request: AskedRequest, reads: ReadonlySet<number>): Held {
    const { asker, relay, head, queries, limits, log, random } = this.#options
    const { table } = request.query
    this.#makeRoom(table)
    const query = queries.acquire(request.query)
    const audience = new AskedAudience({
      query,
      reader: request.reader,
      // Of this audience alone: another of the same key has looked at other moments.
      tag: `${tagOf(key)}${randomBytes(6).toString('base64url')}`,
      asker,
      epoch: relay.epoch,
      headLsn: () => head.lsn,
      seed: randomBytes(8).readBigInt64BE(),
      maxRows: limits.maxRows,
      recheckMs: limits.recheckMs,
      random,
      onFailure: error => {
        const { code, cause } = error as { code?: string; cause?: { code?: string } }
        repeated(log).warn(
          { code, sqlState: cause?.code, table: table.name, role: request.reader.role },
          'asking Postgres failed',
        )
        if (code !== 'UNSUBSCRIBED_TABLE_CHANGED') this.#remember(key, error)
        this.#end(held, error)
      },
    })
    const held: Held = { audience, request, key, users: new Set(), reads, grace: null }
    this.#held.set(key, held)
    add(this.#byTable, table.oid, held)
    for (const oid of reads) add(this.#byRead, oid, held)
    return held
  }

  /** @throws ASKED_TOO_MANY */
  #makeRoom(table: Table): void {
    const { maxAudiencesPerTable } = this.#options.limits
    const others = this.#byTable.get(table.oid) ?? []
    let count = 0
    let idle: Held | null = null
    for (const held of others) {
      count += 1
      if (held.users.size === 0) idle ??= held
    }
    if (count < maxAudiencesPerTable) return
    if (idle !== null) {
      this.#close(idle)
      return
    }
    throw new TidegateError(
      'ASKED_TOO_MANY',
      `Postgres is asked for ${table.schema}.${table.name} on behalf of ${count} readers already; write its policies so that they compile, or raise ASKED_MAX_AUDIENCES_PER_TABLE`,
      { retryAfterMs: 10_000 },
    )
  }

  /** @param moved those that look at all their rows anyway */
  #lookInto(commit: Commit, moved: ReadonlySet<Held>): void {
    for (const change of commit.changes()) {
      const audiences = [...(this.#byTable.get(change.relation.oid) ?? [])].filter(held => !moved.has(held))
      if (audiences.length === 0) continue
      const isKnown = audiences.every(({ audience }) => sameColumns(change.relation, audience.table))
      const rows: Row[] = []
      if (change.kind === 'update' || change.kind === 'delete') rows.push(change.old)
      if (change.kind === 'update' || change.kind === 'insert') rows.push(change.new)
      for (const { audience } of audiences) {
        if (!isKnown || rows.length === 0) audience.moved(commit.commitLsn)
        else if (rows.some(row => audience.concerns(row))) this.#touch(audience, rows, commit.commitLsn)
      }
    }
  }

  #touch(audience: AskedAudience, rows: readonly Row[], lsn: bigint): void {
    for (const row of rows) {
      const key = knownKey(row, audience.table.primaryKey)
      if (key === undefined) audience.moved(lsn)
      else audience.touched(key, lsn)
    }
  }

  #remember(key: string, error: unknown): void {
    this.#failures.delete(key)
    if (this.#failures.size >= maxFailures) this.#failures.delete(this.#failures.keys().next().value!)
    this.#failures.set(key, { error, untilMs: performance.now() + failureMs })
  }

  /** @param errorOf what each is told, if not all the same */
  #end(held: Held, error: unknown, errorOf: () => unknown = () => error): void {
    const users = [...held.users]
    this.#close(held, error)
    for (const user of users) user.end(errorOf())
  }

  #close(held: Held, error: unknown = over): void {
    if (this.#held.get(held.key) !== held) return
    this.#held.delete(held.key)
    remove(this.#byTable, held.audience.table.oid, held)
    for (const oid of held.reads) remove(this.#byRead, oid, held)
    this.#endGrace(held)
    held.audience.end(error)
    this.#options.queries.release(held.audience.query)
  }

  #endGrace(held: Held): void {
    if (held.grace !== null) clearTimeout(held.grace)
    held.grace = null
  }

  #heldOf(audience: AskedAudience): Held | undefined {
    for (const held of this.#byTable.get(audience.table.oid) ?? []) if (held.audience === audience) return held
    return undefined
  }
}

function add(index: Map<number, Set<Held>>, oid: number, held: Held): void {
  const there = index.get(oid)
  if (there === undefined) index.set(oid, new Set([held]))
  else there.add(held)
}

function remove(index: Map<number, Set<Held>>, oid: number, held: Held): void {
  const there = index.get(oid)
  there?.delete(held)
  if (there?.size === 0) index.delete(oid)
}

const over = new TidegateError('UNAVAILABLE', 'nobody is asked any more', { retryAfterMs: 1000 })

/** All claims count: which of them a function reads, nobody knows. */
const keyOf = (query: Query, reader: Reader): string =>
  createHash('sha256')
    .update(JSON.stringify([query.text, reader.role, reader.settings]))
    .digest('base64url')

/** What tags of the same key begin with. */
export const tagOf = (key: string): string => key.slice(0, 12)
