// What a seed says is a history's whole origin, and a case holds all of it.
import { expect, test } from 'vitest'
import { textOf } from './cases.ts'
import { generate } from './generate.ts'
import { render } from './history.ts'

test('a seed repeats its histories, and another seed or number brings others', () => {
  expect(generate(7, 3)).toEqual(generate(7, 3))
  expect(generate(7, 3)).not.toEqual(generate(7, 4))
  expect(generate(7, 3)).not.toEqual(generate(8, 3))
})

test('a history written to a file is the same when it is read', () => {
  for (let number = 0; number < 20; number++) {
    const history = generate(11, number)
    expect(JSON.parse(textOf(history))).toEqual(history)
  }
})

test('each has at least three tables, five users and enough transactions', () => {
  for (let number = 0; number < 200; number++) {
    const { tables, users, transactions, subscribers } = generate(5, number)
    expect(tables.length).toBeGreaterThanOrEqual(3)
    expect(users).toHaveLength(5)
    expect(transactions.length).toBeGreaterThan(60)
    expect(new Set(subscribers.map(({ user }) => user)).size).toBe(5)
  }
})

test.each([
  ['a = 1', 'a = 1'],
  [{ any: ['a', { all: ['b', { not: 'c' }] }] }, '(a OR (b AND NOT (c)))'],
  [{ exists: 'm', where: 'm.a = 1' }, 'EXISTS (SELECT 1 FROM m WHERE m.a = 1)'],
  [
    { value: 'a', in: 'm.a', from: 'm', where: 'true', as: 'not in' as const },
    'a NOT IN (SELECT m.a FROM m WHERE true)',
  ],
  [
    { value: 'a', in: 'm.a', from: 'm', where: 'true', as: 'any' as const },
    'a = ANY (ARRAY(SELECT m.a FROM m WHERE true))',
  ],
])('%j reads %s', (condition, sql) => {
  expect(render(condition)).toBe(sql)
})
