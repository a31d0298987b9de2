import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { CommitTrace } from '../../../src/server/figures/commit-trace.ts'
import { stages } from '../../../src/server/figures/stage.ts'
import { planSpans } from '../../../src/server/tracing/commit-spans.ts'
import { tracesUrl } from '../../../src/server/tracing/span-exporter.ts'
import { TraceRate } from '../../../src/server/tracing/trace-rate.ts'

const commit: CommitTrace = {
  xid: 7,
  lsn: '0/16B3748',
  committedAtMs: 1000,
  bytes: 300,
  changes: 2,
  tables: ['public.messages'],
  audiences: 3,
  deliveries: 5,
  spans: [
    { stage: 'wal', startedAtMs: 1000, durationMs: 1.5, count: 300 },
    { stage: 'authorize', startedAtMs: 1002, durationMs: 0.25, count: 4 },
    { stage: 'deliver', startedAtMs: 1003, durationMs: 0.5, count: 5 },
  ],
}

test('a commit is one span, and each of its stages one within it', () => {
  const { root, stages: within } = planSpans(commit)
  expect(root).toEqual({
    name: 'commit',
    startedAtMs: 1000,
    endedAtMs: 1003.5,
    attributes: {
      'tidegate.lsn': '0/16B3748',
      'tidegate.xid': 7,
      'tidegate.tables': ['public.messages'],
      'tidegate.bytes': 300,
      'tidegate.changes': 2,
      'tidegate.decisions': 4,
      'tidegate.audiences': 3,
      'tidegate.deliveries': 5,
    },
  })
  expect(within).toEqual([
    { name: 'wal', startedAtMs: 1000, endedAtMs: 1001.5, attributes: { 'tidegate.bytes': 300 } },
    { name: 'authorize', startedAtMs: 1002, endedAtMs: 1002.25, attributes: { 'tidegate.decisions': 4 } },
    { name: 'deliver', startedAtMs: 1003, endedAtMs: 1003.5, attributes: { 'tidegate.deliveries': 5 } },
  ])
})

test('no stage begins before its commit or ends after it, whatever the clocks say', () => {
  const ms = fc.double({ min: 0, max: 1e6, noNaN: true })
  const span = fc.record({ stage: fc.constantFrom(...stages), startedAtMs: ms, durationMs: ms, count: fc.nat() })
  fc.assert(
    fc.property(ms, fc.array(span, { maxLength: 6 }), (committedAtMs, spans) => {
      const { root, stages: within } = planSpans({ ...commit, committedAtMs, spans })
      expect(root.endedAtMs).toBeGreaterThanOrEqual(root.startedAtMs)
      for (const { startedAtMs, endedAtMs } of within) {
        expect(startedAtMs).toBeGreaterThanOrEqual(root.startedAtMs)
        expect(endedAtMs).toBeLessThanOrEqual(root.endedAtMs)
      }
    }),
  )
})

test('never more a second than asked for, and as many after a rest', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 100 }), fc.array(fc.nat(400), { maxLength: 300 }), (perSecond, pauses) => {
      const rate = new TraceRate(perSecond)
      const taken: number[] = []
      let nowMs = 0
      for (const pause of pauses) {
        nowMs += pause
        if (rate.take(nowMs)) taken.push(nowMs)
      }
      // The bucket and what flows into it meanwhile.
      for (const from of taken)
        expect(taken.filter(at => at >= from && at < from + 1000).length).toBeLessThanOrEqual(2 * perSecond)
      const rested = Array.from({ length: perSecond + 1 }, () => rate.take(nowMs + 10_000))
      expect(rested.filter(Boolean)).toHaveLength(perSecond)
    }),
  )
})

test.each([
  ['http://127.0.0.1:4318', 'http://127.0.0.1:4318/v1/traces'],
  ['http://127.0.0.1:4318/', 'http://127.0.0.1:4318/v1/traces'],
  ['https://otel.example/tenant/a/', 'https://otel.example/tenant/a/v1/traces'],
])('of %s the spans go to %s', (endpoint, url) => expect(tracesUrl({ endpoint })).toBe(url))
