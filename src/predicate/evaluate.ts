// Judges one row: true, false or unknown, exactly as Postgres would, from text values.
//
// Inside there are four answers. `null` is SQL's unknown: the value is known to be NULL. `undefined` means that the row
// version does not say (an unchanged TOAST value, a column outside the replica identity). The two must not be mixed:
// `body IS NULL` over a body that was not sent would become true and make a row visible. So `undefined` travels up
// through every operator, except where the other side decides alone (false AND x, true OR x); when it reaches the top
// the judgement fails, loudly, and whoever asked answers "not visible".
import { TidegateError } from '../protocol/tidegate-error.ts'
import type { CompareOp, Expr, Memberships, Predicate, Row, SemiJoin, SqlType, Truth } from './algebra.ts'
import { parseArray, printArray } from './array-text.ts'
import { callFunction, isStrictCall } from './calls.ts'
import { castFunction } from './cast.ts'
import { columnNamesOf } from './columns.ts'
import { comparisonOf } from './compare.ts'
import { isHop, splitWhere } from './hops.ts'
import { joinText, keyComparisonsOf } from './join-key.ts'
import { jsonGet } from './json-text.ts'
import { foldOf, likeMatcher, type Matcher } from './like.ts'
import { readValue } from './read-value.ts'
import { baseOf, sqlTypes } from './sql-types.ts'
import { allOf, anyOf, type Judging, missing, nowValuing, type Value, type Valuing } from './three-valued.ts'

export type Judge = (row: Row, memberships: Memberships) => Truth

const judges = new WeakMap<Predicate, Judge>()

/** Judges one row; compiles the predicate on first use and remembers it as long as the predicate lives.
 *  @throws as `compile`, and as the function it gives */
export function evaluate(predicate: Predicate, row: Row, memberships: Memberships): Truth {
  let judge = judges.get(predicate)
  if (judge === undefined) {
    judge = compile(predicate)
    judges.set(predicate, judge)
  }
  return judge(row, memberships)
}

/** Makes a bound predicate into a function.
 *  @returns a function that throws IDENTITY_INSUFFICIENT when the answer depends on a column that the row version does
 *    not have, and ValueError where Postgres would raise (a cast that fails, a LIKE pattern ending in `\`)
 *  @throws FILTER_UNSUPPORTED, POLICY_UNSUPPORTED for what cannot be judged exactly; ValueError for a broken constant */
export function compile(predicate: Predicate): Judge {
  const judging = judgingOf(predicate)
  return (row, memberships) => {
    const answer = judging(row, memberships)
    if (answer === undefined) throw undecided(predicate, row)
    return answer
  }
}

function undecided(predicate: Predicate, row: Row): TidegateError {
  const names = columnNamesOf(predicate)
    .filter(({ column }) => row.text(column) === undefined)
    .map(({ name }) => `"${name}"`)
  return new TidegateError(
    'IDENTITY_INSUFFICIENT',
    `the row version in the WAL lacks ${names.join(', ')}, which a policy or filter reads; set REPLICA IDENTITY FULL`,
  )
}

function judgingOf(predicate: Predicate): Judging {
  switch (predicate.kind) {
    case 'true':
      return () => true
    case 'false':
      return () => false
    case 'unknown':
      return () => null
    case 'and':
      return allOf(predicate.args.map(judgingOf))
    case 'or':
      return anyOf(predicate.args.map(judgingOf))
    case 'not': {
      const arg = judgingOf(predicate.arg)
      return (row, memberships) => {
        const answer = arg(row, memberships)
        return answer === true ? false : answer === false ? true : answer
      }
    }
    case 'compare':
      return compareJudging(predicate.op, predicate.left, predicate.right)
    case 'in':
      return inJudging(predicate.left, predicate.items)
    case 'any':
      return anyJudging(predicate.left, predicate.array)
    case 'like':
      return likeJudging(predicate)
    case 'isNull': {
      const arg = valuingOf(predicate.arg)
      return (row, memberships) => {
        const value = arg(row, memberships)
        return value === undefined ? undefined : value === null
      }
    }
    case 'isDistinct':
      return distinctJudging(predicate.left, predicate.right)
    case 'boolean': {
      const arg = valuingOf(predicate.arg)
      return (row, memberships) => {
        const value = arg(row, memberships)
        return value == null ? value : value === 't'
      }
    }
    case 'semiJoin':
      return semiJoinJudging(predicate)
  }
}

const tests: Record<CompareOp, (sign: number) => boolean> = {
  '=': sign => sign === 0,
  '<>': sign => sign !== 0,
  '<': sign => sign < 0,
  '<=': sign => sign <= 0,
  '>': sign => sign > 0,
  '>=': sign => sign >= 0,
}

function compareJudging(op: CompareOp, leftExpr: Expr, rightExpr: Expr): Judging {
  const comparison = comparisonOf(op, leftExpr, rightExpr)
  const left = keyingOf(leftExpr, comparison.left)
  const right = keyingOf(rightExpr, comparison.right)
  if (op === '=' || op === '<>') {
    const wanted = op === '='
    return (row, memberships) => {
      const a = left(row, memberships)
      const b = right(row, memberships)
      return a == null || b == null ? missing(a, b) : (a === b) === wanted
    }
  }
  const order = comparison.order!
  const test = tests[op]
  return (row, memberships) => {
    const a = left(row, memberships)
    const b = right(row, memberships)
    return a == null || b == null ? missing(a, b) : test(order(a, b))
  }
}

function inJudging(leftExpr: Expr, items: readonly Expr[]): Judging {
  if (items.length === 0) return () => false
  const first = items[0]!
  const comparisons = items.map(item => comparisonOf('in', leftExpr, item))
  // Postgres brings a list to one common type first; with unlike items each would be compared in its own way here.
  if (comparisons.some(({ left, right }) => left !== comparisons[0]!.left || right !== comparisons[0]!.right))
    throw new TidegateError('POLICY_UNSUPPORTED', `IN (...) mixes types beside ${first.type.name}; cast them to one`)
  if (!items.every(item => item.kind === 'const')) return anyOf(items.map(item => compareJudging('=', leftExpr, item)))
  const comparison = comparisons[0]!
  const left = keyingOf(leftExpr, comparison.left)
  const keys = new Set<string>()
  let otherwise: false | null = false
  for (const item of items) {
    if (item.value === null) otherwise = null
    else keys.add(comparison.right(readValue(item.type, item.value)))
  }
  return (row, memberships) => {
    const key = left(row, memberships)
    return key == null ? key : keys.has(key) || otherwise
  }
}

function anyJudging(leftExpr: Expr, arrayExpr: Expr): Judging {
  if (arrayExpr.kind === 'array') return inJudging(leftExpr, arrayExpr.items)
  const element = baseOf(arrayExpr.type).element
  if (element === undefined)
    throw new TidegateError('POLICY_UNSUPPORTED', `= ANY needs an array; ${arrayExpr.type.name} is none here`)
  // Checked on the expressions, so that the column's collation counts; compared by element.
  comparisonOf('in', arrayExpr, arrayExpr)
  const comparison = comparisonOf('in', leftExpr, element)
  const left = keyingOf(leftExpr, comparison.left)
  const array = valuingOf(arrayExpr)
  return (row, memberships) => {
    const text = array(row, memberships)
    if (text == null) return text
    const { items } = parseArray(text)
    // An empty array decides alone, even for a NULL.
    if (items.length === 0) return false
    const key = left(row, memberships)
    if (key == null) return key
    let result: false | null = false
    for (const item of items) {
      if (item === null) result = null
      else if (comparison.right(item) === key) return true
    }
    return result
  }
}

/** @throws FILTER_UNSUPPORTED when the collation is one that only Postgres can match or fold by */
export function likeMatcherOf(predicate: Extract<Predicate, { kind: 'like' }>): (pattern: string) => Matcher {
  const { arg, pattern, insensitive } = predicate
  const word = insensitive ? 'ILIKE' : 'LIKE'
  const isText = (type: SqlType): boolean => baseOf(type).family === 'text'
  if (!(isText(arg.type) || baseOf(arg.type).family === 'bpchar') || !isText(pattern.type))
    throw new TidegateError('FILTER_UNSUPPORTED', `${word} needs text, not ${arg.type.name} and ${pattern.type.name}`)
  comparisonOf('=', arg, pattern)
  const fold = insensitive ? foldOf(arg.type) : null
  if (insensitive && fold === null)
    throw new TidegateError('FILTER_UNSUPPORTED', `ILIKE on ${arg.type.name} needs the C collation; use LIKE`)
  return text => likeMatcher(text, fold)
}

function likeJudging(predicate: Extract<Predicate, { kind: 'like' }>): Judging {
  const matcherOf = likeMatcherOf(predicate)
  // bpchar ~~ text matches the padded value, unlike a comparison.
  const arg = valuingOf(predicate.arg)
  if (predicate.pattern.kind === 'const' && predicate.pattern.value !== null) {
    const matcher = matcherOf(predicate.pattern.value)
    return (row, memberships) => {
      const text = arg(row, memberships)
      return text == null ? text : matcher(text)
    }
  }
  const pattern = valuingOf(predicate.pattern)
  return (row, memberships) => {
    const text = arg(row, memberships)
    const patternText = pattern(row, memberships)
    return text == null || patternText == null ? missing(text, patternText) : matcherOf(patternText)(text)
  }
}

function distinctJudging(leftExpr: Expr, rightExpr: Expr): Judging {
  const comparison = comparisonOf('distinct', leftExpr, rightExpr)
  const left = keyingOf(leftExpr, comparison.left)
  const right = keyingOf(rightExpr, comparison.right)
  return (row, memberships) => {
    const a = left(row, memberships)
    const b = right(row, memberships)
    return a === undefined || b === undefined ? undefined : a !== b
  }
}

function semiJoinJudging(join: SemiJoin): Judging {
  const keying = outerKeyingOf(join)
  if (isHop(join)) return hopJudging(join, keying)
  if (!join.nullAware) {
    return (row, memberships) => {
      const key = keying(row, memberships)
      // EXISTS compares a NULL with every inner row and finds none.
      return key == null ? (key === null ? false : undefined) : memberships.count(join, key) > 0
    }
  }
  assertOneKey(join)
  return (row, memberships) => {
    if (memberships.total(join) === 0) return false
    const key = keying(row, memberships)
    if (key == null) return key
    return memberships.count(join, key) > 0 ? true : memberships.nulls(join) > 0 ? null : false
  }
}

/** The rest of a hop's condition is judged on each row under the key. What it cannot tell of one row, it cannot tell of all,
 *  unless another satisfies it. */
function hopJudging(join: SemiJoin, keying: Valuing): Judging {
  const rest = judgingOf(splitWhere(join).rest)
  const found = (memberships: Memberships, key: string | null | undefined): boolean | undefined => {
    let result: boolean | undefined = false
    for (const row of memberships.rows(join, key)) {
      const answer = rest(row, memberships)
      if (answer === true) return true
      if (answer === undefined) result = undefined
    }
    return result
  }
  if (!join.nullAware) {
    return (row, memberships) => {
      const key = keying(row, memberships)
      return key == null ? (key === null ? false : undefined) : found(memberships, key)
    }
  }
  assertOneKey(join)
  return (row, memberships) => {
    const key = keying(row, memberships)
    if (key === undefined) return undefined
    if (key === null) {
      const any = found(memberships, undefined)
      return any === true ? null : any
    }
    const matching = found(memberships, key)
    if (matching !== false) return matching
    const unknown = found(memberships, null)
    return unknown === true ? null : unknown
  }
}

function assertOneKey(join: SemiJoin): void {
  if (join.keys.length === 1) return
  throw new TidegateError(
    'POLICY_UNSUPPORTED',
    `IN (SELECT ...) from ${join.table.schema}.${join.table.name} compares ${join.keys.length} columns where NULLs matter; use EXISTS`,
  )
}

/** The semi-join's key text on the outer row; null when a part is NULL. */
export function outerKeyingOf(join: SemiJoin): Valuing {
  const parts = keyComparisonsOf(join).map((comparison, i) => keyingOf(join.keys[i]!.outer, comparison.right))
  if (parts.length === 1) return parts[0]!
  return (row, memberships) => {
    const texts: string[] = []
    let result: Value = ''
    for (const part of parts) {
      const text = part(row, memberships)
      if (text === null) return null
      if (text === undefined) result = undefined
      else texts.push(text)
    }
    return result === undefined ? undefined : joinText(texts)
  }
}

/** The expression's value in canonical form; a constant's is made once. */
function keyingOf(expr: Expr, toKey: (text: string) => string): Valuing {
  if (expr.kind === 'const') {
    const key = expr.value === null ? null : toKey(readValue(expr.type, expr.value))
    return () => key
  }
  const valuing = valuingOf(expr)
  return (row, memberships) => {
    const value = valuing(row, memberships)
    return value == null ? value : toKey(value)
  }
}

/** The expression as a function of a row, in the text Postgres prints. @throws as `compile` */
export function valuingOf(expr: Expr): Valuing {
  switch (expr.kind) {
    case 'column': {
      const { column } = expr
      return row => row.text(column)
    }
    case 'const': {
      const value = expr.value === null ? null : readValue(expr.type, expr.value)
      return () => value
    }
    case 'setting':
      throw new Error(`the setting ${expr.name} is not bound; call bind first`)
    case 'cast': {
      const cast = castFunction(expr.arg.type, expr.type)
      const arg = valuingOf(expr.arg)
      return (row, memberships) => {
        const value = arg(row, memberships)
        return value == null ? value : cast(value)
      }
    }
    case 'coalesce':
      return coalesceValuing(expr)
    case 'nullif': {
      const comparison = comparisonOf('=', expr.left, expr.right)
      const cast = castFunction(expr.left.type, expr.type)
      const left = valuingOf(expr.left)
      const right = valuingOf(expr.right)
      return (row, memberships) => {
        const a = left(row, memberships)
        const b = right(row, memberships)
        if (a === null || a === undefined || b === undefined) return a === null ? null : undefined
        return b !== null && comparison.left(a) === comparison.right(b) ? null : cast(a)
      }
    }
    case 'jsonGet':
      return jsonValuing(expr)
    case 'array': {
      const items = expr.items.map(valuingOf)
      return (row, memberships) => {
        const values = items.map(item => item(row, memberships))
        return values.every(value => value !== undefined) ? printArray(values) : undefined
      }
    }
    case 'now':
      return nowValuing(expr)
    case 'case':
      return caseValuing(expr)
    case 'call':
      return callValuing(expr)
    case 'predicate': {
      const judging = judgingOf(expr.predicate)
      return (row, memberships) => {
        const answer = judging(row, memberships)
        return answer == null ? answer : answer ? 't' : 'f'
      }
    }
  }
}

function caseValuing(expr: Extract<Expr, { kind: 'case' }>): Valuing {
  const whens = expr.whens.map(judgingOf)
  const values = [...expr.values, expr.otherwise].map(value => {
    const cast = castFunction(value.type, expr.type)
    const valuing = valuingOf(value)
    return (row: Row, memberships: Memberships): Value => {
      const found = valuing(row, memberships)
      return found == null ? found : cast(found)
    }
  })
  return (row, memberships) => {
    for (const [i, when] of whens.entries()) {
      const answer = when(row, memberships)
      // Which value is meant is not known, though they might be equal.
      if (answer === undefined) return undefined
      if (answer === true) return values[i]!(row, memberships)
    }
    return values.at(-1)!(row, memberships)
  }
}

function callValuing(expr: Extract<Expr, { kind: 'call' }>): Valuing {
  const compute = callFunction(expr)
  const args = expr.args.map(valuingOf)
  const isStrict = isStrictCall(expr.name)
  return (row, memberships) => {
    const values: (string | null)[] = []
    let isKnown = true
    for (const arg of args) {
      const value = arg(row, memberships)
      if (value === null && isStrict) return null
      if (value === undefined) isKnown = false
      else values.push(value)
    }
    return isKnown ? compute(...values) : undefined
  }
}

function coalesceValuing(expr: Extract<Expr, { kind: 'coalesce' }>): Valuing {
  const args = expr.args.map(arg => ({ cast: castFunction(arg.type, expr.type), valuing: valuingOf(arg) }))
  return (row, memberships) => {
    for (const { cast, valuing } of args) {
      const value = valuing(row, memberships)
      // A later argument must not stand in for a value that is merely not known.
      if (value === undefined) return undefined
      if (value !== null) return cast(value)
    }
    return null
  }
}

function jsonValuing(expr: Extract<Expr, { kind: 'jsonGet' }>): Valuing {
  const family = baseOf(expr.arg.type).family
  const keyType = baseOf(expr.key.type)
  const byIndex = keyType.oid === sqlTypes.int4.oid || keyType.oid === sqlTypes.int2.oid
  if ((family !== 'json' && family !== 'jsonb') || !(byIndex || keyType.family === 'text'))
    throw new TidegateError('POLICY_UNSUPPORTED', `-> takes json by text or integer, not ${expr.arg.type.name}`)
  const options = { asText: expr.asText, binary: family === 'jsonb' }
  const arg = valuingOf(expr.arg)
  const key = valuingOf(expr.key)
  return (row, memberships) => {
    const text = arg(row, memberships)
    const keyText = key(row, memberships)
    if (text == null || keyText == null) return missing(text, keyText)
    return jsonGet(text, byIndex ? Number(keyText) : keyText, options)
  }
}
