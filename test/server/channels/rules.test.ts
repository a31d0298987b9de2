import fc from 'fast-check'
import { expect, test } from 'vitest'
import { ChannelRules, defaultRule } from '../../../src/server/channels/rules.ts'
import { matchesTopic } from '../../../src/server/topic-pattern.ts'

test('a channel that nothing is said of is private, without history, and with presence', () => {
  expect(new ChannelRules([]).of('room:1')).toBe(defaultRule)
  expect(new ChannelRules([{ pattern: 'a' }]).of('room:1')).toBe(defaultRule)
  expect(defaultRule).toMatchObject({ isPublic: false, history: null, presence: { boundToSubject: true } })
})

test('an entry gives what differs, and leaves the rest', () => {
  const rules = new ChannelRules([
    { pattern: 'news', public: true, history: { length: 10, ageMs: 1000 }, presence: false, idempotencyMs: 1000 },
    { pattern: 'room:*', presence: { graceMs: 0 }, backpressure: 'latest', history: false },
    { pattern: 'all:*', presence: true, rate: { perSecond: 1, burst: 1 }, bufferBytes: 2048, maxPayloadBytes: 10 },
  ])
  expect(rules.of('news')).toEqual({
    ...defaultRule,
    ...{ pattern: 'news', isPublic: true, history: { length: 10, ageMs: 1000 }, presence: null, idempotencyMs: 1000 },
  })
  expect(rules.of('room:1')).toEqual({
    ...{ ...defaultRule, pattern: 'room:*', backpressure: 'latest' },
    presence: { ...defaultRule.presence, graceMs: 0 },
  })
  expect(rules.of('all:1')).toEqual({
    ...{ ...defaultRule, pattern: 'all:*', rate: { perSecond: 1, burst: 1 }, bufferBytes: 2048, maxPayloadBytes: 10 },
  })
  expect(rules.of('room:2')).toBe(rules.of('room:1'))
})

const part = fc.constantFrom('a', 'b', ':', '*')

test('the first pattern that matches wins, whatever was asked before and however little is remembered', () => {
  fc.assert(
    fc.property(
      fc.array(fc.string({ unit: part, minLength: 1, maxLength: 5 }), { maxLength: 6 }),
      fc.array(fc.string({ unit: fc.constantFrom('a', 'b', ':'), maxLength: 6 }), { maxLength: 40 }),
      fc.integer({ min: 1, max: 4 }),
      (patterns, topics, maxTopics) => {
        const rules = new ChannelRules(
          patterns.map(pattern => ({ pattern })),
          maxTopics,
        )
        for (const topic of topics)
          expect(rules.of(topic).pattern).toBe(patterns.find(pattern => matchesTopic(pattern, topic)) ?? '*')
      },
    ),
  )
})
