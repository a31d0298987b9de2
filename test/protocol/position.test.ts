import fc from 'fast-check'
import { expect, test } from 'vitest'
import {
  comparePositions,
  formatPosition,
  formatQueryPositions,
  parsePosition,
  parseQueryPositions,
  type QueryPosition,
  WHOLE_COMMIT,
} from '../../src/protocol/position.ts'

const epochs = fc.stringMatching(/^[0-9a-f]{8}$/)
const lsns = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })
const indexes = fc.oneof(fc.integer({ min: 0, max: 2 ** 31 }), fc.constant(WHOLE_COMMIT))
const tags = fc.stringMatching(/^[0-9A-Za-z_-]{1,32}$/)
const positions: fc.Arbitrary<QueryPosition> = fc.record({ epoch: epochs, lsn: lsns, index: indexes, tag: tags })

test('a position reads back as it was written, whole 64-bit LSNs included', () => {
  fc.assert(
    fc.property(positions, ({ tag: _, ...position }) => {
      expect(parsePosition(formatPosition(position))).toEqual(position)
    }),
  )
})

test('the positions of several queries read back in their order', () => {
  fc.assert(
    fc.property(fc.array(positions, { minLength: 1, maxLength: 20 }), several => {
      expect(parseQueryPositions(formatQueryPositions(several))).toEqual(several)
    }),
  )
})

test.each([
  '',
  'x',
  '1f2e3d4c',
  '1f2e3d4c-',
  '1f2e3d4c-10000000000000000',
  '1F2E3D4C-16B3748',
  '1f2e3d4c-16b3748-',
  '1f2e3d4c-16b3748-1-2',
  ' 1f2e3d4c-16b3748',
  '1f2e3d4c-16b3748\n',
])('[P8] %j is no position', text => {
  expect(parsePosition(text)).toBe(null)
  expect(parseQueryPositions(text)).toBe(null)
})

test.each([
  '1f2e3d4c-16b3748',
  '1f2e3d4c-16b3748.',
  '1f2e3d4c-16b3748.a~',
  '~',
  '1f2e3d4c-16b3748.a b',
  `1f2e3d4c-1.${'a'.repeat(33)}`,
])('[P8] %j names no positions of queries', text => {
  expect(parseQueryPositions(text)).toBe(null)
})

test('[P7] a text longer than a stream can have is not looked at', () => {
  expect(parseQueryPositions(Array.from({ length: 1000 }, () => '1f2e3d4c-16b3748.tag').join('~'))).toBe(null)
})

test('[P5] positions order by commit, then by the place within it; a whole commit comes last', () => {
  const at = (lsn: bigint, index = WHOLE_COMMIT) => ({ epoch: '1f2e3d4c', lsn, index })
  const ordered = [at(1n, 0), at(1n, 2), at(1n), at(2n, 1), at(2n), at(2n ** 63n)]
  for (let i = 1; i < ordered.length; i++) expect(comparePositions(ordered[i - 1]!, ordered[i]!)).toBeLessThan(0)
  expect(comparePositions(at(5n, 3), at(5n, 3))).toBe(0)
})
