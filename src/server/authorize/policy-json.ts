// `->` and `->>`, and paths made of them.
import { baseOf, sqlTypes } from '../../predicate/sql-types.ts'
import { type Scope, unionOf, unsupported, type Value } from './policy-scope.ts'
import { constant, textType } from './policy-types.ts'

/** A chain of members. A path's number is an index in an array and a name in an object, which `->` cannot say. */
export function jsonPath(arg: Value, path: readonly string[], asText: boolean, scope: Scope): Value {
  const number = path.find(step => /^-?\d+$/.test(step))
  if (number !== undefined) return unsupported(scope.context, `a JSON path with the number ${number}`)
  return path.reduce(
    (value, step, index) => jsonGet(value, constant(step, sqlTypes.text), asText && index === path.length - 1, scope),
    arg,
  )
}

export function jsonGet(arg: Value, key: Value, asText: boolean, scope: Scope): Value {
  const { family } = arg.expr.type
  const keyFamily = key.expr.type.family
  if ((family !== 'json' && family !== 'jsonb') || (keyFamily !== 'text' && keyFamily !== 'int'))
    return unsupported(scope.context, `operator ${asText ? '->>' : '->'} over ${arg.expr.type.name}`)
  const reads = unionOf([arg.reads, key.reads])
  const type = asText ? textType(sqlTypes.text, reads.size > 0, scope.context) : baseOf(arg.expr.type)
  return { ...arg, expr: { kind: 'jsonGet', arg: arg.expr, key: key.expr, asText, type }, collation: null, reads }
}
