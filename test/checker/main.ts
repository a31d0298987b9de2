// npm run check:promises -- --seed N --minutes M: writers and readers against a node, and an independent slot that knows better.
import { randomInt } from 'node:crypto'
import { parseArgs } from 'node:util'
import { check, type Verdict } from './checker.ts'
import { Cluster } from './cluster.ts'
import { startProcess } from './nodes.ts'
import { unseen } from './unseen.ts'

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    minutes: { type: 'string', default: '1' },
    clients: { type: 'string', default: '40' },
    writers: { type: 'string', default: '16' },
    /** Node and Postgres are killed and restarted, and the slot is lost. */
    crashes: { type: 'boolean', default: false },
    /** No commits that stall in the WAL. */
    'no-stalls': { type: 'boolean', default: false },
    /** Transaction ids begin shortly before this epoch of 2^32 ends; needs Debian's Postgres, for pg_resetwal. */
    'xid-epoch': { type: 'string' },
    /** Postgres's binaries, instead of the packaged ones. */
    'bin-dir': { type: 'string' },
    /** A window this short, so that some are away past it. */
    'window-ms': { type: 'string', default: '300000' },
    /** Transactions larger than this go through a file. */
    'spool-bytes': { type: 'string', default: '1048576' },
  },
})

const seed = Number(values.seed ?? randomInt(2 ** 31))
const binDir = values['bin-dir']
const xidEpoch = values['xid-epoch'] === undefined ? null : Number(values['xid-epoch'])
const { crashes } = values
const minutes = Number(values.minutes)
const cluster = await Cluster.start({ crashes, xidEpoch, ...(binDir === undefined ? {} : { binDir }) })
let verdict: Verdict
try {
  verdict = await check({
    seed,
    minutes,
    roundMs: 6000,
    clients: Number(values.clients),
    writers: Number(values.writers),
    cluster,
    stalls: !values['no-stalls'],
    crashes,
    truncateOneIn: 150,
    largeRows: 3000,
    windowMs: Number(values['window-ms']),
    spoolBytes: Number(values['spool-bytes']),
    startNode: startProcess,
    say: line => console.log(line),
  })
} finally {
  await cluster.stop()
}
const { failure, ...counts } = verdict
const { wires, ...tally } = counts.tally
console.log(JSON.stringify({ ...counts, tally }, null, 2))
console.table(wires)
// In a short run what is rare may not come.
const missing = minutes >= 3 && failure === null ? unseen(verdict, { crashes, stalls: !values['no-stalls'] }) : []
if (failure !== null) console.log(`seed ${seed}: BROKEN\n${failure}`)
else if (missing.length > 0) console.log(`seed ${seed}: nothing untrue, and nothing to see of: ${missing.join(', ')}`)
else console.log(`seed ${seed}: every promise checked was kept`)
process.exit(failure === null && missing.length === 0 ? 0 : 1)
