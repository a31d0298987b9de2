// Holds every answer of src/predicate against Postgres's own, over generated predicates and rows of many types.
import { randomInt } from 'node:crypto'
import fc from 'fast-check'
import { afterAll, describe, expect, inject, test } from 'vitest'
import type { Predicate, Truth } from '../../src/predicate/algebra.ts'
import { bind } from '../../src/predicate/bind.ts'
import { asCondition } from '../../src/predicate/build.ts'
import { columnsOf } from '../../src/predicate/columns.ts'
import { compareText, keyOf } from '../../src/predicate/compare.ts'
import { compile } from '../../src/predicate/evaluate.ts'
import { fingerprint } from '../../src/predicate/fingerprint.ts'
import { joinText } from '../../src/predicate/join-key.ts'
import { cover, semiJoinKey } from '../../src/predicate/keys.ts'
import { parseFilter } from '../../src/predicate/postgrest.ts'
import { TidegateError } from '../../src/protocol/tidegate-error.ts'
import { plainMemberships } from '../support/plain-memberships.ts'
import { TestDatabase } from '../support/postgres.ts'
import { filters } from './filter-samples.ts'
import { askPostgres, createSample, predicates, type Sample, selectText } from './samples.ts'

const seed = Number(process.env.TEST_SEED ?? randomInt(2 ** 31))
console.log(`predicates against Postgres: TEST_SEED=${seed}`)

const databases: TestDatabase[] = []
afterAll(async () => {
  for (const database of databases) await database[Symbol.asyncDispose]()
})

async function sampleWith(collation: 'c' | 'deterministic', options: string): Promise<Sample | null> {
  const database = await TestDatabase.create(inject('databaseUrl'), options).catch(error => {
    console.log(`no database with ${options}: ${error instanceof Error ? error.message : error}`)
    return null
  })
  if (database === null) return null
  databases.push(database)
  return createSample(database, { seed, rows: 80, collation })
}

const inC = (await sampleWith('c', `TEMPLATE template0 LOCALE 'C' ENCODING 'UTF8'`))!
const inIcu = await sampleWith(
  'deterministic',
  `TEMPLATE template0 LOCALE 'C' ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'en-US'`,
)

describe('under collation C', () => agreement(inC, 400))
describe.skipIf(inIcu === null)('under an ICU collation', () => {
  if (inIcu !== null) agreement(inIcu, 200)
})

function agreement(sample: Sample, runs: number): void {
  const memberships = plainMemberships(new Map([[sample.members.oid, sample.members.rows]]))
  const judgeAll = (predicate: Predicate): Truth[] => {
    const judge = compile(predicate)
    return sample.rows.map(({ row }) => judge(row, memberships))
  }

  test('the sample has values and NULLs in every column', () => {
    for (const { column, name } of sample.columns) {
      const values = sample.rows.map(({ row }) => row.text(column))
      expect(new Set(values.map(value => value === null)), name).toEqual(new Set([true, false]))
    }
  })

  test('[P1] every predicate is true, false and unknown of exactly the rows that Postgres says', async () => {
    const seen = new Map<Truth, number>()
    await fc.assert(
      fc.asyncProperty(predicates(sample), async predicate => {
        const answers = judgeAll(predicate)
        for (const answer of answers) seen.set(answer, (seen.get(answer) ?? 0) + 1)
        expect(answers).toEqual(await askPostgres(sample, predicate))
      }),
      { numRuns: runs, seed },
    )
    // 80 rows each: many more pairs than 2,000, and of every answer.
    for (const answer of [true, false, null]) expect(seen.get(answer)).toBeGreaterThan(2000)
  })

  test('[P1] a filter from a URL selects the rows that Postgres selects, or is refused', async () => {
    const limits = { maxLength: 2000, maxDepth: 3, maxTerms: 50 }
    let taken = 0
    await fc.assert(
      fc.asyncProperty(filters(sample), async pairs => {
        let predicate: Predicate
        try {
          predicate = parseFilter(pairs, sample.columns, limits)
        } catch (error) {
          expect(['FILTER_INVALID', 'FILTER_UNSUPPORTED']).toContain((error as TidegateError).code)
          return
        }
        taken++
        expect(judgeAll(predicate)).toEqual(await askPostgres(sample, predicate))
      }),
      { numRuns: runs, seed },
    )
    expect(taken).toBeGreaterThan(runs / 10)
  })

  test('binding a predicate changes none of its answers', () => {
    fc.assert(
      fc.property(predicates(sample), predicate => {
        expect(judgeAll(bind(predicate, () => null))).toEqual(judgeAll(predicate))
      }),
      { numRuns: runs, seed },
    )
  })

  test('a condition is true of the same rows as its predicate', () => {
    const isTrue = (predicate: Predicate): boolean[] => judgeAll(predicate).map(answer => answer === true)
    fc.assert(
      fc.property(predicates(sample), predicate => {
        expect(isTrue(asCondition(predicate))).toEqual(isTrue(predicate))
      }),
      { numRuns: runs, seed },
    )
  })

  test('[P1] a row of which a predicate is true is found under one of its anchors', () => {
    let anchored = 0
    fc.assert(
      fc.property(predicates(sample, { maxDepth: 2 }), predicate => {
        const bound = bind(predicate, () => null)
        const anchors = cover(bound)
        if (anchors === null) return
        judgeAll(bound).forEach((answer, i) => {
          if (answer !== true) return
          anchored++
          const { row } = sample.rows[i]!
          const found = anchors.some(anchor => {
            const columns = anchor.kind === 'const' ? [anchor.column] : anchor.columns
            const keys: string[] = []
            for (const column of columns) {
              const text = row.text(column)
              if (text === null || text === undefined) return false
              keys.push(keyOf(sample.columns[column]!.type, text))
            }
            const key = joinText(keys)
            if (anchor.kind === 'const') return anchor.keys.includes(key)
            expect(semiJoinKey(anchor.join, row)).toEqual({ key, isNull: false })
            return memberships.count(anchor.join, key) > 0
          })
          expect(found).toBe(true)
        })
      }),
      { numRuns: runs * 2, seed },
    )
    expect(anchored).toBeGreaterThan(50)
  })

  test('[P2] a column that the row version lacks makes no row visible that Postgres might hide', () => {
    const hidden = fc.constantFrom(...sample.columns.map(({ column }) => column))
    fc.assert(
      fc.property(predicates(sample), hidden, (predicate, column) => {
        const judge = compile(predicate)
        for (const { row } of sample.rows.slice(0, 20)) {
          const partial = { text: (at: number) => (at === column ? undefined : row.text(at)) }
          let answer: Truth | 'failed'
          try {
            answer = judge(partial, memberships)
          } catch (error) {
            expect((error as TidegateError).code).toBe('IDENTITY_INSUFFICIENT')
            answer = 'failed'
          }
          if (!columnsOf(predicate).has(column)) expect(answer).not.toBe('failed')
          if (answer === 'failed') continue
          // What is decided without the column is decided alike for every value it could have.
          for (const other of sample.rows.slice(0, 10)) {
            const filled = { text: (at: number) => (at === column ? other.row.text(at) : row.text(at)) }
            expect(judge(filled, memberships)).toBe(answer)
          }
        }
      }),
      { numRuns: runs, seed },
    )
  })

  test('predicates with one fingerprint give one answer, in whatever order they are written', () => {
    const reversed = (predicate: Predicate): Predicate => {
      if (predicate.kind === 'and' || predicate.kind === 'or')
        return { ...predicate, args: predicate.args.map(reversed).reverse() }
      if (predicate.kind === 'in') return { ...predicate, items: predicate.items.toReversed() }
      return predicate.kind === 'not' ? { ...predicate, arg: reversed(predicate.arg) } : predicate
    }
    fc.assert(
      fc.property(predicates(sample), predicate => {
        expect(fingerprint(reversed(predicate))).toBe(fingerprint(predicate))
        expect(judgeAll(reversed(predicate))).toEqual(judgeAll(predicate))
      }),
      { numRuns: runs, seed },
    )
    const answers = new Map<string, Truth[]>()
    for (const predicate of fc.sample(predicates(sample), { numRuns: runs, seed })) {
      const known = answers.get(fingerprint(predicate))
      if (known !== undefined) expect(judgeAll(predicate)).toEqual(known)
      answers.set(fingerprint(predicate), judgeAll(predicate))
    }
  })

  test('keys are equal exactly when SQL = holds, and order is that of SQL <', async () => {
    for (const { column, name, type } of sample.columns) {
      const pairs = await selectText(
        sample.database,
        `SELECT a.${name}, b.${name}, a.${name} = b.${name}, a.${name} < b.${name}
         FROM sample a, sample b WHERE a.${name} IS NOT NULL AND b.${name} IS NOT NULL`,
      )
      expect(pairs.length, `column ${column}`).toBeGreaterThan(1000)
      const isText = type.family === 'text' || type.family === 'bpchar'
      const isOrdered = type.family !== 'array' && (!isText || type.collation === 'c')
      for (const [a, b, isEqual, isLess] of pairs as string[][]) {
        expect(keyOf(type, a!) === keyOf(type, b!), `${name}: ${a} = ${b}`).toBe(isEqual === 't')
        if (isOrdered) expect(compareText(type, a!, b!) < 0, `${name}: ${a} < ${b}`).toBe(isLess === 't')
        else expect(() => compareText(type, a!, b!)).toThrow(TidegateError)
      }
    }
  })
}
