// npm run histories -- --count N --seed S [--first I] [--case file]: histories against a node and a Postgres of their own. A
// failure is made small, written to test/histories/cases, and told.
import { randomInt } from 'node:crypto'
import { parseArgs } from 'node:util'
import { LocalPostgres } from '../../src/cli/local-postgres.ts'
import { readCase, writeCase } from './cases.ts'
import type { History } from './history.ts'
import { type Failed, runHistories } from './run.ts'
import { fails, shrink } from './shrink.ts'
import { Site } from './site.ts'

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    count: { type: 'string', default: '200' },
    first: { type: 'string', default: '0' },
    depth: { type: 'string', default: '3' },
    case: { type: 'string' },
    'shrink-seconds': { type: 'string', default: '180' },
  },
})

/** In a run of so many histories, no kind of policy, change or reader comes less often than this. */
const fullRun = 2000
const leastOfEach = 1000

/** How often a case is played, a few copies at a time: some failures need their moment. */
const caseRounds = 25

const server = await LocalPostgres.create({ settings: { fsync: 'off' } })
await server.start()
try {
  await using site = await Site.start(server.url)
  const isRight = values.case === undefined ? await runMany(site) : await playCase(site, readCase(values.case))
  process.exitCode = isRight ? 0 : 1
} finally {
  await server.stop()
}

async function runMany(site: Site): Promise<boolean> {
  const seed = Number(values.seed ?? randomInt(2 ** 31))
  const count = Number(values.count)
  const startedAt = performance.now()
  const seconds = (): string => ((performance.now() - startedAt) / 1000).toFixed(0)
  console.log(`seed ${seed}`)
  const ran = await runHistories(site, {
    seed,
    count,
    first: Number(values.first),
    maxDepth: Number(values.depth),
    onProgress: played => console.log(`${played} played in ${seconds()} s`),
  })
  console.log(String(ran.tally))
  if (ran.failed !== null) return tell(site, ran.failed)
  console.log(`seed ${seed}: ${ran.passed} histories passed in ${seconds()} s`)
  const rare = count < fullRun ? [] : ran.tally.rare(leastOfEach)
  for (const kind of rare) console.log(`RARE ${kind}: less than ${leastOfEach}`)
  return rare.length === 0
}

async function tell(site: Site, failed: Failed): Promise<false> {
  console.log(`\n${failed.history.name} FAILED: ${failed.played.failure}\nmaking it smaller ...`)
  const { history, played } = await shrink(site, failed, Number(values['shrink-seconds']) * 1000)
  const path = writeCase(failed.history.name.replaceAll(/\W+/g, '-'), history)
  console.log(`\n${played.failure}\n${played.story}\n\nwritten to ${path}`)
  return false
}

async function playCase(site: Site, history: History): Promise<boolean> {
  for (let round = 0; round < caseRounds; round++) {
    const played = await fails(site, history, null)
    if (played === null) continue
    console.log(`${history.name} FAILED: ${played.failure}\n${played.story}`)
    return false
  }
  console.log(`${history.name}: nothing is wrong`)
  return true
}
