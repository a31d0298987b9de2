// npm run night: a million commits, 20,000 clients that come and go, 200 nodes that are replaced, in ten minutes; and what is left of it.
import { writeFile } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import { LocalPostgres } from '../../src/cli/local-postgres.ts'
import { findRedis } from '../support/redis.ts'
import { night } from './night.ts'
import { failuresOf } from './verdict.ts'

const { values } = parseArgs({
  options: {
    commits: { type: 'string', default: '1000000' },
    connects: { type: 'string', default: '20000' },
    restarts: { type: 'string', default: '200' },
    minutes: { type: 'string', default: '10' },
    /** Per cent for each 100,000 commits. */
    growth: { type: 'string', default: '1' },
    /** Where the whole report goes, as JSON. */
    report: { type: 'string' },
  },
})

const postgres = await LocalPostgres.create({ settings: { fsync: 'off' } })
await postgres.start()
const redis = await findRedis()
try {
  const report = await night({
    serverUrl: postgres.url,
    redisUrl: redis.url,
    commits: Number(values.commits),
    connects: Number(values.connects),
    restarts: Number(values.restarts),
    seconds: 60 * Number(values.minutes),
    settleMs: 360_000,
    say: line => console.log(line),
  })
  const { weights, resident, ...figures } = report
  console.log(JSON.stringify(figures, null, 2))
  if (values.report !== undefined) await writeFile(values.report, JSON.stringify(report, null, 2))
  const failures = failuresOf(report, Number(values.growth))
  for (const failure of failures) console.log(failure)
  console.log(failures.length === 0 ? 'the night left nothing behind' : 'the night left something behind')
  process.exitCode = failures.length === 0 ? 0 : 1
} finally {
  await redis[Symbol.asyncDispose]()
  await postgres.stop()
}
