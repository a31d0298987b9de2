import { totalmem } from 'node:os'
import { describe, expect, test } from 'vitest'
import { Connections } from '../../../src/server/deliver/connections.ts'
import { Figures } from '../../../src/server/figures/figures.ts'
import type { Gauges } from '../../../src/server/figures/gauges.ts'
import { readGauges } from '../../../src/server/metrics/read-gauges.ts'
import { NodeMetrics } from '../../../src/server/metrics/registry.ts'
import { metrics } from '../../../src/server/metrics/table.ts'
import { Exposition } from './exposition.ts'

const gauges: Gauges = {
  leads: true,
  isReady: true,
  isStale: false,
  isDraining: false,
  isInTrouble: false,
  slot: { lagBytes: 1, lagSeconds: 2, retainedBytes: 3, walStatus: 'reserved' },
  slotMaxBytes: 4,
  relayLagBytes: 5,
  relayLagSeconds: 6,
  lagBytes: 7,
  lagMs: 8,
  windowBytes: 9,
  windowCommits: 10,
  connections: 11,
  maxConnections: 12,
  subscriptions: 13,
  audiences: 14,
  queries: 15,
  splices: 16,
  queuedBytes: 17,
  channels: 18,
  members: 19,
  presenceRooms: 20,
  lanes: [{ lane: 'reads', inUse: 1, waiting: 2 }],
  maxDatabaseConnections: 21,
}

const scrape = async (figures: Figures, of: Gauges = gauges): Promise<Exposition> =>
  new Exposition(await new NodeMetrics({ figures, gauges: () => of }).text())

test('every metric of the table is told, with its help and type, and those of the process beside them', async () => {
  const { families } = await scrape(new Figures())
  for (const [name, { help, type }] of Object.entries(metrics)) expect(families.get(name)).toMatchObject({ help, type })
  const others = [...families.keys()].filter(name => !(name in metrics))
  expect(others).toEqual(
    expect.arrayContaining([
      'process_cpu_seconds_total',
      'process_resident_memory_bytes',
      'process_open_fds',
      'process_max_fds',
      'nodejs_eventloop_lag_p99_seconds',
      'nodejs_heap_size_used_bytes',
    ]),
  )
})

test('every gauge says another of the numbers that stand', async () => {
  const told = await scrape(new Figures())
  const values = Object.entries(metrics)
    .filter(
      ([name, { type, label }]) =>
        type === 'gauge' && label === undefined && !/ready|leader|stale|drain|trouble/.test(name),
    )
    .map(([name]) => Math.round(told.value(name) * (name === 'tidegate_node_lag_seconds' ? 1000 : 1)))
  expect(values.sort((a, b) => a - b)).toEqual(Array.from({ length: 21 }, (_, i) => i + 1))
  expect(told.find('tidegate_slot_wal_status', { status: 'reserved' })).toBe(1)
  expect(told.find('tidegate_postgres_waiting', { lane: 'reads' })).toBe(2)
})

test('what became of traces is told, and how much memory there is to take', async () => {
  const figures = new Figures()
  figures.traces.add('sent', 3)
  figures.traces.add('lost')
  const told = await scrape(figures)
  expect(told.value('tidegate_traces_total', { fate: 'sent' })).toBe(3)
  expect(told.value('tidegate_traces_total', { fate: 'lost' })).toBe(1)
  const limit = told.value('tidegate_memory_limit_bytes', { of: 'process' })
  expect(limit).toBeGreaterThan(told.value('process_resident_memory_bytes'))
  expect(limit).toBeLessThanOrEqual(totalmem())
  expect(told.value('tidegate_memory_limit_bytes', { of: 'heap' })).toBeGreaterThan(
    told.value('nodejs_heap_size_used_bytes'),
  )
})

test('what is not known is left out, and not told as 0', async () => {
  const told = await scrape(new Figures(), { ...gauges, slot: null, relayLagBytes: null, lagBytes: null })
  for (const name of [
    'tidegate_slot_lag_bytes',
    'tidegate_slot_retained_wal_bytes',
    'tidegate_relay_lag_bytes',
    'tidegate_node_lag_bytes',
  ])
    expect(told.find(name)).toBeUndefined()
})

test('a histogram has what it was given, in buckets that add up', async () => {
  const figures = new Figures()
  for (const seconds of [0.00001, 0.0003, 0.7, 100]) figures.timings.route.observe(seconds)
  const told = await scrape(figures)
  const bucket = (le: string) => told.find('tidegate_stage_duration_seconds_bucket', { stage: 'route', le })
  expect(['0.00001', '0.00025', '0.0005', '1', '30', '+Inf'].map(bucket)).toEqual([1, 1, 2, 3, 3, 4])
  expect(told.find('tidegate_stage_duration_seconds_sum', { stage: 'route' })).toBeCloseTo(100.70031)
  expect(told.find('tidegate_stage_duration_seconds_count', { stage: 'wal' })).toBe(0)
})

test('each scrape tells what is now, and two servers in one process tell their own', async () => {
  const [one, two] = [new Figures(), new Figures()]
  const metricsOf = new NodeMetrics({ figures: one, gauges: () => gauges })
  one.commits = 5
  expect(new Exposition(await metricsOf.text()).value('tidegate_commits_total')).toBe(5)
  one.commits = 6
  expect(new Exposition(await metricsOf.text()).value('tidegate_commits_total')).toBe(6)
  expect((await scrape(two)).value('tidegate_commits_total')).toBe(0)
})

test('[P7] a scrape with 5,000 connections takes less than 10 ms', async () => {
  const connections = new Connections({ maxConnections: 10_000 })
  for (let i = 0; i < 5000; i++)
    connections.takePlace('127.0.0.1').hold({
      ...{ principal: null, name: null, endedBy: null, queuedBytes: i % 7 },
      ...{ tick: () => {}, tellPulse: () => {}, goAway: () => {}, moveAway: () => false },
      ...{ cutOff: () => {}, refresh: () => {}, terminate: () => {} },
    })
  const figures = new Figures()
  for (let i = 0; i < 150; i++) figures.refusals.add(`CODE_${i}`)
  const text = new NodeMetrics({
    figures,
    gauges: () =>
      readGauges({
        upkeep: { view: () => ({ lagMs: 1, lagBytes: 2, stale: false, leader: true }), lags: () => null },
        trouble: { isOpen: false },
        relay: { retainedBytes: 1, retainedCommits: 2, pins: 0 },
        door: { count: () => ({ subscriptions: 1, audiences: 2 }), holdings: { queries: 3 } },
        channels: { holdings: { channels: 1, members: 2, rooms: 3 } },
        gateway: { connections: () => connections.count, queuedBytes: () => connections.queuedBytes },
        lanes: { use: () => [] },
        isReady: () => true,
        isDraining: () => false,
        limits: { slotMaxBytes: 1, maxConnections: 2, maxDatabaseConnections: 3 },
      }),
  })
  let bestMs = Number.POSITIVE_INFINITY
  let told = ''
  for (let i = 0; i < 20; i++) {
    const beganMs = performance.now()
    told = await text.text()
    bestMs = Math.min(bestMs, performance.now() - beganMs)
  }
  expect(new Exposition(told).value('tidegate_queued_bytes')).toBe(connections.queuedBytes)
  expect(connections.queuedBytes).toBeGreaterThan(10_000)
  expect(bestMs).toBeLessThan(10)
})

describe('the reader of the format', () => {
  const good = '# HELP a_total What it is.\n# TYPE a_total counter\na_total{x="1"} 2\n'
  test('takes what is right', () => {
    expect(new Exposition(good).value('a_total', { x: '1' })).toBe(2)
    expect(new Exposition(good.replace('"1"', '"a\\"b\\\\c\\nd"')).value('a_total', { x: 'a"b\\c\nd' })).toBe(2)
  })

  test.each([
    ['no end of line', good.slice(0, -1)],
    ['no help', good.slice(good.indexOf('\n') + 1)],
    ['no type', good.replace(/# TYPE.*\n/, '')],
    ['another type', good.replace('counter', 'number')],
    ['a counter without _total', good.replaceAll('a_total', 'a')],
    ['a negative counter', good.replace(' 2', ' -2')],
    ['a series twice', `${good}a_total{x="1"} 3\n`],
    ['a family twice', good + good],
    ['a series of another family', `${good}b_total 1\n`],
    ['a label without quotes', good.replace('"1"', '1')],
    ['a label twice', good.replace('x="1"', 'x="1",x="2"')],
    ['an open quote', good.replace('"1"', '"1')],
    ['no number', good.replace(' 2', ' two')],
    ['a bare comment', `${good}# a remark\n`],
    ['a histogram that does not add up', histogram([3, 2], 2)],
    ['a histogram without a count of all', histogram([1, 2], 3)],
  ])('refuses %s', (_, text) => {
    expect(() => new Exposition(text)).toThrow()
  })

  test('takes a histogram that adds up', () => {
    expect(new Exposition(histogram([1, 2], 2)).value('h_count')).toBe(2)
  })
})

function histogram([first, all]: readonly [number, number], count: number): string {
  return `# HELP h Durations.\n# TYPE h histogram\nh_bucket{le="1"} ${first}\nh_bucket{le="+Inf"} ${all}\nh_sum 1\nh_count ${count}\n`
}
