import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Arrivals } from '../../../src/server/figures/arrivals.ts'
import { CommitClock, type TimedCommit } from '../../../src/server/figures/commit-clock.ts'
import { type CommitTrace, CommitTraces } from '../../../src/server/figures/commit-trace.ts'
import { Figures } from '../../../src/server/figures/figures.ts'
import { type Stage, stages } from '../../../src/server/figures/stage.ts'
import { type Batch, Outbox, type Receivers } from '../../../src/server/route/batch.ts'
import { Outgoing } from '../../../src/server/route/outgoing.ts'

const startMs = 1_800_000_000_000
const msTo2000 = 946_684_800_000

class World {
  readonly figures = new Figures()
  readonly traces = new CommitTraces()
  readonly arrivals = new Arrivals()
  nowMs = startMs
  readonly clock = new CommitClock({ ...this.parts, now: () => this.nowMs })

  private get parts() {
    return { figures: this.figures, traces: this.traces, arrivals: this.arrivals }
  }

  /** @param agoMs when it committed */
  commit(lsn: bigint, agoMs = 0): TimedCommit {
    return {
      xid: Number(lsn),
      commitLsn: lsn,
      committedAtMicros: BigInt(Math.round((this.nowMs - agoMs - msTo2000) * 1000)),
      bytes: 100,
      changeCount: 2,
      layouts: [{ schema: 'public', name: 'messages' }],
    }
  }

  timed(stage: Stage): number {
    return this.figures.timings[stage].count
  }

  /** Serves commits that concern nobody, so many, one each `everyMs`; as many together as come in `togetherMs`. */
  pass(count: number, everyMs: number, togetherMs: number): void {
    let batchMs = 0
    for (let i = 0; i < count; i++) {
      if (batchMs <= 0) {
        this.clock.look()
        batchMs = togetherMs
      }
      this.clock.begin(this.commit(BigInt(i + 1)))
      this.clock.served(false)
      this.nowMs += everyMs
      batchMs -= everyMs
    }
    this.clock.rest()
  }
}

test('every commit is timed while there are few', () => {
  const world = new World()
  world.pass(500, 6, 0)
  expect(world.timed('relay')).toBe(500)
})

test('[P7] where there are many, about 200 a second are timed, however they come together', () => {
  fc.assert(
    fc.property(fc.constantFrom(0.005, 0.02, 0.1, 1), fc.constantFrom(0, 1, 50, 500), (everyMs, togetherMs) => {
      const world = new World()
      const seconds = 2
      world.pass((seconds * 1000) / everyMs, everyMs, togetherMs)
      expect(world.timed('relay')).toBeLessThanOrEqual(200 * seconds + 21)
      expect(world.timed('relay')).toBeGreaterThanOrEqual(Math.min(100 * seconds, (seconds * 1000) / everyMs / 32))
    }),
    { numRuns: 16 },
  )
})

test('its stages lie one behind the other, in the order of the path, and make up its way', () => {
  const world = new World()
  const traces: CommitTrace[] = []
  world.traces.watch(trace => traces.push(trace))
  const outbox = new Outbox(world.clock)
  const reader: Receivers = {
    query: { number: 1 },
    tag: '',
    toldLsn: 0n,
    members: {
      deliver: (batch: Batch) => {
        world.figures.deliveries += 3 * batch.events.length
        world.nowMs += 7
      },
    },
  }
  const commit = world.commit(9n, 10)
  world.nowMs += 1
  world.arrivals.note(9n, world.nowMs - 3)
  world.clock.look()
  world.clock.begin(commit)
  world.clock.turnTo('authorize')
  world.nowMs += 2
  world.clock.turnTo('decode')
  world.nowMs += 1
  world.clock.count('decode', 2)
  world.clock.turnTo('authorize')
  world.nowMs += 4
  world.clock.count('authorize', 5)
  world.clock.turnTo('route')
  world.clock.concerned(1)
  world.nowMs += 3
  outbox.add(reader, [new Outgoing('delta', '{}', null, null)], 9n)
  world.clock.count('route', 1)
  world.clock.served(outbox.isTimed)
  // Another commit of the same turn, which is not timed, because one is.
  world.clock.begin(world.commit(10n))
  expect(world.clock.isServing).toBe(false)
  world.clock.turnTo('decode')
  world.nowMs += 100
  world.clock.served(false)
  expect(traces).toEqual([])
  outbox.handOut()

  expect(traces).toHaveLength(1)
  const [trace] = traces
  expect(trace).toMatchObject({ xid: 9, lsn: '0/9', bytes: 100, changes: 2, audiences: 1, deliveries: 3 })
  expect(trace!.tables).toEqual(['public.messages'])
  expect(trace!.spans.map(({ stage, durationMs, count }) => [stage, Math.round(durationMs), count])).toEqual([
    ['wal', 8, 100],
    ['relay', 3, 100],
    ['decode', 1, 2],
    ['authorize', 6, 5],
    ['route', 3, 1],
    ['deliver', 7, 3],
  ])
  expect(trace!.spans.every(({ startedAtMs }) => startedAtMs >= trace!.committedAtMs - 0.001)).toBe(true)
  for (const stage of stages) expect(world.timed(stage)).toBe(1)
  expect(world.figures.endToEnd.count).toBe(1)
  // The 100 ms in which it waited for others are part of the whole.
  expect(world.figures.endToEnd.sumSeconds).toBeCloseTo((11 + 10 + 100 + 7) / 1000)
})

test('what is handed out while it is being routed is delivery, and not routing', () => {
  const world = new World()
  const outbox = new Outbox(world.clock)
  const readers = [1, 2].map(
    (number): Receivers => ({
      query: { number },
      tag: '',
      toldLsn: 0n,
      members: {
        deliver: () => {
          world.figures.deliveries += 1
          world.nowMs += 20
        },
      },
    }),
  )
  world.clock.look()
  world.clock.begin(world.commit(1n))
  world.clock.turnTo('route')
  for (const reader of readers) {
    world.nowMs += 1
    outbox.add(reader, [new Outgoing('delta', '{}', null, null)], 1n)
  }
  world.clock.served(outbox.isTimed)
  outbox.handOut()
  const { route, deliver } = world.figures.timings
  expect(route.sumSeconds).toBeCloseTo(0.002)
  expect(deliver.sumSeconds).toBeCloseTo(0.04)
})

test('on a node without the slot the relay begins with the commit itself; a clock that goes ahead makes nothing negative', () => {
  const world = new World()
  world.clock.look()
  world.clock.begin(world.commit(1n, 12))
  world.clock.served(false)
  expect(world.timed('wal')).toBe(0)
  expect(world.figures.timings.relay.sumSeconds).toBeCloseTo(0.012)
  world.clock.begin(world.commit(2n, -5000))
  world.clock.served(false)
  expect(world.figures.timings.relay.sumSeconds).toBeCloseTo(0.012)
})

test('a commit that was broken off is forgotten, and the next is timed', () => {
  const world = new World()
  world.clock.look()
  world.clock.begin(world.commit(1n))
  world.clock.turnTo('decode')
  world.clock.rest()
  expect(world.timed('relay')).toBe(0)
  world.clock.begin(world.commit(2n))
  world.clock.served(false)
  expect(world.timed('relay')).toBe(1)
})

test('[P7] at most 100 a second are traced, and none while nobody watches', () => {
  const world = new World()
  let traced = 0
  world.pass(100, 5, 0)
  const end = world.traces.watch(() => {
    traced += 1
  })
  world.pass(400, 5, 0)
  expect(traced).toBeGreaterThan(190)
  expect(traced).toBeLessThanOrEqual(201)
  end()
  world.pass(100, 5, 0)
  expect(traced).toBeLessThanOrEqual(201)
})
