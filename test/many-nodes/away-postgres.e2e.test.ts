// Postgres away under three nodes: stopped and started again; and silent, with all its processes.
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { AwayWorld, awayMs, recoverMs } from './away.ts'

let world: AwayWorld

beforeAll(async () => {
  world = await AwayWorld.begin()
})

afterAll(async () => {
  for (const pid of stopped.splice(0)) process.kill(pid, 'SIGCONT')
  await world?.[Symbol.asyncDispose]()
})

const timeout = awayMs + 3 * recoverMs
const stopped: number[] = []

test('[P4] [P8] Postgres is stopped and started again: clients stay, are told stale, and miss nothing', {
  timeout,
}, async () => {
  await world.away(
    async () => {
      await world.disconnect()
      await world.server.halt('fast')
    },
    async () => {
      await world.server.start()
      await world.reconnect()
    },
  )
})

test('[P4] [P8] Postgres falls silent with all its processes and speaks again: clients stay, are told stale, and miss nothing', {
  timeout,
}, async () => {
  await world.away(
    async () => {
      const [main] = (await readFile(join(world.server.dataDir, 'postmaster.pid'), 'utf8')).split('\n').map(Number)
      // First whoever would start others in the place of those.
      process.kill(main!, 'SIGSTOP')
      stopped.push(main!)
      const children = (await readFile(`/proc/${main}/task/${main}/children`, 'utf8')).trim().split(' ').map(Number)
      for (const pid of children) process.kill(pid, 'SIGSTOP')
      stopped.push(...children)
      expect(children.length).toBeGreaterThan(5)
    },
    async () => {
      for (const pid of stopped.splice(0)) process.kill(pid, 'SIGCONT')
    },
  )
})
