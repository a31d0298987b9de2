import { expect, test } from 'vitest'
import { BeaconWay } from '../../../src/server/upkeep/beacon-way.ts'
import { Isolation } from '../../../src/server/upkeep/isolation.ts'
import { type NodeView, readinessOf } from '../../../src/server/upkeep/readiness.ts'

const intervalMs = 6000

const well: NodeView = {
  draining: false,
  started: true,
  intervalMs,
  overtakenForMs: null,
  unansweredForMs: null,
  movedAgoMs: 100,
  stale: false,
  lagMs: 4,
  lagBytes: 56,
  since: null,
  leader: false,
}

const stale = { stale: true, lagMs: 7000, since: '2026-01-02T03:04:05.678Z' }

/** What is so, and why the service and this node are red; null: green. */
const cases: readonly (readonly [string, Partial<NodeView>, service: string | null, node: string | null])[] = [
  ['all is well', {}, null, null],
  ['it drains', { draining: true }, 'draining', 'draining'],
  ['it drains, and the stream stands still', { draining: true, ...stale }, 'draining', 'draining'],
  ['its window has not been filled', { started: false, ...stale }, 'starting', 'starting'],
  ['no heartbeat comes back', stale, 'stale', null],
  // Shared: nobody gets anything, whatever Postgres says.
  ['Postgres is away', { ...stale, unansweredForMs: 60_000, movedAgoMs: 60_000 }, 'stale', null],
  ['Postgres went away an interval ago', { unansweredForMs: 6100, movedAgoMs: 6000 }, null, null],
  [
    'Postgres went away, and what it had sent came for a while',
    { unansweredForMs: 7500, movedAgoMs: 2000 },
    null,
    null,
  ],
  ['nobody holds the slot, so nothing is acknowledged', { ...stale, movedAgoMs: 60_000 }, 'stale', null],
  // Alone.
  ['the slot is acknowledged past it', { ...stale, overtakenForMs: 6001, movedAgoMs: 8000 }, 'no stream', 'no stream'],
  ['the slot has been past it for less than an interval', { overtakenForMs: 6000, movedAgoMs: 7000 }, null, null],
  [
    'commits come, and Postgres does not answer',
    { ...stale, unansweredForMs: 6200, movedAgoMs: 100 },
    'no database',
    'no database',
  ],
  ['Postgres has not answered for less than an interval', { unansweredForMs: 6000, movedAgoMs: 0 }, null, null],
  // It may be alone, or all may be cut off: it cannot know.
  [
    'neither comes anything nor does Postgres answer',
    { ...stale, unansweredForMs: 90_000, movedAgoMs: 80_000 },
    'stale',
    null,
  ],
]

test.each(cases)('[P8] %s', (_, some, service, node) => {
  const view = { ...well, ...some }
  for (const [scope, why] of [
    ['service', service],
    ['node', node],
  ] as const) {
    const { ready, body } = readinessOf(scope, view)
    expect([ready, body.ready, body.why, body.scope]).toEqual([why === null, why === null, why, scope])
    const { draining, started, lagMs, lagBytes, since, leader } = view
    expect(body).toMatchObject({ draining, started, stale: view.stale, lagMs, lagBytes, since, leader })
  }
})

test('a node is overtaken while the slot is past it and nothing comes, and no longer once something comes', () => {
  const isolation = new Isolation(0)
  isolation.looked(100n, 1000)
  isolation.answered(100n, 1000)
  // The window of a node that has just begun stands one byte before the slot's position.
  isolation.answered(101n, 2000)
  expect(isolation.at(9000)).toEqual({ overtakenForMs: null, unansweredForMs: null, movedAgoMs: 8000 })
  isolation.answered(200n, 9000)
  isolation.answered(300n, 10_000)
  expect(isolation.at(12_000)).toMatchObject({ overtakenForMs: 3000 })
  // It is behind, but it is not cut off.
  isolation.looked(150n, 12_000)
  expect(isolation.at(12_500)).toMatchObject({ overtakenForMs: null, movedAgoMs: 500 })
  isolation.answered(300n, 13_000)
  isolation.looked(150n, 14_000)
  expect(isolation.at(14_000)).toMatchObject({ overtakenForMs: 1000 })
  isolation.looked(300n, 14_000)
  isolation.answered(300n, 15_000)
  isolation.answered(null, 16_000)
  expect(isolation.at(30_000)).toMatchObject({ overtakenForMs: null })
})

test('Postgres does not answer since the first question that it left, however often it is asked again', () => {
  const isolation = new Isolation(0)
  isolation.asked(1000)
  isolation.answered(null, 1010)
  expect(isolation.at(5000)).toMatchObject({ unansweredForMs: null })
  for (const now of [5000, 6000, 7000]) isolation.asked(now)
  expect(isolation.at(8000)).toMatchObject({ unansweredForMs: 3000 })
  isolation.answered(null, 8000)
  expect(isolation.at(9000)).toMatchObject({ unansweredForMs: null })
})

test('a beacon that is awaited for longer than an interval makes the node stale, and one that comes back ends it', () => {
  const way = new BeaconWay(6000)
  expect([way.isProven, way.at(0)]).toEqual([false, { stale: true, lagMs: 0, sinceMs: 0 }])
  way.sent(1000)
  expect(way.at(3000)).toEqual({ stale: true, lagMs: 2000, sinceMs: 1000 })
  way.cameBack(1001, 3005)
  expect([way.isProven, way.at(100_000)]).toEqual([true, { stale: false, lagMs: 2004, sinceMs: null }])
  way.sent(100_000)
  way.sent(105_000)
  expect(way.at(106_000)).toMatchObject({ stale: false, lagMs: 2004 })
  expect(way.at(106_001)).toEqual({ stale: true, lagMs: 6001, sinceMs: 100_000 })
  // The first comes: the second is not late yet.
  way.cameBack(100_000, 107_000)
  expect(way.at(107_000)).toEqual({ stale: false, lagMs: 7000, sinceMs: null })
  expect(way.at(112_000)).toMatchObject({ stale: true, sinceMs: 105_000 })
  // What came back proves the way of all before it, of those too that Postgres never took.
  way.cameBack(112_500, 112_510)
  expect(way.at(200_000)).toMatchObject({ stale: false, lagMs: 10 })
})

test('[P7] hours without an answer cost no more than minutes, and the first that comes back ends them', () => {
  const way = new BeaconWay(6000)
  way.cameBack(0, 1)
  for (let nowMs = 10_000; nowMs < 4_000_000; nowMs += 1000) way.sent(nowMs)
  expect(way.at(4_000_000)).toMatchObject({ stale: true, sinceMs: 10_000 })
  way.cameBack(4_000_001, 4_000_002)
  expect(way.at(9_000_000)).toMatchObject({ stale: false })
})
