// npm run torture -- --minutes 10 --seed N: a deployment of three nodes under all that can befall it, and an independent slot
// that knows better.
import { randomInt } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import { type FaultKind, faultKinds } from './faults.ts'
import { summaryOf } from './summary.ts'
import { torture } from './torture.ts'

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    minutes: { type: 'string', default: '10' },
    /** One: without Redis. */
    nodes: { type: 'string', default: '3' },
    clients: { type: 'string', default: '40' },
    writers: { type: 'string', default: '20' },
    'round-ms': { type: 'string', default: '45000' },
    'fault-every-ms': { type: 'string', default: '1200' },
    /** Kinds of faults with commas between; left out, all. */
    faults: { type: 'string' },
    /** How long acknowledgements are held back. */
    'hold-ms': { type: 'string', default: '5000' },
    'window-ms': { type: 'string', default: '60000' },
    /** A mistake to plant in the nodes, see plant.ts. */
    plant: { type: 'string' },
    /** Where the whole report goes, as JSON. */
    report: { type: 'string' },
  },
})

for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(130))

const seed = Number(values.seed ?? randomInt(2 ** 31))
const report = await torture({
  seed,
  minutes: Number(values.minutes),
  roundMs: Number(values['round-ms']),
  nodes: Number(values.nodes),
  clients: Number(values.clients),
  writers: Number(values.writers),
  truncateOneIn: 400,
  largeRows: 2000,
  faultEveryMs: Number(values['fault-every-ms']),
  ...(values.faults === undefined
    ? {}
    : { kinds: faultKinds.filter((kind: FaultKind) => values.faults!.split(',').includes(kind)) }),
  ...(values.plant === undefined ? {} : { plant: values.plant }),
  holdMs: Number(values['hold-ms']),
  windowMs: Number(values['window-ms']),
  spoolBytes: 2 ** 22,
  say: line => console.log(line),
})
const summary = summaryOf(report)
console.log(JSON.stringify(summary, null, 2))
if (values.report !== undefined) await writeFile(values.report, JSON.stringify({ ...summary, ...report }, null, 2))
for (const failure of report.failures) console.log(failure)
console.log(`seed ${seed}: ${summary.verdict}`)
process.exit(summary.isKept ? 0 : 1)
