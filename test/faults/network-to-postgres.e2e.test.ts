// The network between Postgres and the node, and a node that stands still: nobody misses a commit, nobody sees one twice, nobody
// starts over, and the log says it once.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { until } from '../support/stalled.ts'
import { changesComeAgain, cutOff, noResyncs, streaming, World } from './world.ts'

let world: World

beforeAll(async () => {
  world = await World.begin({ ownServer: false })
})

afterAll(async () => {
  await world?.[Symbol.asyncDispose]()
})

async function expectUnharmed(said: readonly unknown[] = [cutOff, streaming, changesComeAgain]): Promise<void> {
  await world.written(300)
  await world.everybodyIsThere()
  await world.expectWhole()
  expect(world.resyncs()).toEqual(noResyncs(world))
  expect(world.node.said()).toEqual(said)
  await world.expectWeight()
}

const slotIsActive = async (): Promise<boolean> =>
  (await world.database.query(`SELECT FROM pg_replication_slots WHERE database = current_database() AND active`))
    .length > 0

test('[P4] [P7] every connection cut by a reset', async () => {
  world.link.cut()
  await world.node.untilSaid(changesComeAgain)
  await expectUnharmed()
})

test('[P4] [P6] [P7] wal_sender_timeout reached: a frozen node lets go of the slot, and goes on when it wakes', async () => {
  world.node.signal('SIGSTOP')
  await until(async () => !(await slotIsActive()))
  await world.written(100)
  world.node.signal('SIGCONT')
  await world.node.untilSaid(changesComeAgain)
  await expectUnharmed()
})

const everyConnection = (): boolean => true
const replicationAlone = (opening: Buffer): boolean => opening.includes('replication')

test.each([
  ['both ways, on every connection', ['up', 'down'], everyConnection],
  ['on the way to Postgres, on every connection', ['up'], everyConnection],
  ['on the way from Postgres, on the replication connection alone', ['down'], replicationAlone],
] as const)('[P4] [P7] packets swallowed %s', async (_, directions, which) => {
  world.link.freeze(directions, which)
  await world.node.untilSaid(changesComeAgain)
  await expectUnharmed()
  // What was swallowed comes late, to connections that nobody uses any more.
  world.link.thaw()
  await expectUnharmed([])
})

test('[P4] a network that is slow, and one that stands still for a moment, are no news', async () => {
  world.link.delayMs = 50
  await world.written(300)
  world.link.isolate()
  await world.written(300)
  world.link.thaw()
  await world.written(300)
  world.link.delayMs = 0
  await expectUnharmed([])
})
