// From what a client asks to what is followed: the table, the columns it may see, policy and filter as one bound predicate.
// Everything that cannot be answered exactly is refused here, with what to do about it.
import type { Predicate, SemiJoin } from '../../predicate/algebra.ts'
import { bind } from '../../predicate/bind.ts'
import { and } from '../../predicate/build.ts'
import { allSemiJoinsOf, columnsOf, innerColumnsOf } from '../../predicate/columns.ts'
import { type FilterLimits, parseFilter } from '../../predicate/postgrest.ts'
import type { Warning } from '../../protocol/messages.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Catalog, Table, TableAccess } from '../catalog/table.ts'
import { answered } from '../postgres/database.ts'
import type { AudienceRequest } from './audiences.ts'
import { orderingOf } from './prepare-order.ts'
import type { Principal, SubscribeRequest } from './subscription.ts'

export interface PrepareOptions {
  readonly catalog: Catalog
  /** @throws ROLE_REFUSED */
  readonly admit: (role: string) => Promise<void>
  /** The settings that a principal's queries run under; the compiled path reads the same. */
  readonly settingsOf: (principal: Principal) => readonly (readonly [name: string, value: string])[]
  readonly filterLimits: FilterLimits
  /** The largest `limit`. */
  readonly maxLimit: number
}

export interface Prepared {
  /** What it was prepared by. */
  readonly access: TableAccess
  readonly audience: AudienceRequest
  readonly warnings: readonly Warning[]
}

/** @throws TidegateError with a peer code */
export async function prepare(
  options: PrepareOptions,
  principal: Principal,
  request: SubscribeRequest,
): Promise<Prepared> {
  const { settingsOf, filterLimits, maxLimit } = options
  const access = await readAccess(options, principal.role, request)
  const { table } = access
  const columns = columnsShown(access, request.select)
  const ordering = orderingOf(access, request, columns, maxLimit)
  const readable = table.columns.map((column, i) => (access.readable.has(i) ? column : { ...column, name: '' }))
  const filter = parseFilter(request.filters, readable, filterLimits)
  const byName = new Map(settingsOf(principal))
  const predicate = bind(and(access.policy, filter), name => byName.get(name))
  assertJudgeable(table, access.memberships, predicate)
  return {
    access,
    audience: {
      query: { kind: request.kind, table, filter, columns, events: request.events, ordering },
      predicate,
      memberships: access.memberships,
    },
    warnings: access.warnings,
  }
}

/** What a role may read of the table that a request names. @throws TidegateError with a peer code */
export async function readAccess(
  { catalog, admit }: PrepareOptions,
  role: string,
  request: Pick<SubscribeRequest, 'schema' | 'table'>,
): Promise<TableAccess> {
  await answered(admit(role))
  // Its rows are on their way, and are deleted soon: what was sent is for those who were in the channel.
  if (request.schema === 'realtime' && request.table === 'messages')
    throw new TidegateError(
      'TABLE_UNSUPPORTED',
      'realtime.messages is what messages pass through; join the channel instead',
    )
  const table = await answered(catalog.table(request.schema, request.table))
  if (table.primaryKey.length === 0) {
    throw new TidegateError('NO_PRIMARY_KEY', `${nameOf(table)} has no primary key; add one`)
  }
  return answered(catalog.access(table, role))
}

/** The columns asked for and the primary key, in table order. */
export function columnsShown(
  { table, role, readable }: Pick<TableAccess, 'table' | 'role' | 'readable'>,
  select: readonly string[] | null,
): number[] {
  for (const column of table.primaryKey) {
    if (!readable.has(column)) {
      const { name } = table.columns[column]!
      throw new TidegateError(
        'KEY_NOT_READABLE',
        `role ${role} may not SELECT ${name}, of the primary key of ${nameOf(table)}`,
      )
    }
  }
  if (select === null) return table.columns.flatMap((_, i) => (readable.has(i) ? [i] : []))
  const shown = new Set(table.primaryKey)
  for (const name of select) {
    const column = table.columns.findIndex((candidate, i) => candidate.name === name && readable.has(i))
    if (column < 0)
      throw new TidegateError(
        'COLUMN_UNKNOWN',
        `${nameOf(table)} has no column ${JSON.stringify(name)} that role ${role} may read`,
      )
    shown.add(column)
  }
  return [...shown].sort((a, b) => a - b)
}

/** Old rows can be judged only by columns that the WAL carries of them; moved rows only if they can be read. */
function assertJudgeable(table: Table, memberships: readonly Table[], predicate: Predicate): void {
  assertIdentity(table, new Set([...columnsOf(predicate), ...table.primaryKey]))
  const joins = allSemiJoinsOf(predicate)
  assertFollowable(joins, memberships)
  if (joins.length > 0) assertReadable(table)
}

/** @throws IDENTITY_INSUFFICIENT, INDEX_NOT_READABLE for a membership table that the index could not hold */
export function assertFollowable(joins: readonly SemiJoin[], memberships: readonly Table[]): void {
  for (const join of joins) {
    const inner = memberships.find(membership => membership.oid === join.table.oid)
    if (inner === undefined) continue
    assertIdentity(inner, innerColumns(join))
    assertReadable(inner)
  }
}

const innerColumns = (join: SemiJoin): ReadonlySet<number> => innerColumnsOf(join)

function assertIdentity(table: Table, needed: ReadonlySet<number>): void {
  const missing = [...needed].filter(column => !table.identity.has(column)).map(column => table.columns[column]!.name)
  if (missing.length === 0) return
  throw new TidegateError(
    'IDENTITY_INSUFFICIENT',
    `the replica identity of ${nameOf(table)} lacks ${missing.join(', ')}; run: ${identityRemedy(table)}`,
  )
}

/** What makes old rows whole. Of a partitioned table each partition has a replica identity of its own, which `track` sets. */
export function identityRemedy(table: Table): string {
  if (table.partitioned) return `tidegate track ${nameOf(table)}`
  const quoted = `"${table.schema.replaceAll('"', '""')}"."${table.name.replaceAll('"', '""')}"`
  return `ALTER TABLE ${quoted} REPLICA IDENTITY FULL`
}

function assertReadable(table: Table): void {
  if (table.readThrough !== null) return
  throw new TidegateError(
    'INDEX_NOT_READABLE',
    `the server's login cannot read ${nameOf(table)} whole; run: tidegate track ${nameOf(table)}`,
  )
}

const nameOf = (table: Table): string => `${table.schema}.${table.name}`
