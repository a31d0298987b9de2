// The tests of the splice can fail: each known way to get it wrong, planted, is noticed by a scenario that holds without it.
import pg from 'pg'
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest'
import { LocalPostgres } from '../../src/cli/local-postgres.ts'
import { MemoryRelay } from '../../src/server/relay/memory-relay.ts'
import { StoredPrefix } from '../../src/server/relay/stored-prefix.ts'
import { Audience } from '../../src/server/route/audience.ts'
import { SnapshotReader } from '../../src/server/snapshot/reader.ts'
import { low32, type Snapshot } from '../../src/server/wal/visibility.ts'
import { debianBin, resetWal } from '../support/debian-postgres.ts'
import { asSet, LiveSse, person, prepareDatabase, roomsSchema, selectAs, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { isForThisRelay } from '../support/relay.ts'
import { Stalled, until } from '../support/stalled.ts'

const ada = person()
let token: string
let server: LocalPostgres

beforeAll(async () => {
  token = await tokenFor(ada)
  server = await LocalPostgres.create({ settings: { fsync: 'off', wal_writer_delay: '10s' } })
  await server.start()
})

afterAll(async () => {
  await server?.stop()
})

afterEach(() => {
  vi.restoreAllMocks()
})

interface Site {
  readonly database: TestDatabase
  node: TestNode
  restart(settings?: Record<string, string>): Promise<void>
}

/** A scenario says what is wrong at its end; null when all is as it must be. */
type Scenario = (site: Site) => Promise<string | null>

async function play(scenario: Scenario, on = server): Promise<string | null> {
  await using database = await TestDatabase.create(on.url)
  await prepareDatabase(database, roomsSchema, ['rooms', 'members', 'messages'])
  await database.query('SET synchronous_commit = local')
  await database.query(`INSERT INTO members VALUES (1, '${ada}')`)
  await database.query(`INSERT INTO messages SELECT i, 1 + i % 2, 'w', 'row' FROM generate_series(1, 8) i`)
  const start = (settings = {}) => TestNode.start(database.url, { BEACON_MS: '60000', ...settings })
  const site: Site = {
    database,
    node: await start(),
    async restart(settings) {
      await this.node[Symbol.asyncDispose]()
      this.node = await start(settings)
    },
  }
  try {
    return await scenario(site)
  } finally {
    await site.node[Symbol.asyncDispose]()
  }
}

const open = ({ node }: Site, query = ''): Promise<LiveSse> => LiveSse.open(node, `/v1/live/messages${query}`, token)

async function differences({ database }: Site, live: LiveSse): Promise<string | null> {
  const expected = asSet(await selectAs(database, ada, 'SELECT * FROM messages')).join()
  const same = (): boolean => asSet(live.rows.list()).join() === expected
  await live.stream.waitFor(() => same() || live.failure !== null, 1500).catch(() => {})
  if (live.failure !== null) return String(live.failure)
  return same() ? null : `${live.rows.rows.size} rows that are not those of the SELECT`
}

/** A commit is in the stream, and has been told, before somebody subscribes who cannot see it. */
const beginWhileStalled: Scenario = async site => {
  using witness = await (await open(site)).exact()
  await using stalled = await Stalled.begin(site.database.url)
  await stalled.commit(`INSERT INTO messages VALUES (30, 1, 'w', 'stalled')`)
  await witness.stream.waitFor(() => witness.rows.rows.has('[30]'))
  using live = await (await open(site, '?id=lt.1000')).exact()
  await stalled.release()
  return await differences(site, live)
}

const revokeAndGrantWhileStanding: Scenario = async site => {
  using live = await (await open(site)).exact()
  await using stalled = await Stalled.begin(site.database.url)
  await stalled.commit(`DELETE FROM members WHERE room_id = 1`)
  await stalled.commit(`INSERT INTO members VALUES (2, '${ada}')`)
  await live.stream.waitFor(() => !live.rows.rows.has('[2]') && live.rows.rows.has('[1]'), 1500).catch(() => {})
  await stalled.release()
  return await differences(site, live)
}

const idleWriter: Scenario = async site => {
  await site.restart({ WINDOW_MAX_AGE_MS: '0', RELAY_HOLD_MS: '0', BEACON_MS: '200' })
  const idle = new pg.Client({ connectionString: site.database.url })
  await idle.connect()
  try {
    await idle.query(`BEGIN; INSERT INTO rooms VALUES (9, 'idle')`)
    const [row] = await site.database.query<{ at: string }>('SELECT pg_current_wal_insert_lsn()::text AS at')
    const confirmed = `SELECT 1 FROM pg_replication_slots WHERE database = current_database() AND confirmed_flush_lsn >= '${row!.at}'`
    return await until(async () => (await site.database.query(confirmed)).length > 0, 6000).then(
      () => null,
      () => 'the slot is held back by an idle writer',
    )
  } finally {
    await idle.end()
  }
}

/** Stops and starts a node once it could have acknowledged a commit that nobody can see. */
const restartWhileStalled: Scenario = async site => {
  const sampled = vi.spyOn(MemoryRelay.prototype, 'sampled')
  using witness = await (await open(site)).exact()
  await using stalled = await Stalled.begin(site.database.url)
  await stalled.commit(`INSERT INTO messages VALUES (30, 1, 'w', 'stalled')`)
  await witness.stream.waitFor(() => witness.rows.rows.has('[30]'))
  const calls = sampled.mock.calls.length
  await until(() => sampled.mock.calls.length > calls + 2)
  await site.restart()
  using live = await (await open(site)).exact()
  await stalled.release()
  return await differences(site, live)
}

const visibleBeforeWritten: Scenario = async site => {
  using first = await (await open(site)).exact()
  await site.database.query('SET synchronous_commit = off')
  await site.database.query(`INSERT INTO messages VALUES (40, 1, 'w', 'not written yet')`)
  // Of the same audience: nothing but its own rows is read for it.
  using second = await (await open(site)).exact()
  await site.database.query('SET synchronous_commit = local')
  await site.database.query(`INSERT INTO messages VALUES (41, 1, 'w', 'written')`)
  await first.stream.waitFor(() => first.rows.rows.has('[41]'))
  return await differences(site, second)
}

/** Looks at snapshots in another way. */
const seen = (snapshot: Snapshot, sees: (xid: number) => boolean): Snapshot => ({ ...snapshot, sees })

const { unseen, pin, sampled: sample } = MemoryRelay.prototype
const { sampled: samplePrefix } = StoredPrefix.prototype

const mistakes: [string, Scenario, () => void][] = [
  [
    'an LSN fence: what was committed before the snapshot is taken for seen',
    beginWhileStalled,
    () => vi.spyOn(MemoryRelay.prototype, 'unseen').mockReturnValue([]),
  ],
  [
    'a buffer that begins with the subscription',
    beginWhileStalled,
    () => {
      let begun = 0n
      vi.spyOn(MemoryRelay.prototype, 'pin').mockImplementation(function (this: MemoryRelay) {
        begun = this.headLsn
        return pin.call(this)
      })
      vi.spyOn(MemoryRelay.prototype, 'unseen').mockImplementation(function (this: MemoryRelay, snapshot, upTo) {
        return unseen.call(this, snapshot, upTo).filter(commit => commit.commitLsn > begun)
      })
    },
  ],
  [
    'a ring that keeps commits until xid < xmin',
    idleWriter,
    () => {
      const belowXmin = (snapshot: Snapshot): Snapshot => seen(snapshot, xid => xid < low32(snapshot.xmin))
      vi.spyOn(MemoryRelay.prototype, 'sampled').mockImplementation(function (this: MemoryRelay, snapshot) {
        sample.call(this, belowXmin(snapshot))
      })
      vi.spyOn(StoredPrefix.prototype, 'sampled').mockImplementation(function (this: StoredPrefix, snapshot) {
        samplePrefix.call(this, belowXmin(snapshot))
      })
    },
  ],
  [
    'an acknowledgement of what was received',
    restartWhileStalled,
    () =>
      vi.spyOn(MemoryRelay.prototype, 'acknowledgeable').mockImplementation(function (this: MemoryRelay) {
        return this.headEndLsn
      }),
  ],
  [
    'old rows judged with the memberships after the commit',
    revokeAndGrantWhileStanding,
    () =>
      vi.spyOn(Audience.prototype, 'at').mockImplementation(function (this: Audience) {
        return this.now
      }),
  ],
  [
    "moved rows read under the reader's own role",
    revokeAndGrantWhileStanding,
    () => {
      const { asLogin } = SnapshotReader.prototype
      vi.spyOn(SnapshotReader.prototype, 'asLogin').mockImplementation(function (
        this: SnapshotReader,
        table,
        match,
        limit,
      ) {
        if (table.name !== 'messages') return asLogin.call(this, table, match, limit)
        const claims = JSON.stringify({ role: 'authenticated', sub: ada })
        const reader = { role: 'authenticated', settings: [['request.jwt.claims', claims]] as const }
        const rooms = match!.keys.map(([room]) => room)
        return this.asReader(reader, 'SELECT id, room_id, author, body FROM messages WHERE room_id = ANY ($1)', [rooms])
      })
    },
  ],
  [
    'a snapshot that does not wait for the stream',
    visibleBeforeWritten,
    () => {
      const { asReader } = SnapshotReader.prototype
      vi.spyOn(SnapshotReader.prototype, 'asReader').mockImplementation(async function (this: SnapshotReader, ...args) {
        return { ...(await asReader.apply(this, args)), fence: 0n }
      })
    },
  ],
]

const ofThisRelay = mistakes.filter(([name]) => isForThisRelay(name))

test.each(ofThisRelay)('%s is noticed', { timeout: 60_000 }, async (_, scenario, plant) => {
  expect(await play(scenario)).toBe(null)
  vi.restoreAllMocks()
  plant()
  expect(await play(scenario)).not.toBe(null)
})

test.skipIf(debianBin === null)(
  '32-bit transaction ids compared with the 64 bits of a snapshot are noticed once the ids have passed 2^32',
  {
    timeout: 60_000,
  },
  async () => {
    await using old = await LocalPostgres.create({ binDir: debianBin!, settings: { fsync: 'off' } })
    await resetWal(old.dataDir, ['-e', '1'])
    await old.start()
    expect(await play(beginWhileStalled, old)).toBe(null)
    vi.spyOn(MemoryRelay.prototype, 'unseen').mockImplementation(function (this: MemoryRelay, snapshot, upTo) {
      // None of the running transactions, which the snapshot lists with 64 bits, is ever found by its 32.
      return unseen.call(
        this,
        seen(snapshot, xid => BigInt(xid) < snapshot.xmax),
        upTo,
      )
    })
    expect(await play(beginWhileStalled, old)).not.toBe(null)
  },
)
