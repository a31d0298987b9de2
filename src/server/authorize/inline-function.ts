// Replaces a call of a SQL-language function by its body, read from the catalog: auth.uid() is nothing special here.
import type { FuncCall, Node, SelectStmt } from 'libpg-query'
import type { Expr } from '../../predicate/algebra.ts'
import { and, not } from '../../predicate/build.ts'
import { isStrictCall } from '../../predicate/calls.ts'
import { baseOf, sqlTypes } from '../../predicate/sql-types.ts'
import type { FunctionFacts } from '../catalog/facts.ts'
import { parseBody, scalarTarget } from './parse-sql.ts'
import { builtInCall, isBuiltIn } from './policy-call.ts'
import {
  type Condition,
  nothingRead,
  partsOf,
  refused,
  type Scope,
  schemasFor,
  unionOf,
  unsupported,
  type Value,
} from './policy-scope.ts'
import { castTo, coerced, constant, isNullLiteral } from './policy-types.ts'
import { quoted, sqlName } from './sql-name.ts'

/** A call with its body open: compile `select` in `scope`. */
export interface OpenCall {
  readonly function: FunctionFacts
  readonly select: SelectStmt
  readonly scope: Scope
  /** For a STRICT function: true exactly when no argument is NULL. */
  readonly notNull: Condition
}

const maxDepth = 16

/** SET clauses that do not change what a body returns. */
const harmlessSettings =
  /^(search_path|statement_timeout|lock_timeout|work_mem|jit|plan_cache_mode|client_min_messages|log_.*)$/

/** @returns null for a built-in function @throws POLICY_UNSUPPORTED, TABLE_REFUSED without EXECUTE */
export function openCall(call: FuncCall, scope: Scope): OpenCall | null {
  const { context } = scope
  const { found, values } = resolve(call, scope)
  if (found.schema === 'pg_catalog') return null
  const shown = `function ${found.schema}.${found.name}()`
  if (found.language !== 'sql') return unsupported(context, `${shown} in language ${found.language}`)
  if (values.length < found.argumentTypes.length) return unsupported(context, `${shown} with default arguments`)
  const setting = found.settings.find(([name]) => !harmlessSettings.test(name))
  if (setting !== undefined) return unsupported(context, `${shown} with SET ${setting[0]}`)
  if (context.depth >= maxDepth) return unsupported(context, `${shown} more than ${maxDepth} calls deep`)
  const { viewer } = scope
  const execution = context.facts.execution(found.oid, viewer.oid)
  if (!execution.execute || (scope.lateParsed && !execution.schemaUsage))
    return refused(
      context,
      `calls ${shown}, which role ${viewer.name} may not EXECUTE`,
      `GRANT EXECUTE ON FUNCTION ${sqlName(found.schema, found.name)} and USAGE ON SCHEMA ${sqlName(found.schema)} TO ${quoted(viewer.name)}`,
    )
  const select = parseBody(found.body)
  if (select === null) return unsupported(context, `${shown}, whose body is not a single SELECT`)
  const args = values.map((value, index) => castTo(value, found.argumentTypes[index]!, context))
  const bodyScope: Scope = {
    context: { ...context, depth: context.depth + 1, guarded: [] },
    sources: [],
    named: new Map(),
    outer: null,
    parameters: { functionName: found.name, names: found.argumentNames, values: args },
    // A standard body was resolved when it was created, and Postgres prints it with every name qualified.
    searchPath: found.body.kind === 'standard' ? [] : found.searchPath,
    viewer: found.securityDefiner ? context.facts.role(found.owner) : viewer,
    lateParsed: found.body.kind === 'source',
  }
  return { function: found, select, scope: bodyScope, notNull: found.strict ? noneIsNull(args) : always }
}

const always: Condition = { predicate: { kind: 'true' }, reads: nothingRead }

function noneIsNull(args: readonly Value[]): Condition {
  const doubtful = args.filter(arg => mayBeNull(arg))
  return {
    predicate: and(...doubtful.map(({ expr }) => not({ kind: 'isNull', arg: expr }))),
    reads: unionOf(doubtful.map(({ reads }) => reads)),
  }
}

export function mayBeNull({ expr, reads }: Value): boolean {
  if (expr.kind === 'const') return expr.value === null
  if (expr.kind !== 'column') return true
  return ![...reads].every(
    ({ relation, base, optional }) => !optional && relation.table.columns[expr.column - base]?.notNull === true,
  )
}

/** The value of a call: of a built-in function that the algebra has, or of a body that is a single expression. */
export function callValue(call: FuncCall, scope: Scope): Value {
  const { context } = scope
  const open = openCall(call, scope)
  if (open === null) return builtIn(call, scope)
  const { function: found } = open
  const shown = `function ${found.schema}.${found.name}()`
  if (found.returnType.family === 'bool' && !found.returnsSet) {
    const { predicate, reads } = context.compiler.condition({ FuncCall: call }, scope, false)
    return { ...constant(null, sqlTypes.bool), expr: { kind: 'predicate', predicate, type: sqlTypes.bool }, reads }
  }
  if (found.returnsSet) return unsupported(context, `${shown}, which returns a set, as a value`)
  const target = scalarTarget(open.select)
  if (target === null)
    return asReturned(context.compiler.scalar(open.select, open.scope, open.notNull), found, open.scope)
  const value = asReturned(open.scope.context.compiler.value(target, open.scope), found, open.scope)
  const { predicate } = open.notNull
  if (predicate.kind === 'true') return value
  if (predicate.kind === 'false') return constant(null, found.returnType)
  const args = open.scope.parameters!.values.filter(mayBeNull)
  if (args.every(arg => isStrictIn(value.expr, arg.expr))) return value
  return unsupported(context, `the STRICT ${shown} over an argument that may be NULL, as a value`)
}

/** A body's expression as the function's return type. */
function asReturned(value: Value, { returnType }: FunctionFacts, scope: Scope): Value {
  return value.literal ? coerced(value, returnType) : castTo(value, baseOf(returnType), scope.context)
}

/** Whether NULL for `arg` makes the whole NULL, as STRICT would. */
function isStrictIn(expr: Expr, arg: Expr): boolean {
  if (expr === arg) return true
  if (expr.kind === 'cast') return isStrictIn(expr.arg, arg)
  if (expr.kind === 'nullif') return isStrictIn(expr.left, arg)
  if (expr.kind === 'call') return isStrictCall(expr.name) && expr.args.some(each => isStrictIn(each, arg))
  return expr.kind === 'jsonGet' && (isStrictIn(expr.arg, arg) || isStrictIn(expr.key, arg))
}

/** Whether only Postgres's own functions have this name here. */
export function callsBuiltIn(call: FuncCall, scope: Scope): boolean {
  const parts = partsOf(call.funcname)
  const schemas = schemasFor(parts, scope, 'function')
  return !schemas.some(
    schema => schema !== 'pg_catalog' && scope.context.facts.functions(schema, parts.at(-1)!).length > 0,
  )
}

function resolve(call: FuncCall, scope: Scope): { found: FunctionFacts; values: Value[] } {
  const { context } = scope
  const parts = partsOf(call.funcname)
  const shown = `function ${parts.join('.')}()`
  if (call.agg_star === true || call.agg_distinct === true || call.agg_filter !== undefined || call.over !== undefined)
    return unsupported(context, `${shown}, an aggregate or window function`)
  const nodes = argumentsOf(call)
  if (nodes === null || nodes.some(node => 'NamedArgExpr' in node))
    return unsupported(context, `${shown} with named or variadic arguments`)
  const candidates = schemasFor(parts, scope, 'function').flatMap(schema =>
    context.facts.functions(schema, parts.at(-1)!),
  )
  if (candidates.length === 0) {
    if (parts.length === 1 && scope.searchPath === null)
      return unsupported(context, `${shown} without a schema in a function that has no SET search_path`)
    return unsupported(context, `${shown}, which does not exist`)
  }
  // Named before its arguments are compiled: they may be what the construct is not known for.
  const nonPlain = candidates.find(candidate => !candidate.plain)
  if (nonPlain !== undefined) return unsupported(context, `${shown}, an aggregate or window function`)
  if (candidates.every(({ schema, name }) => schema === 'pg_catalog' && !builtInNames.has(name) && !isBuiltIn(name)))
    return unsupported(context, shown)
  const values = nodes.map(node => context.compiler.value(node, scope))
  // Whether the arguments fit is known where the call is computed.
  if (candidates.every(({ schema }) => schema === 'pg_catalog') && isBuiltIn(parts.at(-1)!))
    return { found: candidates[0]!, values }
  const fitting = candidates.filter(candidate => fits(candidate, values))
  const exact = fitting.filter(candidate => values.every((value, i) => isExact(value, candidate, i)))
  const choice = exact.length > 0 ? exact : fitting
  // The same arguments in two schemas: the first in the path is meant.
  const [found, ...others] = choice
  if (found === undefined) return unsupported(context, `${shown} with these arguments`)
  if (others.some(other => other.schema === found.schema)) return unsupported(context, `${shown}, which is ambiguous`)
  return { found, values }
}

/** The arguments, with `VARIADIC ARRAY[...]` spread, as pg_get_expr prints such a call; null for another VARIADIC. */
function argumentsOf(call: FuncCall): Node[] | null {
  const args = call.args ?? []
  const last = args.at(-1)
  if (call.func_variadic !== true || last === undefined) return args
  return 'A_ArrayExpr' in last ? [...args.slice(0, -1), ...(last.A_ArrayExpr.elements ?? [])] : null
}

function fits(candidate: FunctionFacts, values: readonly Value[]): boolean {
  const most = candidate.argumentTypes.length
  if (candidate.variadic) return candidate.schema === 'pg_catalog' && values.length >= most
  if (values.length > most || values.length < most - candidate.defaults) return false
  return values.every((value, i) => {
    const type = baseOf(candidate.argumentTypes[i]!)
    const from = baseOf(value.expr.type)
    return value.literal || from.oid === type.oid || (from.family === type.family && implicitFamilies.has(from.family))
  })
}

const implicitFamilies: ReadonlySet<string> = new Set(['int', 'text', 'array'])

const isExact = (value: Value, candidate: FunctionFacts, index: number): boolean =>
  !value.literal && candidate.argumentTypes[index]?.oid === value.expr.type.oid

const builtInNames: ReadonlySet<string> = new Set(['current_setting'])

function builtIn(call: FuncCall, scope: Scope): Value {
  const { context } = scope
  const name = partsOf(call.funcname).at(-1)!
  const values = (argumentsOf(call) ?? []).map(node => context.compiler.value(node, scope))
  if (name !== 'current_setting') return builtInCall(name, values, scope)
  return currentSetting(
    values.map(value => coerced(value, sqlTypes.text)),
    scope,
  )
}

function currentSetting([name, missingOk]: readonly Value[], scope: Scope): Value {
  const { context } = scope
  if (name?.expr.kind !== 'const' || name.expr.value === null || (missingOk !== undefined && isNullLiteral(missingOk)))
    return unsupported(context, 'current_setting() of a computed name')
  if (missingOk !== undefined && missingOk.expr.kind !== 'const')
    return unsupported(context, 'current_setting() with a computed second argument')
  // Names of settings ignore case.
  const setting = name.expr.value.toLowerCase()
  if (!setting.includes('.') && setting !== 'role')
    return unsupported(context, `current_setting('${setting}'), which Tidegate does not set`)
  const lenient = missingOk?.expr.kind === 'const' && missingOk.expr.value === 't'
  const ofClaims = setting === 'role' || setting.startsWith('request.jwt.')
  const otherwise = ofClaims ? null : context.facts.setting(setting)
  const type = sqlTypes.text
  const expr: Expr = { kind: 'setting', name: setting, missingOk: lenient || otherwise !== null, type }
  if (otherwise === null) return { ...constant(null, type), expr }
  const fallback: Expr = { kind: 'const', value: otherwise, type }
  return { ...constant(null, type), expr: { kind: 'coalesce', args: [expr, fallback], type } }
}
