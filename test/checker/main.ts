// npm run check:promises -- --seed N --minutes M: writers and readers against a node, and an independent slot that knows better.
import { randomInt } from 'node:crypto'
import { parseArgs } from 'node:util'
import { LocalPostgres } from '../../src/cli/local-postgres.ts'
import { check, type Verdict } from './checker.ts'
import { startHere, startProcess } from './nodes.ts'

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    minutes: { type: 'string', default: '1' },
    readers: { type: 'string', default: '60' },
    writers: { type: 'string', default: '8' },
    /** The node is a process that is killed and started again. */
    crashes: { type: 'boolean', default: false },
    /** Postgres's binaries, instead of the packaged ones. */
    'bin-dir': { type: 'string' },
    /** A window this short, so that some are away past it. */
    'window-ms': { type: 'string', default: '300000' },
    /** Transactions larger than this go through a file. */
    'spool-bytes': { type: 'string', default: '33554432' },
  },
})

const seed = Number(values.seed ?? randomInt(2 ** 31))
const binDir = values['bin-dir']
const settings = { WINDOW_MAX_AGE_MS: values['window-ms'], SPOOL_BYTES: values['spool-bytes'] }
const server = await LocalPostgres.create({
  settings: { max_prepared_transactions: '20', fsync: 'off' },
  ...(binDir === undefined ? {} : { binDir }),
})
await server.start()
let verdict: Verdict
try {
  verdict = await check({
    seed,
    minutes: Number(values.minutes),
    roundMs: 4000,
    readers: Number(values.readers),
    writers: Number(values.writers),
    server,
    serverUrl: server.url,
    truncateOneIn: 30,
    largeRows: 3000,
    windowMs: Number(values['window-ms']),
    spooledChanges: Number(values['spool-bytes']) / 200,
    startNode: url => (values.crashes ? startProcess : startHere)(url, settings),
    crashOneIn: values.crashes ? 2 : 0,
    say: line => console.log(line),
  })
} finally {
  await server.stop()
}
const { failure, ...counts } = verdict
console.log(JSON.stringify(counts, null, 2))
console.log(failure === null ? `seed ${seed}: every promise checked was kept` : `seed ${seed}: BROKEN\n${failure}`)
process.exit(failure === null ? 0 : 1)
