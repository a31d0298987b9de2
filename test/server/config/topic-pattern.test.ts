import fc from 'fast-check'
import { expect, test } from 'vitest'
import { matchesTopic } from '../../../src/server/config/topic-pattern.ts'
import { expectWithin } from '../../support/within.ts'

test.each([
  ['room:1', 'room:1', true],
  ['room:1', 'room:12', false],
  ['room:1', 'Room:1', false],
  ['room:*', 'room:1', true],
  ['room:*', 'room:', true],
  ['room:*', 'room:1:typing', true],
  ['room:*', 'room', false],
  ['room:*', 'a room:1', false],
  ['*', 'anything at all', true],
  ['*', '', true],
  ['**', 'a', true],
  ['*:typing', 'room:1:typing', true],
  ['*:typing', 'room:1:typing:', false],
  ['room:*:typing', 'room:1:typing', true],
  ['room:*:typing', 'room::typing', true],
  ['room:*:typing', 'room:typing', false],
  ['a*b*c', 'abbbc', true],
  ['a*b*c', 'acb', false],
  ['ab*ba', 'aba', false],
  ['*aa*aa*', 'aaa', false],
  ['*aa*aa*', 'aaaa', true],
  ['a.c', 'abc', false],
  ['[ab]+(c|d)$', 'a', false],
  ['[ab]*', '[ab]c', true],
  ['?', 'a', false],
  ['\\*', '\\x', true],
])('%s for %s: %s', (pattern, topic, matches) => {
  expect(matchesTopic(pattern, topic)).toBe(matches)
})

const text = (...units: string[]) => fc.string({ unit: fc.constantFrom(...units), maxLength: 12 })

test('it agrees with the regular expression that the pattern stands for', () => {
  const pattern = text('a', 'b', '.', '*', '*', '\n')
  fc.assert(
    fc.property(pattern, text('a', 'b', '.', '\n'), (given, topic) => {
      const source = given
        .split('*')
        .map(part => part.replaceAll('.', '\\.'))
        .join('.*')
      expect(matchesTopic(given, topic)).toBe(new RegExp(`^${source}$`, 's').test(topic))
    }),
    { numRuns: 2000 },
  )
})

test('a pattern matches whatever its stars are replaced by', () => {
  fc.assert(
    fc.property(
      fc.array(fc.string({ unit: 'binary' }), { minLength: 1 }),
      fc.infiniteStream(fc.string()),
      (parts, fill) => {
        const literal = parts.map(part => part.replaceAll('*', ''))
        const topic = literal.reduce((text, part) => text + fill.next().value + part)
        expect(matchesTopic(literal.join('*'), topic)).toBe(true)
      },
    ),
  )
})

test('[P7] the worst pattern takes no time to speak of', () => {
  const startedAt = performance.now()
  for (let i = 0; i < 1000; i++) matchesTopic(`${'*a'.repeat(8)}*b`, `${'a'.repeat(254)}c`)
  expectWithin(performance.now() - startedAt, 500)
})
