// A short pass through all that depends on the server's version: a whole node over a Postgres of that one.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { migrate } from '../../src/cli/commands/migrate.ts'
import { track } from '../../src/cli/commands/track.ts'
import { LocalPostgres } from '../../src/cli/local-postgres.ts'
import { remove } from '../../src/server/admin/remove.ts'
import { askedSchema, askedTables, equals } from '../support/asked.ts'
import { channelPolicies } from '../support/channel-client.ts'
import { asSet, LiveSse, person, prepareDatabase, roomsSchema, SseStream, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { binariesOf, hasMajor, type Major } from '../support/postgres-major.ts'

const everyType = `
  CREATE TYPE public.mood AS ENUM ('sad', 'glad'); CREATE DOMAIN public.price AS numeric(12, 2); CREATE TYPE public.pair AS (a int, b text);
  CREATE TABLE public.kinds (id int PRIMARY KEY, a bool, b int2, c int8, d numeric, e float4, f float8, g text, h varchar(9), i char(5), j bytea,
    k date, l time, m timetz, n timestamp, o timestamptz, p interval, q uuid, r json, s jsonb, t inet, u cidr, v macaddr, w int4range, x tstzrange,
    y int4multirange, z public.mood, aa public.price, ab int[], ac text[], ad jsonb[], ae point, af bit(4), ag tsvector, ah xml, ai money,
    aj public.pair, ak pg_lsn, al oid);
  GRANT SELECT ON public.kinds TO authenticated;
  CREATE FUNCTION public.add_kind(int) RETURNS void LANGUAGE sql AS $$
    INSERT INTO public.kinds VALUES ($1, true, -2, 9007199254740993, 1.50, 0.1, 0.30000000000000004, E'a"\\\\\\n', 'v', 'c', '\\xdead',
      '2026-03-04', '05:06:07.5', '05:06:07+02', '2026-03-04 05:06:07', '2026-03-04 05:06:07.25+00', '1 year 2 mons 3 days 04:05:06',
      '00000000-0000-0000-0000-000000000001', '{"a" : 1}', '{"a": 1.0}', '10.0.0.1/8', '10.0.0.0/8', '08:00:2b:01:02:03', '[1,5)',
      '[2026-01-01 00:00+00,)', '{[1,3),[5,8)}', 'glad', 12.3, '{1,NULL,3}', '{"a,b",NULL,"q\\""}', ARRAY['{"x": 1}'::jsonb], '(1.5,2)', B'1010',
      'a fat cat', '<a/>', 12.34, ROW(1, 'x'), '16/B374D848', 42) $$;`

const partitioned = `
  CREATE TABLE public.parted (id int, region text, body text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
  CREATE TABLE public.parted_eu PARTITION OF public.parted FOR VALUES IN ('eu');
  CREATE TABLE public.parted_us PARTITION OF public.parted FOR VALUES IN ('us');
  GRANT SELECT ON public.parted TO authenticated;`

const tables = ['rooms', 'members', 'messages', 'kinds', 'parted', ...askedTables]

/** What is of Tidegate in a database, and on its server. */
const traces = `SELECT (SELECT count(*) FROM pg_replication_slots WHERE database = current_database())::int AS slots,
  (SELECT count(*) FROM pg_publication)::int AS publications, (SELECT count(*) FROM pg_event_trigger)::int AS triggers,
  (SELECT coalesce(array_agg(nspname::text), '{}') FROM pg_namespace WHERE nspname IN ('tidegate', 'realtime')) AS schemas,
  (SELECT array_agg(DISTINCT relreplident::text) FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace) AS identities`

export function suiteOf(major: Major): void {
  describe.skipIf(!hasMajor(major))(`Postgres ${major}`, () => {
    let server: LocalPostgres
    let database: TestDatabase
    let node: TestNode
    const ada = person()
    let token: string

    beforeAll(async () => {
      const binDir = await binariesOf(major)
      server = await LocalPostgres.create({ settings: { fsync: 'off' }, ...(binDir === undefined ? {} : { binDir }) })
      await server.start()
      database = await TestDatabase.create(server.url)
      const withPolicies = roomsSchema + askedSchema + everyType + partitioned + channelPolicies
      await prepareDatabase(database, withPolicies, tables)
      // No superuser reads or streams.
      const login = `login_${database.name}`
      await database.query(`CREATE ROLE ${login} LOGIN REPLICATION PASSWORD 'login'`)
      const given = { databaseUrl: database.urlFor(login, 'login'), adminUrl: database.url, name: 'tidegate' }
      await migrate({ ...given, conventions: true, print: false, dryRun: false }, { write: () => true })
      await track({ ...given, tables, print: false, dryRun: false }, { write: () => true })
      await database.query(`INSERT INTO members VALUES (1, '${ada}'); INSERT INTO crew VALUES (1, '${ada}')`)
      node = await TestNode.start(given.databaseUrl, { SNAPSHOT_CHUNK_ROWS: '20', RECHECK_MS: '300' })
      token = await tokenFor(ada)
    }, 120_000)

    afterAll(async () => {
      await node?.[Symbol.asyncDispose]()
      await database?.client.end()
      await server?.stop()
    })

    const open = async (path: string): Promise<LiveSse> => (await LiveSse.open(node, `/v1/live/${path}`, token)).exact()

    test(`the slot is made, and standbys ${major >= 17 ? 'may keep' : 'cannot keep'} it`, async () => {
      const [version] = await database.query(`SELECT current_setting('server_version_num')::int / 10000 AS major`)
      expect(version).toEqual({ major })
      const slots = await database.query(
        `SELECT plugin, active, to_jsonb(s) ->> 'failover' AS failover FROM pg_replication_slots s WHERE database = current_database()`,
      )
      expect(slots).toEqual([{ plugin: 'pgoutput', active: true, failover: major >= 17 ? 'true' : null }])
    })

    test('[P1] values of every type are the same from a snapshot, from the WAL, and by to_jsonb', async () => {
      await database.query('SELECT add_kind(1)')
      using live = await open('kinds')
      await database.query('SELECT add_kind(2)')
      await live.stream.waitFor(() => live.rows.rows.size === 2)
      const [read, streamed] = live.rows.list().map(({ id: _, ...row }) => row)
      expect(streamed).toEqual(read)
      const rows = await database.query<{ row: Record<string, unknown> }>(
        `SELECT to_jsonb(each) - 'id' || '{"c": "9007199254740993", "aj": "(1,x)"}' AS row FROM kinds AS each LIMIT 1`,
      )
      expect(read).toEqual(rows[0]!.row)
    })

    test('[P1] a snapshot joins the stream while writers never stop', async () => {
      await database.query(`INSERT INTO messages SELECT i, 1, 'a', 'x' FROM generate_series(1, 120) i`)
      const writers = await Promise.all([1, 2].map(() => TestDatabase.connect(database)))
      let isDone = false
      const written = writers.map(async (writer, i) => {
        for (let n = 0; !isDone; n++)
          await writer.query(`UPDATE messages SET body = 'w${n}' WHERE id = ${1 + ((n + 7 * i) % 120)};
            INSERT INTO messages VALUES (${1000 + 1000 * i + n}, 1, 'w', 'new') ON CONFLICT DO NOTHING`)
      })
      const lives = [await open('messages'), await open('messages?id=lt.1100'), await open('messages?room_id=eq.1')]
      isDone = true
      await Promise.all(written)
      await equals(database, lives[0]!, ada, 'SELECT * FROM messages')
      await equals(database, lives[1]!, ada, 'SELECT * FROM messages WHERE id < 1100')
      await equals(database, lives[2]!, ada, 'SELECT * FROM messages WHERE room_id = 1')
      for (const live of lives) live[Symbol.dispose]()
      for (const writer of writers) await writer.client.end()
      await database.query('TRUNCATE messages')
    })

    test('[P3] a revocation hides itself, and a grant adds rows, of judged and asked policies', async () => {
      await database.query(
        `INSERT INTO messages VALUES (1, 1, 'a', 'x'), (2, 2, 'b', 'y'); INSERT INTO papers VALUES (1, 1, 'a', 'x'), (2, 2, 'b', 'y')`,
      )
      using judged = await open('messages')
      using asked = await open('papers')
      await database.query(
        `DELETE FROM members WHERE room_id = 1; DELETE FROM crew WHERE room_id = 1; INSERT INTO messages VALUES (3, 1, 'a', 'secret')`,
      )
      await judged.stream.waitFor(() => judged.rows.rows.size === 0)
      await equals(database, asked, ada, 'SELECT * FROM papers')
      expect(JSON.stringify(judged.stream.events)).not.toContain('secret')
      await database.query(
        `INSERT INTO members VALUES (1, '${ada}'), (2, '${ada}'); INSERT INTO crew VALUES (2, '${ada}')`,
      )
      await equals(database, judged, ada, 'SELECT * FROM messages')
      await equals(database, asked, ada, 'SELECT * FROM papers')
      expect([judged.rows.rows.size, asked.rows.rows.size]).toEqual([3, 1])
    })

    test('what SQL sends to a channel is heard on commit', async () => {
      using channel = await SseStream.open(node, '/v1/channels/room:1', token)
      await channel.until(({ event }) => event === 'joined')
      await database.query(`BEGIN; SELECT realtime.send('{"n": 0}', 'said', 'room:1'); ROLLBACK`)
      await database.query(`SELECT realtime.send('{"n": 1}', 'said', 'room:1')`)
      const { data } = await channel.until(({ event }) => event === 'message')
      expect(data).toMatchObject({ event: 'said', payload: { n: 1 } })
    })

    test('[P1] rows move between partitions, and a partition is added', async () => {
      await database.query(`INSERT INTO parted VALUES (1, 'eu', 'a'), (2, 'us', 'b')`)
      using live = await open('parted')
      await database.query(`UPDATE parted SET region = 'us' WHERE id = 1`)
      await equals(database, live, ada, 'SELECT * FROM parted')
      await database.query(`CREATE TABLE parted_asia PARTITION OF parted FOR VALUES IN ('asia'); ALTER TABLE parted_asia REPLICA IDENTITY FULL;
        INSERT INTO parted VALUES (3, 'asia', 'c')`)
      using again = await open('parted')
      await equals(database, again, ada, 'SELECT * FROM parted')
      expect(asSet(again.rows.list())).toHaveLength(3)
    })

    test('[P6] nothing is left after remove', async () => {
      await node[Symbol.asyncDispose]()
      const options = {
        databaseUrl: database.url,
        adminUrl: null,
        name: 'tidegate',
        print: false,
        dryRun: false,
        force: false,
      }
      await remove(options, { write: () => true })
      const [left] = await database.query(traces)
      expect(left).toEqual({ slots: 0, publications: 0, triggers: 0, schemas: [], identities: ['d'] })
    })
  })
}
