// Torture in short, as part of every run of the tests. `npm run torture` runs it for as long as you like.
import { expect, test } from 'vitest'
import { summaryOf } from './summary.ts'
import { torture } from './torture.ts'

const seed = Number(process.env.TEST_SEED ?? 20)

test('[P1] [P2] [P3] [P4] [P5] three nodes, Redis and Postgres under kills, freezes, cuts and rollbacks: the independent slot finds nothing untrue', {
  timeout: 300_000,
}, async () => {
  const report = await torture({
    seed,
    minutes: 0.2,
    least: { faults: 6, commits: 201, deliveries: 501 },
    roundMs: 12_000,
    nodes: 3,
    clients: 16,
    writers: 6,
    truncateOneIn: 300,
    largeRows: 300,
    faultEveryMs: 800,
    windowMs: 60_000,
    holdMs: 5000,
    spoolBytes: 2 ** 22,
    say: line => console.log(`torture: ${line}`),
  })
  const { faults, deliveries, commits } = summaryOf(report)
  expect(report.failures).toEqual([])
  // A run in which nothing befell or nothing was told would pass too.
  expect(faults).toBeGreaterThan(5)
  expect(commits).toBeGreaterThan(200)
  expect(deliveries).toBeGreaterThan(500)
})
