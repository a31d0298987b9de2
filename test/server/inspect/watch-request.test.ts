import { describe, expect, test } from 'vitest'
import { parseWatchRequest } from '../../../src/server/inspect/watch-request.ts'

const parse = (parameters: Record<string, string> | string) =>
  parseWatchRequest(new URLSearchParams(parameters), 'role')

test('a table, a role and claims', () => {
  const { principal, request } = parse({ table: 'sales.orders', role: 'authenticated', claims: '{"sub":"ada"}' })
  expect(principal).toEqual({ role: 'authenticated', claims: { sub: 'ada', role: 'authenticated' }, expiresAt: null })
  expect(request).toMatchObject({
    kind: 'live',
    schema: 'sales',
    table: 'orders',
    filters: [],
    since: null,
    select: null,
  })
})

test('without claims it is the role alone, as its tokens say it', () => {
  expect(parse({ table: 'messages', role: 'anon' }).principal.claims).toEqual({ role: 'anon' })
})

test('claims may name the role', () => {
  expect(parse({ table: 'messages', claims: '{"role":"anon"}' }).principal.role).toBe('anon')
})

test('filter, order and limit are those of a live query', () => {
  const { request } = parse({
    table: 'm',
    role: 'anon',
    filter: 'a=eq.1&or=(b.is.null,c.gt.2)',
    order: 'a.desc',
    limit: '20',
  })
  expect(request.filters).toEqual([
    ['a', 'eq.1'],
    ['or', '(b.is.null,c.gt.2)'],
  ])
  expect(request.order).toEqual([{ column: 'a', direction: 'desc', nulls: 'first' }])
  expect(request.limit).toBe(20)
})

test('an empty field of a form is one left out', () => {
  const { request } = parse({ table: 'm', role: 'anon', claims: '', filter: '', order: '', limit: '' })
  expect(request.filters).toEqual([])
})

describe('[P8] refused by code', () => {
  test.each([
    ['no table', { role: 'anon' }, 'FILTER_INVALID'],
    ['no role', { table: 'm' }, 'FILTER_INVALID'],
    ['two roles that differ', { table: 'm', role: 'anon', claims: '{"role":"authenticated"}' }, 'FILTER_INVALID'],
    ['claims that are no JSON', { table: 'm', role: 'anon', claims: '{sub}' }, 'FILTER_INVALID'],
    ['claims that are no object', { table: 'm', role: 'anon', claims: '[]' }, 'FILTER_INVALID'],
    ['a parameter twice', 'table=m&table=n&role=anon', 'FILTER_INVALID'],
    ['a parameter that is none', { table: 'm', role: 'anon', since: '1' }, 'FILTER_INVALID'],
    ['a limit that is no number', { table: 'm', role: 'anon', limit: '-1' }, 'FILTER_INVALID'],
    ['a field among the filters', { table: 'm', role: 'anon', filter: 'select=id' }, 'FILTER_INVALID'],
    ['no table’s name', { table: 'a.b.c', role: 'anon' }, 'TABLE_UNKNOWN'],
  ])('%s', (_, parameters, code) => {
    expect(() => parse(parameters as Record<string, string>)).toThrow(expect.objectContaining({ code }))
  })

  test('and no claim is repeated', () => {
    expect(() => parse({ table: 'm', role: 'anon', claims: '{"secret": "x' })).toThrow(/^(?!.*secret).*$/s)
  })
})
