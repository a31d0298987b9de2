import { expect, test } from 'vitest'
import { migrate } from '../../../../src/cli/commands/migrate.ts'
import { remove } from '../../../../src/cli/commands/remove.ts'
import { MessageSweep } from '../../../../src/server/channels/sql/message-sweep.ts'
import { createPool } from '../../../../src/server/postgres/database.ts'
import { prepareDatabase, roomsSchema, SseStream, TestNode, tokenFor } from '../../../support/node.ts'
import { TestDatabase } from '../../../support/postgres.ts'
import { Site } from '../../admin/site.ts'
import { ChannelDatabase } from './sql.ts'

const never = new AbortController().signal

const fill = (count: number, age: string): string =>
  `INSERT INTO realtime.messages (topic, extension, event, payload, inserted_at)
   SELECT '${age}', 'broadcast', 'e', '{}', now() - interval '${age}' FROM generate_series(1, ${count})`

const left = async (database: TestDatabase): Promise<Record<string, number>> => {
  const rows = await database.query<{ topic: string; count: number }>(
    'SELECT topic, count(*)::int AS count FROM realtime.messages GROUP BY topic ORDER BY topic',
  )
  return Object.fromEntries(rows.map(({ topic, count }) => [topic, count]))
}

test('only messages older than ten minutes, or of a time to come, are deleted, whatever their number, and reach nobody', async () => {
  await using channels = await ChannelDatabase.create()
  const { database } = channels
  for (const [count, age] of [
    [3500, '11 minutes'],
    [1200, '30 days'],
    [40, '9 minutes'],
    [30, '-5 minutes'],
    [1100, '-20 minutes'],
  ] as const)
    await database.query(fill(count, age))
  await database.query(
    `INSERT INTO realtime.messages (topic, extension, inserted_at) VALUES ('infinity', 'broadcast', 'infinity')`,
  )
  await channels.capture.commits()
  const pool = createPool(database.url, { maxConnections: 1 })
  const sweep = new MessageSweep(pool)
  expect(await sweep.sweep(0, never)).toBe(3500 + 1200 + 1100 + 1)
  expect(await left(database)).toEqual({ '9 minutes': 40, '-5 minutes': 30 })
  // It waits for no disk; this does, and what came before is read with it.
  const commits = await channels.commits([`SELECT pg_logical_emit_message(true, 'flushed', '')`])
  expect(commits.reduce((sum, commit) => sum + commit.changeCount, 0)).toBe(3500 + 1200 + 1100 + 1)
  expect(Math.max(...commits.map(commit => commit.changeCount))).toBe(1000)
  expect(channels.draftsOf(commits)).toEqual([])
  expect([sweep.isDue(59_999), sweep.isDue(60_000)]).toEqual([false, true])
  await pool.end()
})

test('what somebody has locked is left for later, and a table that is locked is not waited for', async () => {
  await using channels = await ChannelDatabase.create()
  const { database } = channels
  await database.query(fill(3, '11 minutes'))
  const pool = createPool(database.url, { maxConnections: 1 })
  const sweep = new MessageSweep(pool)
  await database.query('BEGIN; SELECT FROM realtime.messages LIMIT 1 FOR UPDATE')
  expect(await sweep.sweep(0, never)).toBe(2)
  await database.query('COMMIT; BEGIN; LOCK TABLE realtime.messages')
  await expect(sweep.sweep(0, never)).rejects.toMatchObject({ code: '55P03' })
  await database.query('COMMIT')
  expect(await sweep.sweep(0, never)).toBe(1)
  await pool.end()
})

test('it stops when it is told to', async () => {
  await using channels = await ChannelDatabase.create()
  await channels.database.query(fill(1500, '11 minutes'))
  const pool = createPool(channels.database.url, { maxConnections: 1 })
  const stopping = new AbortController()
  stopping.abort()
  expect(await new MessageSweep(pool).sweep(0, stopping.signal)).toBe(0)
  await pool.end()
})

test("[P6] another's table is left to its janitor, and where nothing is installed nothing is done", async () => {
  await using channels = await ChannelDatabase.create(`CREATE SCHEMA realtime;
    CREATE TABLE realtime.messages (topic text, extension text, payload jsonb, event text, private boolean, inserted_at timestamp NOT NULL,
      id uuid DEFAULT gen_random_uuid(), PRIMARY KEY (id, inserted_at)) PARTITION BY RANGE (inserted_at);
    CREATE TABLE realtime.messages_all PARTITION OF realtime.messages FOR VALUES FROM (MINVALUE) TO (MAXVALUE)`)
  const { database } = channels
  await database.query(fill(2, '11 minutes'))
  const pool = createPool(database.url, { maxConnections: 1 })
  expect(await new MessageSweep(pool).sweep(0, never)).toBe(0)
  expect(await left(database)).toEqual({ '11 minutes': 2 })
  await remove({ databaseUrl: database.url, adminUrl: database.url, name: 'tidegate' }, { write: () => true })
  expect(await new MessageSweep(pool).sweep(0, never)).toBe(0)
  await pool.end()
})

test("[P6] the server's login deletes old messages, and may delete no others", async () => {
  await using site = await Site.create()
  await migrate(site.options, { write: () => true })
  await site.database.query(fill(2, '11 minutes'))
  const pool = createPool(site.loginUrl, { maxConnections: 1 })
  // As a member of the roles of tokens it may ask, and policies let it see nothing.
  expect((await pool.query('SELECT FROM realtime.messages')).rows).toEqual([])
  await expect(pool.query('DELETE FROM realtime.messages')).rejects.toMatchObject({ code: '42501' })
  expect(await new MessageSweep(pool).sweep(0, never)).toBe(2)
  await site.asLogin(async client => {
    await client.query('SET ROLE authenticated')
    await expect(client.query(`SELECT tidegate.delete_messages('-infinity', gen_random_uuid())`)).rejects.toMatchObject(
      { code: '42501' },
    )
  })
  await pool.end()
})

test('[P2] a node that leads deletes them, and nobody subscribes to the table they are in', async () => {
  await using database = await TestDatabase.create()
  await prepareDatabase(database, roomsSchema, ['messages', 'members', 'rooms'])
  await database.query(`CREATE POLICY anybody ON realtime.messages FOR SELECT TO authenticated USING (true);
    ${fill(5, '11 minutes')}`)
  await using node = await TestNode.start(database.url)
  await expect.poll(() => left(database), { timeout: 10_000 }).toEqual({})
  for (const path of ['/v1/live/realtime.messages', '/v1/changes/realtime.messages']) {
    using stream = await SseStream.open(node, path, await tokenFor('00000000-0000-0000-0000-000000000001'))
    expect([stream.status, stream.errorBody.code]).toEqual([400, 'TABLE_UNSUPPORTED'])
  }
})
