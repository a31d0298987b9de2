// Compiles a boolean expression of a policy, with SQL's three-valued logic.
import type { A_Expr, CaseExpr, CoalesceExpr, FuncCall, Node, SubLink } from 'libpg-query'
import type { Predicate } from '../../predicate/algebra.ts'
import { and, not, or } from '../../predicate/build.ts'
import { sqlTypes } from '../../predicate/sql-types.ts'
import { openCall } from './inline-function.ts'
import { scalarTarget } from './parse-sql.ts'
import { describe } from './policy-construct.ts'
import { comparedCount, elementsOf, selectedCount } from './policy-count.ts'
import { isTrue } from './policy-join.ts'
import {
  anyOf,
  applied,
  caseWhen,
  inList,
  isDistinct,
  liked,
  negated,
  operatorName,
  valueOperators,
} from './policy-operators.ts'
import { withScalars } from './policy-scalar.ts'
import { type Condition, nothingRead, partsOf, type Scope, unionOf, unsupported, type Value } from './policy-scope.ts'
import { setOfSelect, setOfValues } from './policy-set.ts'
import { amongRows, exists, inSubquery } from './policy-subquery.ts'
import { coerced, constant } from './policy-types.ts'

const combined = (predicate: Predicate, parts: readonly Condition[]): Condition => ({
  predicate,
  reads: unionOf(parts.map(part => part.reads)),
})

/** @throws POLICY_UNSUPPORTED naming the construct that has no place in the algebra */
export function compileCondition(node: Node, scope: Scope, positive: boolean): Condition {
  const condition = (each: Node, isPositive = positive): Condition =>
    scope.context.compiler.condition(each, scope, isPositive)
  if ('BoolExpr' in node) {
    const { boolop, args = [] } = node.BoolExpr
    if (boolop === 'NOT_EXPR') return negated(condition(args[0]!, false))
    const parts = args.map(arg => condition(arg))
    const predicates = parts.map(part => part.predicate)
    return combined(boolop === 'AND_EXPR' ? and(...predicates) : or(...predicates), parts)
  }
  if ('BooleanTest' in node)
    return booleanTest(node.BooleanTest.arg!, node.BooleanTest.booltesttype ?? '', scope, positive)
  if ('CaseExpr' in node) return caseOf(node.CaseExpr, scope, positive)
  if ('CoalesceExpr' in node && positive) {
    const arg = orFalse(node.CoalesceExpr)
    if (arg !== null) return condition(arg)
  }
  if (
    'TypeCast' in node &&
    node.TypeCast.arg !== undefined &&
    'SubLink' in node.TypeCast.arg &&
    isBool(node.TypeCast.typeName?.names)
  )
    return condition(node.TypeCast.arg)
  return withScalars(scope, positive, (within, isPositive) => single(node, within, isPositive))
}

/** A condition that is not put together from others. */
function single(node: Node, scope: Scope, positive: boolean): Condition {
  if ('NullTest' in node) {
    const { expr, reads } = scope.context.compiler.value(node.NullTest.arg!, scope)
    const isNull: Condition = { predicate: { kind: 'isNull', arg: expr }, reads }
    return node.NullTest.nulltesttype === 'IS_NULL' ? isNull : negated(isNull)
  }
  if ('SubLink' in node) return subLink(node.SubLink, scope, positive)
  if ('A_Expr' in node && node.A_Expr.kind !== 'AEXPR_NULLIF') {
    const found = operator(node.A_Expr, scope, positive)
    if (found !== null) return found
  }
  if ('FuncCall' in node) {
    const found = call(node.FuncCall, scope, positive)
    if (found !== null) return found
  }
  return booleanValue(scope.context.compiler.value(node, scope), node, scope)
}

const isBool = (names: readonly Node[] | undefined): boolean => partsOf(names).at(-1) === 'bool'

function booleanValue(value: Value, node: Node, scope: Scope): Condition {
  const { expr, reads } = coerced(value, sqlTypes.bool)
  if (expr.kind === 'predicate') return { predicate: expr.predicate, reads }
  if (expr.type.family !== 'bool') return unsupported(scope.context, `${describe(node)} as a condition`)
  if (expr.kind !== 'const') return { predicate: { kind: 'boolean', arg: expr }, reads }
  if (expr.value === null) return { predicate: { kind: 'unknown' }, reads }
  return { predicate: { kind: /^(t|true|y|yes|on|1)$/i.test(expr.value) ? 'true' : 'false' }, reads }
}

function booleanTest(arg: Node, test: string, scope: Scope, positive: boolean): Condition {
  // Where NULL and false mean the same, IS TRUE adds nothing, and what is beneath stays usable as a key.
  if (test === 'IS_TRUE' && positive) return scope.context.compiler.condition(arg, scope, true)
  const { predicate, reads } = scope.context.compiler.condition(arg, scope, false)
  const operand = { kind: 'predicate', predicate, type: sqlTypes.bool } as const
  if (test === 'IS_UNKNOWN') return { predicate: { kind: 'isNull', arg: operand }, reads }
  if (test === 'IS_NOT_UNKNOWN') return { predicate: not({ kind: 'isNull', arg: operand }), reads }
  const wanted = constant(test.endsWith('TRUE') ? 't' : 'f', sqlTypes.bool).expr
  const distinct: Predicate = { kind: 'isDistinct', left: operand, right: wanted }
  return { predicate: test.startsWith('IS_NOT') ? distinct : not(distinct), reads }
}

function subLink(node: SubLink, scope: Scope, positive: boolean): Condition {
  const select = node.subselect !== undefined && 'SelectStmt' in node.subselect ? node.subselect.SelectStmt : null
  if (select === null) return unsupported(scope.context, describe({ SubLink: node }))
  switch (node.subLinkType) {
    case 'EXISTS_SUBLINK':
      return exists(select, scope, positive)
    case 'ANY_SUBLINK': {
      const name = node.operName === undefined ? '=' : operatorName(partsOf(node.operName), scope)
      if (name !== '=') return unsupported(scope.context, `operator ${name} ANY (SELECT ...)`)
      const set = setOfValues(node, scope)
      if (set !== null) return anyOf('=', scope.context.compiler.value(node.testexpr!, scope), set, scope.context)
      return inSubquery(node.testexpr!, select, scope, positive)
    }
    case 'ALL_SUBLINK': {
      const name = operatorName(partsOf(node.operName), scope)
      if (name !== '<>') return unsupported(scope.context, `operator ${name} ALL (SELECT ...)`)
      const set = setOfValues(node, scope)
      if (set !== null)
        return negated(anyOf('=', scope.context.compiler.value(node.testexpr!, scope), set, scope.context))
      return negated(inSubquery(node.testexpr!, select, scope, false))
    }
    case 'EXPR_SUBLINK': {
      const target = scalarTarget(select)
      const inside: Scope = { ...scope, sources: [], outer: scope, parameters: null }
      if (target !== null) return scope.context.compiler.condition(target, inside, positive)
      const counted = selectedCount(select, inside, positive)
      if (counted !== null) return counted
      return booleanValue(scope.context.compiler.scalar(select, scope, null), { SubLink: node }, scope)
    }
    default:
      return unsupported(scope.context, describe({ SubLink: node }))
  }
}

/** Null for operators that give no boolean. */
function operator(node: A_Expr, scope: Scope, positive: boolean): Condition | null {
  const { compiler } = scope.context
  const [left, right] = [node.lexpr, node.rexpr]
  const name = operatorName(partsOf(node.name), scope)
  if (node.kind === 'AEXPR_OP' && valueOperators.has(name)) return null
  if (left === undefined || right === undefined) return unsupported(scope.context, describe({ A_Expr: node }))
  if ('RowExpr' in left) return unsupported(scope.context, describe(left))
  const counted = comparedCount(node, scope, positive)
  if (counted !== null) return counted
  if (isElementTest(node.kind, name)) {
    // x = ANY (ARRAY(SELECT ...)) is x IN (SELECT ...), and x <> ALL its negation.
    const isAny = node.kind === 'AEXPR_OP_ANY'
    const elements = elementsOf(right, scope, isAny && positive)
    if (elements !== null && setOfSelect(elements.select, elements.scope) === null) {
      const value = compiler.value(left, scope)
      const found = amongRows([value], elements, scope.context, isAny && positive)
      return isAny ? found : negated(found)
    }
  }
  return withLeft(node, compiler.value(left, scope), name, scope)
}

const isElementTest = (kind: A_Expr['kind'], name: string): boolean =>
  (kind === 'AEXPR_OP_ANY' && name === '=') || (kind === 'AEXPR_OP_ALL' && name === '<>')

/** The operator with its left side compiled. */
function withLeft(node: A_Expr, left: Value, name: string, scope: Scope): Condition {
  const { context } = scope
  const value = (each: Node): Value => context.compiler.value(each, scope)
  const right = node.rexpr!
  const items = 'List' in right ? (right.List.items ?? []) : []
  switch (node.kind) {
    case 'AEXPR_OP':
      return applied(name, left, value(right), context)
    case 'AEXPR_IN': {
      const list = inList(left, items.map(value), context)
      return name === '<>' ? negated(list) : list
    }
    case 'AEXPR_OP_ANY':
      return anyOf(name, left, value(right), context)
    case 'AEXPR_OP_ALL': {
      const opposite: Readonly<Record<string, string>> = { '<>': '=', '!~~': '~~', '!~~*': '~~*', '=': '<>' }
      const found = opposite[name]
      if (found === undefined) return unsupported(context, `operator ${name} ALL`)
      return negated(anyOf(found, left, value(right), context))
    }
    case 'AEXPR_LIKE':
    case 'AEXPR_ILIKE': {
      const like = liked(left, value(right), node.kind === 'AEXPR_ILIKE', context)
      return name.startsWith('!') ? negated(like) : like
    }
    case 'AEXPR_DISTINCT':
    case 'AEXPR_NOT_DISTINCT': {
      const operand = value(right)
      const distinct = isDistinct(left, operand, context)
      return node.kind === 'AEXPR_DISTINCT' ? distinct : negated(distinct)
    }
    case 'AEXPR_BETWEEN':
    case 'AEXPR_NOT_BETWEEN': {
      const [low, high] = items.map(value)
      const bounds = [applied('>=', left, low!, context), applied('<=', left, high!, context)]
      const between = combined(and(...bounds.map(bound => bound.predicate)), bounds)
      return node.kind === 'AEXPR_BETWEEN' ? between : negated(between)
    }
    default:
      return unsupported(context, describe({ A_Expr: node }))
  }
}

/** CASE WHEN a THEN x ELSE y END: x where a is true, else y. */
function caseOf(node: CaseExpr, scope: Scope, positive: boolean): Condition {
  const { compiler } = scope.context
  const { arg } = node
  const otherwise: Condition =
    node.defresult === undefined
      ? { predicate: { kind: 'unknown' }, reads: nothingRead }
      : compiler.condition(node.defresult, scope, positive)
  return (node.args ?? []).reduceRight((rest, branch) => {
    if (!('CaseWhen' in branch)) return unsupported(scope.context, 'CASE')
    const when = caseWhen(arg, branch.CaseWhen.expr!, scope)
    const then = compiler.condition(branch.CaseWhen.result!, scope, positive)
    const taken = isTrue(when.predicate)
    return combined(or(and(taken, then.predicate), and(not(taken), rest.predicate)), [when, then, rest])
  }, otherwise)
}

/** `coalesce(x, false)`, where NULL counts as false anyway. */
function orFalse({ args = [] }: CoalesceExpr): Node | null {
  const [arg, last] = args
  if (args.length !== 2 || arg === undefined || last === undefined || !('A_Const' in last)) return null
  return last.A_Const.boolval !== undefined && last.A_Const.boolval.boolval !== true ? arg : null
}

/** A call of a function that returns boolean; null for built-in ones and other types. */
function call(node: FuncCall, scope: Scope, positive: boolean): Condition | null {
  const open = openCall(node, scope)
  if (open === null || open.function.returnType.family !== 'bool' || open.function.returnsSet) return null
  const { notNull } = open
  const target = scalarTarget(open.select)
  if (target === null) {
    const counted = selectedCount(open.select, open.scope, positive)
    if (counted === null)
      return booleanValue(scope.context.compiler.scalar(open.select, open.scope, notNull), { FuncCall: node }, scope)
    return strictly(counted, notNull, positive)
  }
  return strictly(open.scope.context.compiler.condition(target, open.scope, positive), notNull, positive)
}

/** NULL where an argument of a STRICT function is. */
function strictly(body: Condition, notNull: Condition, positive: boolean): Condition {
  if (notNull.predicate.kind === 'true') return body
  const strict = and(notNull.predicate, body.predicate)
  const predicate = positive ? strict : or(strict, and({ kind: 'unknown' }, not(notNull.predicate)))
  return combined(predicate, [notNull, body])
}
