// Readers that take too little, or nothing: each is parked, or closed by its code, and is whole again as soon as it reads; the
// neighbours notice nothing, and the node holds no more for it than it says.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { defaultLimits } from '../../src/server/deliver/limits.ts'
import { transports } from '../support/readers.ts'
import { until } from '../support/stalled.ts'
import { expectWithin } from '../support/within.ts'
import type { LoyalReader } from './readers.ts'
import { gaveUp, noResyncs, World } from './world.ts'

let world: World
let readers: LoyalReader[]
/** Of those who take no large rows, while each large commit is judged and made a frame for the others on two cores. */
const neighbourLimitMs = 3000
/** How long the node waits for the answer to its goodbye. */
const { closeTimeoutMs } = defaultLimits

beforeAll(async () => {
  world = await World.begin({ ownServer: false, joinedLater: true, node: { SEND_QUEUE_BYTES: '65536' } })
  readers = []
  for (const transport of transports)
    for (const kind of ['live', 'changes'] as const) readers.push(await world.join(transport, kind, world.node.url))
  await world.weigh()
})

afterAll(async () => {
  await world?.[Symbol.asyncDispose]()
})

/** Each goes to live queries and to change feeds; a dozen are more than the kernel's buffers and the queue hold. */
async function flood(megabytes: number): Promise<void> {
  for (let i = 0; i < megabytes; i++) await world.load.large(1_000_000)
}

async function expectNeighboursUnharmed(since: number): Promise<void> {
  for (const neighbour of world.neighbours) expect(neighbour.ends.splice(0), neighbour.name).toEqual([])
  expectWithin(world.slowest(since), neighbourLimitMs)
}

// First: over connections that have carried little, whose buffers in the kernel are small. After the other two a reader of this
// one held 12 MB of what was sent in them (Linux 6.18), and nobody had to wait for it.
test('[P4] [P7] readers that take nothing for half a minute are closed by SLOW_CONSUMER, and start over since the window has passed', async () => {
  await world.everybodyIsThere()
  const since = Date.now()
  for (const reader of readers) reader.pause()
  await flood(12)
  await until(() => world.node.saying.includes(gaveUp.slow), 45_000)
  const gaveUpAt = performance.now()
  await world.written(300)
  await expectNeighboursUnharmed(since)
  for (const reader of readers) reader.goOn()
  // Whoever reads on later than that finds its connection gone, and no goodbye.
  const isInTime = performance.now() - gaveUpAt < closeTimeoutMs - 500
  // What a poll is answered may fit into the network, and then nobody waits for it.
  const streams = readers.filter(({ transport }) => transport !== 'long-poll')
  await until(() => streams.every(({ ends, resyncs }) => ends.length > 0 && resyncs.length > 0))
  await world.forgive()
  await world.written(300)
  await world.expectWhole()
  for (const { transport, ends, name } of streams)
    if (transport === 'websocket' && isInTime) expect(ends, name).toEqual(['SLOW_CONSUMER'])
    else
      expect(ends, name).toEqual([expect.stringMatching(transport === 'sse' ? /^closed$/ : /^(SLOW_CONSUMER|closed)$/)])
  expect(streams.map(({ resyncs }) => resyncs)).toEqual(streams.map(() => ['WINDOW_PASSED']))
  expect(world.neighbours.flatMap(({ resyncs }) => resyncs)).toEqual([])
  expect(world.node.said()).toEqual([gaveUp.slow])
  await world.expectWeight()
  for (const { ends, resyncs } of readers) {
    ends.length = 0
    resyncs.length = 0
  }
})

test('[P4] [P7] readers that stall for a moment are parked and go on where they stood', async () => {
  await world.everybodyIsThere()
  const since = Date.now()
  for (const reader of readers) reader.pause()
  await flood(12)
  await world.written(600)
  await expectNeighboursUnharmed(since)
  for (const reader of readers) reader.goOn()
  expect(readers.flatMap(({ ends }) => ends)).toEqual([])
  await world.expectWhole()
  expect(world.resyncs()).toEqual(noResyncs(world))
  expect(world.node.said()).toEqual([])
  await world.expectWeight()
})

test('[P4] [P7] readers that take a little now and then', async () => {
  const since = Date.now()
  let isOver = false
  const trickle = (async () => {
    while (!isOver) {
      for (const reader of readers) reader.pause()
      await new Promise(resolve => setTimeout(resolve, 40))
      for (const reader of readers) reader.goOn()
      await new Promise(resolve => setTimeout(resolve, 40))
    }
  })()
  try {
    await flood(3)
    await world.written(600)
    await expectNeighboursUnharmed(since)
  } finally {
    isOver = true
    await trickle
  }
  expect(readers.flatMap(({ ends }) => ends)).toEqual([])
  await world.expectWhole()
  expect(world.resyncs()).toEqual(noResyncs(world))
  expect(world.node.said()).toEqual([])
  await world.expectWeight()
})
