// Puts the stream of a node together: its window of commits, what reads rows beside it, and the journal it shares with others.
import { randomBytes } from 'node:crypto'
import { IndexSize } from '../authorize/inner-set.ts'
import type { Config } from '../config/config.ts'
import type { Figures } from '../figures/figures.ts'
import type { Log } from '../log/log.ts'
import type { Trouble } from '../log/trouble.ts'
import { snapshotPlaces } from '../postgres/connections.ts'
import { Head } from '../relay/head.ts'
import { MemoryRelay } from '../relay/memory-relay.ts'
import { RedisJournal } from '../relay/redis-journal.ts'
import { Router } from '../route/router.ts'
import { FirstReads } from '../snapshot/first-reads.ts'
import { SnapshotReader } from '../snapshot/reader.ts'
import { SharedReads } from '../snapshot/shared-reads.ts'
import { Turns } from '../snapshot/turns.ts'
import { steadyNow } from '../steady-clock.ts'
import { Reach } from '../subscribe/reach.ts'
import type { Stream } from '../subscribe/stream.ts'
import type { StreamParts } from '../subscribe/stream-parts.ts'
import { Times } from '../subscribe/times.ts'
import { Beacon } from '../wal/heartbeat.ts'
import { slotExists } from '../wal/slot.ts'
import type { Lanes } from './lanes.ts'
import { snapshotTimeoutMs } from './lanes.ts'
import type { SharedRedis } from './shared-redis.ts'

export interface StreamSetup {
  readonly config: Config
  readonly lanes: Lanes
  readonly log: Log
  /** No heartbeat comes back. */
  readonly isStale: () => boolean
  readonly figures: Figures
}

export function openStream({ config, lanes, log, isStale, figures }: StreamSetup): {
  readonly stream: Stream
  readonly beacon: Beacon
} {
  const beacon = new Beacon({ pool: lanes.upkeep, prefix: config.tidegateName, secret: randomBytes(32) })
  const head = new Head()
  const relay = new MemoryRelay({
    maxBytes: config.windowMaxBytes,
    maxAgeMs: config.windowMaxAgeMs,
    maxWalBytes: Math.floor(config.slotMaxBytes / 4),
    now: steadyNow,
  })
  const { snapshots, reads } = lanes
  const turns = new Turns({
    places: snapshotPlaces({ connections: config.databasePool, snapshots: config.snapshotConcurrency }),
    maxWaiting: config.snapshotQueue,
  })
  const reader = new SnapshotReader({ snapshots, reads, head, beacon, timeoutMs: snapshotTimeoutMs, isStale })
  const parts: StreamParts = {
    relay,
    head,
    router: new Router(),
    reader,
    firstReads: new FirstReads({ reader, relay, lane: snapshots, turns, timeoutMs: config.snapshotTimeoutMs }),
    sharedReads: new SharedReads(reader),
    indexSize: new IndexSize(config.membershipIndexMaxRows),
    log,
    figures,
    limits: {
      snapshotMaxRows: config.snapshotMaxRows,
      snapshotChunkRows: config.snapshotChunkRows,
      membershipMaxRows: config.membershipMaxRows,
      ringMaxBytes: config.ringMaxBytes,
      windowsMaxBytes: config.windowsMaxBytes,
      maxHeldMs: config.maxHeldMs,
      audienceGraceMs: config.audienceGraceMs,
      resumeWaitMs: config.resumeWaitMs,
    },
  }
  const times = new Times(parts, beacon)
  return { stream: { ...parts, times, reach: new Reach(parts, times) }, beacon }
}

export interface JournalSetup extends Omit<StreamSetup, 'isStale' | 'figures'> {
  readonly redis: SharedRedis
  readonly nodeId: string
  readonly trouble: Trouble
}

export const openJournal = ({ config, lanes, log, redis, nodeId, trouble }: JournalSetup): RedisJournal =>
  new RedisJournal({
    ...redis,
    name: config.tidegateName,
    nodeId,
    log,
    trouble,
    spoolBytes: config.spoolBytes,
    maxBytes: config.relayMaxBytes,
    maxAgeMs: config.windowMaxAgeMs,
    durability: config.relayDurability,
    hasSlot: slotName => slotExists(lanes.upkeep, slotName),
    holdMs: config.relayHoldMs,
  })
