// `(SELECT count(*) FROM ...) > 0` and its like, which ask no more than EXISTS does; and arrays made of a subquery.
import type { A_Expr, FuncCall, Node, SelectStmt } from 'libpg-query'
import { not } from '../../predicate/build.ts'
import { callsBuiltIn, openCall } from './inline-function.ts'
import { scalarTarget } from './parse-sql.ts'
import { existenceOf, withCondition } from './policy-join.ts'
import { operatorName } from './policy-operators.ts'
import { type Condition, partsOf, type Scope } from './policy-scope.ts'
import { openSelect, targetsOf } from './policy-select.ts'

interface Counted {
  readonly select: SelectStmt
  readonly scope: Scope
  readonly call: FuncCall
}

/** `count(...) op constant` where it only matters whether there is a row. Null for any other comparison. */
export function comparedCount(node: A_Expr, scope: Scope, positive: boolean): Condition | null {
  return compareCount(node, side => countOf(side, scope), scope, positive)
}

/** The same where the comparison is what a SELECT gives: `SELECT count(*) > 0 FROM ...`. */
export function selectedCount(select: SelectStmt, scope: Scope, positive: boolean): Condition | null {
  const [target, ...more] = targetsOf(select)
  if (target === undefined || more.length > 0 || !('A_Expr' in target)) return null
  return compareCount(target.A_Expr, side => countIn(side, select, scope), scope, positive)
}

function compareCount(
  node: A_Expr,
  counted: (side: Node) => Counted | null,
  scope: Scope,
  positive: boolean,
): Condition | null {
  const { lexpr, rexpr } = node
  if (node.kind !== 'AEXPR_OP' || lexpr === undefined || rexpr === undefined) return null
  const name = operatorName(partsOf(node.name), scope)
  const [left, right] = [numberOf(lexpr), numberOf(rexpr)]
  if ((left === null) === (right === null)) return null
  const asks = right === null ? question(mirror[name] ?? '', left!) : question(name, right)
  const found = asks === null ? null : counted(right === null ? rexpr : lexpr)
  if (asks === null || found === null) return null
  const some = rowsOf(found, positive && asks)
  return asks ? some : { predicate: not(some.predicate), reads: some.reads }
}

const mirror: Readonly<Record<string, string>> = { '=': '=', '<>': '<>', '<': '>', '<=': '>=', '>': '<', '>=': '<=' }

const numberOf = (node: Node): number | null =>
  'A_Const' in node && node.A_Const.ival !== undefined ? (node.A_Const.ival.ival ?? 0) : null

/** True when the comparison holds of one row and more, false when it holds of none; null for any other. */
function question(op: string, count: number): boolean | null {
  const text = `${op} ${count}`
  if (text === '> 0' || text === '>= 1' || text === '<> 0') return true
  return text === '= 0' || text === '< 1' || text === '<= 0' ? false : null
}

function rowsOf({ select, scope, call }: Counted, positive: boolean): Condition {
  const { targetList: _, ...rows } = select
  const open = openSelect(rows, scope, 'some')
  const [counted] = call.args ?? []
  if (counted === undefined) return existenceOf(open.join, scope.context, positive)
  const { expr, reads } = scope.context.compiler.value(counted, open.scope)
  const join = withCondition(open.join, { predicate: not({ kind: 'isNull', arg: expr }), reads })
  return existenceOf(join, scope.context, positive)
}

/** A subquery, or a function, that counts. */
function countOf(node: Node, scope: Scope): Counted | null {
  if ('TypeCast' in node && node.TypeCast.arg !== undefined) return countOf(node.TypeCast.arg, scope)
  const body = bodyOf(node, scope)
  if (body === null) return null
  const { select } = body
  const single = scalarTarget(select)
  if (single !== null) return countOf(single, body.scope)
  const [target, ...more] = targetsOf(select)
  return target === undefined || more.length > 0 ? null : countIn(target, select, body.scope)
}

function countIn(node: Node, select: SelectStmt, scope: Scope): Counted | null {
  const isPlain =
    select.fromClause !== undefined && select.groupClause === undefined && select.distinctClause === undefined
  if (!isPlain || !('FuncCall' in node) || !isAggregate(node.FuncCall, 'count')) return null
  return { select, scope, call: node.FuncCall }
}

function isAggregate(call: FuncCall, name: string): boolean {
  const parts = partsOf(call.funcname)
  const isNamed = parts.at(-1) === name && (parts.length === 1 || parts[0] === 'pg_catalog')
  return isNamed && call.agg_filter === undefined && call.over === undefined && (call.args ?? []).length <= 1
}

/** The SELECT of a scalar subquery or of a function's body. */
function bodyOf(node: Node, scope: Scope): { select: SelectStmt; scope: Scope } | null {
  if ('SubLink' in node && node.SubLink.subLinkType === 'EXPR_SUBLINK') {
    const { subselect } = node.SubLink
    return subselect !== undefined && 'SelectStmt' in subselect ? { select: subselect.SelectStmt, scope } : null
  }
  if (!('FuncCall' in node) || callsBuiltIn(node.FuncCall, scope)) return null
  const open = openCall(node.FuncCall, scope)
  // A STRICT function over NULL counts nothing, not even none.
  if (open === null || open.function.returnsSet || open.notNull.predicate.kind !== 'true') return null
  return { select: open.select, scope: open.scope }
}

/** `ARRAY(SELECT ...)` and, where an empty set may as well be NULL, `(SELECT array_agg(x) FROM ...)`: behind a function too.
 *  @returns the SELECT of the elements; null for any other array */
export function elementsOf(node: Node, scope: Scope, positive: boolean): { select: SelectStmt; scope: Scope } | null {
  if ('SubLink' in node && node.SubLink.subLinkType === 'ARRAY_SUBLINK') {
    const { subselect } = node.SubLink
    return subselect !== undefined && 'SelectStmt' in subselect ? { select: subselect.SelectStmt, scope } : null
  }
  const body = bodyOf(node, scope)
  if (body === null) return null
  const single = scalarTarget(body.select)
  if (single !== null) return elementsOf(single, body.scope, positive)
  const { targetList: _, ...rows } = body.select
  const [target, ...more] = targetsOf(body.select)
  if (!positive || target === undefined || more.length > 0 || !('FuncCall' in target)) return null
  const [element] = target.FuncCall.args ?? []
  const isPlain =
    rows.groupClause === undefined && rows.limitCount === undefined && isAggregate(target.FuncCall, 'array_agg')
  if (!isPlain || element === undefined) return null
  return { select: { ...rows, targetList: [{ ResTarget: { val: element } }] }, scope: body.scope }
}
