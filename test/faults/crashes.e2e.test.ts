// kill -9 and restarts, of Postgres and of Tidegate, under load: nobody misses a commit, nobody sees one twice, nobody starts
// over, and the log says it once.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { until } from '../support/stalled.ts'
import { expectWithin } from '../support/within.ts'
import { changesComeAgain, cutOff, noResyncs, streaming, World } from './world.ts'

let world: World

beforeAll(async () => {
  world = await World.begin({ ownServer: true })
})

afterAll(async () => {
  await world?.[Symbol.asyncDispose]()
})

/** What must hold after the database was away for a moment. */
async function expectUnharmed(): Promise<void> {
  await world.node.untilSaid(changesComeAgain)
  await world.written(300)
  await world.everybodyIsThere()
  await world.expectWhole()
  expect(world.resyncs()).toEqual(noResyncs(world))
  expect(world.node.said()).toEqual([cutOff, streaming, changesComeAgain])
  await world.expectWeight()
}

test('[P4] [P7] kill -9 of Postgres', async () => {
  await world.server!.halt('kill')
  await world.serverIsBack()
  await expectUnharmed()
})

test('[P4] [P7] kill -9 of a backend, for which Postgres restarts all of them', async () => {
  const [backend] = await world.database.query<{ pid: number }>(
    `SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND query LIKE 'INSERT INTO messages%' LIMIT 1`,
  )
  process.kill(backend!.pid, 'SIGKILL')
  await until(() => world.server!.log.some(line => line.includes('all server processes terminated')))
  await world.reconnect()
  await expectUnharmed()
})

test('[P4] [P6] [P7] a fast restart of Postgres, which waits for nobody', async () => {
  const haltedAt = performance.now()
  await world.server!.halt('fast')
  expectWithin(performance.now() - haltedAt, 5000)
  await world.serverIsBack()
  await expectUnharmed()
})

test('[P4] [P7] Postgres is away for so long that it is tried again many times', async () => {
  await world.server!.halt('immediate')
  const attempts = world.link.accepted
  await until(() => world.link.accepted > attempts + 8)
  await world.serverIsBack()
  await expectUnharmed()
})

test('[P4] [P7] kill -9 of Tidegate', async () => {
  await world.node.kill()
  await world.written(100)
  await world.node.start()
  await world.written(300)
  await world.everybodyIsThere()
  await world.expectWhole()
  expect(world.resyncs()).toEqual(noResyncs(world))
  for (const reader of world.neighbours) expect(reader.ends.length, reader.name).toBeGreaterThan(0)
  expect(world.node.said()).toEqual([streaming])
  // Another process: it holds as much as the one that it follows.
  await world.expectWeight()
})
