// npm run fuzz -- --seed N --minutes M [--redis]: sends a node what nobody should, and sees that nobody is harmed.
import { randomInt } from 'node:crypto'
import { parseArgs } from 'node:util'
import { LocalPostgres } from '../../src/cli/local-postgres.ts'
import { TestDatabase } from '../support/postgres.ts'
import { findRedis } from '../support/redis.ts'
import { fuzz } from './fuzz.ts'

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    minutes: { type: 'string', default: '1' },
    redis: { type: 'boolean', default: false },
  },
})
const seed = Number(values.seed ?? randomInt(2 ** 31))
console.log(`seed ${seed}`)
const server = await LocalPostgres.create({ settings: { fsync: 'off' } })
await server.start()
try {
  await using database = await TestDatabase.create(server.url)
  const runMs = Number(values.minutes) * 60_000
  await using redis = values.redis ? await findRedis() : null
  const { failures, ...counts } = await fuzz({
    seed,
    runMs,
    database,
    say: line => console.log(line),
    ...(redis === null ? {} : { redisUrl: redis.url }),
  })
  console.log(JSON.stringify(counts, null, 2))
  for (const failure of failures) console.log(`\n${failure}`)
  console.log(
    failures.length === 0 ? `seed ${seed}: nothing came through` : `seed ${seed}: ${failures.length} FAILURES`,
  )
  process.exitCode = failures.length === 0 ? 0 : 1
} finally {
  await server.stop()
}
