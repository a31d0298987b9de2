import fc from 'fast-check'
import { expect, test } from 'vitest'
import { ChannelRules, defaultRule } from '../../../src/server/channels/rules.ts'
import { matchesTopic } from '../../../src/server/config/topic-pattern.ts'

const inPrivate = (topic: string) => ({ topic, isPrivate: true })
const inPublic = (topic: string) => ({ topic, isPrivate: false })

test('a channel that nothing is said of is private, without history, and with presence', () => {
  expect(new ChannelRules([]).of(inPrivate('room:1'))).toBe(defaultRule)
  expect(new ChannelRules([{ pattern: 'a' }]).of(inPrivate('room:1'))).toBe(defaultRule)
  expect(defaultRule).toMatchObject({ isPublic: false, history: null, presence: { boundToSubject: true } })
})

test('an entry gives what differs, and leaves the rest', () => {
  const rules = new ChannelRules([
    { pattern: 'news', public: true, history: { length: 10, ageMs: 1000 }, presence: false, idempotencyMs: 1000 },
    { pattern: 'room:*', presence: { graceMs: 0 }, backpressure: 'latest', history: false },
    { pattern: 'all:*', presence: true, rate: { perSecond: 1, burst: 1 }, bufferBytes: 2048, maxPayloadBytes: 10 },
  ])
  expect(rules.of(inPrivate('news'))).toEqual({
    ...defaultRule,
    ...{ pattern: 'news', isPublic: true, history: { length: 10, ageMs: 1000 }, presence: null, idempotencyMs: 1000 },
  })
  expect(rules.of(inPrivate('room:1'))).toEqual({
    ...{ ...defaultRule, pattern: 'room:*', backpressure: 'latest' },
    presence: { ...defaultRule.presence, graceMs: 0 },
  })
  expect(rules.of(inPrivate('all:1'))).toEqual({
    ...{ ...defaultRule, pattern: 'all:*', rate: { perSecond: 1, burst: 1 }, bufferBytes: 2048, maxPayloadBytes: 10 },
  })
  expect(rules.of(inPrivate('room:2'))).toBe(rules.of(inPrivate('room:1')))
})

test('[P7] a public channel that no rule opens keeps nothing, whatever its private one keeps', () => {
  const history = { length: 10, ageMs: 1000 }
  const rules = new ChannelRules([
    { pattern: 'news', public: true, history },
    { pattern: '*', history, presence: { graceMs: 0 } },
  ])
  expect(rules.of(inPublic('news'))).toBe(rules.of(inPrivate('news')))
  expect(rules.of(inPublic('room:1'))).toEqual({ ...rules.of(inPrivate('room:1')), history: null })
  expect(rules.of(inPrivate('room:1')).history).toEqual(history)
  expect(rules.of(inPublic('room:2'))).toBe(rules.of(inPublic('room:1')))
  expect(new ChannelRules([]).of(inPublic('room:1'))).toBe(defaultRule)
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
          expect(rules.of(inPrivate(topic)).pattern).toBe(patterns.find(pattern => matchesTopic(pattern, topic)) ?? '*')
      },
    ),
  )
})
