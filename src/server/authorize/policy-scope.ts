// Where a name in a policy means something: the relations in sight, the function's arguments, the schemas searched, and
// the role whose eyes a subquery reads with.
import type { Node, SelectStmt } from 'libpg-query'
import type { Expr, Predicate, TableRef } from '../../predicate/algebra.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { CollationFacts, Facts, JudgedRow, PrivilegeFacts, RelationFacts, RoleFacts } from '../catalog/facts.ts'
import type { Table } from '../catalog/table.ts'
import { quoted, sqlName } from './sql-name.ts'

/** A relation in a FROM clause, or the table that the policy is on. Compared by identity. */
export interface Source {
  readonly alias: string
  readonly relation: RelationFacts
  /** What the viewer may read of it; null for the policy's own table, whose columns a policy reads without privilege. */
  readonly privileges: PrivilegeFacts | null
  /** While compiling, its column n has the number `base + n`: so an expression tells whose columns it reads. 0 for the
   *  policy's own table, whose numbers are the positions that they end as. */
  readonly base: number
  /** Names given in FROM, by position: `members AS m (room, who)`. */
  readonly columnAliases: readonly string[]
  /** Right of a LEFT JOIN: any of its columns may be NULL. */
  readonly optional: boolean
  /** What stands for its columns, of the policy's own table where its row is known. */
  readonly row?: JudgedRow
}

/** Postgres has at most 1,600 columns in a table. */
export const columnsPerSource = 4096

/** A subquery, a WITH query or a function in FROM: its columns are expressions over what it reads. */
export interface Derived {
  readonly alias: string
  readonly columns: readonly { readonly name: string; readonly value: Value }[]
}

/** A compiled scalar, with what Postgres's analysis would still need to know of it. */
export interface Value {
  readonly expr: Expr
  /** A bare literal: it takes the type of whatever it meets. */
  readonly literal: boolean
  readonly collation: CollationFacts | null
  readonly explicitCollation: boolean
  /** Relations whose columns it reads. */
  readonly reads: ReadonlySet<Source>
}

export interface Condition {
  /** Over columns of any source in sight, numbered by `base`. */
  readonly predicate: Predicate
  readonly reads: ReadonlySet<Source>
  /** For "some row of a join satisfies this": the join, so that a join around it can take its tables in. Then `predicate`
   *  is made when it is asked for, and may throw. */
  readonly join?: Join
}

/** A table of a join, as far as semi-joins need to know it. */
export interface JoinedTable {
  readonly table: TableRef
  readonly base: number
  /** What the reader sees of it, in its own positions. */
  readonly visible: Predicate
  readonly uniqueKeys: readonly (readonly number[])[]
  /** Of it is only asked whether there is a row: several do not make several rows of the join. */
  readonly isAsked?: boolean
}

/** Tables and the conditions that a row of each must satisfy together. */
export interface Join {
  readonly tables: readonly JoinedTable[]
  readonly conditions: readonly Predicate[]
  /** Right sides of LEFT JOINs, with their ON. */
  readonly optional: readonly Join[]
  /** Of the conditions, its own tables among them. */
  readonly reads: ReadonlySet<Source>
}

/** Collects the scalar subqueries of one boolean expression while it is compiled. */
export interface Scalars {
  /** The one that is to stand for NULL, as if it gave no row, by its place in `joins`; -1 for none. */
  readonly nullAt: number
  readonly joins: Join[]
}

export interface Parameters {
  readonly functionName: string
  readonly names: readonly string[]
  readonly values: readonly Value[]
}

export interface Scope {
  readonly context: Context
  readonly sources: readonly (Source | Derived)[]
  /** Queries of WITH, by name; innermost first. */
  readonly named: ReadonlyMap<string, NamedQuery>
  /** The query around this one; null at the top of a policy and of a function's body. */
  readonly outer: Scope | null
  readonly parameters: Parameters | null
  /** Schemas searched for names without one, pg_catalog first unless listed; null: such names are refused. */
  readonly searchPath: readonly string[] | null
  /** Whose privileges and policies a subquery here is under. */
  readonly viewer: RoleFacts
  /** Text inside a function is parsed when it runs, so it needs USAGE on the schemas it names; a policy's does not. */
  readonly lateParsed: boolean
}

export interface NamedQuery {
  readonly select: SelectStmt
  readonly scope: Scope
  readonly columnAliases: readonly string[]
}

/** What one compilation carries everywhere. */
export interface Context {
  readonly facts: Facts
  /** The policy and table being compiled, for messages: `policy "p" on public.messages`. */
  readonly label: string
  /** The role of the principal. */
  readonly role: RoleFacts
  /** Tables that semi-joins read, by OID; filled while compiling. */
  readonly memberships: Map<number, Table>
  /** Functions inlined within functions. */
  readonly depth: number
  /** The tables whose policies are being compiled, outermost first, back to where a function's body began: Postgres
   *  refuses one that comes to itself. */
  readonly guarded: readonly RelationFacts[]
  /** The same through functions too, where Postgres would run on until its stack is full. */
  readonly guardedByAll: readonly RelationFacts[]
  /** The last `base` that was given out. */
  readonly bases: { last: number }
  /** Null where a scalar subquery with FROM has no place. */
  readonly scalars: Scalars | null
  readonly compiler: Compiler
}

/** The parts of the compiler that call each other, so that their files need not import in a circle. */
export interface Compiler {
  value(node: Node, scope: Scope): Value
  /** @param positive true where NULL and false have the same effect, so that the result may give either for the other:
   *  at the top and under AND and OR, not under NOT or IS NULL */
  condition(node: Node, scope: Scope, positive: boolean): Condition
  /** Rows of this relation that the viewer may see, over its own positions. */
  visibleRows(relation: RelationFacts, viewer: RoleFacts, context: Context): Predicate
  /** The value of a SELECT with FROM, of at most one row. */
  scalar(select: SelectStmt, scope: Scope, guard: Condition | null): Value
}

export const nothingRead: ReadonlySet<Source> = new Set()

export function unionOf(sets: readonly ReadonlySet<Source>[]): ReadonlySet<Source> {
  const filled = sets.filter(set => set.size > 0)
  if (filled.length <= 1) return filled[0] ?? nothingRead
  return new Set(filled.flatMap(set => [...set]))
}

/** @throws POLICY_UNSUPPORTED naming the policy, its table and the construct */
export function unsupported(context: Context, construct: string, cause?: unknown): never {
  throw new TidegateError(
    'POLICY_UNSUPPORTED',
    `${context.label} cannot be judged in the stream yet: it uses ${construct}; see docs/authorization.md`,
    { cause },
  )
}

/** @throws TABLE_REFUSED: where Postgres would raise for every row, there is nothing to see */
export function refused(context: Context, reason: string, remedy: string): never {
  throw new TidegateError('TABLE_REFUSED', `${context.label} ${reason}; ${remedy}`)
}

export const nameOf = (relation: RelationFacts): string => `${relation.table.schema}.${relation.table.name}`

/** For a statement that somebody is to run: a name that holds SQL stays a name. */
export const sqlNameOf = ({ table }: RelationFacts): string => sqlName(table.schema, table.name)

/** Names of a dotted name's parts, as the grammar gives them. */
export const partsOf = (nodes: readonly Node[] | undefined): string[] =>
  (nodes ?? []).map(node => ('String' in node ? (node.String.sval ?? '') : '*'))

/** Finds what a name means in Postgres's order: columns from the inside out, then the function's arguments. */
export function resolveName(parts: readonly string[], scope: Scope): Value {
  const value = columnOf(parts, scope) ?? parameterOf(parts, scope)
  return value ?? unsupported(scope.context, `the name ${parts.join('.')}`)
}

function columnOf(parts: readonly string[], from: Scope): Value | null {
  const name = parts.at(-1)!
  const qualifier = parts.slice(0, -1)
  for (let scope: Scope | null = from; scope !== null; scope = scope.outer) {
    for (const source of scope.sources) {
      const value = 'relation' in source ? columnIn(source, qualifier, name, scope) : derivedIn(source, qualifier, name)
      if (value !== null) return value
    }
  }
  return null
}

function columnIn(source: Source, qualifier: readonly string[], name: string, scope: Scope): Value | null {
  return qualifies(qualifier, source) ? columnOfSource(source, name, scope) : null
}

function qualifies(qualifier: readonly string[], { alias, relation }: Source): boolean {
  if (qualifier.length === 0) return true
  if (qualifier.length === 1) return qualifier[0] === alias
  return qualifier.length === 2 && qualifier[0] === relation.table.schema && qualifier[1] === relation.table.name
}

function derivedIn({ alias, columns }: Derived, qualifier: readonly string[], name: string): Value | null {
  if (qualifier.length > 1 || (qualifier.length === 1 && qualifier[0] !== alias)) return null
  return columns.find(column => column.name === name)?.value ?? null
}

/** Null when it has no such column. @throws TABLE_REFUSED for one that the viewer may not SELECT */
export function columnOfSource(source: Source, alias: string, scope: Scope): Value | null {
  const { relation, columnAliases } = source
  const { columns } = relation.table
  const aliased = columnAliases.indexOf(alias)
  const column =
    aliased !== -1 ? aliased : columns.findIndex((each, i) => each.name === alias && i >= columnAliases.length)
  if (column === -1) {
    if (!relation.unpublishedColumns.includes(alias)) return null
    return unsupported(scope.context, `the column ${nameOf(relation)}.${alias}, which the publication leaves out`)
  }
  const { name, type } = columns[column]!
  if (source.privileges !== null && !source.privileges.columns.has(name)) {
    const role = scope.viewer.name
    const grant = `GRANT SELECT (${quoted(name)}) ON ${sqlNameOf(relation)} TO ${quoted(role)}`
    return refused(scope.context, `reads ${nameOf(relation)}.${name}, which role ${role} may not SELECT`, grant)
  }
  const expr = { kind: 'column', column: source.base + column, name, type } as const
  const known = source.row?.(expr) ?? null
  return {
    expr: known ?? expr,
    literal: false,
    collation: relation.collations[column] ?? null,
    explicitCollation: false,
    reads: known === null ? new Set([source]) : nothingRead,
  }
}

function parameterOf(parts: readonly string[], scope: Scope): Value | null {
  const parameters = parametersOf(scope)
  if (parameters === null || parts.length > 2) return null
  if (parts.length === 2 && parts[0] !== parameters.functionName) return null
  const index = parameters.names.indexOf(parts.at(-1)!)
  return index === -1 ? null : parameters.values[index]!
}

/** The arguments of the function whose body this is. */
export function parametersOf(from: Scope): Parameters | null {
  for (let scope: Scope | null = from; scope !== null; scope = scope.outer) {
    if (scope.parameters !== null) return scope.parameters
  }
  return null
}

/** Schemas to look in for a name, in order: its own if it has one. @throws POLICY_UNSUPPORTED when only the caller's
 *  search_path could tell */
export function schemasFor(parts: readonly string[], scope: Scope, kind: 'relation' | 'function' | 'type'): string[] {
  if (parts.length === 2) return [parts[0]!]
  if (parts.length !== 1) return unsupported(scope.context, `the name ${parts.join('.')}`)
  // Without a fixed search_path the built-in meaning is still the first one looked at, so it alone is safe.
  const path = scope.searchPath ?? []
  // Postgres looks in pg_temp first for relations, but no reader of a stream has temporary tables.
  const named = path
    .filter(schema => schema !== 'pg_temp')
    .map(schema => (schema === '$user' ? scope.viewer.name : schema))
  const schemas = named.includes('pg_catalog') ? named : ['pg_catalog', ...named]
  return kind === 'relation' ? schemas.filter(schema => schema !== 'pg_catalog') : schemas
}
