// Compiles a scalar expression of a policy.
import type { A_Const, A_Expr, CoalesceExpr, CollateClause, Node, SubLink } from 'libpg-query'
import type { SqlType } from '../../predicate/algebra.ts'
import { baseOf, sqlTypes } from '../../predicate/sql-types.ts'
import { callValue } from './inline-function.ts'
import { scalarTarget } from './parse-sql.ts'
import { describe } from './policy-construct.ts'
import { jsonGet, jsonPath } from './policy-json.ts'
import { compared, operatorName } from './policy-operators.ts'
import {
  parametersOf,
  partsOf,
  resolveName,
  type Scope,
  schemasFor,
  unionOf,
  unsupported,
  type Value,
} from './policy-scope.ts'
import {
  castTo,
  coerced,
  commonType,
  constant,
  literal,
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
    return castNode(node.TypeCast.arg, namedType(node.TypeCast.typeName, scope), scope)
  if ('CoalesceExpr' in node) return coalesce(node.CoalesceExpr, scope)
  if ('A_ArrayExpr' in node) return arrayOf(node.A_ArrayExpr.elements ?? [], scope)
  if ('CollateClause' in node) return collate(node.CollateClause, scope)
  if ('FuncCall' in node) return callValue(node.FuncCall, scope)
  if ('SQLValueFunction' in node) {
    const { op } = node.SQLValueFunction
    if (op === 'SVFOP_CURRENT_USER' || op === 'SVFOP_CURRENT_ROLE' || op === 'SVFOP_USER')
      return constant(scope.viewer.name, sqlTypes.name)
  }
  if ('SubLink' in node && node.SubLink.subLinkType === 'EXPR_SUBLINK') return scalarSubquery(node.SubLink, scope)
  if ('A_Expr' in node) {
    const value = operatorValue(node.A_Expr, scope)
    if (value !== null) return value
  }
  if ('A_Expr' in node || 'BoolExpr' in node || 'NullTest' in node || 'BooleanTest' in node || 'SubLink' in node) {
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

function castNode(arg: Node, type: SqlType, scope: Scope): Value {
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
    if (value.expr.kind !== 'const' || value.expr.value === null) return unsupported(scope.context, 'operator -')
    return constant(
      value.expr.value.startsWith('-') ? value.expr.value.slice(1) : `-${value.expr.value}`,
      value.expr.type,
    )
  }
  if (!['->', '->>', '#>', '#>>'].includes(name)) return null
  const arg = compiler.value(node.lexpr!, scope)
  const key = compiler.value(node.rexpr!, scope)
  if (name === '->' || name === '->>') return jsonGet(arg, coerced(key, sqlTypes.text), name === '->>', scope)
  if (key.expr.kind !== 'const' || key.expr.value === null || !/^\{\w+(,\w+)*\}$/.test(key.expr.value))
    return unsupported(scope.context, `operator ${name} with this path`)
  return jsonPath(arg, key.expr.value.slice(1, -1).split(','), name === '#>>', scope)
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
