import fc from 'fast-check'
import { expect, test } from 'vitest'
import { formatLsn, parseLsn } from '../../../src/server/wal/lsn.ts'

test.each([
  ['0/0', 0n],
  ['16/B374D848', 0x16b374d848n],
  ['0/1', 1n],
  ['1/0', 0x100000000n],
  ['FFFFFFFF/FFFFFFFF', 0xffffffffffffffffn],
])('%s is %s and back', (text, lsn) => {
  expect(parseLsn(text)).toBe(lsn)
  expect(formatLsn(lsn)).toBe(text)
})

test.each(['', '16', '16/', '/16', '0x16/1', '123456789/0', '0/1 ', '-1/0'])('%j is refused', text => {
  expect(() => parseLsn(text)).toThrow(RangeError)
})

test('every position survives the way to text and back', () => {
  fc.assert(fc.property(fc.bigInt(0n, 2n ** 64n - 1n), lsn => parseLsn(formatLsn(lsn)) === lsn))
})
