// The slot lost, in every way, under load: everybody is told to start over exactly once, nobody loses anything after it, and
// the log says why and what to do.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { until } from '../support/stalled.ts'
import { changesComeAgain, cutOff, newSlot, streaming, World } from './world.ts'

let world: World

beforeAll(async () => {
  world = await World.begin({ ownServer: true })
})

afterAll(async () => {
  await world?.[Symbol.asyncDispose]()
})

const slots = (): Promise<{ slot_name: string }[]> =>
  world.database.query(`SELECT slot_name FROM pg_replication_slots WHERE database = current_database()`)

async function dropSlot(): Promise<void> {
  const [slot] = await slots()
  // As an operator would: what streams from it must go first, and comes back within moments.
  const drop = `SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE slot_name = '${slot!.slot_name}' AND active;
    SELECT pg_drop_replication_slot('${slot!.slot_name}')`
  await until(() =>
    world.database.query(drop).then(
      () => true,
      () => false,
    ),
  )
}

async function expectOneResync(): Promise<void> {
  await until(() => world.readers.every(({ resyncs }) => resyncs.length > 0)).catch(() => {})
  await world.forgive()
  await world.written(300)
  await world.expectWhole()
  expect(world.resyncs()).toEqual(world.readers.map(() => ['EPOCH_CHANGED']))
  await world.expectWeight()
}

test('[P4] [P7] the slot dropped while the node runs', async () => {
  await dropSlot()
  await world.node.untilSaid(changesComeAgain)
  await expectOneResync()
  // Between its session's end and the drop it may have come back to it for a moment.
  expect(world.node.said().filter(line => line !== streaming)).toEqual([
    cutOff,
    expect.stringMatching(
      /^error SLOT_LOST: the slot tidegate_\w+ was dropped by someone; a new epoch starts and every client resyncs$/,
    ),
    newSlot,
    changesComeAgain,
  ])
})

test('[P4] [P7] the slot dropped while the node is away', async () => {
  await world.node.kill()
  await dropSlot()
  await world.written(100)
  await world.node.start()
  await expectOneResync()
  // Nobody here knows that there was another one; whoever wonders why clients started over finds it in the log.
  expect(world.node.said()).toEqual([newSlot])
})

test('[P4] [P6] [P7] the slot invalidated by max_slot_wal_keep_size', async () => {
  const keep = async (setting: string): Promise<void> => {
    await world.database.query(`ALTER SYSTEM ${setting}`)
    await world.database.query('SELECT pg_reload_conf()')
  }
  await keep(`SET max_slot_wal_keep_size = '1MB'`)
  await world.database.query('CREATE TABLE filler (body text)')
  const [slot] = await slots()
  await until(async () => {
    await world.database.query(`INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, 20000)`)
    await world.database.query('SELECT pg_switch_wal()')
    await world.database.query('CHECKPOINT')
    const usable = await world.database.query(
      `SELECT FROM pg_replication_slots WHERE slot_name = '${slot!.slot_name}' AND wal_status <> 'lost'`,
    )
    return usable.length === 0
  })
  await keep(`SET max_slot_wal_keep_size = '4GB'`)
  await world.node.untilSaid(changesComeAgain)
  await expectOneResync()
  expect(world.node.said()).toEqual([
    cutOff,
    expect.stringMatching(
      /^error SLOT_LOST: the slot tidegate_\w+ was invalidated: .*max_slot_wal_keep_size.*; a new epoch starts/,
    ),
    newSlot,
    changesComeAgain,
  ])
})
