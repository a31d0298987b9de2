// The network between the node and its clients: each notices within its limit that the other one is gone, the client resumes
// without loss or repetition, and the neighbours notice nothing.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Direction, FaultyLink } from '../support/faulty-link.ts'
import { transports } from '../support/readers.ts'
import { until } from '../support/stalled.ts'
import { expectWithin } from '../support/within.ts'
import type { LoyalReader } from './readers.ts'
import { gaveUp, noResyncs, World } from './world.ts'

let world: World
let links: FaultyLink[]
let readers: LoyalReader[]

/** The server's heartbeat is a second, a peer silent for two is gone, and it looks twice before it says so. */
const serverLimitMs = 4000
const neighbourLimitMs = 2500

beforeAll(async () => {
  world = await World.begin({ ownServer: false, joinedLater: true })
  const places = transports.flatMap(transport => [
    { transport, kind: 'live' as const },
    { transport, kind: 'changes' as const },
  ])
  links = await Promise.all(places.map(() => FaultyLink.to(world.node.url)))
  readers = await Promise.all(places.map(({ transport, kind }, i) => world.join(transport, kind, links[i]!.url)))
  await world.weigh()
})

afterAll(async () => {
  await world?.[Symbol.asyncDispose]()
  for (const link of links ?? []) await link[Symbol.asyncDispose]()
})

/** What must hold once everybody is back. @param ends of the readers behind the links, by their place */
async function expectUnharmed(since: number): Promise<void> {
  await world.written(300)
  await world.everybodyIsThere()
  await world.expectWhole()
  expect(world.resyncs()).toEqual(noResyncs(world))
  expectWithin(world.slowest(since), neighbourLimitMs)
  for (const neighbour of world.neighbours) expect(neighbour.ends.splice(0), neighbour.name).toEqual([])
  for (const link of links) link.thaw()
  await world.expectWeight()
}

const endsOf = (which: (reader: LoyalReader) => boolean): string[] =>
  readers.filter(which).flatMap(({ ends }) => ends.splice(0))

test('[P4] [P7] connections cut by a reset', async () => {
  const since = Date.now()
  for (const link of links) link.cut()
  await until(() => readers.every(({ ends }) => ends.length > 0))
  await expectUnharmed(since)
  expect(endsOf(() => true)).toEqual(readers.map(() => 'closed'))
  expect(world.node.said()).toEqual([])
})

async function swallow(directions: readonly Direction[]): Promise<void> {
  for (const link of links) link.freeze(directions)
}

test('[P4] [P7] packets swallowed both ways: the server gives up WebSockets that say nothing, every client comes back', async () => {
  const since = Date.now()
  await swallow(['up', 'down'])
  const swallowedAt = performance.now()
  await until(() => world.node.saying.includes(gaveUp.silent))
  expectWithin(performance.now() - swallowedAt, serverLimitMs)
  await until(() => readers.every(({ ends }) => ends.length > 0))
  await expectUnharmed(since)
  expect(endsOf(() => true)).toEqual(readers.map(() => 'silent'))
  // Two of them: the second is told with others, a minute later.
  expect(world.node.said()).toEqual([gaveUp.silent])
})

test('[P4] [P7] packets swallowed on the way to the clients: every client comes back', async () => {
  const since = Date.now()
  await swallow(['down'])
  await until(() => readers.every(({ ends }) => ends.length > 0))
  await expectUnharmed(since)
  expect(endsOf(() => true)).toEqual(readers.map(() => 'silent'))
  expect(world.node.said()).toEqual([])
})

test('[P4] [P7] packets swallowed on the way to the server: WebSockets are told why they end, the other wires need no answer', async () => {
  const since = Date.now()
  await swallow(['up'])
  const swallowedAt = performance.now()
  await until(() => readers.every(({ transport, ends }) => transport !== 'websocket' || ends.length > 0))
  expectWithin(performance.now() - swallowedAt, serverLimitMs)
  await expectUnharmed(since)
  expect(endsOf(({ transport }) => transport === 'websocket')).toEqual(['HEARTBEAT_MISSED', 'HEARTBEAT_MISSED'])
  expect(endsOf(({ transport }) => transport === 'sse')).toEqual([])
  // A poll that was answered is asked anew, and hears nothing for as long as the way is not mended.
  expect(endsOf(() => true).filter(code => code !== 'silent')).toEqual([])
  expect(world.node.said()).toEqual([])
})
