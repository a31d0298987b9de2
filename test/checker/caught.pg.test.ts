// The checker can fail: mistakes planted in the node, of the kinds it is there for, do not pass it.
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest'
import { MemoryRelay } from '../../src/server/relay/memory-relay.ts'
import { Audience } from '../../src/server/route/audience.ts'
import { SnapshotReader } from '../../src/server/snapshot/reader.ts'
import { Holds } from '../../src/server/subscribe/holds.ts'
import type { Snapshot } from '../../src/server/wal/visibility.ts'
import { debianBin } from '../support/debian-postgres.ts'
import { type CheckerOptions, check } from './checker.ts'
import { Cluster } from './cluster.ts'
import { usersOf } from './crowd.ts'
import { startHere } from './nodes.ts'

const seed = 1
let cluster: Cluster

beforeAll(async () => {
  cluster = await Cluster.start({ xidEpoch: null, crashes: false })
})

afterAll(() => cluster?.stop())

afterEach(() => {
  vi.restoreAllMocks()
})

async function failureOf(options: Partial<CheckerOptions> = {}): Promise<string | null> {
  const { failure } = await check({
    seed,
    // Until it is noticed: a busy machine needs more rounds.
    minutes: 1.5,
    roundMs: 1200,
    clients: 24,
    writers: 6,
    cluster,
    stalls: true,
    crashes: false,
    truncateOneIn: 100,
    largeRows: 300,
    windowMs: 300_000,
    spoolBytes: 2 ** 25,
    startNode: startHere,
    say: () => {},
    ...options,
  })
  return failure
}

/** Looks at snapshots in another way. */
const seen = (snapshot: Snapshot, sees: (xid: number) => boolean): Snapshot => ({ ...snapshot, sees })

const { unseen, pin, between } = MemoryRelay.prototype
const { asLogin } = SnapshotReader.prototype

const mistakes: readonly [string, () => void, Partial<CheckerOptions>?][] = [
  [
    'an LSN fence instead of the splice',
    () => {
      vi.spyOn(MemoryRelay.prototype, 'unseen').mockReturnValue([])
    },
  ],
  [
    'a buffer that begins with the subscription',
    () => {
      const begun = new WeakMap<MemoryRelay, bigint>()
      vi.spyOn(MemoryRelay.prototype, 'pin').mockImplementation(function (this: MemoryRelay) {
        begun.set(this, this.headLsn)
        return pin.call(this)
      })
      vi.spyOn(MemoryRelay.prototype, 'unseen').mockImplementation(function (this: MemoryRelay, snapshot, upTo) {
        return unseen.call(this, snapshot, upTo).filter(({ commitLsn }) => commitLsn > begun.get(this)!)
      })
    },
  ],
  [
    'an acknowledgement of what was received',
    () => {
      vi.spyOn(MemoryRelay.prototype, 'acknowledgeable').mockImplementation(function (this: MemoryRelay) {
        return this.headEndLsn
      })
    },
    { crashes: true, plan: () => [{ atMs: 900, misfortune: { what: 'node killed' } }] },
  ],
  [
    'old rows judged by the memberships after the commit',
    () => {
      vi.spyOn(Audience.prototype, 'at').mockImplementation(function (this: Audience) {
        return this.now
      })
    },
  ],
  [
    'moved rows read by a query that joins the memberships',
    () => {
      const [sub] = usersOf(seed, 1)
      const claims = JSON.stringify({ role: 'authenticated', sub })
      const reader = { role: 'authenticated', settings: [['request.jwt.claims', claims]] as const }
      vi.spyOn(SnapshotReader.prototype, 'asLogin').mockImplementation(function (
        this: SnapshotReader,
        table,
        match,
        limit,
      ) {
        if (match === null || table.name === 'members' || table.name === 'bans')
          return asLogin.call(this, table, match, limit)
        const names = table.columns.map(({ name }) => name)
        const matched = match.columns.map(column => `${names[column]}::text`)
        const sql = `SELECT ${names.join(', ')} FROM ${table.name} WHERE concat_ws('|', ${matched.join(', ')}) = ANY ($1)`
        return this.asReader(reader, sql, [match.keys.map(key => key.join('|'))])
      })
    },
    { users: 1 },
  ],
  [
    'a commit skipped when somebody comes back',
    () => {
      vi.spyOn(MemoryRelay.prototype, 'between').mockImplementation(function (this: MemoryRelay, from, to) {
        return between.call(this, from, to).slice(1)
      })
    },
  ],
  [
    'rows that a grant or revocation moves not looked for',
    () => {
      vi.spyOn(Holds.prototype, 'flipped').mockImplementation(() => {})
    },
  ],
]

test.each(mistakes)('%s is noticed', { timeout: 180_000 }, async (_, plant, options) => {
  plant()
  const failure = await failureOf(options)
  expect(failure).not.toBe(null)
  console.log(failure!.split('\n')[0])
})

test.skipIf(debianBin === null)(
  '32-bit transaction ids compared with the 64 bits of a snapshot are noticed once the ids have passed 2^32',
  { timeout: 180_000 },
  async () => {
    await using old = await Cluster.start({ xidEpoch: 1, crashes: false })
    vi.spyOn(MemoryRelay.prototype, 'unseen').mockImplementation(function (this: MemoryRelay, snapshot, upTo) {
      // None of the running transactions, which the snapshot lists with 64 bits, is ever found by its 32.
      return unseen.call(
        this,
        seen(snapshot, xid => BigInt(xid) < snapshot.xmax),
        upTo,
      )
    })
    const failure = await failureOf({ cluster: old })
    expect(failure).not.toBe(null)
    console.log(failure!.split('\n')[0])
  },
)
