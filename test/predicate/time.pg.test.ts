// Comparisons with now(): the answers against Postgres's own at generated moments, and the moments at which they turn.
import { randomInt } from 'node:crypto'
import fc from 'fast-check'
import { afterAll, describe, expect, test } from 'vitest'
import type { CompareOp, Expr, Memberships, Predicate, Shift } from '../../src/predicate/algebra.ts'
import { assertCompilable, bind } from '../../src/predicate/bind.ts'
import { type DatetimeFamily, datetimeMicros, printDatetime } from '../../src/predicate/calendar.ts'
import { compile, evaluate } from '../../src/predicate/evaluate.ts'
import { renderPredicate } from '../../src/predicate/render.ts'
import { baseOf, sqlTypes } from '../../src/predicate/sql-types.ts'
import { flippingRange, nextFlipMicros, type TimeBound, timeBoundsOf } from '../../src/predicate/time.ts'
import { pinnedSettings } from '../../src/server/postgres/database.ts'
import { plainMemberships } from '../support/plain-memberships.ts'
import { TestDatabase } from '../support/postgres.ts'
import { compiler, selectText } from './samples.ts'

const seed = Number(process.env.TEST_SEED ?? randomInt(2 ** 31))
console.log(`comparisons with the time: TEST_SEED=${seed}`)

const database = await TestDatabase.create()
for (const [name, value] of Object.entries(pinnedSettings))
  await database.query('SELECT set_config($1, $2, false)', [name, value])
afterAll(() => database[Symbol.asyncDispose]())

const families: readonly DatetimeFamily[] = ['timestamptz', 'timestamp', 'date']
const column = (family: DatetimeFamily) => ({ kind: 'column', column: 0, name: 'c', type: sqlTypes[family] }) as const

const at = (text: string): bigint => datetimeMicros(text)!
const second = 1_000_000n
const day = 86_400n * second

/** The ends of months, leap days, midnights, and what lies beside them. */
const moment = fc
  .tuple(
    fc.constantFrom(
      '2024-02-28 00:00:00',
      '2024-02-29 00:00:00',
      '2024-02-29 12:30:00',
      '2024-03-01 00:00:00',
      '2025-01-29 00:00:00',
      '2025-01-31 23:59:59.999999',
      '2025-02-28 00:00:00',
      '2025-03-31 06:00:00',
      '2025-04-30 00:00:00',
      '2025-12-31 00:00:00',
    ),
    fc.constantFrom(0n, 0n, 1n, -1n, 3_600n * second, -3_600n * second, day, -day),
  )
  .map(([text, offset]) => at(text) + offset)

const shift: fc.Arbitrary<Shift> = fc.record({
  months: fc.constantFrom(0, 0, 0, 1, -1, 12, -13),
  days: fc.constantFrom(0, 0, 1, -1, 30),
  micros: fc.constantFrom(0, 0, 1, -3_600_000_000, 90_000_000_000),
})

const comparison = fc
  .tuple(
    fc.constantFrom<CompareOp>('<', '<=', '>', '>='),
    fc.constantFrom(...families),
    fc.constantFrom<DatetimeFamily>(...families),
    shift,
    fc.boolean(),
    fc.boolean(),
  )
  .map(([op, columnFamily, timeFamily, shift, swap, asTimestamp]): Predicate => {
    const now: Expr = { kind: 'now', shift, type: sqlTypes[timeFamily] }
    // CURRENT_DATE beside an interval.
    const time: Expr = timeFamily === 'date' && asTimestamp ? { kind: 'cast', arg: now, type: sqlTypes.timestamp } : now
    const [left, right] = swap ? [time, column(columnFamily)] : [column(columnFamily), time]
    return { kind: 'compare', op, left, right }
  })

const value = fc.option(
  fc.oneof(
    { weight: 8, arbitrary: moment },
    { weight: 1, arbitrary: fc.constantFrom('infinity' as const, '-infinity' as const) },
  ),
  { freq: 8 },
)

const textOf = (family: DatetimeFamily, of: bigint | string | null): string | null =>
  typeof of === 'bigint' ? printDatetime(family, of) : of

const memberships = (nowMicros: bigint): Memberships => plainMemberships(new Map(), nowMicros)

const boundOf = (predicate: Predicate): TimeBound => {
  const bounds = timeBoundsOf(predicate)
  expect(bounds.length).toBe(1)
  return bounds[0]!
}
const familyOf = (bound: TimeBound): DatetimeFamily => baseOf(bound.column.type).family as DatetimeFamily

describe('[P1] a comparison with now()', () => {
  test('is what Postgres answers at that time', async () => {
    const seen = new Map<boolean | null, number>()
    await fc.assert(
      fc.asyncProperty(
        comparison,
        fc.array(value, { minLength: 5, maxLength: 20 }),
        moment,
        async (predicate, values, now) => {
          assertCompilable(predicate)
          const bound = bind(predicate, () => null)
          const family = familyOf(boundOf(bound))
          const texts = values.map(each => textOf(family, each))
          const judge = compile(bound)
          const mine = texts.map(text => judge({ text: () => text }, memberships(now)))
          const query = renderPredicate(bound).compile(compiler)
          // now() cannot be set; everything else is Postgres's.
          const sql = query.sql.replaceAll('now()', `'${printDatetime('timestamptz', now)}'::timestamptz`)
          const place = query.parameters.length + 1
          const rows = await selectText(
            database,
            `SELECT (${sql}) FROM unnest($${place}::${sqlTypes[family].name}[]) WITH ORDINALITY AS r(c, i) ORDER BY i`,
            [...query.parameters, texts],
          )
          expect(mine).toEqual(rows.map(([answer]) => (answer === null ? null : answer === 't')))
          for (const answer of mine) seen.set(answer, (seen.get(answer) ?? 0) + 1)
        },
      ),
      { numRuns: 600, seed },
    )
    for (const answer of [true, false, null]) expect(seen.get(answer)).toBeGreaterThan(300)
  })

  const judgeAt = (predicate: Predicate, text: string | null, now: bigint): boolean | null =>
    evaluate(predicate, { text: () => text }, memberships(now))

  test('turns first at the moment that is told', () => {
    let [flips, stays] = [0, 0]
    fc.assert(
      fc.property(
        comparison,
        value,
        moment,
        fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 8 }),
        (predicate, of, now, places) => {
          const bound = boundOf(predicate)
          const text = textOf(familyOf(bound), of)
          const before = judgeAt(predicate, text, now)
          const flip = nextFlipMicros(bound, text, now)
          // Two years hold every moment that these values and shifts have.
          const end = flip ?? now + 800n * day
          if (flip !== null) {
            flips++
            expect(flip > now).toBe(true)
            expect(judgeAt(predicate, text, flip)).toBe(!before)
            expect(judgeAt(predicate, text, flip - 1n)).toBe(before)
          } else stays++
          const until = end - now - 1n
          const between = places.map(place => now + BigInt(Math.floor(Number(until) * place)))
          // Midnights, where a bound may jump.
          const midnight = now - (now % day)
          for (let i = 1n; i < 100n; i++)
            between.push(midnight + i * day, midnight + i * day - 1n, end - (end % day) - i * day)
          for (const each of between) if (each >= now && each < end) expect(judgeAt(predicate, text, each)).toBe(before)
        },
      ),
      { numRuns: 1000, seed },
    )
    expect(Math.min(flips, stays)).toBeGreaterThan(150)
  })

  test('turns between two moments only for values in the range that is told', () => {
    let turned = 0
    fc.assert(
      fc.property(
        comparison,
        moment,
        moment,
        fc.array(value, { minLength: 10, maxLength: 30 }),
        (predicate, a, b, values) => {
          const [from, to] = a < b ? [a, b] : [b, a]
          const bound = boundOf(predicate)
          const family = familyOf(bound)
          const { low, high } = flippingRange(bound, from, to)
          for (const each of values) {
            const text = textOf(family, each)
            if (text === null || judgeAt(predicate, text, from) === judgeAt(predicate, text, to)) continue
            turned++
            expect(at(low) <= at(text) && at(text) <= at(high), `${text} in ${low} to ${high}`).toBe(true)
          }
        },
      ),
      { numRuns: 1500, seed },
    )
    expect(turned).toBeGreaterThan(1000)
  })
})

test('the time elsewhere than in an order with a column is refused before there are rows', () => {
  const now: Expr = { kind: 'now', shift: { months: 0, days: 0, micros: 0 }, type: sqlTypes.timestamptz }
  const constant: Expr = { kind: 'const', value: '2020-01-01', type: sqlTypes.timestamptz }
  const fits: Predicate = { kind: 'compare', op: '>', left: column('date'), right: now }
  expect(() => assertCompilable({ kind: 'or', args: [fits, { kind: 'not', arg: fits }] })).not.toThrow()
  const misfits: readonly Predicate[] = [
    { kind: 'compare', op: '=', left: column('timestamptz'), right: now },
    { kind: 'compare', op: '<', left: constant, right: now },
    { kind: 'isNull', arg: now },
    { kind: 'isDistinct', left: column('timestamptz'), right: now },
    { kind: 'in', left: column('timestamptz'), items: [now, constant] },
    { kind: 'and', args: [fits, { kind: 'compare', op: '<', left: now, right: now }] },
  ]
  for (const predicate of misfits)
    expect(() => assertCompilable(predicate)).toThrow(expect.objectContaining({ code: 'POLICY_UNSUPPORTED' }))
  // Inside a semi-join too.
  const where = misfits[0]!
  const table = { oid: 1, schema: 'public', name: 'members' }
  expect(() => assertCompilable({ kind: 'semiJoin', table, keys: [], where, nullAware: false })).toThrow(/the time/)
})
