// Compiles a scalar expression of a policy.
import type {
  A_Const,
  A_Expr,
  A_Indirection,
  CaseExpr,
  CoalesceExpr,
  CollateClause,
  MinMaxExpr,
  Node,
  SubLink,
  TypeName,
} from 'libpg-query'
import type { CallName, SqlType } from '../../predicate/algebra.ts'
import { baseOf, sqlTypes } from '../../predicate/sql-types.ts'
import { callValue } from './inline-function.ts'
import { scalarTarget } from './parse-sql.ts'
import { arithmetic, asText, called, sharedCollation, textArray } from './policy-call.ts'
import { describe } from './policy-construct.ts'
import { jsonByPath, jsonGet } from './policy-json.ts'
import { caseWhen, compared, operatorName, valueOperators } from './policy-operators.ts'
import {
  type Context,
  parametersOf,
  partsOf,
  resolveName,
  type Scope,
  schemasFor,
  unionOf,
  unsupported,
  type Value,
} from './policy-scope.ts'
import { setOfValues } from './policy-set.ts'
import { timeArithmetic, timeKeyword } from './policy-time.ts'
import {
  castTo,
  coerced,
  commonType,
  constant,
  literal,
  modifiersOf,
  namedType,
  underCollation,
  withoutCollation,
} from './policy-types.ts'

/** @throws POLICY_UNSUPPORTED naming the construct that has no place in the algebra */
export function compileValue(node: Node, scope: Scope): Value {
  const { compiler } = scope.context
  if ('A_Const' in node) return constantOf(node.A_Const, scope)
  if ('ColumnRef' in node) return resolveName(partsOf(node.ColumnRef.fields), scope)
  if ('ParamRef' in node) {
    const value = parametersOf(scope)?.values[(node.ParamRef.number ?? 0) - 1]
    return value ?? unsupported(scope.context, `$${node.ParamRef.number}`)
  }
  if ('TypeCast' in node && node.TypeCast.arg !== undefined && node.TypeCast.typeName !== undefined)
    return castNode(node.TypeCast.arg, node.TypeCast.typeName, scope)
  if ('CoalesceExpr' in node) return coalesce(node.CoalesceExpr, scope)
  if ('A_ArrayExpr' in node) return arrayOf(node.A_ArrayExpr.elements ?? [], scope)
  if ('CollateClause' in node) return collate(node.CollateClause, scope)
  if ('FuncCall' in node) return callValue(node.FuncCall, scope)
  if ('SQLValueFunction' in node) {
    const { op } = node.SQLValueFunction
    if (op === 'SVFOP_CURRENT_USER' || op === 'SVFOP_CURRENT_ROLE' || op === 'SVFOP_USER')
      return constant(scope.viewer.name, sqlTypes.name)
    const time = timeKeyword(op ?? '')
    if (time !== null) return time
  }
  if ('SubLink' in node && node.SubLink.subLinkType === 'EXPR_SUBLINK') return scalarSubquery(node.SubLink, scope)
  if ('SubLink' in node && node.SubLink.subLinkType === 'ARRAY_SUBLINK') {
    const set = setOfValues(node.SubLink, scope)
    return set ?? unsupported(scope.context, describe(node))
  }
  if ('MinMaxExpr' in node) return extreme(node.MinMaxExpr, scope)
  if ('A_Indirection' in node) return subscript(node.A_Indirection, scope)
  if ('CaseExpr' in node) {
    const value = caseValue(node.CaseExpr, scope)
    if (value !== null) return value
  }
  if ('A_Expr' in node) {
    const value = operatorValue(node.A_Expr, scope)
    if (value !== null) return value
  }
  if (
    'A_Expr' in node ||
    'BoolExpr' in node ||
    'NullTest' in node ||
    'BooleanTest' in node ||
    'SubLink' in node ||
    'CaseExpr' in node
  ) {
    const { predicate, reads } = compiler.condition(node, scope, false)
    return { ...constant(null, sqlTypes.bool), expr: { kind: 'predicate', predicate, type: sqlTypes.bool }, reads }
  }
  return unsupported(scope.context, describe(node))
}

function constantOf(node: A_Const, scope: Scope): Value {
  if (node.isnull === true) return literal(null)
  if (node.sval !== undefined) return literal(node.sval.sval ?? '')
  if (node.ival !== undefined) return constant(String(node.ival.ival ?? 0), sqlTypes.int4)
  if (node.boolval !== undefined) return constant(node.boolval.boolval === true ? 't' : 'f', sqlTypes.bool)
  if (node.fval !== undefined) {
    const text = node.fval.fval ?? '0'
    const whole = /^-?\d+$/.test(text) && BigInt(text) < 2n ** 63n && BigInt(text) >= -(2n ** 63n)
    return constant(text, whole ? sqlTypes.int8 : sqlTypes.numeric)
  }
  return unsupported(scope.context, 'a bit string')
}

function castNode(arg: Node, typeName: TypeName, scope: Scope): Value {
  const modifiers = modifiersOf(typeName)
  const type = namedType({ ...typeName, typmods: [] }, scope)
  const value = castUnmodified(arg, type, scope)
  return modifiers.length === 0 ? value : modified(value, type, modifiers, scope)
}

/** What a length or precision does to a value: text is cut to so many characters, a number rounded. */
function modified(value: Value, type: SqlType, modifiers: readonly number[], scope: Scope): Value {
  const { context } = scope
  const [first = Number.NaN, second = 0] = modifiers
  const isNumber = [first, second].every(Number.isInteger)
  const number = (part: number): Value => constant(String(part), sqlTypes.int4)
  const { oid } = baseOf(type)
  if (isNumber && oid === sqlTypes.varchar.oid) return called('left', [value, number(first)], type, context)
  if (isNumber && oid === sqlTypes.numeric.oid)
    return called('numericScale', [value, number(first), number(second)], type, context)
  if (isNumber && oid === sqlTypes.bpchar.oid) {
    const text = castTo(value, sqlTypes.text, context)
    return castTo(called('left', [text, number(first)], sqlTypes.text, context), type, context)
  }
  return unsupported(context, `a cast to ${type.name} with a length or precision`)
}

function castUnmodified(arg: Node, type: SqlType, scope: Scope): Value {
  // ARRAY['a', 'b']::mood[] casts the items, which a bare literal needs.
  if ('A_ArrayExpr' in arg && type.element !== undefined) {
    const { element } = type
    const items = (arg.A_ArrayExpr.elements ?? []).map(item =>
      castTo(scope.context.compiler.value(item, scope), element, scope.context),
    )
    return arrayValue(items, element, type)
  }
  return castTo(scope.context.compiler.value(arg, scope), type, scope.context)
}

function arrayOf(nodes: readonly Node[], scope: Scope): Value {
  const items = nodes.map(node => scope.context.compiler.value(node, scope))
  const element = baseOf(commonType(items))
  const typed = items.map(item =>
    item.literal ? coerced(item, element) : castTo(item, withoutCollation(element), scope.context),
  )
  return arrayValue(typed, element, { oid: 0, name: `${element.name}[]`, family: 'array', element })
}

const arrayValue = (items: readonly Value[], element: SqlType, type: SqlType): Value => ({
  expr: { kind: 'array', items: items.map(item => item.expr), type: { ...type, element } },
  literal: false,
  collation: items.find(item => item.collation !== null)?.collation ?? null,
  explicitCollation: items.some(item => item.explicitCollation),
  reads: unionOf(items.map(item => item.reads)),
})

function coalesce(node: CoalesceExpr, scope: Scope): Value {
  const values = (node.args ?? []).map(arg => scope.context.compiler.value(arg, scope))
  const type = withoutCollation(baseOf(commonType(values)))
  const typed = values.map(value => (value.literal ? coerced(value, type) : castTo(value, type, scope.context)))
  const collated = typed.find(value => value.collation !== null)
  return {
    expr: { kind: 'coalesce', args: typed.map(value => value.expr), type: collated?.expr.type ?? type },
    literal: false,
    collation: collated?.collation ?? null,
    explicitCollation: typed.some(value => value.explicitCollation),
    reads: unionOf(typed.map(value => value.reads)),
  }
}

function collate(node: CollateClause, scope: Scope): Value {
  const value = scope.context.compiler.value(node.arg!, scope)
  const parts = partsOf(node.collname)
  for (const schema of schemasFor(parts, scope, 'type')) {
    const collation = scope.context.facts.collation(schema, parts.at(-1)!)
    if (collation === null) continue
    const text = value.literal ? coerced(value, sqlTypes.text) : value
    return { ...text, expr: underCollation(text.expr, collation), collation, explicitCollation: true }
  }
  return unsupported(scope.context, `the collation ${parts.join('.')}`)
}

/** `(SELECT auth.uid())`: a scalar without FROM is its own value. */
function scalarSubquery(node: SubLink, scope: Scope): Value {
  const select = node.subselect !== undefined && 'SelectStmt' in node.subselect ? node.subselect.SelectStmt : null
  if (select === null) return unsupported(scope.context, describe({ SubLink: node }))
  const target = scalarTarget(select)
  if (target === null) return scope.context.compiler.scalar(select, scope, null)
  return scope.context.compiler.value(target, { ...scope, sources: [], outer: scope, parameters: null })
}

/** NULLIF, JSON access and the sign of a number; null for operators that give a boolean. */
function operatorValue(node: A_Expr, scope: Scope): Value | null {
  const { compiler } = scope.context
  if (node.kind === 'AEXPR_NULLIF')
    return nullIf(compiler.value(node.lexpr!, scope), compiler.value(node.rexpr!, scope), scope)
  if (node.kind !== 'AEXPR_OP') return null
  const name = operatorName(partsOf(node.name), scope)
  if (name === '-' && node.lexpr === undefined) {
    const value = compiler.value(node.rexpr!, scope)
    const { expr } = value
    if (expr.kind === 'const' && expr.value !== null)
      return constant(expr.value.startsWith('-') ? expr.value.slice(1) : `-${expr.value}`, expr.type)
  }
  if (!valueOperators.has(name)) return null
  const { context } = scope
  const right = compiler.value(node.rexpr!, scope)
  if (node.lexpr === undefined) return arithmetic(name as CallName, [right], context)
  const left = compiler.value(node.lexpr, scope)
  switch (name) {
    case '->':
    case '->>':
      return jsonGet(left, coerced(right, sqlTypes.text), name === '->>', context)
    case '#>':
    case '#>>':
      return jsonByPath(left, coerced(right, textArray), name === '#>>', context)
    case '||':
      return concatenated(left, right, context)
    default:
      return timeArithmetic(name, left, right, context) ?? arithmetic(name as CallName, [left, right], context)
  }
}

/** Text, and whatever else beside it as its text. */
function concatenated(left: Value, right: Value, context: Context): Value {
  const isTextual = (value: Value): boolean => value.literal || asText(value, context) !== null
  const types = [left, right].map(value => baseOf(value.expr.type))
  if (!(isTextual(left) || isTextual(right)) || types.some(({ family }) => family === 'array' || family === 'jsonb'))
    return unsupported(context, `operator || over ${types.map(type => type.name).join(' and ')}`)
  const texts = [left, right].map(value => asText(value, context) ?? castTo(value, sqlTypes.text, context))
  return called('||', texts, sqlTypes.text, context)
}

/** All of one type and collation. */
function alike(values: readonly Value[], scope: Scope): Value[] {
  const type = withoutCollation(baseOf(commonType(values)))
  const typed = values.map(value => (value.literal ? coerced(value, type) : castTo(value, type, scope.context)))
  const { collation } = sharedCollation(typed, scope.context)
  return typed.map(value => ({ ...value, expr: underCollation(value.expr, collation) }))
}

function extreme({ op, args = [] }: MinMaxExpr, scope: Scope): Value {
  const { context } = scope
  const values = alike(
    args.map(arg => context.compiler.value(arg, scope)),
    scope,
  )
  const [first] = values
  if (first === undefined) return unsupported(context, 'GREATEST or LEAST of nothing')
  return called(op === 'IS_GREATEST' ? 'greatest' : 'least', values, withoutCollation(baseOf(first.expr.type)), context)
}

/** CASE with values; null for one with conditions. */
function caseValue(node: CaseExpr, scope: Scope): Value | null {
  const { context } = scope
  const branches = (node.args ?? []).flatMap(branch => ('CaseWhen' in branch ? [branch.CaseWhen] : []))
  const results = [...branches.map(({ result }) => result), node.defresult]
  const compiled = results.map(result => (result === undefined ? literal(null) : context.compiler.value(result, scope)))
  if (baseOf(commonType(compiled)).family === 'bool') return null
  const values = alike(compiled, scope)
  const otherwise = values.at(-1)!
  const whens = branches.map(({ expr }) => caseWhen(node.arg, expr!, scope))
  return {
    expr: {
      kind: 'case',
      whens: whens.map(({ predicate }) => predicate),
      values: values.slice(0, -1).map(({ expr }) => expr),
      otherwise: otherwise.expr,
      type: otherwise.expr.type,
    },
    literal: false,
    ...sharedCollation(values, context),
    reads: unionOf([...whens, ...values].map(({ reads }) => reads)),
  }
}

/** `array[1]` and `array[1:2]`. */
function subscript({ arg, indirection = [] }: A_Indirection, scope: Scope): Value {
  const { context } = scope
  const [step, ...more] = indirection
  const array = context.compiler.value(arg!, scope)
  const { element } = baseOf(array.expr.type)
  if (step === undefined || !('A_Indices' in step) || more.length > 0 || element === undefined)
    return unsupported(context, 'an array subscript of several dimensions, or a field of a composite')
  const { is_slice, lidx, uidx } = step.A_Indices
  const bounds = [lidx, uidx].map(bound =>
    bound === undefined ? null : coerced(context.compiler.value(bound, scope), sqlTypes.int4),
  )
  const given = bounds.filter(bound => bound !== null)
  if (given.length === 0 || given.some(bound => bound.expr.type.family !== 'int'))
    return unsupported(context, 'an array slice without bounds')
  if (is_slice !== true) return called('subscript', [array, ...given], baseOf(element), context)
  const name = given.length === 2 ? 'slice' : bounds[0] === null ? 'sliceTo' : 'sliceFrom'
  return called(name, [array, ...given], withoutCollation(baseOf(array.expr.type)), context)
}

function nullIf(left: Value, right: Value, scope: Scope): Value {
  const { predicate, reads } = compared('=', left, right, scope.context)
  if (predicate.kind !== 'compare') return unsupported(scope.context, 'NULLIF')
  const value = coerced(left, predicate.left.type)
  return {
    ...value,
    expr: { kind: 'nullif', left: predicate.left, right: predicate.right, type: predicate.left.type },
    reads,
  }
}
