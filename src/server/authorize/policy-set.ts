// Sets that are made of one value and read no table: `(SELECT jsonb_array_elements_text(auth.jwt() -> 'teams'))`. Each is an array
// here, whose items are the set's; so `x IN (SELECT ...)` is `x = ANY (array)`.
import type { FuncCall, Node, SelectStmt, SubLink } from 'libpg-query'
import type { CallName, SqlType } from '../../predicate/algebra.ts'
import { baseOf, sqlTypes } from '../../predicate/sql-types.ts'
import { openCall } from './inline-function.ts'
import { asText, called, textArray } from './policy-call.ts'
import { type Context, partsOf, type Scope, schemasFor, unsupported, type Value } from './policy-scope.ts'
import { castTo, coerced, constant, namedType } from './policy-types.ts'

/** The set as an array, for `ARRAY(SELECT ...)`, `IN (SELECT ...)` and `= ANY (SELECT ...)`; null when it is no such set. */
export function setOfValues({ subselect }: SubLink, scope: Scope): Value | null {
  return subselect !== undefined && 'SelectStmt' in subselect ? setOfSelect(subselect.SelectStmt, scope) : null
}

export function setOfSelect(select: SelectStmt, around: Scope): Value | null {
  const { targetList, fromClause, limitOption, op, ...rest } = select
  const [target, ...more] = targetList ?? []
  if (target === undefined || more.length > 0 || Object.keys(rest).length > 0) return null
  if (op !== undefined && op !== 'SETOP_NONE') return null
  if (!('ResTarget' in target) || target.ResTarget.val === undefined) return null
  const scope: Scope = { ...around, sources: [], outer: around, parameters: null }
  const { node, casts } = beneathCasts(target.ResTarget.val, scope)
  const call = fromClause === undefined ? callOf(node) : callInFrom(fromClause, node)
  const set = call === null ? null : setOfCall(call, scope)
  if (set === null) return null
  return casts.reduce((array, element) => castTo(array, arrayOf(element), scope.context), set)
}

const arrayOf = (element: SqlType): SqlType => ({ oid: 0, name: `${element.name}[]`, family: 'array', element })

const callOf = (node: Node): FuncCall | null => ('FuncCall' in node ? node.FuncCall : null)

/** The expression without the casts around it, which come innermost first. */
function beneathCasts(node: Node, scope: Scope): { node: Node; casts: readonly SqlType[] } {
  if (!('TypeCast' in node) || node.TypeCast.arg === undefined || node.TypeCast.typeName === undefined)
    return { node, casts: [] }
  const beneath = beneathCasts(node.TypeCast.arg, scope)
  return { node: beneath.node, casts: [...beneath.casts, namedType(node.TypeCast.typeName, scope)] }
}

/** `SELECT t.value FROM f(x) t(value)`: the call, when what is selected is its only column. */
function callInFrom(from: readonly Node[], selected: Node): FuncCall | null {
  const [item, ...more] = from
  if (item === undefined || more.length > 0 || !('RangeFunction' in item) || !('ColumnRef' in selected)) return null
  const { functions = [], coldeflist, ordinality, is_rowsfrom, alias } = item.RangeFunction
  const [first, ...others] = functions
  const node = first !== undefined && 'List' in first ? first.List.items?.[0] : undefined
  if (
    node === undefined ||
    others.length > 0 ||
    coldeflist !== undefined ||
    ordinality === true ||
    is_rowsfrom === true
  )
    return null
  const call = callOf(node)
  if (call === null) return null
  const function_ = partsOf(call.funcname).at(-1)!
  const renamed = partsOf(alias?.colnames)
  // The set functions here call their column `value`, or else it is called as the set is.
  const columns =
    renamed.length > 0 ? renamed : function_.endsWith('_elements') || function_.endsWith('_text') ? ['value'] : []
  const table = alias?.aliasname ?? function_
  const path = partsOf(selected.ColumnRef.fields)
  const name = path.at(-1)!
  const isTable = path.length === 1 && name === table
  const isColumn = [...columns, table].includes(name) && (path.length === 1 || path[0] === table) && path.length <= 2
  return isTable || isColumn ? call : null
}

const jsonSets: Readonly<Record<string, CallName>> = {
  jsonb_array_elements: 'jsonElements',
  json_array_elements: 'jsonElements',
  jsonb_array_elements_text: 'jsonTexts',
  json_array_elements_text: 'jsonTexts',
  jsonb_object_keys: 'jsonKeys',
}

const isSetFunction = (name: string): boolean =>
  Object.hasOwn(jsonSets, name) || name === 'unnest' || name === 'string_to_table'

function setOfCall(call: FuncCall, scope: Scope): Value | null {
  const { context } = scope
  const parts = partsOf(call.funcname)
  const name = parts.at(-1)!
  if (isSetFunction(name) && isOfPostgres(parts, scope)) {
    const values = (call.args ?? []).map(arg => context.compiler.value(arg, scope))
    return setOf(name, values, context)
  }
  const schemas = schemasFor(parts, scope, 'function')
  if (
    !schemas.some(schema =>
      context.facts.functions(schema, name).some(found => found.returnsSet && found.language === 'sql'),
    )
  )
    return null
  const open = openCall(call, scope)
  if (open === null || !open.function.returnsSet || open.notNull.predicate.kind !== 'true') return null
  const set = setOfSelect(open.select, open.scope)
  return set === null ? null : castTo(set, arrayOf(baseOf(open.function.returnType)), context)
}

/** Whether no schema that is searched has another function of this name. */
const isOfPostgres = (parts: readonly string[], scope: Scope): boolean =>
  schemasFor(parts, scope, 'function').every(
    schema => schema === 'pg_catalog' || scope.context.facts.functions(schema, parts.at(-1)!).length === 0,
  )

/** A set of NULL is empty. */
function setOf(name: string, values: readonly Value[], context: Context): Value {
  const refuse = (): never => unsupported(context, `function ${name}() with these arguments`)
  const [first, second] = values
  if (first === undefined) return refuse()
  if (name === 'unnest') return values.length === 1 && first.expr.type.family === 'array' ? orEmpty(first) : refuse()
  if (name === 'string_to_table') {
    const texts = values.map(value => asText(value, context))
    if (second === undefined || texts.some(text => text === null)) return refuse()
    return orEmpty(called('string_to_array', texts as Value[], textArray, context))
  }
  const typed = coerced(first, name.startsWith('jsonb') ? sqlTypes.jsonb : sqlTypes.json)
  const { family } = baseOf(typed.expr.type)
  if (values.length > 1 || (family !== 'json' && family !== 'jsonb')) return refuse()
  const type = name.endsWith('elements') ? arrayOf(baseOf(typed.expr.type)) : textArray
  return called(jsonSets[name]!, [typed], type, context)
}

function orEmpty(array: Value): Value {
  const { type } = array.expr
  const empty = constant('{}', type).expr
  return { ...array, expr: { kind: 'coalesce', args: [array.expr, empty], type } }
}
