import { expect, test } from 'vitest'
import { WHOLE_COMMIT } from '../../../src/protocol/position.ts'
import { Answers, type Difference, type FoundRow, ownIndexes } from '../../../src/server/ask/answers.ts'

const found = (rows: Record<string, string>): Map<string, FoundRow> =>
  new Map(Object.entries(rows).map(([key, hash]) => [key, { hash, row: { text: () => key } }]))
const brief = (differences: readonly Difference[]): string[] => differences.map(({ op, key }) => `${op} ${key}`)
const at = (lsn: bigint, index = WHOLE_COMMIT) => ({ epoch: '00000000', lsn, index })

function told(
  answers: Answers,
  lsn: bigint,
  rows: Record<string, string>,
  keys: readonly string[] | null = null,
): string[] {
  const differences = answers.differences(keys, found(rows))
  answers.tell(differences, found(rows), lsn)
  return brief(differences)
}

test('differences: deletes of what was held first, then what is new or other', () => {
  const answers = new Answers(10n)
  answers.begin(
    new Map([
      ['1', '5'],
      ['2', '-6'],
      ['3', '7'],
    ]),
  )
  expect(told(answers, 20n, { 4: '1', 2: '-6', 3: '8' })).toEqual(['delete 1', 'update 3', 'insert 4'])
  expect([...answers.keys()].sort()).toEqual(['2', '3', '4'])
  expect(answers.xor).toBe(BigInt.asUintN(64, 1n ^ -6n ^ 8n))
})

test('[P2] of keys that were asked for, only those that were held are deleted', () => {
  const answers = new Answers(10n)
  answers.begin(
    new Map([
      ['1', '5'],
      ['2', '6'],
    ]),
  )
  expect(told(answers, 20n, {}, ['1', 'stranger'])).toEqual(['delete 1'])
  expect(answers.has('2')).toBe(true)
})

test('[P4] what changed since a position: what was held of each row there', () => {
  const answers = new Answers(10n)
  answers.begin(
    new Map([
      ['1', '5'],
      ['2', '6'],
    ]),
  )
  told(answers, 20n, { 2: '6', 3: '7' })
  told(answers, 30n, { 2: '9' })
  expect(answers.since(at(9n))).toBe(null)
  expect(answers.since(at(10n))).toEqual(
    new Map([
      ['1', '5'],
      ['3', null],
      ['2', '6'],
    ]),
  )
  expect(answers.since(at(25n))).toEqual(
    new Map([
      ['3', '7'],
      ['2', '6'],
    ]),
  )
  expect(answers.since(at(30n))).toEqual(new Map())
})

test('[P4] within a check: what comes after the event at which a reader stands', () => {
  const answers = new Answers(10n)
  answers.begin(new Map([['1', '5']]))
  told(answers, 20n, { 2: '6', 3: '7' })
  expect(answers.since(at(20n, 1))).toEqual(
    new Map([
      ['2', null],
      ['3', null],
    ]),
  )
  expect(answers.since(at(20n, 2))).toEqual(new Map([['3', null]]))
  expect(answers.since(at(21n, 1))).toBe(null)
  // Of events that were one reader's own, nobody knows where in them it stands.
  expect(answers.since(at(20n, ownIndexes + 1))).toBe(null)
})

test('[P7] of 10,000 differences past, the oldest are forgotten', () => {
  const answers = new Answers(0n)
  for (let i = 1; i <= 12_000; i++) told(answers, BigInt(i), { 1: String(i) })
  expect(answers.since(at(1_999n))).toBe(null)
  expect(answers.since(at(2_001n))).toEqual(new Map([['1', '2001']]))
})
