// Redis away under three nodes: killed, and back without anything it held; and silent.
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, test } from 'vitest'
import { AwayWorld, awayMs, recoverMs } from './away.ts'

let world: AwayWorld

beforeAll(async () => {
  world = await AwayWorld.begin()
})

afterAll(async () => {
  await world?.[Symbol.asyncDispose]()
})

const timeout = awayMs + 3 * recoverMs

/** The database goes on. */
async function writeOn(): Promise<void> {
  for (let i = 0; i < 20; i++) {
    await world.write()
    await sleep(50)
  }
}

test('[P4] [P8] Redis is killed and comes back empty: clients stay, are told stale, and miss nothing', {
  timeout,
}, async () => {
  await world.away(
    () => world.redis.kill(),
    () => world.redis.start('empty'),
    writeOn,
  )
})

test('[P4] [P8] Redis falls silent and speaks again: clients stay, are told stale, and miss nothing', {
  timeout,
}, async () => {
  await world.away(
    () => world.redis.pause(),
    async () => world.redis.resume(),
    writeOn,
  )
})
