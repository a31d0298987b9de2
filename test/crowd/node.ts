// The node under test, as a process: what `tidegate start` runs, and answers about what it holds.
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { loadConfig } from '../../src/server/config/config.ts'
import { createLog } from '../../src/server/log/log.ts'
import { IdleMemory } from '../../src/server/process/idle-memory.ts'
import { keepYoungGenerationSmall } from '../../src/server/process/young-generation.ts'
import { startServer, type TidegateServer } from '../../src/server/server.ts'
import { answer } from './child.ts'

let server: TidegateServer
const delay = monitorEventLoopDelay({ resolution: 5 })

const answers = {
  async start(settings: Record<string, string>) {
    const config = loadConfig({ LOG_LEVEL: 'error', BEACON_MS: '1000', ...settings })
    new IdleMemory()
    keepYoungGenerationSmall()
    server = await startServer(config, { log: createLog(config.logLevel) })
    await server.ready()
    delay.enable()
    return { port: server.port }
  },
  /** Live bytes: what is left after a collection, on the heap and in buffers. Resident ones are taken when V8 has let go of
   *  what it had only pooled, as it does in time of a process that is quiet (see idle-memory.ts). */
  async weigh() {
    for (let i = 0; i < 3; i++) {
      globalThis.gc!({ type: 'major', execution: 'sync', flavor: 'last-resort' })
      // Buffers are given back, and what finalizers let go, after the turn.
      await new Promise(resolve => setTimeout(resolve, 20))
    }
    const { rss, heapUsed, arrayBuffers } = process.memoryUsage()
    return { rss, live: heapUsed + arrayBuffers }
  },
  holds: () => ({ ...server.holdings(), connections: server.connections() }),
  /** The longest that the event loop stood still since it was asked last, in milliseconds. */
  loopDelay() {
    const longest = delay.max / 1e6
    delay.reset()
    return longest
  },
}
export type NodeAnswers = typeof answers

answer(answers)
