// Takes off a column what a constant can be freed of too: `'room:' || id = 'room:7'` is `id = 7`, for which there is an index.
import type { Expr, SqlType } from './algebra.ts'
import { readValue } from './read-value.ts'
import { baseOf, sqlTypes } from './sql-types.ts'
import { ValueError } from './value-error.ts'

export interface Solved {
  /** What is left of the expression; NULL exactly when the whole was. */
  readonly expr: Expr
  /** The values for which it equals one of those asked for. */
  readonly values: readonly string[]
  readonly type: SqlType
}

/** @param expr compared for equality with text
 *  @returns null when nothing can be taken off */
export function solve(expr: Expr, values: readonly string[]): Solved | null {
  const step = stepOf(expr)
  if (step === null) return null
  const { inner, type } = step
  const left = values.flatMap(value => step.without(value) ?? [])
  return solve(inner, left) ?? { expr: inner, values: left, type }
}

interface Step {
  readonly inner: Expr
  readonly type: SqlType
  /** Null for a text that no inner value gives. */
  without(text: string): string | null
}

function stepOf(expr: Expr): Step | null {
  if (expr.kind === 'cast') return isText(expr.type) ? printed(expr.arg) : null
  if (expr.kind !== 'call' || expr.name !== '||') return null
  const [left, right] = expr.args
  if (left?.kind === 'const' && left.value !== null && right !== undefined && isText(right.type)) {
    const start = left.value
    return {
      inner: right,
      type: sqlTypes.text,
      without: text => (text.startsWith(start) ? text.slice(start.length) : null),
    }
  }
  if (right?.kind !== 'const' || right.value === null || left === undefined || !isText(left.type)) return null
  const end = right.value
  return {
    inner: left,
    type: sqlTypes.text,
    without: text => (text.endsWith(end) ? text.slice(0, text.length - end.length) : null),
  }
}

const isText = (type: SqlType): boolean => {
  const { oid } = baseOf(type)
  return oid === sqlTypes.text.oid || oid === sqlTypes.varchar.oid
}

/** A value that has one text, which no other value has. */
function printed(inner: Expr): Step | null {
  const type = baseOf(inner.type)
  if (type.family === 'bool')
    return { inner, type, without: text => (text === 'true' ? 't' : text === 'false' ? 'f' : null) }
  if (type.family !== 'int' && type.family !== 'uuid') return null
  return {
    inner,
    type,
    without: text => {
      try {
        return readValue(type, text) === text ? text : null
      } catch (error) {
        if (error instanceof ValueError) return null
        throw error
      }
    },
  }
}
