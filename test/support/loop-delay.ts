// Loaded into a node under test (NODE_OPTIONS=--import=...): on SIGUSR2 it prints how long its event loop stood still at
// most since the last time, in milliseconds, and begins anew.
import { monitorEventLoopDelay } from 'node:perf_hooks'

const delay = monitorEventLoopDelay({ resolution: 5 })
delay.enable()
process.on('SIGUSR2', () => {
  process.stdout.write(`loop delay ${Math.round(delay.max / 1e6)}\n`)
  delay.reset()
})

export const loopDelayOptions = `--import=${import.meta.url}`
