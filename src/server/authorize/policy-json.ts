// `->` and `->>`, and paths made of them.
import type { SqlType } from '../../predicate/algebra.ts'
import { parseArray } from '../../predicate/array-text.ts'
import { baseOf, sqlTypes } from '../../predicate/sql-types.ts'
import { type Context, unionOf, unsupported, type Value } from './policy-scope.ts'
import { constant, textType } from './policy-types.ts'

/** A chain of members. A step that is a number is an index in an array and a name in an object, which `->` cannot say. */
export function jsonPath(arg: Value, path: readonly Value[], asText: boolean, context: Context): Value {
  const names = path.map(({ expr }) => (expr.kind === 'const' ? expr.value : null))
  const isPlain = names.length > 0 && names.every(name => name !== null && !/^\s*[+-]?\d+$/.test(name))
  if (!isPlain) {
    const steps: Value = {
      ...constant(null, textArray),
      expr: { kind: 'array', items: path.map(({ expr }) => expr), type: textArray },
      reads: unionOf(path.map(({ reads }) => reads)),
    }
    return jsonAt(arg, steps, asText, context)
  }
  return path.reduce((value, step, index) => jsonGet(value, step, asText && index === path.length - 1, context), arg)
}

/** `#>` and `#>>`. */
export function jsonByPath(arg: Value, path: Value, asText: boolean, context: Context): Value {
  const { expr } = path
  if (expr.kind !== 'const' || expr.value === null) return jsonAt(arg, path, asText, context)
  const steps = parseArray(expr.value).items.map(step => constant(step, sqlTypes.text))
  return jsonPath(arg, steps, asText, context)
}

const textArray: SqlType = { oid: 1009, name: 'text[]', family: 'array', element: sqlTypes.text }

function jsonAt(arg: Value, path: Value, asText: boolean, context: Context): Value {
  const name = asText ? '#>>' : '#>'
  const { family } = baseOf(arg.expr.type)
  if ((family !== 'json' && family !== 'jsonb') || path.expr.type.element?.family !== 'text')
    return unsupported(context, `operator ${name} over ${arg.expr.type.name} by ${path.expr.type.name}`)
  const reads = unionOf([arg.reads, path.reads])
  const type = asText ? textType(sqlTypes.text, reads.size > 0, context) : baseOf(arg.expr.type)
  return { ...arg, expr: { kind: 'call', name, args: [arg.expr, path.expr], type }, collation: null, reads }
}

export function jsonGet(arg: Value, key: Value, asText: boolean, context: Context): Value {
  const { family } = baseOf(arg.expr.type)
  const keyFamily = key.expr.type.family
  if ((family !== 'json' && family !== 'jsonb') || (keyFamily !== 'text' && keyFamily !== 'int'))
    return unsupported(context, `operator ${asText ? '->>' : '->'} over ${arg.expr.type.name}`)
  const reads = unionOf([arg.reads, key.reads])
  const type = asText ? textType(sqlTypes.text, reads.size > 0, context) : baseOf(arg.expr.type)
  return { ...arg, expr: { kind: 'jsonGet', arg: arg.expr, key: key.expr, asText, type }, collation: null, reads }
}
