// The database's own answer to what a table is and who may read it, read once and kept until it changes.
import { Kysely, PostgresDialect, sql, type Transaction } from 'kysely'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Log } from '../log/log.ts'
import { repeated } from '../log/log-repeated.ts'
import type { Lane } from '../postgres/database.ts'
import { lockTimeoutMs, untilUnlocked } from '../postgres/locked.ts'
import { parseLsn } from '../wal/lsn.ts'
import { parseSnapshot, type Snapshot } from '../wal/visibility.ts'
import { type AccessInput, type CompileAccess, FactNeeded } from './facts.ts'
import { readFingerprint } from './fingerprint.ts'
import { PromiseCache } from './promise-cache.ts'
import { FactStore, readFact, readRoleNamed } from './read-facts.ts'
import { readReadableTables } from './read-readable-tables.ts'
import { type RelationRead, type RelationReading, readName, readRelation } from './read-relation.ts'
import { TypeReader } from './read-types.ts'
import { type AskedAccess, type Catalog, type Command, RemedyNeeded, type Table, type TableAccess } from './table.ts'

export interface CatalogOptions {
  readonly pool: Lane
  /** For looking whether anything changed: reads of a table that a migration has locked wait in the other, for seconds. */
  readonly lookPool?: Lane
  /** Name of the publication that tracked tables are in. */
  readonly publication: string
  /** The roles that tokens may name, beside those the login is a member of: part of the fingerprint. */
  readonly roles?: readonly string[]
  /** Resolves to the compiler of policies, once it is loaded. `createCatalog` in authorize/policy-catalog.ts gives it. */
  readonly compiler: () => Promise<CompileAccess>
  readonly log: Log
}

/** Whether anything changed, as one snapshot has it. */
export interface CatalogLook {
  readonly fingerprint: string
  readonly snapshot: Snapshot
  /** End of the WAL when it was read: what the snapshot sees lies before it. */
  readonly fence: bigint
}

/** Entries kept of tables and of (table, role, command) triples; past it the oldest is dropped and read again when asked for. */
const maxTables = 10_000
const maxAccesses = 10_000
/** Of which it is kept what each may read. */
const maxRoles = 1_000
/** Not kept by the cache: a table that does not exist yet may be created, and made-up names must not fill it. */
const noRelation = new Error('no such relation')
/** Reads that one compilation may ask for: far more than any policy names. */
const maxReads = 2_000

export class PostgresCatalog implements Catalog {
  readonly #options: CatalogOptions
  readonly #db: Kysely<unknown>
  readonly #lookDb: Kysely<unknown>
  #version: Promise<number> | null = null
  #types: TypeReader | null = null
  #facts = new FactStore()
  readonly #relations = new PromiseCache<string, RelationRead>(maxTables)
  readonly #oids = new PromiseCache<number, Table>(maxTables)
  readonly #accesses = new PromiseCache<string, TableAccess | AskedAccess>(maxAccesses)
  readonly #readable = new PromiseCache<string, readonly { schema: string; name: string }[]>(maxRoles)
  /** End of the WAL when policies were last read: what they say may be true from there on only. */
  readUpTo = 0n

  constructor(options: CatalogOptions) {
    this.#options = options
    this.#db = databaseOver(options.pool)
    const { lookPool = options.pool } = options
    this.#lookDb = databaseOver(lookPool)
  }

  async table(schema: string, name: string): Promise<Table> {
    const { table, root } = await this.#supported(schema, name)
    const shown = `${schema}.${name}`
    if (table.published) return table
    if (root !== null)
      throw new TidegateError('TABLE_UNKNOWN', `${shown} is a partition of ${root}; subscribe to ${root}`)
    throw new TidegateError('TABLE_UNKNOWN', `${shown} is not tracked; run tidegate track ${shown}`)
  }

  /** A table as it is, tracked or not. @throws TABLE_UNKNOWN, TABLE_UNSUPPORTED */
  async inspect(schema: string, name: string): Promise<Table> {
    return (await this.#supported(schema, name)).table
  }

  tableByOid(oid: number): Promise<Table> {
    return this.#oids.get(oid, async () => {
      const name = await readName(this.#db, oid)
      if (name === null) throw new TidegateError('TABLE_UNKNOWN', `there is no table with OID ${oid} any more`)
      return this.table(name.schema, name.name)
    })
  }

  async access(table: Table, role: string): Promise<TableAccess> {
    const access = await this.accessOrAsked(table, role)
    if ('asked' in access) throw access.asked
    return access
  }

  accessOrAsked(table: Table, role: string, command: Command = 'SELECT'): Promise<TableAccess | AskedAccess> {
    return this.#accesses.get(`${table.oid} ${role} ${command}`, () => this.#readAccess(table, role, command))
  }

  readableTables(role: string): Promise<readonly { schema: string; name: string }[]> {
    return this.#readable.get(role, () => this.#reading(reading => readReadableTables(reading, role)))
  }

  /** Forgets one table, or everything. What is being read at this moment still answers those who asked before, and
   *  nobody after. */
  invalidate(oid?: number): void {
    this.#facts = new FactStore()
    this.#readable.clear()
    if (oid === undefined) {
      this.#types = null
      this.#relations.clear()
      this.#oids.clear()
      this.#accesses.clear()
      return
    }
    this.#oids.drop(table => table.oid === oid)
    this.#relations.drop(({ table }) => table.oid === oid)
    this.#accesses.drop(
      access => access.table.oid === oid || 'asked' in access || access.memberships.some(inner => inner.oid === oid),
    )
  }

  /** Changes whenever something changes that decides who may see which row. One query, a few milliseconds. */
  async fingerprint(): Promise<string> {
    const { publication, roles = [] } = this.#options
    return this.#reading(({ db, version }) => readFingerprint(db, { version, publication, roles }))
  }

  /** Whether anything changed. Waits for no lock of a migration.
   *  @param sees transactions that it must see, 32-bit
   *  @returns null when the snapshot does not see them yet: the WAL runs ahead of SQL */
  async look(sees: readonly number[] = []): Promise<CatalogLook | null> {
    const { publication, roles = [] } = this.#options
    const version = await this.#serverVersion()
    return inReading(this.#lookDb, async db => {
      const { rows } = await sql<{ text: string }>`SELECT pg_current_snapshot()::text AS text`.execute(db)
      const snapshot = parseSnapshot(rows[0]!.text)
      if (!sees.every(xid => snapshot.sees(xid))) return null
      const fingerprint = await readFingerprint(db, { version, publication, roles })
      return { fingerprint, snapshot, fence: await endOfWal(db) }
    })
  }

  /** What lower() changes under a collation, for ILIKE; null where only Postgres knows. @param collationOid 100 is the
   *  database's default */
  async caseMap(collationOid: number): Promise<ReadonlyMap<string, string> | null> {
    const collation = await this.#reading(reading => reading.types.collation(collationOid))
    return collation?.lower ?? null
  }

  async #supported(schema: string, name: string): Promise<RelationRead> {
    const relation =
      this.#relations.known(relationKey(schema, name)) ??
      (await this.#reading(reading => this.#relation(reading, schema, name)))
    if (relation === null)
      throw new TidegateError(
        'TABLE_UNKNOWN',
        `there is no table ${shown(schema)}.${shown(name)}; check the name and the schema`,
      )
    if (relation.unsupported !== null)
      throw new TidegateError(
        'TABLE_UNSUPPORTED',
        `${schema}.${name} is ${relation.unsupported}, which cannot be followed; subscribe to an ordinary or partitioned table`,
      )
    return relation
  }

  /** Tables asked for by name and those that policies read are the same objects. Takes a connection that is held: a
   *  shared read that still waited for one could wait for those who wait for it. */
  #relation(reading: RelationReading, schema: string, name: string): Promise<RelationRead | null> {
    const read = async (): Promise<RelationRead> => {
      const relation = await readRelation(reading, schema, name)
      if (relation === null) throw noRelation
      return relation
    }
    return this.#relations.get(relationKey(schema, name), read).catch((error: unknown) => {
      if (error === noRelation) return null
      throw error
    })
  }

  async #readAccess(table: Table, roleName: string, command: Command): Promise<TableAccess | AskedAccess> {
    const compile = await this.#options.compiler()
    const access = await this.compiled(table, roleName, input => askedWhereUnsupported(compile, { ...input, command }))
    const warnings = 'asked' in access ? [access.asked] : access.warnings
    for (const { code, message } of warnings) repeated(this.#options.log).warn({ code }, message)
    return access
  }

  /** What a compiler says of a table's policies for a role, with everything that it asks for. Not kept.
   *  @throws ROLE_REFUSED, TABLE_UNKNOWN, and what the compiler throws */
  async compiled<T>(table: Table, roleName: string, compile: (input: AccessInput) => T): Promise<T> {
    const facts = this.#facts
    const compiled = await this.#reading(async reading => {
      const role = await readRoleNamed(reading.db, roleName)
      if (role === null)
        throw new TidegateError(
          'ROLE_REFUSED',
          `there is no database role "${roleName}"; create it: CREATE ROLE "${roleName}"`,
        )
      for (let reads = 0; reads < maxReads; reads++) {
        try {
          const relation = facts.relation(table.schema, table.name)
          if (relation === null || relation.table.oid !== table.oid)
            throw new TidegateError('TABLE_UNKNOWN', `the table ${table.schema}.${table.name} was dropped or renamed`)
          return compile({ facts, relation, role })
        } catch (error) {
          if (!(error instanceof FactNeeded)) throw error
          const { need } = error
          const isTable = need.kind === 'relation'
          const fact = isTable ? this.#relation(reading, need.schema, need.name) : readFact(reading, need)
          facts.put(need, await fact)
        }
      }
      throw new TidegateError(
        'POLICY_UNSUPPORTED',
        `the policies of ${table.schema}.${table.name} name more than ${maxReads} things; simplify them`,
      )
    })
    const end = await endOfWal(this.#db)
    if (end > this.readUpTo) this.readUpTo = end
    return compiled
  }

  async #reading<T>(use: (reading: RelationReading) => Promise<T>): Promise<T> {
    const { publication } = this.#options
    const version = await this.#serverVersion()
    this.#types ??= new TypeReader(this.#db, version)
    const types = this.#types
    const read = (): Promise<T> => inReading(this.#db, db => use({ db, version, publication, types: types.within(db) }))
    return untilUnlocked(read)
  }

  #serverVersion(): Promise<number> {
    this.#version ??= sql<{ version: number }>`SELECT current_setting('server_version_num')::int AS version`
      .execute(this.#db)
      .then(({ rows }) => rows[0]!.version)
      .catch(error => {
        this.#version = null
        throw error
      })
    return this.#version
  }
}

/** @throws what the compiler throws, but for what only Postgres can judge */
function askedWhereUnsupported(compile: CompileAccess, input: AccessInput): TableAccess | AskedAccess {
  try {
    return compile(input)
  } catch (error) {
    if (!(error instanceof TidegateError) || error.code !== 'POLICY_UNSUPPORTED' || error instanceof RemedyNeeded)
      throw error
    const { facts, relation, role, command } = input
    const { columns } = facts.privileges(relation.table.oid, role.oid, command)
    const { table } = relation
    const readable = new Set(table.columns.flatMap(({ name }, column) => (columns.has(name) ? [column] : [])))
    return { table, role: role.name, readable, asked: error }
  }
}

/** Runs reads in one transaction under an empty search_path: pg_get_expr and format_type leave out the schema of whatever
 *  the search_path shows, so that `members` could be any table of that name. What stands before a lock fails soon. */
const inReading = <T>(db: Kysely<unknown>, use: (db: Transaction<unknown>) => Promise<T>): Promise<T> =>
  db
    .transaction()
    .setIsolationLevel('repeatable read')
    .setAccessMode('read only')
    .execute(async within => {
      const lockTimeout = String(lockTimeoutMs)
      await sql`SELECT set_config('search_path', '', true), set_config('lock_timeout', ${lockTimeout}, true)`.execute(
        within,
      )
      return use(within)
    })

/** Its owner closes the pool. */
const databaseOver = (pool: Lane): Kysely<unknown> =>
  new Kysely<unknown>({
    dialect: new PostgresDialect({ pool: { options: {}, connect: () => pool.connect(), end: async () => {} } }),
  })

async function endOfWal(db: Kysely<unknown>): Promise<bigint> {
  const { rows } = await sql<{ lsn: string }>`SELECT pg_current_wal_insert_lsn()::text AS lsn`.execute(db)
  return parseLsn(rows[0]!.lsn)
}

const relationKey = (schema: string, name: string): string => JSON.stringify([schema, name])

/** A name that somebody sent: on one line, and no longer than two names are. */
const shown = (name: string): string => JSON.stringify(name.slice(0, 130)).slice(1, -1)
