// Measures Tidegate beside its peers: npm run bench -- drain|fan-out|latency|authorize|relay|channels|supabase-wire|inspector [--json].
// What each measures and what limits it is in docs/performance.md.
import { mkdirSync } from 'node:fs'
import { Command } from 'commander'
import { authorize } from './authorize.ts'
import { channels } from './channels.ts'
import { drain } from './drain.ts'
import { fanOut } from './fan-out.ts'
import { inspector } from './inspector.ts'
import { latency } from './latency.ts'
import { relay } from './relay.ts'
import { type Figure, jsonOf, textOf } from './report.ts'
import { supabaseWire } from './supabase-wire.ts'

interface Flags {
  readonly json: boolean
  readonly rounds: string
  readonly scale: string
  readonly pgBin?: string
  readonly profile?: string
  readonly only?: string
  readonly readers: string
  readonly subscribers: string
}

const program = new Command('bench')
  .option('--json', 'print one object instead of text', false)
  .option('--rounds <n>', 'rounds, interleaved; the median counts', '5')
  .option('--scale <factor>', 'a part of the work, for a quick look: 0.1', '1')
  .option('--pg-bin <folder>', 'PostgreSQL binaries with pg_recvlogical and pgbench')
  .option('--only <text>', 'authorize, channels: the loads whose name has it, and nothing else')
  .option('--readers <n,n>', 'relay: nodes that read, one run each', '1,5,20')
  .option('--subscribers <n,n>', 'supabase-wire: how many, one run each', '100,1000,5000')
  .option('--profile <folder>', 'write a CPU profile of our side there')

const optionsOf = () => {
  const { rounds, scale, pgBin, profile, only, readers, subscribers } = program.opts<Flags>()
  if (profile !== undefined) mkdirSync(profile, { recursive: true })
  return {
    rounds: Number(rounds),
    scale: Number(scale),
    binDir: pgBin ?? null,
    only: only ?? null,
    readers: readers.split(',').map(Number),
    subscribers: subscribers.split(',').map(Number),
    profile: profile === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${profile}`],
  }
}

const benches: Readonly<Record<string, (options: ReturnType<typeof optionsOf>) => Promise<Figure[]>>> = {
  drain,
  'fan-out': fanOut,
  latency,
  authorize,
  relay,
  channels,
  'supabase-wire': supabaseWire,
  inspector,
}

for (const [name, run] of Object.entries(benches)) {
  program.command(name).action(async () => {
    const figures = await run(optionsOf())
    const isJson = program.opts<Flags>().json
    process.stdout.write(isJson ? `${jsonOf(figures)}\n` : figures.map(figure => `${textOf(figure)}\n`).join(''))
  })
}

await program.parseAsync()
