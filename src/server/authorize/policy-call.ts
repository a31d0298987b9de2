// Calls of Postgres's own functions that the algebra computes: their names, arguments and types.
import type { CallName, SqlType } from '../../predicate/algebra.ts'
import { arithmeticType } from '../../predicate/number-calls.ts'
import { baseOf, sqlTypes } from '../../predicate/sql-types.ts'
import { jsonPath } from './policy-json.ts'
import { type Context, type Scope, unionOf, unsupported, type Value } from './policy-scope.ts'
import { dateTrunc, isTimeFunction, now, timezone } from './policy-time.ts'
import { castTo, coerced, collatedType, commonCollation, underCollation } from './policy-types.ts'

/** What an argument must be: `any` is taken as it is. */
type Kind = 'text' | 'int' | 'number' | 'array' | 'json' | 'any'

interface Signature {
  readonly call: CallName
  readonly args: readonly Kind[]
  /** How many of the last arguments may be left out. */
  readonly optional?: number
  /** The last may be repeated. */
  readonly variadic?: boolean
  readonly result: SqlType
}

export const textArray: SqlType = { oid: 1009, name: 'text[]', family: 'array', element: sqlTypes.text }

const { bool, int4, text, jsonb } = sqlTypes
const trim = (call: CallName): Signature => ({ call, args: ['text', 'text'], optional: 1, result: text })
const length: Signature = { call: 'length', args: ['text'], result: int4 }
const substr: Signature = { call: 'substr', args: ['text', 'int', 'int'], optional: 1, result: text }
const strpos: Signature = { call: 'strpos', args: ['text', 'text'], result: int4 }
const jsonLength: Signature = { call: 'jsonb_array_length', args: ['json'], result: int4 }
const jsonType: Signature = { call: 'jsonb_typeof', args: ['json'], result: text }

const signatures: Readonly<Record<string, Signature>> = {
  lower: { call: 'lower', args: ['text'], result: text },
  upper: { call: 'upper', args: ['text'], result: text },
  length,
  char_length: length,
  character_length: length,
  octet_length: { call: 'octet_length', args: ['text'], result: int4 },
  split_part: { call: 'split_part', args: ['text', 'text', 'int'], result: text },
  substr,
  substring: substr,
  left: { call: 'left', args: ['text', 'int'], result: text },
  right: { call: 'right', args: ['text', 'int'], result: text },
  strpos,
  position: strpos,
  starts_with: { call: 'starts_with', args: ['text', 'text'], result: bool },
  replace: { call: 'replace', args: ['text', 'text', 'text'], result: text },
  btrim: trim('btrim'),
  ltrim: trim('ltrim'),
  rtrim: trim('rtrim'),
  concat: { call: 'concat', args: ['any'], variadic: true, result: text },
  concat_ws: { call: 'concat_ws', args: ['text', 'any'], variadic: true, result: text },
  string_to_array: { call: 'string_to_array', args: ['text', 'text', 'text'], optional: 1, result: textArray },
  array_to_string: { call: 'array_to_string', args: ['array', 'text', 'text'], optional: 1, result: text },
  array_length: { call: 'array_length', args: ['array', 'int'], result: int4 },
  cardinality: { call: 'cardinality', args: ['array'], result: int4 },
  jsonb_array_length: jsonLength,
  json_array_length: jsonLength,
  jsonb_typeof: jsonType,
  json_typeof: jsonType,
  to_jsonb: { call: 'to_jsonb', args: ['any'], result: jsonb },
}

const others = [
  'jsonb_extract_path_text',
  'jsonb_extract_path',
  'json_extract_path_text',
  'json_extract_path',
  'abs',
  'mod',
  'timezone',
  'date_trunc',
]

/** Whether a function of pg_catalog has a place in the algebra, for some arguments. */
export const isBuiltIn = (name: string): boolean =>
  Object.hasOwn(signatures, name) || others.includes(name) || isTimeFunction(name)

/** A call of a function of pg_catalog for which `isBuiltIn`. @throws POLICY_UNSUPPORTED for arguments that it is not exact for */
export function builtInCall(name: string, values: readonly Value[], scope: Scope): Value {
  const { context } = scope
  if (isTimeFunction(name)) return now()
  if (name === 'timezone') return timezone(values, context)
  if (name === 'date_trunc') return dateTrunc(values, context)
  if (name.includes('extract_path')) return extractPath(name, values, scope)
  if (name === 'abs' || name === 'mod') return arithmetic(name === 'mod' ? '%' : name, values, context)
  const signature = signatures[name]
  if (signature === undefined) return unsupported(context, `function ${name}()`)
  const { call, args, optional = 0, variadic = false, result } = signature
  if (values.length < args.length - optional || (values.length > args.length && !variadic))
    return unsupported(context, `function ${name}() with these arguments`)
  const typed = values.map((value, i) => argument(value, args[Math.min(i, args.length - 1)]!, name, context))
  if (call === 'lower' || call === 'upper') return called(call, [underDefault(typed[0]!, context)], result, context)
  return called(call, typed, result, context)
}

/** A call with its arguments as they should be; text that it gives compares as the text it was made of. */
export function called(name: CallName, args: readonly Value[], type: SqlType, context: Context): Value {
  const { collation, explicitCollation } = sharedCollation(args, context)
  const reads = unionOf(args.map(arg => arg.reads))
  return {
    expr: {
      kind: 'call',
      name,
      args: args.map(({ expr }) => expr),
      type: collatedType(type, collation, reads.size > 0, context),
    },
    literal: false,
    collation: isCollatable(type) ? collation : null,
    explicitCollation: isCollatable(type) && explicitCollation,
    reads,
  }
}

/** What several values are compared under, or text made of them. @throws POLICY_UNSUPPORTED when they contradict each other */
export function sharedCollation(
  values: readonly Value[],
  context: Context,
): Pick<Value, 'collation' | 'explicitCollation'> {
  let found: Pick<Value, 'collation' | 'explicitCollation'> = { collation: null, explicitCollation: false }
  for (const value of values) {
    const collation = commonCollation({ ...value, ...found }, value, context)
    found = { collation, explicitCollation: found.explicitCollation || value.explicitCollation }
  }
  return found
}

const isCollatable = (type: SqlType): boolean =>
  type.family === 'text' || (type.element !== undefined && isCollatable(type.element))

/** The text whose case is changed has a collation even where no column gives it one: the database's. */
function underDefault(value: Value, context: Context): Value {
  const collation = value.collation ?? context.facts.collation('pg_catalog', 'default')
  return { ...value, expr: underCollation(value.expr, collation) }
}

function argument(value: Value, kind: Kind, name: string, context: Context): Value {
  const refuse = (): never => unsupported(context, `function ${name}() over ${value.expr.type.name}`)
  const { family } = baseOf(value.expr.type)
  switch (kind) {
    case 'any':
      return value.literal ? coerced(value, sqlTypes.text) : value
    case 'text':
      return asText(value, context) ?? refuse()
    case 'int':
      if (value.literal) return coerced(value, sqlTypes.int4)
      return family === 'int' ? value : refuse()
    case 'number':
      return family === 'int' || family === 'numeric' ? value : refuse()
    case 'array':
      return family === 'array' ? value : refuse()
    case 'json':
      return family === 'json' || family === 'jsonb' ? value : refuse()
  }
}

/** What Postgres casts to text by itself; null for other types. */
export function asText(value: Value, context: Context): Value | null {
  if (value.literal) return coerced(value, sqlTypes.text)
  const { family } = baseOf(value.expr.type)
  if (family === 'text') return value
  return family === 'bpchar' ? castTo(value, sqlTypes.text, context) : null
}

function extractPath(name: string, [document, ...path]: readonly Value[], scope: Scope): Value {
  const steps = path.map(step => asText(step, scope.context))
  if (document === undefined || steps.length === 0 || steps.some(step => step === null))
    return unsupported(scope.context, `function ${name}() with this path`)
  const typed = document.literal
    ? coerced(document, name.startsWith('jsonb') ? sqlTypes.jsonb : sqlTypes.json)
    : document
  return jsonPath(typed, steps as Value[], name.endsWith('_text'), scope.context)
}

/** Operators and functions over numbers. A literal takes the type of the other side. */
export function arithmetic(name: CallName, values: readonly Value[], context: Context): Value {
  const type = values.find(value => !value.literal)?.expr.type ?? sqlTypes.int4
  const typed = values.map(value => coerced(value, type))
  const [left, right] = typed.map(value => baseOf(value.expr.type))
  const result = left === undefined ? null : arithmeticType(name, left, right ?? left)
  return result === null
    ? unsupported(context, `operator ${name} over ${typed.map(({ expr }) => expr.type.name).join(' and ')}`)
    : called(name, typed, result, context)
}
