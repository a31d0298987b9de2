// A run is repeatable in its choices: who writes what, who reads what and what befalls them follow from the seed.
import { expect, test } from 'vitest'
import { misfortunes } from './misfortunes.ts'
import { Random } from './random.ts'
import { transaction } from './statements.ts'

const options = { users: ['a', 'b'], truncateOneIn: 10, largeRows: 100, lane: 3 }

const drawn = (seed: number) => {
  const writer = Random.of(seed, 'round', 1, 'writer', 3)
  return {
    transactions: Array.from({ length: 200 }, () => transaction(writer, options)),
    misfortunes: Array.from({ length: 40 }, (_, round) => misfortunes(seed, round, 5000)),
  }
}

test('a seed repeats the transactions and the misfortunes, and another seed brings others', () => {
  expect(drawn(7)).toEqual(drawn(7))
  expect(drawn(7)).not.toEqual(drawn(8))
})

test('what one actor draws depends on nobody else', () => {
  const first = Random.of(7, 'round', 1, 'writer', 1)
  const second = Random.of(7, 'round', 1, 'writer', 2)
  for (let i = 0; i < 10; i++) second.next()
  const alone = Random.of(7, 'round', 1, 'writer', 1)
  for (let i = 0; i < 100; i++) expect(first.next()).toBe(alone.next())
  expect(Random.of(7, 'round', 1, 'writer', 12).next()).not.toBe(Random.of(7, 'round', 11, 'writer', 2).next())
})

test('every misfortune, and every kind of transaction, comes within a run of some minutes', () => {
  const rounds = Array.from({ length: 120 }, (_, round) => misfortunes(7, round, 5000)).flat()
  const kinds = new Set(rounds.map(({ misfortune }) => ('how' in misfortune ? misfortune.how : misfortune.what)))
  expect([...kinds].sort()).toEqual([
    'backend killed',
    'crashed',
    'killed',
    'node killed',
    'restarted',
    'slot dropped under the node',
    'slot dropped while away',
    'slot invalidated',
  ])
  const writer = Random.of(7, 'writer')
  const transactions = Array.from({ length: 5000 }, () => transaction(writer, options))
  expect(new Set(transactions.map(({ kind }) => kind)).size).toBe(3)
  for (const what of ['TRUNCATE', 'SAVEPOINT', 'ROLLBACK TO', 'DELETE FROM rooms', "repeat('bulk'"])
    expect(
      transactions.some(({ sql }) => sql.includes(what)),
      what,
    ).toBe(true)
})
