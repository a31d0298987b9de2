// Where a name in a policy means something: the relations in sight, the function's arguments, the schemas searched, and
// the role whose eyes a subquery reads with.
import type { Node } from 'libpg-query'
import type { Expr, Predicate } from '../../predicate/algebra.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { CollationFacts, Facts, PrivilegeFacts, RelationFacts, RoleFacts } from '../catalog/facts.ts'
import type { Table } from '../catalog/table.ts'

/** A relation in a FROM clause, or the table that the policy is on. Compared by identity. */
export interface Source {
  readonly alias: string
  readonly relation: RelationFacts
  /** What the viewer may read of it; null for the policy's own table, whose columns a policy reads without privilege. */
  readonly privileges: PrivilegeFacts | null
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
  readonly predicate: Predicate
  readonly reads: ReadonlySet<Source>
}

export interface Parameters {
  readonly functionName: string
  readonly names: readonly string[]
  readonly values: readonly Value[]
}

export interface Scope {
  readonly context: Context
  readonly sources: readonly Source[]
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
  /** Set while compiling what a subquery's table shows to its reader: there a second subquery ends it. */
  readonly innerTable: RelationFacts | null
  readonly compiler: Compiler
}

/** The parts of the compiler that call each other, so that their files need not import in a circle. */
export interface Compiler {
  value(node: Node, scope: Scope): Value
  /** @param positive true where NULL and false have the same effect, so that the result may give either for the other:
   *  at the top and under AND and OR, not under NOT or IS NULL */
  condition(node: Node, scope: Scope, positive: boolean): Condition
  /** Rows of this relation that the viewer may see; only inner columns, constants and settings. */
  visibleRows(relation: RelationFacts, viewer: RoleFacts, context: Context): Predicate
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
      if (!qualifies(qualifier, source)) continue
      const value = columnOfSource(source, name, scope)
      if (value !== null) return value
    }
  }
  return null
}

function qualifies(qualifier: readonly string[], { alias, relation }: Source): boolean {
  if (qualifier.length === 0) return true
  if (qualifier.length === 1) return qualifier[0] === alias
  return qualifier.length === 2 && qualifier[0] === relation.table.schema && qualifier[1] === relation.table.name
}

function columnOfSource(source: Source, name: string, scope: Scope): Value | null {
  const { relation } = source
  const column = relation.table.columns.findIndex(candidate => candidate.name === name)
  if (column === -1) {
    if (!relation.unpublishedColumns.includes(name)) return null
    return unsupported(scope.context, `the column ${nameOf(relation)}.${name}, which the publication leaves out`)
  }
  if (source.privileges !== null && !source.privileges.columns.has(name)) {
    const role = scope.viewer.name
    const grant = `GRANT SELECT ("${name}") ON ${nameOf(relation)} TO "${role}"`
    return refused(scope.context, `reads ${nameOf(relation)}.${name}, which role ${role} may not SELECT`, grant)
  }
  return {
    expr: { kind: 'column', column, name, type: relation.table.columns[column]!.type },
    literal: false,
    collation: relation.collations[column] ?? null,
    explicitCollation: false,
    reads: new Set([source]),
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
