// The database of a fuzzing run: things of every type under a membership policy, rooms that neighbours follow, notes whose
// history is known, and rows that nobody who asks here may see.
import pg from 'pg'
import type { JsonRow } from '../../src/protocol/messages.ts'
import { channelPolicies } from '../support/channel-client.ts'
import { prepareDatabase, roomsSchema } from '../support/node.ts'
import type { TestDatabase } from '../support/postgres.ts'

/** Stands in every row that the asking readers may not see. */
export const secret = 'hushhush'

const schema = `
  ${roomsSchema}
  ${channelPolicies}
  CREATE TYPE public.mood AS ENUM ('glad', 'sad', 'so so');
  CREATE TABLE public.things (id int PRIMARY KEY, room_id int NOT NULL, i2 int2, i4 int4, i8 int8, n numeric, f4 real,
    f8 float8, b bool, u uuid, t text COLLATE "C", v varchar(9), c char(3), d date, ts timestamp, tz timestamptz,
    by bytea, m public.mood, ia int[], ta text[], jb jsonb);
  CREATE TABLE public.notes (id int PRIMARY KEY, room_id int NOT NULL, body text);
  ALTER TABLE public.things ENABLE ROW LEVEL SECURITY;
  ALTER TABLE public.notes ENABLE ROW LEVEL SECURITY;
  CREATE POLICY p ON public.things FOR SELECT TO authenticated USING (
    EXISTS (SELECT 1 FROM public.members m WHERE m.room_id = things.room_id AND m.user_id = auth.uid()));
  CREATE POLICY p ON public.notes FOR SELECT TO authenticated USING (
    room_id IN (SELECT m.room_id FROM public.members m WHERE m.user_id = auth.uid()));
  GRANT SELECT ON public.things, public.notes TO authenticated;
`

/** Rooms that the asking reader is in, and one that it is not. */
export const rooms = { own: [1, 2], foreign: 3, neighbours: 9 } as const

export async function prepareWorld(
  database: TestDatabase,
  people: Record<'ada' | 'ben' | 'eve', string>,
): Promise<void> {
  await prepareDatabase(database, schema, ['rooms', 'members', 'messages', 'things', 'notes'])
  await database.query(`INSERT INTO members VALUES (1, '${people.ada}'), (2, '${people.ada}'), (3, '${people.ben}'),
    (9, '${people.eve}'); INSERT INTO rooms SELECT g, 'room' FROM generate_series(1, 9) g;
    INSERT INTO messages VALUES (-1, 3, '${secret}', '${secret}')`)
}

/** A connection of its own: each actor that writes has one, and one that reads as a reader. */
export async function connect(database: TestDatabase): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: database.url })
  client.on('error', () => {})
  await client.connect()
  return client
}

/** What the reader's own SELECT gives. */
export async function rowsAs(client: pg.Client, sub: string, sql: string): Promise<JsonRow[]> {
  await client.query('BEGIN')
  try {
    await client.query(`SELECT set_config('request.jwt.claims', $1, true), set_config('role', 'authenticated', true)`, [
      JSON.stringify({ role: 'authenticated', sub }),
    ])
    const { rows } = await client.query<{ row: JsonRow }>(`SELECT to_jsonb(q) AS row FROM (${sql}) q`)
    return rows.map(({ row }) => row)
  } finally {
    await client.query('ROLLBACK')
  }
}

/** Resolves when it holds; false when it does not within the time. */
export async function comesTrue(condition: () => boolean, timeoutMs = 10_000): Promise<boolean> {
  const deadline = Date.now() + timeoutMs
  while (!condition()) {
    if (Date.now() > deadline) return false
    await new Promise(resolve => setTimeout(resolve, 3))
  }
  return true
}
