// A whole Tidegate node in a process of its own, from the replication session to the sockets.
import { setImmediate as nextTurn } from 'node:timers/promises'
import { loadConfig } from '../../src/server/config/config.ts'
import { createLog } from '../../src/server/log/log.ts'
import { keepYoungGenerationSmall } from '../../src/server/process/young-generation.ts'
import { startServer, type TidegateServer } from '../../src/server/server.ts'
import { Replication } from '../../src/server/wal/replication.ts'
import { answer, cpuMicros, restedMemory } from '../child.ts'
import { Credits, type Pace, type Spent } from '../credits.ts'
import { HeldReplication, RepeatingReplication } from '../held-replication.ts'
import { jwtSecret, name } from '../world.ts'

export interface StartTidegate {
  readonly databaseUrl: string
  /** `held`: streams only while it is let. `repeated`: after a template, what it is told. */
  readonly replication: 'plain' | 'held' | 'repeated'
  readonly settings?: Readonly<Record<string, string>>
}

let server: TidegateServer | null = null
let replication: Replication | null = null
const credits = await Credits.listen()

const held = (): HeldReplication => {
  if (!(replication instanceof HeldReplication)) throw new Error('not started as held')
  return replication
}
const repeated = (): RepeatingReplication => {
  if (!(replication instanceof RepeatingReplication)) throw new Error('not started as repeated')
  return replication
}
const kinds = { plain: Replication, held: HeldReplication, repeated: RepeatingReplication }

answer(
  {
    async start({ databaseUrl, replication: kind, settings = {} }: StartTidegate) {
      const config = loadConfig({
        DATABASE_URL: databaseUrl,
        TIDEGATE_NAME: name,
        JWT_SECRET: jwtSecret,
        PORT: '0',
        LOG_LEVEL: 'error',
        BEACON_MS: '1000',
        MAX_CONNECTIONS: '15000',
        HEARTBEAT_MS: '600000',
        SLOT_MAX_BYTES: String(64 * 2 ** 30),
        ...settings,
      })
      // As `tidegate start` does.
      keepYoungGenerationSmall()
      server = await startServer(config, {
        log: createLog(config.logLevel),
        replicate: options => {
          replication = new kinds[kind](options)
          return replication
        },
      })
      await server.ready()
      return { port: server.port, creditPort: credits.port }
    },
    open: () => held().open(),
    close: () => held().close(),
    inserts: () => held().inserts,
    arm: ({ templates = 1 }: { templates?: number }) => repeated().arm(templates),
    ready: () => repeated().ready,
    /** One commit, for which nobody gives credit. */
    once: () => repeated().repeat(1),
    async repeat(pace: Pace): Promise<Spent> {
      return credits.spend(pace, async perTurn => {
        repeated().repeat(perTurn)
        // The gulp is decoded, served and written at the ends of these turns.
        for (let turn = 0; turn < 3; turn++) await nextTurn()
      })
    },
    cpu: cpuMicros,
    memory: restedMemory,
  },
  () => server?.stop(),
)
