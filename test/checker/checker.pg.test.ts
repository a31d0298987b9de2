// The checker in short, as part of every run of the tests. `npm run check:promises` runs it for as long as you like.
import { randomInt } from 'node:crypto'
import { expect, test } from 'vitest'
import { LocalPostgres } from '../../src/cli/local-postgres.ts'
import { check } from './checker.ts'
import { startHere } from './nodes.ts'

test('[P1] [P2] [P3] [P4] [P5] writers and readers in a crowd: the independent slot finds nothing untrue', {
  timeout: 90_000,
}, async () => {
  await using server = await LocalPostgres.create({ settings: { max_prepared_transactions: '20', fsync: 'off' } })
  await server.start()
  const seed = Number(process.env.TEST_SEED ?? randomInt(2 ** 31))
  const { failure, tally, resumes, rounds } = await check({
    seed,
    minutes: 0.2,
    roundMs: 3000,
    readers: 30,
    writers: 8,
    server,
    serverUrl: server.url,
    truncateOneIn: 30,
    largeRows: 1000,
    windowMs: 300_000,
    spooledChanges: Number.POSITIVE_INFINITY,
    startNode: startHere,
    crashOneIn: 0,
    say: line => console.log(`checker: ${line}`),
  })
  expect(failure).toBe(null)
  expect(rounds).toBeGreaterThan(0)
  // A checker that compared nothing would pass too.
  for (const [what, count] of Object.entries({ ...tally, resumes }))
    if (typeof count === 'number') expect(count, what).toBeGreaterThan(0)
})
