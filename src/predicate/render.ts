// Writes a predicate as SQL through Kysely: every value a parameter cast to its type, every name quoted.
import { type RawBuilder, type SqlBool, sql } from 'kysely'
import type { CompareOp, Expr, Predicate, SemiJoin, SqlType } from './algebra.ts'
import { baseOf, castNameOf, hasModifier } from './sql-types.ts'

export interface RenderOptions {
  /** Qualifies the outer row's columns. Needed when there are semi-joins: a bare column would be caught by an inner
   *  table that has one of the same name. */
  readonly alias?: string
}

/** @example sql`SELECT * FROM messages AS r WHERE ${renderPredicate(predicate, { alias: 'r' })}`
 *  Settings that are not bound become `current_setting(...)`.
 *  @throws Error when a semi-join reads an outer column and no alias is given */
export function renderPredicate(predicate: Predicate, options: RenderOptions = {}): RawBuilder<SqlBool> {
  return render(predicate, { alias: options.alias ?? null, depth: 0 })
}

/** An expression alone, as `renderPredicate`. */
export function renderExpr(expr: Expr, options: RenderOptions = {}): RawBuilder<unknown> {
  return value(expr, { alias: options.alias ?? null, depth: 0 })
}

interface Scope {
  readonly alias: string | null
  readonly depth: number
}

const operators: Record<CompareOp, RawBuilder<unknown>> = {
  '=': sql`=`,
  '<>': sql`<>`,
  '<': sql`<`,
  '<=': sql`<=`,
  '>': sql`>`,
  '>=': sql`>=`,
}

function render(predicate: Predicate, scope: Scope): RawBuilder<SqlBool> {
  switch (predicate.kind) {
    case 'true':
      return sql<SqlBool>`true`
    case 'false':
      return sql<SqlBool>`false`
    case 'unknown':
      return sql<SqlBool>`null::boolean`
    case 'and':
    case 'or': {
      if (predicate.args.length === 0) return predicate.kind === 'and' ? sql<SqlBool>`true` : sql<SqlBool>`false`
      const args = predicate.args.map(arg => render(arg, scope))
      return sql<SqlBool>`(${sql.join(args, predicate.kind === 'and' ? sql` and ` : sql` or `)})`
    }
    case 'not':
      return sql<SqlBool>`(not ${render(predicate.arg, scope)})`
    case 'compare':
      return sql<SqlBool>`(${value(predicate.left, scope)} ${operators[predicate.op]} ${value(predicate.right, scope)})`
    case 'in': {
      if (predicate.items.length === 0) return sql<SqlBool>`false`
      const left = value(predicate.left, scope)
      const items = predicate.items.map(item => value(item, scope))
      if (predicate.items.every(item => baseOf(item.type).oid === baseOf(predicate.left.type).oid))
        return sql<SqlBool>`(${left} in (${sql.join(items)}))`
      // Postgres would first bring the list and the left side to one type: `real IN (16777217)` rounds the integer,
      // `real = 16777217` does not. The algebra's meaning is the second.
      const equalities = items.map(item => sql`${left} = ${item}`)
      return sql<SqlBool>`(${sql.join(equalities, sql` or `)})`
    }
    case 'any':
      return sql<SqlBool>`(${value(predicate.left, scope)} = any (${value(predicate.array, scope)}))`
    case 'like': {
      const operator = predicate.insensitive ? sql`ilike` : sql`like`
      return sql<SqlBool>`(${value(predicate.arg, scope)} ${operator} ${value(predicate.pattern, scope)})`
    }
    case 'isNull':
      return sql<SqlBool>`(${value(predicate.arg, scope)} is null)`
    case 'isDistinct':
      return sql<SqlBool>`(${value(predicate.left, scope)} is distinct from ${value(predicate.right, scope)})`
    case 'boolean':
      return sql<SqlBool>`(${value(predicate.arg, scope)})`
    case 'semiJoin':
      return semiJoin(predicate, scope)
  }
}

function semiJoin(join: SemiJoin, scope: Scope): RawBuilder<SqlBool> {
  const inner: Scope = { alias: `m${scope.depth + 1}`, depth: scope.depth + 1 }
  const table = sql`${sql.id(join.table.schema, join.table.name)} as ${sql.id(inner.alias!)}`
  const where = render(join.where, inner)
  if (scope.alias === null && join.keys.some(({ outer }) => outer.kind !== 'const' && outer.kind !== 'setting'))
    throw new Error(`a semi-join on ${join.table.schema}.${join.table.name} is rendered without an alias`)
  if (join.nullAware) {
    const outers = join.keys.map(({ outer }) => value(outer, scope))
    const inners = join.keys.map(key => value(key.inner, inner))
    const select = sql`select ${sql.join(inners)} from ${table} where ${where}`
    return outers.length === 1
      ? sql<SqlBool>`(${outers[0]!} in (${select}))`
      : sql<SqlBool>`((${sql.join(outers)}) in (${select}))`
  }
  const matches = join.keys.map(key => sql`${value(key.inner, inner)} = ${value(key.outer, scope)}`)
  return sql<SqlBool>`(exists (select 1 from ${table} where ${sql.join([...matches, where], sql` and `)}))`
}

function value(expr: Expr, scope: Scope): RawBuilder<unknown> {
  switch (expr.kind) {
    case 'column':
      return scope.alias === null ? sql.id(expr.name) : sql.id(scope.alias, expr.name)
    case 'const':
      return sql`cast(${expr.value} as ${typeName(expr.type)})`
    case 'setting':
      return sql`current_setting(${expr.name}, ${sql.lit(expr.missingOk)})`
    case 'cast':
      return sql`cast(${value(expr.arg, scope)} as ${sql.raw(castTarget(expr))})`
    // Cast to the type the algebra gives them: Postgres calls NULLIF of a varchar a text, and picks other operators.
    case 'coalesce':
      return sql`cast(coalesce(${sql.join(expr.args.map(arg => value(arg, scope)))}) as ${typeName(expr.type)})`
    case 'nullif':
      return sql`cast(nullif(${value(expr.left, scope)}, ${value(expr.right, scope)}) as ${typeName(expr.type)})`
    case 'jsonGet': {
      const arrow = expr.asText ? sql`->>` : sql`->`
      return sql`(${value(expr.arg, scope)} ${arrow} ${value(expr.key, scope)})`
    }
    case 'array': {
      const items = expr.items.map(item => value(item, scope))
      return sql`cast(array[${sql.join(items)}] as ${typeName(expr.type)})`
    }
    case 'predicate':
      return render(expr.predicate, scope)
    case 'now': {
      const { months, days, micros } = expr.shift
      return sql`cast(now() + ${interval(sql.lit(months), sql.lit(days), sql.lit(micros))} as ${typeName(expr.type)})`
    }
    case 'case': {
      const branches = expr.whens.map(
        (when, i) => sql`when ${render(when, scope)} then ${value(expr.values[i]!, scope)}`,
      )
      const otherwise = value(expr.otherwise, scope)
      return sql`cast(case ${sql.join(branches, sql` `)} else ${otherwise} end as ${typeName(expr.type)})`
    }
    case 'call':
      return sql`cast(${call(expr, scope)} as ${typeName(expr.type)})`
  }
}

const infix: ReadonlySet<string> = new Set('|| ~ ~* @> && ? ?| ?& #> #>> + - * / %'.split(' '))

/** Where the name in SQL is another, or stands otherwise. */
const calls: Readonly<Record<string, (...args: RawBuilder<unknown>[]) => RawBuilder<unknown>>> = {
  subscript: (array, at) => sql`(${array})[${at}]`,
  slice: (array, from, to) => sql`(${array})[${from}:${to}]`,
  sliceFrom: (array, from) => sql`(${array})[${from}:]`,
  sliceTo: (array, to) => sql`(${array})[:${to}]`,
  jsonElements: json => sql`array(select jsonb_array_elements(cast(${json} as jsonb)))`,
  jsonTexts: json => sql`array(select jsonb_array_elements_text(cast(${json} as jsonb)))`,
  jsonKeys: json => sql`array(select jsonb_object_keys(${json}))`,
  shifted: (of, months, days, micros) => sql`(${of} + ${interval(months!, days!, micros!)})`,
}

const interval = (months: RawBuilder<unknown>, days: RawBuilder<unknown>, micros: RawBuilder<unknown>) =>
  sql`make_interval(months => ${months}, days => ${days}, secs => ${micros} / 1e6::double precision)`

function call({ name, args }: Extract<Expr, { kind: 'call' }>, scope: Scope): RawBuilder<unknown> {
  const values = args.map(arg => value(arg, scope))
  if (infix.has(name))
    return values.length === 1
      ? sql`(${sql.raw(name)} ${values[0]})`
      : sql`(${values[0]} ${sql.raw(name)} ${values[1]})`
  const written = calls[name]
  if (written !== undefined) return written(...values)
  if (name === 'numericScale') {
    const [of, precision, scale] = args
    const digits = [precision, scale].map(part => (part?.kind === 'const' ? Number(part.value) : Number.NaN))
    return sql`cast(${value(of!, scope)} as numeric(${sql.raw(digits.join(', '))}))`
  }
  // Of the argument's own type, unlike the result.
  const isJson = name.startsWith('jsonb_') && args[0]?.type.family === 'json'
  return sql`${sql.raw(isJson ? name.replace('jsonb', 'json') : name)}(${sql.join(values)})`
}

const typeName = (type: SqlType): RawBuilder<unknown> => sql.raw(castNameOf(type))

/** A cast is the policy's own: with its length, and to a domain with the domain's checks. */
const castTarget = ({ type }: Extract<Expr, { kind: 'cast' }>): string =>
  type.domain === true || hasModifier(type) ? type.name : castNameOf(type)
