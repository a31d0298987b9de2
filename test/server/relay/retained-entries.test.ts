import fc from 'fast-check'
import { expect, test } from 'vitest'
import { compareIds, type EntryId, formatId, parseId } from '../../../src/server/relay/redis-log.ts'
import { RetainedEntries } from '../../../src/server/relay/retained-entries.ts'

const idOf = (lsn: number, part = 0, attempt = 0): EntryId => ({ lsn: BigInt(lsn), attempt, part })
const everything = 2n ** 63n

/** Time goes on by a second with each `trim`: more often it does nothing. */
function retained({ maxBytes = 1000, maxAgeMs = 60_000 } = {}) {
  const clock = { now: 1_000_000 }
  const entries = new RetainedEntries({ maxBytes, maxAgeMs, now: () => clock.now })
  return {
    entries,
    clock,
    add: (id: EntryId, bytes = 100) => entries.add(formatId(id), id, bytes),
    trim: (settledLsn = everything, afterMs = 1000) => {
      clock.now += afterMs
      return entries.trim(settledLsn)
    },
  }
}

test('[P7] what is within the bounds stays', () => {
  const { entries, add, trim } = retained()
  for (let lsn = 1; lsn <= 10; lsn++) add(idOf(lsn))
  expect(trim(everything, 10_000)).toBe('')
  expect(entries.bytes).toBe(1000)
})

test('[P7] past the bound of bytes the oldest go, once readers have had time to take them', () => {
  const { entries, add, trim } = retained()
  for (let lsn = 1; lsn <= 15; lsn++) add(idOf(lsn))
  expect(trim(everything, 4000)).toBe('')
  expect(trim(everything, 1001)).toBe('6-0')
  expect(entries.bytes).toBe(1000)
})

test('[P7] past the bound of age they go, the newest commit with all its parts never', () => {
  const { entries, add, trim } = retained({ maxAgeMs: 10_000 })
  add(idOf(1))
  add(idOf(2, 0))
  add(idOf(2, 1))
  expect(trim(everything, 10_001)).toBe('2-0')
  expect(trim(everything, 60_000)).toBe('')
  expect(entries.bytes).toBe(200)
})

test('[P4] what may be invisible stays, until it is four times the bound', () => {
  const { entries, add, trim } = retained()
  for (let lsn = 1; lsn <= 40; lsn++) add(idOf(lsn))
  expect(trim(0n, 10_000)).toBe('')
  expect(trim(5n)).toBe('6-0')
  for (let lsn = 41; lsn <= 50; lsn++) add(idOf(lsn))
  expect(trim(5n)).toBe('11-0')
  expect(entries.bytes).toBe(4000)
})

test('it looks once a second', () => {
  const { add, trim } = retained()
  for (let lsn = 1; lsn <= 15; lsn++) add(idOf(lsn))
  expect(trim(0n, 10_000)).toBe('')
  expect(trim(everything, 999)).toBe('')
  expect(trim(everything, 1)).toBe('6-0')
})

test('an entry that is read again is counted once', () => {
  const { entries, add } = retained()
  for (const id of [idOf(1), idOf(2), idOf(1), idOf(2), idOf(2, 0, 1), idOf(2, 5, 0), idOf(3)]) add(id)
  expect(entries.bytes).toBe(400)
  entries.clear()
  expect(entries.bytes).toBe(0)
})

const anyId = fc.record({
  lsn: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  attempt: fc.nat(2 ** 20),
  part: fc.nat(2 ** 32 - 1),
})

test('[P5] an ID comes back from its text, and is ordered as Redis orders it', () => {
  const numbersOf = (id: EntryId): bigint[] => formatId(id).split('-').map(BigInt)
  fc.assert(
    fc.property(anyId, anyId, (a, b) => {
      expect(parseId(formatId(a))).toEqual(a)
      const [[lsnOfA, restOfA], [lsnOfB, restOfB]] = [numbersOf(a), numbersOf(b)] as [bigint[], bigint[]]
      const [first, second] = lsnOfA === lsnOfB ? [restOfA!, restOfB!] : [lsnOfA!, lsnOfB!]
      expect(Math.sign(compareIds(a, b))).toBe(first < second ? -1 : first > second ? 1 : 0)
    }),
  )
})
