import fc from 'fast-check'
import { expect, test } from 'vitest'
import { SendRate, SendRates, type SendVerdict } from '../../../src/server/channels/send-rate.ts'

const rule = { perSecond: 20, burst: 60 }
const asked = (rate: SendRate, count: number, now: number): SendVerdict[] =>
  Array.from({ length: count }, () => rate.ask(now))

test('[P7] a burst passes, what comes past it waits its turn, far past it is refused with the time to wait', () => {
  const rate = new SendRate(rule)
  expect(asked(rate, 60, 5000)).toEqual(Array(60).fill({ kind: 'take', waitMs: 0 }))
  const waiting = asked(rate, 40, 5000)
  expect(waiting).toEqual(waiting.map((_, i) => ({ kind: 'take', waitMs: (i + 1) * 50 })))
  expect(rate.ask(5000)).toEqual({ kind: 'refuse', retryAfterMs: 2050 })
  // What was refused cost nothing.
  expect(rate.ask(5050)).toEqual({ kind: 'take', waitMs: 2000 })
  expect(rate.ask(7100)).toEqual({ kind: 'take', waitMs: 0 })
})

test('a sender that waits as it is told sends at its rate, and is never refused', () => {
  const rate = new SendRate({ perSecond: 10, burst: 5 })
  let now = 0
  for (let i = 0; i < 1000; i++) {
    const verdict = rate.ask(now)
    if (verdict.kind !== 'take') throw new Error(`refused at ${now}`)
    now += verdict.waitMs
  }
  expect(now).toBe(99_500)
})

test('[P7] one that goes on far past its rate is closed after ten seconds, not before', () => {
  const rate = new SendRate(rule)
  const kinds: SendVerdict['kind'][] = []
  let now = 0
  for (; !kinds.includes('close'); now += 5) kinds.push(rate.ask(now).kind)
  expect(now).toBeGreaterThan(10_000)
  expect(now).toBeLessThan(13_000)
})

test('one a little past its rate is told so again and again, and stays', () => {
  const rate = new SendRate(rule)
  const kinds = new Set<SendVerdict['kind']>()
  for (let now = 0; now < 600_000; now += 40) kinds.add(rate.ask(now).kind)
  expect([...kinds].sort()).toEqual(['refuse', 'take'])
})

test('[P7] never for good: after a pause all is as before, however it was flooded', () => {
  const gaps = fc.array(fc.integer({ min: 0, max: 300 }), { maxLength: 400 })
  const rates = fc.record({
    perSecond: fc.double({ min: 0.5, max: 500, noNaN: true }),
    burst: fc.integer({ min: 1, max: 50 }),
  })
  fc.assert(
    fc.property(rates, gaps, (given, flood) => {
      const rate = new SendRate(given)
      let now = 0
      for (const gap of flood) {
        now += gap
        rate.ask(now)
      }
      now += 2000 + Math.ceil((given.burst * 1000) / given.perSecond)
      expect(rate.isFresh(now)).toBe(true)
      expect(asked(rate, 300, now)).toEqual(asked(new SendRate(given), 300, now))
    }),
  )
})

test('[P7] whatever comes, no second sees more than burst and rate allow, and none waits past two seconds', () => {
  const gaps = fc.array(fc.integer({ min: 0, max: 100 }), { maxLength: 300 })
  fc.assert(
    fc.property(gaps, fc.integer({ min: 1, max: 30 }), fc.integer({ min: 1, max: 30 }), (flood, perSecond, burst) => {
      const rate = new SendRate({ perSecond, burst })
      const takenAt: number[] = []
      let now = 0
      for (const gap of flood) {
        now += gap
        const verdict = rate.ask(now)
        if (verdict.kind === 'take') takenAt.push(now + verdict.waitMs)
        if (verdict.kind === 'take') expect(verdict.waitMs).toBeLessThanOrEqual(2000)
        if (verdict.kind === 'refuse') expect(verdict.retryAfterMs).toBeGreaterThan(2000)
      }
      // In the order in which they came.
      expect(takenAt).toEqual([...takenAt].sort((a, b) => a - b))
      for (const [i, from] of takenAt.entries()) {
        const within = takenAt.slice(i).filter(at => at < from + 1000).length
        // One more, since waits are whole milliseconds.
        expect(within).toBeLessThanOrEqual(burst + perSecond + 1)
      }
    }),
  )
})

test('[P7] rates by name: each its own, and at most so many', () => {
  const rates = new SendRates(3)
  const slow = { perSecond: 1, burst: 1 }
  expect(rates.ask('a', slow, 0)).toEqual({ kind: 'take', waitMs: 0 })
  expect(rates.ask('a', slow, 0)).toEqual({ kind: 'take', waitMs: 1000 })
  expect(rates.ask('b', slow, 0)).toEqual({ kind: 'take', waitMs: 0 })
  expect(rates.ask('c', slow, 0)).toEqual({ kind: 'take', waitMs: 0 })
  expect(rates.ask('a', slow, 0)).toEqual({ kind: 'take', waitMs: 2000 })
  // No room: b was quiet longest.
  expect(rates.ask('d', slow, 0)).toEqual({ kind: 'take', waitMs: 0 })
  expect(rates.size).toBe(3)
  expect(rates.ask('a', slow, 0)).toEqual({ kind: 'refuse', retryAfterMs: 3000 })
  for (let i = 0; i < 100; i++) rates.ask(`x${i}`, slow, 0)
  expect(rates.size).toBe(3)
  // Those that are as new need no place.
  for (let i = 0; i < 3; i++) rates.ask(`y${i}`, slow, 10_000 + i)
  rates.ask('z', slow, 60_000)
  expect(rates.size).toBe(1)
})
