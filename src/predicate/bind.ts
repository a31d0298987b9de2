// Puts a reader's claims into a predicate: settings become constants, and what is constant is computed once.
//
// What fails is decided strictly. Postgres raises when it meets a cast it cannot do, such as `auth.uid()` on a `sub` that
// is no UUID, and whether it meets it depends on the rows and on the order it chooses: `is_public OR owner = auth.uid()`
// answers as long as every row is public. Following that would show some rows, throw on others, and change with the
// data. So: whatever folding removes by logic alone (`false AND x`, `true OR x`, a COALESCE that has its value) is not
// needed and does not fail; if the failing value is still in the predicate afterwards, binding fails with CLAIM_INVALID.
// It is the answer Postgres gives as soon as one row needs the value, and it shows nobody anything.
import { TidegateError } from '../protocol/tidegate-error.ts'
import type { Expr, Memberships, OfReader, Predicate, Row, SemiJoin, SqlType, Truth } from './algebra.ts'
import { parseArray } from './array-text.ts'
import { and, not, or } from './build.ts'
import { isStrictCall } from './calls.ts'
import { partsOf } from './columns.ts'
import { compile, likeMatcherOf, valuingOf } from './evaluate.ts'
import { jsonNames } from './json-calls.ts'
import { solve } from './solve.ts'
import { baseOf, sqlTypes } from './sql-types.ts'
import { assertTimeIsOrdered } from './time.ts'
import { ValueError } from './value-error.ts'

/** The value of a setting at request time; null or undefined when it is not set. */
export type Settings = (name: string) => string | null | undefined

/** @param isShared whether many readers have the same value of a setting; if left out, each has another
 *  @returns an equivalent predicate without settings: `compile`, `cover` and `fingerprint` take it
 *  @throws CLAIM_INVALID when a value that is still needed makes Postgres raise; the message names the type, never the
 *    value. POLICY_UNSUPPORTED, FILTER_UNSUPPORTED for what cannot be judged exactly */
export function bind(
  predicate: Predicate,
  settings: Settings,
  isShared: (name: string) => boolean = () => false,
): Predicate {
  const binder = new Binder(settings, isShared)
  const bound = binder.predicate(predicate)
  binder.refuseFailures(bound)
  return bound
}

class Binder {
  readonly #settings: Settings
  readonly #isShared: (name: string) => boolean
  /** Nodes that could not be computed, and why. Lives as long as one call of `bind`. */
  readonly #failures = new Map<Predicate | Expr, string>()

  constructor(settings: Settings, isShared: (name: string) => boolean) {
    this.#settings = settings
    this.#isShared = isShared
  }

  refuseFailures(root: Predicate): void {
    for (const part of partsOf(root)) {
      const reason = this.#failures.get(part)
      if (reason !== undefined) throw new TidegateError('CLAIM_INVALID', `the claims do not fit a policy: ${reason}`)
      if (part.kind === 'semiJoin') this.refuseFailures(part.where)
    }
  }

  predicate(predicate: Predicate): Predicate {
    switch (predicate.kind) {
      case 'true':
      case 'false':
      case 'unknown':
        return predicate
      case 'and':
        return and(...predicate.args.map(arg => this.predicate(arg)))
      case 'or':
        return or(...predicate.args.map(arg => this.predicate(arg)))
      case 'not':
        return not(this.predicate(predicate.arg))
      case 'compare': {
        const left = this.expr(predicate.left)
        const right = this.expr(predicate.right)
        const isUnknown = isNullConst(left) || isNullConst(right)
        if (!isUnknown && (predicate.op === '=' || predicate.op === '<>')) {
          const equal = this.#solved(left, [right]) ?? this.#solved(right, [left])
          if (equal !== null) return predicate.op === '=' ? equal : not(equal)
        }
        return this.#computed({ ...predicate, left, right }, [left, right], isUnknown)
      }
      case 'in':
        return this.#in(
          this.expr(predicate.left),
          predicate.items.map(item => this.expr(item)),
        )
      case 'any':
        return this.#any(this.expr(predicate.left), this.expr(predicate.array))
      case 'like':
        return this.#like(predicate)
      case 'isNull': {
        const arg = this.expr(predicate.arg)
        return this.#computed({ kind: 'isNull', arg }, [arg])
      }
      case 'isDistinct': {
        const left = this.expr(predicate.left)
        const right = this.expr(predicate.right)
        return this.#computed({ kind: 'isDistinct', left, right }, [left, right])
      }
      case 'boolean': {
        const arg = this.expr(predicate.arg)
        if (arg.kind === 'predicate') return arg.predicate
        return this.#isKey(arg) ?? this.#computed({ kind: 'boolean', arg }, [arg])
      }
      case 'semiJoin':
        return this.#semiJoin(predicate)
    }
  }

  expr(expr: Expr): Expr {
    switch (expr.kind) {
      case 'column':
        return expr
      case 'now':
        return expr
      case 'const':
        return expr.value === null ? expr : this.#value(expr, [])
      case 'setting':
        return this.#setting(expr)
      case 'cast': {
        const arg = this.expr(expr.arg)
        return this.#value({ ...expr, arg }, [arg])
      }
      case 'coalesce':
        return this.#coalesce(expr)
      case 'nullif': {
        const left = this.expr(expr.left)
        const right = this.expr(expr.right)
        return this.#value({ ...expr, left, right }, [left, right])
      }
      case 'jsonGet': {
        const arg = this.expr(expr.arg)
        const key = this.expr(expr.key)
        return this.#value({ ...expr, arg, key }, [arg, key])
      }
      case 'array': {
        const items = expr.items.map(item => this.expr(item))
        return this.#value({ ...expr, items }, items)
      }
      case 'case':
        return this.#case(expr)
      case 'call': {
        const args = expr.args.map(arg => this.expr(arg))
        if (isStrictCall(expr.name) && args.some(isNullConst)) return { kind: 'const', value: null, type: expr.type }
        return this.#value({ ...expr, args }, args)
      }
      case 'predicate': {
        const predicate = this.predicate(expr.predicate)
        if (predicate.kind === 'true' || predicate.kind === 'false')
          return { kind: 'const', value: predicate.kind === 'true' ? 't' : 'f', type: expr.type }
        if (predicate.kind === 'unknown') return { kind: 'const', value: null, type: expr.type }
        return { ...expr, predicate }
      }
    }
  }

  #setting(expr: Extract<Expr, { kind: 'setting' }>): Expr {
    const value = this.#settings(expr.name) ?? null
    const ofReader = this.#isShared(expr.name) ? 'shared' : true
    if (value !== null || expr.missingOk) return { kind: 'const', value, type: expr.type, ofReader }
    this.#failures.set(expr, `the setting ${expr.name} is not set`)
    return expr
  }

  #coalesce(expr: Extract<Expr, { kind: 'coalesce' }>): Expr {
    const args: Expr[] = []
    for (const arg of expr.args.map(each => this.expr(each))) {
      if (isNullConst(arg)) continue
      args.push(arg)
      // Postgres does not compute the arguments after the first value, so those cannot fail.
      if (arg.kind === 'const') break
    }
    if (args.length === 0) return { kind: 'const', value: null, type: expr.type }
    return this.#value({ ...expr, args }, args)
  }

  /** Conditions that are constant choose now; Postgres does not compute the values that are not chosen. */
  #case(expr: Extract<Expr, { kind: 'case' }>): Expr {
    const whens: Predicate[] = []
    const values: Expr[] = []
    let otherwise: Expr | null = null
    for (const [i, each] of expr.whens.entries()) {
      const when = this.predicate(each)
      if (when.kind === 'false' || when.kind === 'unknown') continue
      const value = this.expr(expr.values[i]!)
      if (when.kind === 'true') {
        otherwise = value
        break
      }
      whens.push(when)
      values.push(value)
    }
    otherwise ??= this.expr(expr.otherwise)
    if (whens.length > 0) return { ...expr, whens, values, otherwise }
    if (otherwise.type.oid === expr.type.oid) return otherwise
    return this.#value({ ...expr, whens, values, otherwise }, [otherwise])
  }

  #in(left: Expr, items: readonly Expr[]): Predicate {
    if (items.length === 0) return { kind: 'false' }
    if (isNullConst(left)) return { kind: 'unknown' }
    if (items.length === 1) {
      const right = items[0]!
      return this.#computed({ kind: 'compare', op: '=', left, right }, [left, right], isNullConst(right))
    }
    return this.#solved(left, items) ?? this.#computed({ kind: 'in', left, items }, [left, ...items])
  }

  /** `claims ? column`: the column is one of the claim's keys. */
  #isKey(arg: Expr): Predicate | null {
    if (arg.kind !== 'call' || arg.name !== '?') return null
    const [document, key] = arg.args
    if (document?.kind !== 'const' || document.value === null || key === undefined || key.kind === 'const') return null
    const items = jsonNames(document.value).map(value => constant(value, sqlTypes.text, [document]))
    return items.length === 0 ? and({ kind: 'unknown' }, { kind: 'isNull', arg: key }) : this.#in(key, items)
  }

  /** Equality with one of several constants, freed of what stands around a column. */
  #solved(left: Expr, items: readonly Expr[]): Predicate | null {
    if (left.kind === 'const') return null
    const values: string[] = []
    for (const item of items) {
      if (item.kind !== 'const' || this.#failures.has(item)) return null
      if (item.value !== null) values.push(item.value)
    }
    const found = solve(left, values)
    if (found === null) return null
    const nulls = items.filter(isNullConst).map(item => ({ ...item, type: found.type }))
    const rest = [...found.values.map(value => constant(value, found.type, items)), ...nulls]
    // Equal to nothing: false, but for a NULL.
    if (rest.length === 0) return and({ kind: 'unknown' }, { kind: 'isNull', arg: found.expr })
    return this.#in(found.expr, rest)
  }

  #any(left: Expr, array: Expr): Predicate {
    if (array.kind === 'array') return this.#in(left, array.items)
    if (array.kind !== 'const') return { kind: 'any', left, array }
    if (array.value === null) return { kind: 'unknown' }
    const element = baseOf(array.type).element
    if (element === undefined || this.#failures.has(array)) return { kind: 'any', left, array }
    const items = parseArray(array.value).items.map(value => constant(value, element, [array]))
    return this.#in(left, items)
  }

  #like(predicate: Extract<Predicate, { kind: 'like' }>): Predicate {
    const arg = this.expr(predicate.arg)
    const pattern = this.expr(predicate.pattern)
    const like = { ...predicate, arg, pattern }
    if (isNullConst(arg) || isNullConst(pattern)) return { kind: 'unknown' }
    if (pattern.kind === 'const') this.#attempt(like, () => likeMatcherOf(like)(pattern.value!))
    return this.#computed(like, [arg, pattern])
  }

  #semiJoin(join: SemiJoin): Predicate {
    let where = this.predicate(join.where)
    // No inner row satisfies it: EXISTS and IN over nothing are false, even for a NULL.
    if (where.kind === 'false' || where.kind === 'unknown') return { kind: 'false' }
    const keys: SemiJoin['keys'][number][] = []
    for (const { inner, outer } of join.keys) {
      const bound = this.expr(outer)
      if (join.nullAware || bound.kind !== 'const') keys.push({ inner, outer: bound })
      else if (bound.value === null) return { kind: 'false' }
      // A key that is constant picks inner rows, not outer ones.
      else where = and(where, { kind: 'compare', op: '=', left: inner, right: bound })
    }
    // Without the room for more that a list has which grew: 128 bytes for each reader.
    return { ...join, keys: keys.slice(), where }
  }

  /** @param isUnknown true when an operand is NULL and decides alone */
  #computed(predicate: Predicate, operands: readonly Expr[], isUnknown = false): Predicate {
    if (isUnknown) return { kind: 'unknown' }
    if (!operands.every(operand => operand.kind === 'const' && !this.#failures.has(operand))) return predicate
    const truth = this.#attempt(predicate, () => compile(predicate)(noRow, noMemberships))
    return truth === undefined ? predicate : constantOf(truth)
  }

  #value<E extends Expr>(expr: E, operands: readonly Expr[]): Expr {
    if (!operands.every(operand => operand.kind === 'const' && !this.#failures.has(operand))) return expr
    const value = this.#attempt(expr, () => valuingOf(expr)(noRow, noMemberships))
    return value === undefined ? expr : constant(value, expr.type, operands)
  }

  #attempt<T>(node: Predicate | Expr, compute: () => T): T | undefined {
    try {
      return compute()
    } catch (error) {
      if (!(error instanceof ValueError)) throw error
      this.#failures.set(node, error.message)
      return undefined
    }
  }
}

/** A constant made of others: the reader's own, if one of them is. */
function constant(value: string | null, type: SqlType, from: readonly Expr[]): Expr {
  let ofReader: OfReader | null = null
  for (const expr of from)
    if (expr.kind === 'const' && expr.ofReader !== undefined)
      ofReader = expr.ofReader === true ? true : (ofReader ?? 'shared')
  return ofReader === null ? { kind: 'const', value, type } : { kind: 'const', value, type, ofReader }
}

const isNullConst = (expr: Expr): boolean => expr.kind === 'const' && expr.value === null

const constantOf = (truth: Truth): Predicate => ({ kind: truth === null ? 'unknown' : truth ? 'true' : 'false' })

const noRow: Row = { text: () => undefined }

const noMemberships: Memberships = { count: () => 0, total: () => 0, nulls: () => 0, rows: () => [], nowMicros: 0n }

/** Refuses a predicate that `compile` would refuse, before there are claims: settings stand as values nobody knows.
 *  @throws POLICY_UNSUPPORTED, FILTER_UNSUPPORTED */
export function assertCompilable(predicate: Predicate): void {
  compile(withPlaceholders(predicate))
  assertTimeIsOrdered(predicate)
  for (const part of partsOf(predicate)) {
    if (part.kind === 'semiJoin') assertCompilable(part.where)
  }
}

/** Each setting as a column that no row has: it compiles like the constant it will become. */
function withPlaceholders<T extends Predicate | Expr>(node: T): T {
  if (node.kind === 'setting') return { kind: 'column', column: -1, name: node.name, type: node.type } as unknown as T
  const copy = Object.entries(node).map(([name, value]) => [name, replaced(value)])
  return Object.fromEntries(copy) as T
}

function replaced(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(replaced)
  if (typeof value !== 'object' || value === null || value instanceof Map) return value
  if ('kind' in value || 'inner' in value) return withPlaceholders(value as Expr)
  return value
}
