// npm run histories -- --count N --seed S [--case file]: histories against a node and a Postgres of their own.
import { randomInt } from 'node:crypto'
import { parseArgs } from 'node:util'
import { LocalPostgres } from '../../src/cli/local-postgres.ts'
import { runHistories } from './run.ts'
import { Site } from './site.ts'

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    count: { type: 'string', default: '200' },
    first: { type: 'string', default: '0' },
    depth: { type: 'string', default: '3' },
    case: { type: 'string' },
  },
})
const seed = Number(values.seed ?? randomInt(2 ** 31))
const server = await LocalPostgres.create({ settings: { fsync: 'off' } })
await server.start()
try {
  await using site = await Site.start(server.url)
  const count = Number(values.count)
  const startedAt = performance.now()
  console.log(`seed ${seed}`)
  const ran = await runHistories(site, {
    seed,
    count,
    first: Number(values.first),
    maxDepth: Number(values.depth),
    onProgress: played => console.log(`${played} played in ${((performance.now() - startedAt) / 1000).toFixed(1)} s`),
  })
  console.log(String(ran.tally))
  console.log(`passed ${ran.passed}, refused ${ran.refused}`)
  for (const [reason, times] of [...ran.refusals].sort(([, a], [, b]) => b - a)) console.log(`  ${times} ${reason}`)
  if (ran.failed !== null) {
    console.log(`${ran.failed.history.name}: ${ran.failed.played.failure}`)
    console.log(ran.failed.played.story)
    process.exitCode = 1
  }
} finally {
  await server.stop()
}
