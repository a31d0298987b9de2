// The splice on clusters in unusual states: killed in the middle, transaction ids past 2^32, commits that are not flushed.
import pg from 'pg'
import { expect, test } from 'vitest'
import { freePort, LocalPostgres } from '../../src/cli/local-postgres.ts'
import { advanceXids, debianBin } from '../support/debian-postgres.ts'
import {
  asSet,
  jwtSecret,
  LiveSse,
  person,
  prepareDatabase,
  roomsSchema,
  selectAs,
  TestNode,
  tokenFor,
} from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { Reader, wires } from '../support/readers.ts'
import { type RunningProcess, startCli } from '../support/run-cli.ts'
import { Stalled } from '../support/stalled.ts'
import { expectWithin } from '../support/within.ts'

const ada = person()

async function site(server: LocalPostgres): Promise<TestDatabase> {
  const database = await TestDatabase.create(server.url)
  await prepareDatabase(database, roomsSchema, ['rooms', 'members', 'messages'])
  await database.query('SET synchronous_commit = local')
  await database.query(`INSERT INTO members VALUES (1, '${ada}'), (3, '${ada}')`)
  await database.query(`INSERT INTO messages SELECT i, 1 + i % 3, 'w', 'row' FROM generate_series(1, 12) i`)
  return database
}

async function expectTruth(database: TestDatabase, live: LiveSse): Promise<void> {
  const expected = asSet(await selectAs(database, ada, 'SELECT * FROM messages'))
  await live.stream
    .waitFor(() => asSet(live.rows.list()).join() === expected.join() || live.failure !== null)
    .catch(() => {})
  expect(live.failure).toBe(null)
  expect(asSet(live.rows.list())).toEqual(expected)
}

async function startNode(
  databaseUrl: string,
  settings: Record<string, string>,
): Promise<{ node: RunningProcess; url: string }> {
  const port = await freePort()
  const node = startCli(['start'], {
    DATABASE_URL: databaseUrl,
    JWT_SECRET: jwtSecret,
    PORT: String(port),
    LOG_LEVEL: 'warn',
    ...settings,
  })
  await node.until(({ out }) => out.includes('ready'))
  return { node, url: `http://127.0.0.1:${port}` }
}

test.each([
  ['a window of five minutes', {}],
  ['no window', { WINDOW_MAX_AGE_MS: '0' }],
])(
  '[P4] killed while commits stall, with %s: after the start nothing is lost to anybody',
  { timeout: 90_000 },
  async (_, window) => {
    await using server = await LocalPostgres.create({ settings: { fsync: 'off' } })
    await server.start()
    const database = await site(server)
    const token = await tokenFor(ada)
    const settings = { BEACON_MS: '200', SNAPSHOT_CHUNK_ROWS: '3', ...window }
    let running = await startNode(database.url, settings)
    const readers = wires.flatMap(transport => [
      new Reader(transport, 'live', 'messages', token),
      new Reader(transport, 'changes', 'messages', token),
    ])
    for (const reader of readers) await reader.come(running)
    for (const reader of readers) if (reader.kind === 'live') await reader.until(() => reader.rows.exact)
    const isResumable = !('WINDOW_MAX_AGE_MS' in window)

    const stalled = await Stalled.begin(database.url)
    await stalled.commit(`INSERT INTO messages VALUES (50, 1, 'w', 'stalled')`)
    await stalled.commit(`UPDATE messages SET room_id = 2 WHERE id = 3`)
    await stalled.commit(`DELETE FROM messages WHERE id = 6`)
    await stalled.commit(`INSERT INTO members VALUES (2, '${ada}')`)
    for (let i = 0; i < 20; i++) {
      await database.query(`INSERT INTO messages VALUES (${60 + i}, 1, 'w', 'visible')`)
      await new Promise(resolve => setTimeout(resolve, 50))
    }
    for (const reader of readers) {
      if (reader.kind === 'live') await reader.until(() => reader.rows.rows.has('[79]') && reader.rows.rows.has('[1]'))
      await reader.leave()
    }
    running.node.child.kill('SIGKILL')
    await running.node.end()
    await database.query(`INSERT INTO messages VALUES (90, 1, 'w', 'while it was dead')`)

    // The slot is free once the server noticed that its holder is gone.
    running = await startNode(database.url, settings)
    const fresh = await LiveSse.open(running, '/v1/live/messages', token)
    await fresh.exact()
    const during = asSet(fresh.rows.list())
    for (const reader of readers) await reader.come(running)
    await stalled.release()
    expect(during).toEqual(asSet(await selectAs(database, ada, 'SELECT * FROM messages')))
    await database.query(`DELETE FROM messages WHERE id = 90`)
    await expectTruth(database, fresh)
    const expected = asSet(await selectAs(database, ada, 'SELECT * FROM messages'))
    for (const reader of readers) {
      if (reader.kind === 'live') {
        await reader.until(() => reader.rows.exact && asSet(reader.rows.list()).join() === expected.join())
        if (isResumable) expect(reader.resyncs).toEqual([])
      } else if (isResumable) {
        await reader.until(() => reader.changes.some(({ op, key }) => op === 'delete' && key!.id === 90))
        const inserts = reader.changes.filter(({ op }) => op === 'insert').map(({ key }) => Number(key!.id))
        expect(inserts).toEqual([50, ...Array.from({ length: 20 }, (_, i) => 60 + i), 90])
        expect(reader.resyncs).toEqual([])
      }
      expect(reader.failure).toBe(null)
      await reader.leave()
    }
    fresh.stream.close()
    await stalled[Symbol.asyncDispose]()
    running.node.child.kill('SIGTERM')
    await running.node.end()
    await database[Symbol.asyncDispose]()
  },
)

test.skipIf(debianBin === null)(
  '[P1] transaction ids beyond 2^32, and their passing it, are compared as Postgres does',
  {
    timeout: 90_000,
  },
  async () => {
    await using server = await LocalPostgres.create({
      binDir: debianBin!,
      settings: { fsync: 'off', autovacuum: 'off' },
    })
    await server.start()
    await advanceXids(server, { epoch: 1, next: 2 ** 32 - 400 })

    await using database = await site(server)
    const xid = async (): Promise<bigint> =>
      BigInt((await database.query<{ x: string }>('SELECT pg_current_xact_id()::text AS x'))[0]!.x)
    expect(await xid()).toBeGreaterThan(1n << 32n)
    const token = await tokenFor(ada)
    await using node = await TestNode.start(database.url, { SNAPSHOT_CHUNK_ROWS: '3', WINDOW_MAX_AGE_MS: '0' })
    // A writer of before the wrap, whose id is among the running ones of every snapshot after it.
    const old = new pg.Client({ connectionString: database.url })
    await old.connect()
    await old.query(
      `BEGIN; INSERT INTO messages VALUES (30, 1, 'w', 'old'); UPDATE messages SET room_id = 2 WHERE id = 3`,
    )
    const before = await xid()
    expect(before).toBeLessThan(2n << 32n)
    const stalled = await Stalled.begin(database.url)
    await stalled.commit(`INSERT INTO messages VALUES (31, 1, 'w', 'stalled before the wrap')`)
    await stalled.commit(`DELETE FROM messages WHERE id = 6`)
    const lives: LiveSse[] = []
    lives.push(await (await LiveSse.open(node, '/v1/live/messages', token)).exact())
    while ((await xid()) < (2n << 32n) + 10n) await database.query(`SELECT pg_current_xact_id()`)
    await stalled.commit(`INSERT INTO messages VALUES (32, 1, 'w', 'stalled after the wrap')`)
    lives.push(await (await LiveSse.open(node, '/v1/live/messages?id=gt.0', token)).exact())
    const during = asSet(lives[1]!.rows.list())
    await stalled.release()
    expect(during).toEqual(asSet(await selectAs(database, ada, 'SELECT * FROM messages')))
    lives.push(await (await LiveSse.open(node, '/v1/live/messages?id=gt.-1', token)).exact())
    await old.query('COMMIT')
    lives.push(await (await LiveSse.open(node, '/v1/live/messages?id=gt.-2', token)).exact())
    for (const live of lives) {
      await expectTruth(database, live)
      expect(live.rows.resyncs).toEqual([])
      live.stream.close()
    }
    const [answer] = await database.query<{ x: string }>(`SELECT pg_current_xact_id()::text AS x`)
    const waited = await fetch(`${node.url}/v1/wait`, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      body: JSON.stringify({ txid: answer!.x }),
    })
    expect(waited.status).toBe(200)
    await old.end()
    await stalled[Symbol.asyncDispose]()
  },
)

test('[P1] rows of commits that are visible and not yet written come once, and wait for nobody', {
  timeout: 60_000,
}, async () => {
  await using server = await LocalPostgres.create({ settings: { fsync: 'off', wal_writer_delay: '10s' } })
  await server.start()
  await using database = await site(server)
  const token = await tokenFor(ada)
  await using node = await TestNode.start(database.url, { SNAPSHOT_CHUNK_ROWS: '3', BEACON_MS: '60000' })
  await database.query('SET synchronous_commit = off')
  const begun = performance.now()
  const lives: LiveSse[] = []
  for (let i = 0; i < 20; i++) {
    await database.query(
      `INSERT INTO messages VALUES (${100 + i}, 1, 'w', 'async'); UPDATE messages SET body = 'v${i}' WHERE id = 3`,
    )
    const live = await (await LiveSse.open(node, '/v1/live/messages', token)).exact()
    expect(live.rows.rows.has(`[${100 + i}]`)).toBe(true)
    lives.push(live)
  }
  // Each snapshot emits its own fence: none waits for the WAL writer.
  expectWithin(performance.now() - begun, 9000)
  await database.query('SET synchronous_commit = local')
  await database.query(`DELETE FROM messages WHERE id = 3`)
  for (const live of lives) {
    await expectTruth(database, live)
    live.stream.close()
  }
})
