import { describe, expect, test } from 'vitest'
import type { SqlType } from '../../src/predicate/algebra.ts'
import { type FilterColumn, parseFilter } from '../../src/predicate/postgrest.ts'
import { renderPredicate } from '../../src/predicate/render.ts'
import { sqlTypes } from '../../src/predicate/sql-types.ts'
import { TidegateError } from '../../src/protocol/tidegate-error.ts'
import { compiler } from './samples.ts'

const text: SqlType = { ...sqlTypes.text, collation: 'c' }
const columns: FilterColumn[] = [
  { name: 'id', type: sqlTypes.int4 },
  { name: 'body', type: text },
  { name: 'done', type: sqlTypes.bool },
  { name: 'owner', type: sqlTypes.uuid },
  { name: 'order', type: sqlTypes.int4 },
  { name: 'tags', type: { oid: 1009, name: 'text[]', family: 'array', element: text } },
  { name: 'local', type: { ...sqlTypes.text, collation: 'deterministic' } },
  { name: 'loose', type: { ...sqlTypes.text, collation: 'nondeterministic' } },
  { name: 'doc', type: sqlTypes.jsonb },
  { name: 'odd "name"', type: text },
  { name: 'length', type: { oid: 1186, name: 'interval', family: 'other' } },
  { name: '', type: text },
]
const limits = { maxLength: 2000, maxDepth: 4, maxTerms: 20 }

const parse = (...pairs: (readonly [string, string])[]) => parseFilter(pairs, columns, limits)

/** The SQL of a filter, its parameters put back in. */
function sqlOf(...pairs: (readonly [string, string])[]): string {
  const { sql, parameters } = renderPredicate(parse(...pairs)).compile(compiler)
  return sql.replace(/cast\(\$(\d+) as [^)]*\)/g, (_, n) => `'${String(parameters[Number(n) - 1])}'`)
}

function codeOf(...pairs: (readonly [string, string])[]): string {
  try {
    parse(...pairs)
  } catch (error) {
    if (error instanceof TidegateError) return error.code
    throw error
  }
  return 'accepted'
}

describe('the grammar', () => {
  test.each([
    ['id', 'eq.42', `("id" = '42')`],
    ['id', 'neq.42', `("id" <> '42')`],
    ['id', 'lt.42', `("id" < '42')`],
    ['id', 'lte.42', `("id" <= '42')`],
    ['id', 'gt.42', `("id" > '42')`],
    ['id', 'gte.-1', `("id" >= '-1')`],
    ['id', 'isdistinct.5', `("id" is distinct from '5')`],
    ['id', 'not.eq.42', `(not ("id" = '42'))`],
    ['id', 'not.not.eq.42', `("id" = '42')`],
    ['id', 'in.(1,2,3)', `("id" in ('1', '2', '3'))`],
    ['id', 'in.()', 'false'],
    ['id', 'not.in.(1)', `(not ("id" in ('1')))`],
    ['body', 'in.(a,"b,c","d)","e\\"f","g\\\\h",)', `("body" in ('a', 'b,c', 'd)', 'e"f', 'g\\h', ''))`],
    ['body', 'in.("a"b,c)', `("body" in ('"a"b', 'c'))`],
    ['body', 'eq.a,b)"c"', `("body" = 'a,b)"c"')`],
    ['body', 'eq.', `("body" = '')`],
    ['body', 'eq.null', `("body" = 'null')`],
    ['body', 'like.*a_%*', `("body" like '%a_%%')`],
    ['body', 'ilike.A*', `("body" ilike 'A%')`],
    ['body', 'is.null', '("body" is null)'],
    ['body', 'is.not_null', '(not ("body" is null))'],
    ['body', 'not.is.null', '(not ("body" is null))'],
    ['done', 'is.true', `(not ("done" is distinct from 't'))`],
    ['done', 'is.FALSE', `(not ("done" is distinct from 'f'))`],
    ['done', 'is.unknown', '("done" is null)'],
    ['done', 'eq.yes', `("done" = 't')`],
    ['owner', 'eq.A0EEBC999C0B4EF8BB6D6BB9BD380A11', `("owner" = 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11')`],
    ['tags', 'eq.{a,"b c"}', `("tags" = '{a,"b c"}')`],
    ['c.order', 'eq.1', `("order" = '1')`],
    ['c.id', 'eq.1', `("id" = '1')`],
    ['local', 'eq.a', `("local" = 'a')`],
    ['local', 'like.a*', `("local" like 'a%')`],
    ['loose', 'is.null', '("loose" is null)'],
    ['doc', 'is.null', '("doc" is null)'],
    ['and', '(id.eq.1,body.eq.x)', `(("id" = '1') and ("body" = 'x'))`],
    ['or', '(id.eq.1, body.is.null)', `(("id" = '1') or ("body" is null))`],
    ['not.or', '(id.eq.1,id.eq.2)', `(not (("id" = '1') or ("id" = '2')))`],
    ['not.and', '(id.eq.1,id.eq.2)', `(not (("id" = '1') and ("id" = '2')))`],
    ['or', '(id.eq.1)', `("id" = '1')`],
    [
      'or',
      '(id.in.(1,2),and(body.eq."a,b)",not.or(id.not.gt.5,done.is.true)),order.eq.3)',
      `(("id" in ('1', '2')) or (("body" = 'a,b)') and (not ((not ("id" > '5')) or (not ("done" is distinct from 't'))))) or ("order" = '3'))`,
    ],
    ['or', '(tags.eq.{a,"}"},id.eq.1)', `(("tags" = '{a,"}"}') or ("id" = '1'))`],
    ['or', '(body.eq."a"b,body.eq.)', `(("body" = '"a"b') or ("body" = ''))`],
    ['or', '("odd \\"name\\"".eq.1)', `("odd ""name""" = '1')`],
  ])('%s=%s', (name, value, sql) => {
    expect(sqlOf([name, value])).toBe(sql)
  })

  test('conditions of one request are AND-ed, of none true', () => {
    expect(sqlOf(['id', 'gt.1'], ['id', 'lt.9'])).toBe(`(("id" > '1') and ("id" < '9'))`)
    expect(parse()).toEqual({ kind: 'true' })
  })

  test('values are parameters, never SQL', () => {
    const value = `'; DROP TABLE x; --`
    const { sql, parameters } = renderPredicate(parse(['body', `eq.${value}`])).compile(compiler)
    expect(sql).toBe('("body" = cast($1 as text))')
    expect(parameters).toEqual([value])
  })
})

describe('refusals', () => {
  test.each([
    ['id', 'eq.x', 'FILTER_INVALID'],
    ['id', 'eq.1;', 'FILTER_INVALID'],
    ['id', 'eq.2147483648', 'FILTER_INVALID'],
    ['id', 'in.(1,x)', 'FILTER_INVALID'],
    ['id', 'in.1,2', 'FILTER_INVALID'],
    ['id', 'in.(1,2', 'FILTER_INVALID'],
    ['id', 'in.(1,2)x', 'FILTER_INVALID'],
    ['body', 'in.("a)', 'FILTER_INVALID'],
    ['id', '42', 'FILTER_INVALID'],
    ['id', 'eq', 'FILTER_INVALID'],
    ['id', '', 'FILTER_INVALID'],
    ['id', 'not.', 'FILTER_INVALID'],
    ['id', 'equals.1', 'FILTER_INVALID'],
    ['id', 'toString.1', 'FILTER_INVALID'],
    ['id', 'like.1*', 'FILTER_INVALID'],
    ['id', 'is.true', 'FILTER_INVALID'],
    ['body', 'is.maybe', 'FILTER_INVALID'],
    ['body', 'like.a\\', 'FILTER_INVALID'],
    ['body', 'eq.a\0', 'FILTER_INVALID'],
    ['body', 'like.\ud800', 'FILTER_INVALID'],
    ['owner', "eq.1' OR '1'='1", 'FILTER_INVALID'],
    ['order', 'eq.1', 'FILTER_INVALID'],
    ['select', 'eq.1', 'FILTER_INVALID'],
    ['or', 'id.eq.1', 'FILTER_INVALID'],
    ['or', '(id.eq.1', 'FILTER_INVALID'],
    ['or', '(id.eq.1))', 'FILTER_INVALID'],
    ['or', '()', 'FILTER_INVALID'],
    ['or', '(and())', 'FILTER_INVALID'],
    ['or', '(.eq.1)', 'FILTER_INVALID'],
    ['or', '(id.eq.1,)', 'FILTER_INVALID'],
    ['or', '(tags.eq.{a', 'FILTER_INVALID'],
    ['nothing', 'eq.1', 'COLUMN_UNKNOWN'],
    ['', 'eq.1', 'COLUMN_UNKNOWN'],
    ['c.nothing', 'eq.1', 'COLUMN_UNKNOWN'],
    ['__proto__', 'eq.1', 'COLUMN_UNKNOWN'],
    ['id"; DROP TABLE x; --', 'eq.1', 'COLUMN_UNKNOWN'],
    ['or', '("".eq.1)', 'FILTER_INVALID'],
    ['or', '(nothing.eq.1)', 'COLUMN_UNKNOWN'],
    ['doc->>a', 'eq.1', 'COLUMN_UNKNOWN'],
    ['doc', 'eq.{}', 'FILTER_UNSUPPORTED'],
    ['length', 'eq.1', 'FILTER_UNSUPPORTED'],
    ['length', 'in.()', 'accepted'],
    ['local', 'gt.a', 'FILTER_UNSUPPORTED'],
    ['local', 'ilike.a', 'FILTER_UNSUPPORTED'],
    ['loose', 'eq.a', 'FILTER_UNSUPPORTED'],
    ['loose', 'in.(a)', 'FILTER_UNSUPPORTED'],
    ['loose', 'like.a', 'FILTER_UNSUPPORTED'],
    ['tags', 'gt.{a}', 'FILTER_UNSUPPORTED'],
    ['tags', 'cs.{a}', 'FILTER_UNSUPPORTED'],
    ['body', 'fts(english).x', 'FILTER_UNSUPPORTED'],
    ['body', 'match.^a', 'accepted'],
    ['body', 'not.imatch.^a(b|[c-e]){2}$', 'accepted'],
    ['body', 'match.\\d', 'FILTER_UNSUPPORTED'],
    ['body', 'match.(a', 'FILTER_UNSUPPORTED'],
    ['body', 'imatch.ä', 'FILTER_UNSUPPORTED'],
    ['local', 'match.^a', 'accepted'],
    ['local', 'imatch.^a', 'FILTER_UNSUPPORTED'],
    ['loose', 'match.^a', 'FILTER_UNSUPPORTED'],
    ['id', 'match.1', 'FILTER_INVALID'],
    ['body', 'match.a{65}', 'FILTER_TOO_COMPLEX'],
    ['body', 'match.a{64}', 'accepted'],
    ['body', `match.${'a'.repeat(257)}`, 'FILTER_TOO_COMPLEX'],
    ['id', 'eq(any).{1,2}', 'FILTER_UNSUPPORTED'],
    ['body', `like.${'a'.repeat(257)}`, 'FILTER_TOO_COMPLEX'],
    ['body', `eq.${'a'.repeat(2001)}`, 'FILTER_TOO_COMPLEX'],
    ['id', `in.(${'1,'.repeat(20)}1)`, 'FILTER_TOO_COMPLEX'],
    ['or', `(${'id.eq.1,'.repeat(20)}id.eq.1)`, 'FILTER_TOO_COMPLEX'],
    ['or', `(${'or('.repeat(4)}id.eq.1${')'.repeat(5)}`, 'FILTER_TOO_COMPLEX'],
    ['or', `(${'or('.repeat(500)}`, 'FILTER_TOO_COMPLEX'],
  ])('%s=%.60s is %s', (name, value, code) => {
    expect(codeOf([name, value])).toBe(code)
  })

  test('limits count over all filters of a request', () => {
    expect(codeOf(...Array.from({ length: 21 }, () => ['id', 'eq.1'] as const))).toBe('FILTER_TOO_COMPLEX')
    expect(codeOf(...Array.from({ length: 20 }, () => ['id', 'eq.1'] as const))).toBe('accepted')
    expect(codeOf(['body', `eq.${'a'.repeat(1200)}`], ['body', `eq.${'a'.repeat(1200)}`])).toBe('FILTER_TOO_COMPLEX')
  })

  test('a refusal names the column, its type and the value, cut short', () => {
    const long = 'x'.repeat(500)
    expect(() => parse(['id', `eq.${long}`])).toThrow(/^"x{64}\.\.\." does not fit "id" of type integer/)
  })
})
