// Nodes that only read the journal, many in one process: what reading costs, without what a node does with it.
import { createLog } from '../../src/server/log/log.ts'
import { Trouble } from '../../src/server/log/trouble.ts'
import { openRedis, type RedisClient } from '../../src/server/redis/redis.ts'
import type { Feed } from '../../src/server/relay/journal.ts'
import { RedisJournal } from '../../src/server/relay/redis-journal.ts'
import { answer, cpuMicros } from '../child.ts'

export interface StartReaders {
  readonly url: string
  readonly name: string
  readonly count: number
}

class Reader implements Feed {
  epoch = ''
  headLsn = 0n
  rows = 0
  /** Microseconds from the commit's timestamp until it was here; one commit in sixteen. */
  lags: number[] = []

  begin(epoch: string, floorLsn: bigint): void {
    this.epoch = epoch
    this.headLsn = floorLsn
  }

  append(commit: Parameters<Feed['append']>[0]): void {
    if (commit.commitLsn > this.headLsn) {
      this.headLsn = commit.commitLsn
      this.rows += commit.changeCount
      const arrivedMicros = (performance.timeOrigin + performance.now()) * 1000
      if (this.rows % 16 === 0) this.lags.push(arrivedMicros - Number(commit.committedAtMicros) - microsTo2000)
    }
    commit.release()
  }

  passed(): void {}
  settled(): void {}
  async room(): Promise<void> {}
}

const microsTo2000 = 946_684_800_000_000
const stopping = new AbortController()
const clients: RedisClient[] = []
const readers: Reader[] = []

answer(
  {
    start({ url, name, count }: StartReaders) {
      const log = createLog('error')
      for (let i = 0; i < count; i++) {
        const open = (use: string) => openRedis(url, { connectionName: use, commandTimeoutMs: 5000 })
        const [client, reader] = [open('client'), open('reader')]
        clients.push(client, reader)
        const journal = new RedisJournal({
          ...{ name, nodeId: `reader ${i}`, client, reader, log, trouble: new Trouble(log, Date.now) },
          hasSlot: async () => true,
          ...{ spoolBytes: 32 * 2 ** 20, maxBytes: 2 ** 40, maxAgeMs: 600_000, durability: 'none', holdMs: 0 },
        })
        const feed = new Reader()
        readers.push(feed)
        void journal.run(feed, stopping.signal)
      }
    },
    /** Resolves when each has so many rows. */
    async rows({ rows }: { rows: number }) {
      while (readers.some(reader => reader.rows < rows)) await new Promise(resolve => setTimeout(resolve, 5))
    },
    forget: () => {
      for (const reader of readers) {
        reader.rows = 0
        reader.lags = []
      }
    },
    lags: () => readers.flatMap(reader => reader.lags),
    cpu: cpuMicros,
  },
  () => {
    stopping.abort()
    for (const client of clients) client.disconnect()
  },
)
