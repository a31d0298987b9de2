// A process that grows, becomes idle and prints its resident bytes before and after.
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises'
import { IdleMemory } from '../../src/server/process/idle-memory.ts'

let kept: object[][] = []
for (let round = 0; round < 40; round++) {
  kept = [...kept.slice(-3), Array.from({ length: 100_000 }, (_, i) => ({ i, held: [i] }))]
  await nextTurn()
}
kept = []
const grown = process.memoryUsage.rss()
const idle = new IdleMemory({ quietMs: 100 })
while (!idle.isRested && process.memoryUsage.rss() > grown / 2) await sleep(50)
idle.stop()
console.log(JSON.stringify({ grown, rested: process.memoryUsage.rss(), kept: kept.length }))
