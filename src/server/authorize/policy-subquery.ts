// Compiles subqueries over one membership table into semi-joins.
//
// A subquery's conditions are sorted by what they read: those on the inner row alone go into the semi-join's `where`,
// those on the outer row alone move out of it, and an equality of the two is a key. What reads both in any other way has
// no key to be looked up by, and is refused. The inner rows are those that the reader's role may see, or inside a
// security-definer function its owner; that condition joins `where`.
import type { FuncCall, Node, SelectStmt } from 'libpg-query'
import type { Predicate, SemiJoin, SqlType } from '../../predicate/algebra.ts'
import { and, not, or } from '../../predicate/build.ts'
import { semiJoinsOf } from '../../predicate/columns.ts'
import { sqlTypes } from '../../predicate/sql-types.ts'
import { RemedyNeeded } from '../catalog/table.ts'
import { mayBeNull, type OpenCall, openCall } from './inline-function.ts'
import { scalarTarget } from './parse-sql.ts'
import { describe } from './policy-construct.ts'
import { compared } from './policy-operators.ts'
import {
  type Condition,
  nameOf,
  partsOf,
  refused,
  type Scope,
  type Source,
  schemasFor,
  unionOf,
  unsupported,
  type Value,
} from './policy-scope.ts'
import { castTo, constant, namedType } from './policy-types.ts'

/** A subquery with its FROM resolved: compile its parts in `scope`. */
interface OpenSubquery {
  readonly select: SelectStmt
  readonly scope: Scope
  readonly source: Source
  /** Conditions from around it: that a STRICT function's arguments are not NULL. */
  readonly guards: readonly Condition[]
}

interface Parts {
  readonly keys: SemiJoin['keys'][number][]
  readonly where: Predicate[]
  readonly outside: Condition[]
  /** Inner columns that the outer row, a claim or a constant fixes by equality. */
  readonly pinned: Set<number>
  readonly reads: ReadonlySet<Source>[]
}

/** True exactly when the predicate is: NULL becomes false. */
export const isTrue = (predicate: Predicate): Predicate =>
  not({
    kind: 'isDistinct',
    left: { kind: 'predicate', predicate, type: sqlTypes.bool },
    right: constant('t', sqlTypes.bool).expr,
  })

export function exists(select: SelectStmt, scope: Scope, positive: boolean): Condition {
  if (
    select.fromClause === undefined &&
    select.whereClause !== undefined &&
    isPlainButLimit(select) &&
    select.limitCount === undefined
  ) {
    const inner: Scope = { ...scope, sources: [], outer: scope, parameters: null }
    const { predicate, reads } = scope.context.compiler.condition(select.whereClause, inner, true)
    return { predicate: positive ? predicate : isTrue(predicate), reads }
  }
  const open = openSubquery(select, scope)
  for (const target of targetsOf(open.select)) assertGivesRow(target, open)
  refuseLimit(open, 'EXISTS')
  return semiJoin(open, partsOfWhere(open), positive)
}

/** What EXISTS selects does not matter, unless it makes rows of its own (an aggregate, a function that returns a set) or
 *  may not be selected. */
function assertGivesRow(target: Node, { scope, source }: OpenSubquery): void {
  if ('A_Const' in target) return
  if (!('ColumnRef' in target) || !partsOf(target.ColumnRef.fields).includes('*')) {
    scope.context.compiler.value(target, scope)
    return
  }
  const { table, unpublishedColumns } = source.relation
  const names = [...table.columns.map(({ name }) => name), ...unpublishedColumns]
  const hidden = names.find(name => source.privileges?.columns.has(name) === false)
  if (hidden !== undefined)
    refused(
      scope.context,
      `reads ${nameOf(source.relation)}.${hidden}, which role ${scope.viewer.name} may not SELECT`,
      `select a constant instead of *, or GRANT SELECT ON ${nameOf(source.relation)} TO "${scope.viewer.name}"`,
    )
}

/** `tested IN (SELECT ...)`, also for a row of several values. */
export function inSubquery(tested: Node, select: SelectStmt, scope: Scope, positive: boolean): Condition {
  const open = openSubquery(select, scope)
  if (open.select.limitCount !== undefined) return unsupported(scope.context, 'LIMIT in IN (SELECT ...)')
  const left = ('RowExpr' in tested ? (tested.RowExpr.args ?? []) : [tested]).map(node =>
    scope.context.compiler.value(node, scope),
  )
  const right = targetsOf(open.select).map(node => open.scope.context.compiler.value(node, open.scope))
  if (left.length !== right.length || left.length === 0)
    return unsupported(scope.context, `IN (SELECT ...) of ${right.length} columns with ${left.length} values`)
  if (positive) {
    const parts = partsOfWhere(open)
    for (const [i, value] of left.entries()) addEquality(parts, right[i]!, value, open)
    return semiJoin(open, parts, true)
  }
  if (left.length > 1) return unsupported(scope.context, 'NOT IN (SELECT ...) of several columns')
  return exactIn(left[0]!, right[0]!, open)
}

/** With NULLs kept apart: true if a row matches; else unknown if a NULL might have; else false. */
function exactIn(tested: Value, target: Value, open: OpenSubquery): Condition {
  const parts = partsOfWhere(open)
  const simple = parts.keys.length === 0 && parts.outside.length === 0 && tested.reads.size > 0
  const matching = partsOfWhere(open)
  addEquality(matching, target, tested, open)
  if (simple && matching.keys.length === 1) {
    const join = semiJoin(open, matching, true)
    return join.predicate.kind === 'semiJoin' ? { ...join, predicate: { ...join.predicate, nullAware: true } } : join
  }
  const found = semiJoin(open, matching, false)
  const nulls: Predicate[] = []
  if (mayBeNull(target)) {
    const withNull = partsOfWhere(open)
    withNull.where.push({ kind: 'isNull', arg: target.expr })
    nulls.push(semiJoin(open, withNull, false).predicate)
  }
  if (mayBeNull(tested)) nulls.push(and({ kind: 'isNull', arg: tested.expr }, semiJoin(open, parts, false).predicate))
  return {
    predicate: or(found.predicate, and({ kind: 'unknown' }, or(...nulls))),
    reads: unionOf([found.reads, tested.reads]),
  }
}

/** A scalar subquery with FROM, or a call of a function that is one. */
export interface ScalarSource {
  readonly open: OpenSubquery
  readonly target: Node
  /** Casts around it, outermost last. */
  readonly casts: readonly SqlType[]
}

/** Null when the expression is no such subquery. */
export function scalarSourceOf(node: Node, scope: Scope): ScalarSource | null {
  if ('TypeCast' in node && node.TypeCast.arg !== undefined) {
    const source = scalarSourceOf(node.TypeCast.arg, scope)
    return source === null ? null : { ...source, casts: [...source.casts, namedType(node.TypeCast.typeName!, scope)] }
  }
  if ('SubLink' in node && node.SubLink.subLinkType === 'EXPR_SUBLINK') {
    const { subselect } = node.SubLink
    if (subselect === undefined || !('SelectStmt' in subselect)) return null
    const inner: Scope = { ...scope, sources: [], outer: scope, parameters: null }
    return sourceOfSelect(subselect.SelectStmt, scope, inner, [])
  }
  if (!('FuncCall' in node)) return null
  const open = openCall(node.FuncCall, scope)
  if (open === null || open.function.returnsSet) return null
  const source = sourceOfSelect(open.select, open.scope, open.scope, [open.notNull])
  if (source === null) return null
  const { returnType } = open.function
  return returnType.family === 'bool' ? source : { ...source, casts: [...source.casts, returnType] }
}

/** @param around the scope the SELECT stands in @param inside the scope of a SELECT without FROM */
function sourceOfSelect(
  select: SelectStmt,
  around: Scope,
  inside: Scope,
  guards: readonly Condition[],
): ScalarSource | null {
  const single = scalarTarget(select)
  if (single !== null) {
    const source = scalarSourceOf(single, inside)
    return source === null ? null : { ...source, open: { ...source.open, guards: [...source.open.guards, ...guards] } }
  }
  if (select.fromClause === undefined) return null
  const open = openSubquery(select, around)
  const [target, ...more] = targetsOf(open.select)
  if (target === undefined || more.length > 0) return null
  return { open: { ...open, guards: [...open.guards, ...guards] }, target, casts: [] }
}

/** `(SELECT target FROM m WHERE ...) op value`, where NULL and false mean the same: some row of m satisfies it. Only when
 *  a unique key is fixed, because of several rows Postgres takes the first it meets, or raises.
 *  @param condition what is asked of the target; null when the target itself is the condition */
export function compareScalar(
  source: ScalarSource,
  condition: ((target: Value) => Condition) | null,
  scope: Scope,
): Condition {
  const { open, target, casts } = source
  refuseLimit(open, 'a scalar subquery')
  const parts = partsOfWhere(open)
  const { relation } = open.source
  const isOne = relation.uniqueKeys.some(key => key.every(column => parts.pinned.has(column)))
  const isConstant = condition === null && 'A_Const' in target
  // First, so that an aggregate is refused as what it is.
  if ('FuncCall' in target) open.scope.context.compiler.value(target, open.scope)
  if (!isOne && !isConstant)
    return unsupported(scope.context, `a scalar subquery that may give several rows of ${nameOf(relation)}`)
  const { compiler } = open.scope.context
  if (condition === null) add(parts, compiler.condition(target, open.scope, true), open)
  else {
    const value = casts.reduce((inner, type) => castTo(inner, type, scope.context), compiler.value(target, open.scope))
    const asked = condition(value)
    const { predicate } = asked
    if (predicate.kind === 'compare' && predicate.op === '=' && splits(asked, open.source))
      addKey(parts, asked, predicate, open)
    else add(parts, asked, open)
  }
  return semiJoin(open, parts, true)
}

const splits = ({ reads }: Condition, source: Source): boolean => reads.has(source) && reads.size > 1

/** The target's side is the left one: the operator was applied to it. */
function addKey(parts: Parts, { reads }: Condition, compare: EqualityOf, open: OpenSubquery): void {
  const { left, right } = compare
  if (left.kind !== 'column')
    unsupported(
      open.scope.context,
      `a condition on ${nameOf(open.source.relation)} and the outer row that is no equality of columns`,
    )
  parts.keys.push({ inner: left, outer: right })
  parts.reads.push(without(reads, open.source))
}

type EqualityOf = Extract<Predicate, { kind: 'compare' }>

const without = (reads: ReadonlySet<Source>, source: Source): ReadonlySet<Source> =>
  new Set([...reads].filter(each => each !== source))

/** DISTINCT ON, unlike DISTINCT, leaves rows out. */
const isDistinctOn = ({ distinctClause = [] }: SelectStmt): boolean =>
  distinctClause.some(node => Object.keys(node).length > 0)

function isPlainButLimit(select: SelectStmt): boolean {
  if (isDistinctOn(select)) return false
  const { withClause, op, valuesLists, groupClause, havingClause, windowClause, limitOffset, lockingClause } = select
  const others = [withClause, valuesLists, groupClause, havingClause, windowClause, limitOffset, lockingClause]
  return others.every(other => other === undefined) && (op === undefined || op === 'SETOP_NONE')
}

const targetsOf = (select: SelectStmt): Node[] =>
  (select.targetList ?? []).flatMap(node =>
    'ResTarget' in node && node.ResTarget.val !== undefined ? [node.ResTarget.val] : [],
  )

function openSubquery(select: SelectStmt, scope: Scope): OpenSubquery {
  const { context } = scope
  if (!isPlainButLimit(select)) return unsupported(context, `${clauseOf(select)} in a subquery`)
  const [from, ...more] = select.fromClause ?? []
  if (more.length > 0 || (from !== undefined && 'JoinExpr' in from)) return unsupported(context, 'a join in a subquery')
  if (from === undefined || 'RangeFunction' in from) return openSet(select, from, scope)
  if (!('RangeVar' in from)) return unsupported(context, `${describe(from)} in FROM`)
  const { schemaname, relname = '', inh, alias } = from.RangeVar
  if (inh !== true) return unsupported(context, `FROM ONLY ${relname}`)
  if (alias?.colnames !== undefined) return unsupported(context, `column aliases for ${relname}`)
  const source = openRelation(
    schemaname === undefined ? [relname] : [schemaname, relname],
    alias?.aliasname ?? relname,
    scope,
  )
  return { select, scope: { ...scope, sources: [source], outer: scope, parameters: null }, source, guards: [] }
}

function openRelation(parts: readonly string[], alias: string, scope: Scope): Source {
  const { context, viewer } = scope
  const shown = parts.join('.')
  for (const schema of schemasFor(parts, scope, 'relation')) {
    const relation = context.facts.relation(schema, parts.at(-1)!)
    if (relation === null) continue
    const name = nameOf(relation)
    if (relation.unsupported !== null) return unsupported(context, `${name}, which is ${relation.unsupported}`)
    if (context.innerTable !== null)
      return unsupported(
        context,
        `a subquery over ${name} (it guards ${nameOf(context.innerTable)}, which another policy reads)`,
      )
    const privileges = context.facts.privileges(relation.table.oid, viewer.oid)
    if (scope.lateParsed && !privileges.schemaUsage)
      return refused(
        context,
        `names ${name}, but role ${viewer.name} may not use its schema`,
        `GRANT USAGE ON SCHEMA ${schema} TO "${viewer.name}"`,
      )
    if (!privileges.anyColumn)
      return refused(
        context,
        `reads ${name}, which role ${viewer.name} may not SELECT`,
        `GRANT SELECT ON ${name} TO "${viewer.name}"`,
      )
    if (!relation.table.published)
      throw new RemedyNeeded(
        'POLICY_UNSUPPORTED',
        `${context.label} cannot be judged in the stream yet: it uses ${name}, which is not tracked (run tidegate track ${name}); see docs/authorization.md`,
      )
    return { alias, relation, privileges }
  }
  if (scope.searchPath === null && parts.length === 1)
    return unsupported(context, `the table ${shown} without a schema in a function that has no SET search_path`)
  return unsupported(context, `the table ${shown}, which does not exist`)
}

/** `(SELECT f(x))` and `(SELECT * FROM f(x))` for a function that returns a set: the function's own SELECT. */
function openSet(select: SelectStmt, from: Node | undefined, scope: Scope): OpenSubquery {
  const open = setCallOf(select, from, scope)
  if (open === null)
    return unsupported(scope.context, from === undefined ? 'a subquery without FROM here' : 'a function in FROM')
  const inner = openSubquery(open.select, open.scope)
  if (inner.select.limitCount !== undefined) return unsupported(scope.context, 'LIMIT in a function that returns a set')
  return { ...inner, guards: [...inner.guards, open.notNull] }
}

function setCallOf(select: SelectStmt, from: Node | undefined, scope: Scope): OpenCall | null {
  const [target, ...more] = targetsOf(select)
  if (target === undefined || more.length > 0 || select.whereClause !== undefined) return null
  let call: FuncCall | null = null
  if (from === undefined) call = 'FuncCall' in target ? target.FuncCall : null
  else if ('RangeFunction' in from && 'ColumnRef' in target) {
    const { functions = [], coldeflist, ordinality, is_rowsfrom } = from.RangeFunction
    const [first] = functions
    const node = first !== undefined && 'List' in first ? first.List.items?.[0] : undefined
    if (functions.length === 1 && coldeflist === undefined && ordinality !== true && is_rowsfrom !== true)
      call = node !== undefined && 'FuncCall' in node ? node.FuncCall : null
  }
  if (call === null) return null
  const open = openCall(call, scope)
  // A composite's columns would have names; a scalar set has one column, whatever it is called.
  return open?.function.returnsSet === true && open.function.returnType.family !== 'other' ? open : null
}

function clauseOf(select: SelectStmt): string {
  if (select.withClause !== undefined) return 'WITH'
  if (select.op !== undefined && select.op !== 'SETOP_NONE') return 'UNION, INTERSECT or EXCEPT'
  if (select.groupClause !== undefined || select.havingClause !== undefined) return 'GROUP BY or HAVING'
  if (select.windowClause !== undefined) return 'a window'
  if (select.limitOffset !== undefined) return 'OFFSET'
  if (isDistinctOn(select)) return 'DISTINCT ON'
  return select.lockingClause === undefined ? 'VALUES' : 'FOR UPDATE'
}

/** LIMIT 1 takes nothing from EXISTS; LIMIT 0 does. */
function refuseLimit({ select, scope }: OpenSubquery, where: string): void {
  const { limitCount } = select
  if (limitCount === undefined) return
  if (!('A_Const' in limitCount) || (limitCount.A_Const.ival?.ival ?? 0) < 1)
    unsupported(scope.context, `this LIMIT in ${where}`)
}

function partsOfWhere(open: OpenSubquery): Parts {
  const parts: Parts = { keys: [], where: [], outside: [...open.guards], pinned: new Set(), reads: [] }
  const { whereClause } = open.select
  if (whereClause !== undefined) for (const node of conjunctsOf(whereClause)) addConjunct(parts, node, open)
  return parts
}

const conjunctsOf = (node: Node): Node[] =>
  'BoolExpr' in node && node.BoolExpr.boolop === 'AND_EXPR' ? (node.BoolExpr.args ?? []).flatMap(conjunctsOf) : [node]

function addConjunct(parts: Parts, node: Node, open: OpenSubquery): void {
  const { scope } = open
  const { compiler } = scope.context
  const equality =
    'A_Expr' in node && node.A_Expr.kind === 'AEXPR_OP' && partsOf(node.A_Expr.name).join('.') === '='
      ? node.A_Expr
      : null
  if (equality?.lexpr !== undefined && equality.rexpr !== undefined) {
    const sides = [equality.lexpr, equality.rexpr]
    if (sides.every(side => !('RowExpr' in side) && scalarSourceOf(side, scope) === null)) {
      const [left, right] = sides.map(side => compiler.value(side, scope))
      addEquality(parts, left!, right!, open)
      return
    }
  }
  add(parts, compiler.condition(node, scope, true), open)
}

/** Adds `a = b`: a key when one is an inner column and the other is about the outer row. */
function addEquality(parts: Parts, a: Value, b: Value, open: OpenSubquery): void {
  const { source, scope } = open
  const condition = compared('=', a, b, scope.context)
  if (condition.predicate.kind !== 'compare') {
    add(parts, condition, open)
    return
  }
  const sides = [
    { expr: condition.predicate.left, reads: a.reads, other: condition.predicate.right, otherReads: b.reads },
    { expr: condition.predicate.right, reads: b.reads, other: condition.predicate.left, otherReads: a.reads },
  ]
  for (const { expr, reads, other, otherReads } of sides) {
    if (expr.kind !== 'column' || !reads.has(source) || otherReads.has(source)) continue
    parts.pinned.add(expr.column)
    if (otherReads.size === 0) break
    parts.keys.push({ inner: expr, outer: other })
    parts.reads.push(otherReads)
    return
  }
  add(parts, condition, open)
}

function add(parts: Parts, condition: Condition, { source, scope }: OpenSubquery): void {
  const { predicate, reads } = condition
  if (!reads.has(source)) {
    parts.outside.push(condition)
    return
  }
  if (semiJoinsOf(predicate).length > 0)
    unsupported(scope.context, `a subquery within a subquery over ${nameOf(source.relation)}`)
  if (reads.size > 1)
    unsupported(
      scope.context,
      `a condition on ${nameOf(source.relation)} and the outer row that is no equality of columns`,
    )
  parts.where.push(predicate)
}

function semiJoin({ source, scope }: OpenSubquery, parts: Parts, positive: boolean): Condition {
  const { table } = source.relation
  const { context, viewer } = scope
  const visible = context.compiler.visibleRows(source.relation, viewer, context)
  context.memberships.set(table.oid, table)
  const join: Predicate = {
    kind: 'semiJoin',
    table: { oid: table.oid, schema: table.schema, name: table.name },
    keys: parts.keys,
    where: and(...parts.where, visible),
    nullAware: false,
  }
  const outside = parts.outside.map(({ predicate }) => (positive ? predicate : isTrue(predicate)))
  return {
    predicate: and(
      ...outside.filter(({ kind }) => kind !== 'true'),
      join.where.kind === 'false' ? { kind: 'false' } : join,
    ),
    reads: unionOf([...parts.outside.map(({ reads }) => reads), ...parts.reads]),
  }
}
