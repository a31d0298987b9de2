// npm run fuzz -- --seed N --minutes M: sends a node what nobody should, and sees that nobody is harmed.
import { randomInt } from 'node:crypto'
import { parseArgs } from 'node:util'
import { LocalPostgres } from '../../src/cli/local-postgres.ts'
import { TestDatabase } from '../support/postgres.ts'
import { fuzz } from './fuzz.ts'

const { values } = parseArgs({ options: { seed: { type: 'string' }, minutes: { type: 'string', default: '1' } } })
const seed = Number(values.seed ?? randomInt(2 ** 31))
console.log(`seed ${seed}`)
const server = await LocalPostgres.create({ settings: { fsync: 'off' } })
await server.start()
try {
  await using database = await TestDatabase.create(server.url)
  const runMs = Number(values.minutes) * 60_000
  const { failures, ...counts } = await fuzz({ seed, runMs, database, say: line => console.log(line) })
  console.log(JSON.stringify(counts, null, 2))
  for (const failure of failures) console.log(`\n${failure}`)
  console.log(
    failures.length === 0 ? `seed ${seed}: nothing came through` : `seed ${seed}: ${failures.length} FAILURES`,
  )
  process.exitCode = failures.length === 0 ? 0 : 1
} finally {
  await server.stop()
}
