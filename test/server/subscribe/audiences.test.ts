import { expect, test } from 'vitest'
import type { Predicate } from '../../../src/predicate/algebra.ts'
import { sqlTypes } from '../../../src/predicate/sql-types.ts'
import { IndexSize } from '../../../src/server/authorize/inner-set.ts'
import type { Table } from '../../../src/server/catalog/table.ts'
import { Figures } from '../../../src/server/figures/figures.ts'
import { createLog } from '../../../src/server/log/log.ts'
import { createPool } from '../../../src/server/postgres/database.ts'
import { Head } from '../../../src/server/relay/head.ts'
import { MemoryRelay } from '../../../src/server/relay/memory-relay.ts'
import { Router } from '../../../src/server/route/router.ts'
import { FirstReads } from '../../../src/server/snapshot/first-reads.ts'
import { SnapshotReader } from '../../../src/server/snapshot/reader.ts'
import { SharedReads } from '../../../src/server/snapshot/shared-reads.ts'
import { Turns } from '../../../src/server/snapshot/turns.ts'
import { type AudienceRequest, Audiences, type AudienceUser } from '../../../src/server/subscribe/audiences.ts'
import { Reach } from '../../../src/server/subscribe/reach.ts'
import type { Stream } from '../../../src/server/subscribe/stream.ts'
import type { StreamParts } from '../../../src/server/subscribe/stream-parts.ts'
import { Times } from '../../../src/server/subscribe/times.ts'

const table: Table = {
  oid: 20_000,
  schema: 'public',
  name: 'messages',
  columns: [{ name: 'id', type: sqlTypes.int4, notNull: true }],
  primaryKey: [0],
  identity: new Set([0]),
  replicaIdentity: 'full',
  partitioned: false,
  rowSecurity: true,
  forceRowSecurity: false,
  published: true,
  readThrough: 'table',
}

/** id = n: reads no membership, so that nothing is asked of a database. */
function requestOf(n: number): AudienceRequest {
  const column = { kind: 'column', column: 0, name: 'id', type: sqlTypes.int4 } as const
  const right = { kind: 'const', value: String(n), type: sqlTypes.int4 } as const
  const filter: Predicate = { kind: 'compare', op: '=', left: column, right }
  return { query: { kind: 'live', table, filter, columns: [0], events: null }, predicate: filter, memberships: [] }
}

function streamOf(): Stream {
  const head = new Head()
  // Connects to nothing until somebody asks.
  const pool = createPool('postgres://nobody@127.0.0.1:1/none', { maxConnections: 1 })
  const beacon = { emit: () => Promise.resolve({ id: '' }) }
  const reader = new SnapshotReader({ snapshots: pool, reads: pool, head, beacon, timeoutMs: 1000 })
  const relay = new MemoryRelay({ maxBytes: 0, maxAgeMs: 0, maxWalBytes: 0, now: () => 0 })
  const turns = new Turns({ places: 1, maxWaiting: 1 })
  const parts: StreamParts = {
    relay,
    head,
    router: new Router(),
    reader,
    firstReads: new FirstReads({ reader, relay, lane: pool, turns, timeoutMs: 1000 }),
    sharedReads: new SharedReads(reader),
    indexSize: new IndexSize(1),
    log: createLog('silent'),
    figures: new Figures(),
    limits: {
      snapshotMaxRows: 1,
      snapshotChunkRows: 1,
      membershipMaxRows: 1,
      ringMaxBytes: 1,
      windowsMaxBytes: 1e6,
      maxHeldMs: 1,
      audienceGraceMs: 3_600_000,
      resumeWaitMs: 1,
    },
  }
  const times = new Times(parts, beacon)
  return { ...parts, times, reach: new Reach(parts, times) }
}

const someone = (): AudienceUser => ({ end: () => {} })

test('[P7] of the audiences that nobody uses any more only so many stay warm: the oldest goes, those in use stay', async () => {
  const audiences = new Audiences(streamOf(), 3)
  const user = someone()
  await audiences.join(requestOf(0), user)
  const first = await audiences.join(requestOf(1), user)
  audiences.leave(first, user)
  for (let n = 2; n <= 100; n++) audiences.leave(await audiences.join(requestOf(n), user), user)
  expect(audiences.size).toBe(4)
  // One that is asked again within its grace is the same; the oldest is made anew.
  const last = await audiences.join(requestOf(100), user)
  expect(await audiences.join(requestOf(100), someone())).toBe(last)
  expect(await audiences.join(requestOf(1), user)).not.toBe(first)
  audiences.close()
})

test('[P7] one that came back is not counted among those that wait', async () => {
  const audiences = new Audiences(streamOf(), 1)
  const user = someone()
  const kept = await audiences.join(requestOf(1), user)
  audiences.leave(kept, user)
  await audiences.join(requestOf(1), user)
  for (let n = 2; n <= 5; n++) audiences.leave(await audiences.join(requestOf(n), user), user)
  expect(await audiences.join(requestOf(1), user)).toBe(kept)
  expect(audiences.size).toBe(2)
  audiences.close()
})
