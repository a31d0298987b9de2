// What the catalog says of a table, as far as deciding and delivering need it.
import { createHash } from 'node:crypto'
import type { Predicate, SqlType, TableRef } from '../../predicate/algebra.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'

/** What a policy or a privilege is for. */
export type Command = 'SELECT' | 'INSERT'

export interface TableColumn {
  readonly name: string
  readonly type: SqlType
  readonly notNull: boolean
  /** `pg_type.typname`: `int8`, `_text`. Left out: the type's name. */
  readonly typname?: string
}

/** A tracked table. `columns` are in WAL order: by attribute number, without dropped ones and without generated ones
 *  that the publication leaves out, so that a position means the same here, in a Relation message and in a Tuple. */
export interface Table extends TableRef {
  readonly columns: readonly TableColumn[]
  /** Positions in `columns`, in key order. Empty when there is no primary key. */
  readonly primaryKey: readonly number[]
  /** Positions in the replica identity; all under FULL; the weakest of all leaf partitions. */
  readonly identity: ReadonlySet<number>
  readonly replicaIdentity: 'default' | 'nothing' | 'full' | 'index'
  readonly partitioned: boolean
  /** OIDs of the partitions that hold rows: with one that is attached or detached rows come and go, and the WAL says
   *  nothing of them. */
  readonly leaves?: string
  /** `<OID>:<file>` of each of those partitions. A partition truncated under its own name has another file. */
  readonly files?: readonly string[]
  readonly rowSecurity: boolean
  readonly forceRowSecurity: boolean
  readonly published: boolean
  /** Changes when a column was dropped and added again by its name: its values are others, though the WAL says nothing. */
  readonly incarnation?: string
  /** How Tidegate's own login may read it whole: plainly, through the function that `track` installed, or not at all. */
  readonly readThrough: 'table' | 'function' | null
}

const shapes = new WeakMap<Table, string>()

/** Equal for two readings of a table whose positions, types and old rows mean the same. */
export function shapeOf(table: Table): string {
  let shape = shapes.get(table)
  if (shape === undefined) {
    const { oid, columns, primaryKey, identity, incarnation = '', leaves = '', readThrough } = table
    const types = columns.map(({ name, type, notNull }) => ({ name, type, notNull }))
    const parts = [oid, types, primaryKey, [...identity].sort((a, b) => a - b), incarnation, leaves, readThrough]
    shape = createHash('sha256').update(JSON.stringify(parts)).digest('base64url').slice(0, 12)
    shapes.set(table, shape)
  }
  return shape
}

/** What one role may read of a table, or INSERT into it: the database's own answer, compiled. */
export interface TableAccess {
  readonly table: Table
  readonly role: string
  /** Positions of the columns that the role may SELECT, or INSERT. */
  readonly readable: ReadonlySet<number>
  /** Rows the role may SELECT, or INSERT, settings not yet bound. */
  readonly policy: Predicate
  /** Tables that the policy's semi-joins read. */
  readonly memberships: readonly Table[]
  readonly warnings: readonly { readonly code: 'NO_POLICY' | 'NO_ROW_SECURITY'; readonly message: string }[]
}

/** What one role may read where its policies do not compile: whose rows they are, only Postgres can say. */
export interface AskedAccess {
  readonly table: Table
  readonly role: string
  readonly readable: ReadonlySet<number>
  /** POLICY_UNSUPPORTED, which names the policy and the construct. */
  readonly asked: TidegateError
}

/** What would be judged here once the operator has run the statement in its message: refused until then, never asked. */
export class RemedyNeeded extends TidegateError {}

export interface Catalog {
  /** End of the WAL when policies were last read: what they say may be true from there on only. */
  readonly readUpTo: bigint
  /** @throws TABLE_UNKNOWN, TABLE_UNSUPPORTED */
  table(schema: string, name: string): Promise<Table>
  tableByOid(oid: number): Promise<Table>
  /** @throws TABLE_REFUSED, POLICY_UNSUPPORTED, ROLE_REFUSED */
  access(table: Table, role: string): Promise<TableAccess>
  /** The same, with what Postgres must be asked for told apart from what is refused.
   *  @param command SELECT if left out
   *  @throws TABLE_REFUSED, ROLE_REFUSED, RemedyNeeded */
  accessOrAsked(table: Table, role: string, command?: Command): Promise<TableAccess | AskedAccess>
  /** The tables that are tracked and of which the role may SELECT at least the primary key, in the order of their names. */
  readableTables(role: string): Promise<readonly { readonly schema: string; readonly name: string }[]>
  /** Forgets what it read. Called when a Relation message repeats, or the catalog's fingerprint changes. */
  invalidate(oid?: number): void
}
