// npm run torture:channels -- --minutes 10 --seed N: channels of three nodes under all that can befall them.
import { randomInt } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import { channelFaults, tortureChannels } from './torture.ts'

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    minutes: { type: 'string', default: '10' },
    nodes: { type: 'string', default: '3' },
    listeners: { type: 'string', default: '30' },
    /** Of each kind: over sockets, by POST, in SQL. */
    speakers: { type: 'string', default: '3' },
    'round-ms': { type: 'string', default: '30000' },
    'fault-every-ms': { type: 'string', default: '1500' },
    /** Kinds of faults with commas between, or `none`; left out, all. */
    faults: { type: 'string' },
    /** A mistake to plant in the nodes, see ../plant.ts. */
    plant: { type: 'string' },
    /** Where the whole report goes, as JSON. */
    report: { type: 'string' },
  },
})

for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(130))

const seed = Number(values.seed ?? randomInt(2 ** 31))
const report = await tortureChannels({
  seed,
  minutes: Number(values.minutes),
  roundMs: Number(values['round-ms']),
  nodes: Number(values.nodes),
  listeners: Number(values.listeners),
  speakers: Number(values.speakers),
  faultEveryMs: Number(values['fault-every-ms']),
  ...(values.faults === undefined
    ? {}
    : { kinds: channelFaults.filter(kind => values.faults!.split(',').includes(kind)) }),
  ...(values.plant === undefined ? {} : { plant: values.plant }),
  say: line => console.log(line),
})
const { failures, ...summary } = report
console.log(JSON.stringify(summary, null, 2))
if (values.report !== undefined) await writeFile(values.report, JSON.stringify(report, null, 2))
for (const failure of failures) console.log(failure)
const isKept = failures.length === 0
console.log(`seed ${seed}: ${isKept ? 'every promise checked was kept' : 'BROKEN'}`)
process.exit(isKept ? 0 : 1)
