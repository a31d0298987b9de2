// A process that holds the slot, for tests that freeze or kill it: node holder.ts <databaseUrl> <walSenderTimeoutMs>

import { createLog } from '../../../src/server/log/log.ts'
import { createPool } from '../../../src/server/postgres/database.ts'
import { Replication } from '../../../src/server/wal/replication.ts'

const replication = new Replication({
  databaseUrl: process.argv[2]!,
  pool: createPool(process.argv[2]!, { maxConnections: 2 }),
  name: 'tidegate',
  publication: 'tidegate',
  slotMaxBytes: 2 ** 30,
  resumeFrom: () => null,
  log: createLog('silent'),
  walSenderTimeoutMs: Number(process.argv[3]),
})
for await (const life of replication.lives(new AbortController().signal)) {
  process.stdout.write(`${life.slot.slotName}\n`)
  try {
    for await (const gulp of life.stream.gulps()) void gulp
  } catch {
    // The next life follows.
  }
}
