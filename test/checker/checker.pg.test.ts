// The checker in short, as part of every run of the tests. `npm run check:promises` runs it for as long as you like.
import { randomInt } from 'node:crypto'
import { expect, test } from 'vitest'
import { debianBin } from '../support/debian-postgres.ts'
import { type CheckerOptions, check, type Verdict } from './checker.ts'
import { Cluster, type ClusterOptions } from './cluster.ts'
import { startHere, startProcess } from './nodes.ts'

const seed = Number(process.env.TEST_SEED ?? randomInt(2 ** 31))
const minutes = 0.12

async function run(cluster: Partial<ClusterOptions>, options: Partial<CheckerOptions>): Promise<Verdict> {
  await using server = await Cluster.start({ xidEpoch: null, crashes: false, ...cluster })
  const verdict = await check({
    seed,
    minutes,
    roundMs: 3000,
    clients: 25,
    writers: 10,
    cluster: server,
    stalls: true,
    crashes: false,
    truncateOneIn: 60,
    largeRows: 1000,
    windowMs: 300_000,
    spoolBytes: 2 ** 20,
    startNode: startHere,
    say: line => console.log(`checker: ${line}`),
    ...options,
  })
  if (verdict.failure !== null) console.log(verdict.failure)
  return verdict
}

test('[P1] [P2] [P3] [P4] [P5] writers and readers in a crowd: the independent slot finds nothing untrue', {
  timeout: 90_000,
}, async () => {
  const { failure, tally, writers, rounds } = await run({}, {})
  expect(failure).toBe(null)
  expect(rounds).toBeGreaterThan(0)
  // A checker that compared nothing would pass too.
  const of = (kind: 'live' | 'changes') => Object.entries(tally.wires).filter(([name]) => name.endsWith(kind))
  expect(of('live').reduce((sum, [, { compared }]) => sum + compared, 0)).toBeGreaterThan(20)
  expect(of('changes').reduce((sum, [, { changes }]) => sum + changes, 0)).toBeGreaterThan(20)
  expect(tally.owed).toBeGreaterThan(20)
  expect(writers.stalledCommits + writers.longOpen + writers.preparedCommitted).toBeGreaterThan(0)
})

// One of these, by the seed.
const variants: readonly [string, () => Promise<Verdict>][] = [
  ['a short window and small spool', () => run({}, { windowMs: 2000, spoolBytes: 16_384 })],
  ['kills and crashes', () => run({ crashes: true }, { crashes: true, startNode: startProcess })],
  ...(debianBin === null
    ? []
    : [
        ['transaction ids beyond 2^32', () => run({ xidEpoch: 1 }, { startNode: startHere })] satisfies [
          string,
          () => Promise<Verdict>,
        ],
      ]),
]
const [name, variant] = variants[seed % variants.length]!

test(`[P1] [P2] [P3] [P4] [P5] the same with ${name}`, { timeout: 90_000 }, async () => {
  const { failure } = await variant()
  expect(failure).toBe(null)
})
