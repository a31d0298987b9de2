// Opens a SELECT inside a policy: its FROM becomes tables to join, its WHERE and ON their conditions.
//
// What stands in FROM may be a table, a join, a subquery, a query of WITH, or a SQL function that returns a set; the last
// three are replaced by what they read, and their columns by the expressions that they select. Rows are only ever asked
// about, never counted: so DISTINCT, ORDER BY and GROUP BY without aggregates change nothing.
import type { FuncCall, JoinExpr, Node, RangeFunction, RangeSubselect, RangeVar, SelectStmt } from 'libpg-query'
import { baseOf, sqlTypes } from '../../predicate/sql-types.ts'
import type { FunctionFacts } from '../catalog/facts.ts'
import { RemedyNeeded } from '../catalog/table.ts'
import { openCall } from './inline-function.ts'
import { describe } from './policy-construct.ts'
import { emptyJoin, isSingleRow, joined, newBase, withCondition } from './policy-join.ts'
import { compared } from './policy-operators.ts'
import {
  columnOfSource,
  type Derived,
  type Join,
  nameOf,
  partsOf,
  refused,
  type Scope,
  type Source,
  schemasFor,
  sqlNameOf,
  unsupported,
  type Value,
} from './policy-scope.ts'
import { castTo, coerced } from './policy-types.ts'
import { quoted, sqlName } from './sql-name.ts'

/** A SELECT whose FROM and WHERE are a join: compile what it selects in `scope`. */
export interface OpenSelect {
  readonly select: SelectStmt
  readonly scope: Scope
  readonly join: Join
}

/** @param rows what the rows are wanted for: LIMIT 1 takes nothing from `some`, but from `all`
 *  @throws POLICY_UNSUPPORTED for clauses that make rows of their own */
export function openSelect(select: SelectStmt, around: Scope, rows: 'all' | 'some'): OpenSelect {
  const clause = clauseOf(select)
  if (clause !== null) return unsupported(around.context, `${clause} in a subquery`)
  const outer = withNamed(select, around)
  const from = new From(outer)
  for (const item of select.fromClause ?? []) from.add(item)
  const { scope } = from
  let { join } = from
  for (const node of [select.whereClause, select.havingClause])
    for (const part of node === undefined ? [] : conjunctsOf(node))
      join = withCondition(join, scope.context.compiler.condition(part, scope, true))
  const open = { select, scope, join }
  assertLimit(open, rows)
  return open
}

const conjunctsOf = (node: Node): Node[] =>
  'BoolExpr' in node && node.BoolExpr.boolop === 'AND_EXPR' ? (node.BoolExpr.args ?? []).flatMap(conjunctsOf) : [node]

/** A clause that is not just a selection of rows. */
function clauseOf(select: SelectStmt): string | null {
  if (select.op !== undefined && select.op !== 'SETOP_NONE') return 'UNION, INTERSECT or EXCEPT'
  if (select.valuesLists !== undefined) return 'VALUES'
  if (select.groupClause?.some(node => 'GroupingSet' in node) === true) return 'GROUPING SETS'
  if (select.havingClause !== undefined && select.groupClause === undefined) return 'HAVING without GROUP BY'
  if (select.windowClause !== undefined) return 'a window'
  if (select.limitOffset !== undefined) return 'OFFSET'
  // DISTINCT ON, unlike DISTINCT, leaves rows out.
  if (select.distinctClause?.some(node => Object.keys(node).length > 0) === true) return 'DISTINCT ON'
  return select.lockingClause === undefined ? null : 'FOR UPDATE'
}

function assertLimit({ select, scope, join }: OpenSelect, rows: 'all' | 'some'): void {
  const { limitCount } = select
  if (limitCount === undefined) return
  const isNone = !('A_Const' in limitCount) || (limitCount.A_Const.ival?.ival ?? 0) < 1
  if (isNone || (rows === 'all' && !isSingleRow(join))) unsupported(scope.context, 'this LIMIT in a subquery')
}

/** The scope with the queries of its WITH. */
export function withNamed({ withClause }: SelectStmt, scope: Scope): Scope {
  if (withClause === undefined) return scope
  if (withClause.recursive === true) return unsupported(scope.context, 'WITH RECURSIVE')
  const named = new Map(scope.named)
  const within = { ...scope, named }
  for (const node of withClause.ctes ?? []) {
    const cte = 'CommonTableExpr' in node ? node.CommonTableExpr : {}
    const query = cte.ctequery
    if (cte.ctename === undefined || query === undefined || !('SelectStmt' in query))
      return unsupported(scope.context, 'WITH of another statement')
    const columnAliases = partsOf(cte.aliascolnames)
    named.set(cte.ctename, { select: query.SelectStmt, scope: { ...within, named: new Map(named) }, columnAliases })
  }
  return within
}

export const targetsOf = (select: SelectStmt): Node[] =>
  (select.targetList ?? []).flatMap(node =>
    'ResTarget' in node && node.ResTarget.val !== undefined ? [node.ResTarget.val] : [],
  )

/** What a SELECT gives, with names; `*` spread. */
export function columnsOfSelect({ select, scope }: OpenSelect): Derived['columns'] {
  return (select.targetList ?? []).flatMap((node): Derived['columns'] => {
    if (!('ResTarget' in node) || node.ResTarget.val === undefined) return []
    const { name, val } = node.ResTarget
    const parts = 'ColumnRef' in val ? partsOf(val.ColumnRef.fields) : []
    if (parts.at(-1) === '*') return allColumns(parts.slice(0, -1), scope)
    const called = 'FuncCall' in val ? partsOf(val.FuncCall.funcname) : []
    return [
      {
        name: name ?? parts.at(-1) ?? called.at(-1) ?? '?column?',
        value: typed(scope.context.compiler.value(val, scope)),
      },
    ]
  })
}

/** A bare literal that is selected is text. */
const typed = (value: Value): Value => (value.literal ? coerced(value, sqlTypes.text) : value)

function allColumns(qualifier: readonly string[], scope: Scope): Derived['columns'] {
  return scope.sources.flatMap((source): Derived['columns'] => {
    if (qualifier.length > 0 && qualifier.at(-1) !== source.alias) return []
    if (!('relation' in source)) return source.columns
    const { relation, columnAliases } = source
    const names = [
      ...relation.table.columns.map((column, i) => columnAliases[i] ?? column.name),
      ...relation.unpublishedColumns,
    ]
    return names.map(name => ({ name, value: columnOfSource(source, name, scope)! }))
  })
}

/** The tables of one FROM, one item after another. */
class From {
  readonly #outer: Scope
  readonly #sources: (Source | Derived)[] = []
  #join = emptyJoin

  constructor(outer: Scope) {
    this.#outer = outer
  }

  get join(): Join {
    return this.#join
  }

  /** With all items so far in sight. */
  get scope(): Scope {
    const context = { ...this.#outer.context, scalars: null }
    return { ...this.#outer, context, sources: [...this.#sources], outer: this.#outer, parameters: null }
  }

  add(item: Node): void {
    this.#join = joined(this.#join, this.#item(item, false))
  }

  /** @param optional right of a LEFT JOIN */
  #item(item: Node, optional: boolean): Join {
    if ('RangeVar' in item) return this.#named(item.RangeVar, optional)
    if ('JoinExpr' in item) return this.#joinOf(item.JoinExpr, optional)
    if ('RangeSubselect' in item) return this.#subselect(item.RangeSubselect, optional)
    if ('RangeFunction' in item) return this.#function(item.RangeFunction, optional)
    return unsupported(this.#outer.context, `${describe(item)} in FROM`)
  }

  #named({ schemaname, relname = '', inh, alias }: RangeVar, optional: boolean): Join {
    const aliasName = alias?.aliasname ?? relname
    const columnAliases = partsOf(alias?.colnames)
    const query = schemaname === undefined ? this.#outer.named.get(relname) : undefined
    if (query !== undefined) {
      const names = columnAliases.length > 0 ? columnAliases : query.columnAliases
      return this.#derived(openSelect(query.select, query.scope, 'all'), aliasName, names, optional)
    }
    if (inh !== true) return unsupported(this.#outer.context, `FROM ONLY ${relname}`)
    const parts = schemaname === undefined ? [relname] : [schemaname, relname]
    const source: Source = { ...openRelation(parts, this.#outer), alias: aliasName, columnAliases, optional }
    if (columnAliases.length > 0 && source.relation.unpublishedColumns.length > 0)
      return unsupported(this.#outer.context, `column aliases for ${relname}`)
    this.#sources.push(source)
    const { relation, base } = source
    const { context, viewer } = this.#outer
    context.memberships.set(relation.table.oid, relation.table)
    const visible = context.compiler.visibleRows(relation, viewer, context)
    return { ...emptyJoin, tables: [{ table: relation.table, base, visible, uniqueKeys: relation.uniqueKeys }] }
  }

  #joinOf({ jointype, larg, rarg, quals, usingClause, isNatural, alias }: JoinExpr, optional: boolean): Join {
    const { context } = this.#outer
    if (jointype !== 'JOIN_INNER' && jointype !== 'JOIN_LEFT')
      return unsupported(context, 'a RIGHT or FULL JOIN in a subquery')
    if (isNatural === true) return unsupported(context, 'a NATURAL JOIN in a subquery')
    if (alias !== undefined) return unsupported(context, 'an alias of a join in a subquery')
    const isLeft = jointype === 'JOIN_LEFT'
    const from = this.#sources.length
    const left = this.#item(larg!, optional)
    const middle = this.#sources.length
    let right = this.#item(rarg!, optional || isLeft)
    const { scope } = this
    for (const part of quals === undefined ? [] : conjunctsOf(quals))
      right = withCondition(right, context.compiler.condition(part, scope, true))
    for (const name of partsOf(usingClause)) {
      const [a, b] = [this.#sources.slice(from, middle), this.#sources.slice(middle)].map(sources =>
        context.compiler.value({ ColumnRef: { fields: [{ String: { sval: name } }] } }, { ...scope, sources }),
      )
      right = withCondition(right, compared('=', a!, b!, context))
    }
    return isLeft ? { ...left, optional: [...left.optional, right], reads: left.reads } : joined(left, right)
  }

  #subselect({ lateral, subquery, alias }: RangeSubselect, optional: boolean): Join {
    if (subquery === undefined || !('SelectStmt' in subquery))
      return unsupported(this.#outer.context, 'a subquery in FROM')
    const scope = lateral === true ? this.scope : this.#outer
    const open = openSelect(subquery.SelectStmt, scope, 'all')
    return this.#derived(open, alias?.aliasname ?? '', partsOf(alias?.colnames), optional)
  }

  #derived(open: OpenSelect, alias: string, names: readonly string[], optional: boolean): Join {
    const columns = columnsOfSelect(open).map(({ name, value }, i) => ({ name: names[i] ?? name, value }))
    this.#push({ alias, columns }, optional)
    return open.join
  }

  #push(derived: Derived, optional: boolean): void {
    // Where the other side has no row, a constant would have to become NULL too.
    if (optional) unsupported(this.#outer.context, 'a LEFT JOIN of a subquery')
    this.#sources.push(derived)
  }

  #function(item: RangeFunction, optional: boolean): Join {
    const { context } = this.#outer
    const call = onlyCallOf(item)
    const set = call === null ? null : openSet(call, this.scope)
    if (set === null) return unsupported(context, 'a function in FROM')
    const { alias } = item
    const shown = alias?.aliasname ?? set.function.name
    const names = partsOf(alias?.colnames)
    const own = set.function.columns?.map(({ name }) => name)
    const columns = set.columns.map(({ name, value }, i) => ({
      name: names[i] ?? own?.[i] ?? (set.isScalar ? shown : name),
      value,
    }))
    this.#push({ alias: shown, columns }, optional)
    return set.join
  }
}

function onlyCallOf({ functions = [], coldeflist, ordinality, is_rowsfrom }: RangeFunction): FuncCall | null {
  const [first] = functions
  const node = first !== undefined && 'List' in first ? first.List.items?.[0] : undefined
  const isPlain = functions.length === 1 && coldeflist === undefined && ordinality !== true && is_rowsfrom !== true
  return isPlain && node !== undefined && 'FuncCall' in node ? node.FuncCall : null
}

interface OpenSet {
  readonly function: FunctionFacts
  readonly join: Join
  readonly columns: Derived['columns']
  /** Of one column, which is called as the function's alias is. */
  readonly isScalar: boolean
}

/** The rows of a call of a SQL function that returns a set. Null for any other. */
function openSet(call: FuncCall, scope: Scope): OpenSet | null {
  const open = openCall(call, scope)
  if (open === null || !open.function.returnsSet) return null
  const inner = openSelect(open.select, open.scope, 'all')
  return { function: open.function, ...setColumns(open.function, inner), join: withCondition(inner.join, open.notNull) }
}

function setColumns(found: FunctionFacts, inner: OpenSelect): Pick<OpenSet, 'columns' | 'isScalar'> {
  const { context } = inner.scope
  const columns = columnsOfSelect(inner)
  const types = found.columns?.map(({ type }) => type) ?? [found.returnType]
  if (found.columns === null && found.returnType.family === 'other') {
    const [source, ...more] = inner.scope.sources
    const isWhole = source !== undefined && 'relation' in source && nameOf(source.relation) === found.returnType.name
    if (isWhole && more.length === 0 && isStar(inner.select)) return { columns, isScalar: false }
  }
  if (types.length !== columns.length || types.some(type => type.family === 'other'))
    return unsupported(context, `function ${found.schema}.${found.name}(), which returns rows of another type, in FROM`)
  const cast = columns.map(({ name, value }, i) => ({ name, value: castTo(value, baseOf(types[i]!), context) }))
  return { columns: cast, isScalar: found.columns === null }
}

function isStar(select: SelectStmt): boolean {
  const [target, ...more] = targetsOf(select)
  return (
    more.length === 0 &&
    target !== undefined &&
    'ColumnRef' in target &&
    partsOf(target.ColumnRef.fields).at(-1) === '*'
  )
}

/** The call in `SELECT f(x)` and `SELECT y FROM f(x) AS y`, if it is all of the SELECT: what its body gives is what this
 *  gives, UNION and all. */
export function wholeSetCall(select: SelectStmt): FuncCall | null {
  const { targetList, fromClause, limitOption, op, ...rest } = select
  const [target, ...more] = targetsOf(select)
  if (target === undefined || more.length > 0 || Object.keys(rest).length > 0) return null
  const [from, ...others] = fromClause ?? []
  if (from === undefined) return 'FuncCall' in target ? target.FuncCall : null
  if (others.length > 0 || !('RangeFunction' in from) || !('ColumnRef' in target)) return null
  return onlyCallOf(from.RangeFunction)
}

function openRelation(parts: readonly string[], scope: Scope): Omit<Source, 'alias' | 'columnAliases' | 'optional'> {
  const { context, viewer } = scope
  const shown = parts.join('.')
  for (const schema of schemasFor(parts, scope, 'relation')) {
    const relation = context.facts.relation(schema, parts.at(-1)!)
    if (relation === null) continue
    const name = nameOf(relation)
    if (relation.unsupported !== null) return unsupported(context, `${name}, which is ${relation.unsupported}`)
    const privileges = context.facts.privileges(relation.table.oid, viewer.oid)
    if (scope.lateParsed && !privileges.schemaUsage)
      return refused(
        context,
        `names ${name}, but role ${viewer.name} may not use its schema`,
        `GRANT USAGE ON SCHEMA ${sqlName(schema)} TO ${quoted(viewer.name)}`,
      )
    if (!privileges.anyColumn)
      return refused(
        context,
        `reads ${name}, which role ${viewer.name} may not SELECT`,
        `GRANT SELECT ON ${sqlNameOf(relation)} TO ${quoted(viewer.name)}`,
      )
    if (!relation.table.published)
      throw new RemedyNeeded(
        'POLICY_UNSUPPORTED',
        `${context.label} cannot be judged in the stream yet: it uses ${name}, which is not tracked (run tidegate track ${name}); see docs/authorization.md`,
      )
    return { relation, privileges, base: newBase(context) }
  }
  if (scope.searchPath === null && parts.length === 1)
    return unsupported(context, `the table ${shown} without a schema in a function that has no SET search_path`)
  return unsupported(context, `the table ${shown}, which does not exist`)
}
