// A database with one of everything that cannot be followed, and why.
import { prepareDatabase, roomsSchema } from './node.ts'
import type { TestDatabase } from './postgres.ts'

/** Everything a reader must never be told stands in rows and claims that hold this word. */
export const secretWord = 'hushhush'

const schema = `
  ${roomsSchema}
  CREATE TYPE public.mood AS ENUM ('glad', 'sad');
  CREATE DOMAIN public.small AS int CHECK (VALUE < 100);
  CREATE TABLE public.kinds (id int PRIMARY KEY, i2 int2, i4 int4, i8 int8, n numeric, f4 real, f8 float8, b bool, u uuid,
    t text, v varchar(9), c char(3), d date, ts timestamp, tz timestamptz, tm time, iv interval, j json, jb jsonb,
    ia int[], by bytea, ip inet, m mood, dom small, p point, icu text COLLATE "und-x-icu", "order" int, "odd ""name" int);
  GRANT SELECT ON public.kinds TO authenticated;

  CREATE TABLE public.keyless (id int, body text);
  GRANT SELECT ON public.keyless TO authenticated;
  CREATE TABLE public.hidden (id int PRIMARY KEY, body text);
  INSERT INTO public.hidden VALUES (1, '${secretWord}');
  CREATE TABLE public.veiled (id int PRIMARY KEY, open text, body text);
  INSERT INTO public.veiled VALUES (1, 'seen', '${secretWord}');
  GRANT SELECT (id, open) ON public.veiled TO authenticated;
  CREATE TABLE public.unnamed (id int PRIMARY KEY, open text);
  GRANT SELECT (open) ON public.unnamed TO authenticated;
  CREATE TABLE public.untracked (id int PRIMARY KEY, user_id uuid);
  GRANT SELECT ON public.untracked TO authenticated;
  CREATE VIEW public.a_view AS SELECT * FROM public.kinds;
  CREATE MATERIALIZED VIEW public.a_matview AS SELECT * FROM public.kinds;
  CREATE SEQUENCE public.a_sequence;
  CREATE INDEX an_index ON public.kinds (i4);
  CREATE UNLOGGED TABLE public.an_unlogged (id int PRIMARY KEY);
  CREATE TABLE public.a_parent (id int PRIMARY KEY);
  CREATE TABLE public.a_child () INHERITS (public.a_parent);
  CREATE TABLE public.parted (id int, day int, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
  CREATE TABLE public.parted_1 PARTITION OF public.parted FOR VALUES FROM (1) TO (10);
  CREATE FOREIGN DATA WRAPPER nowhere;
  CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere;
  CREATE FOREIGN TABLE public.a_foreign (id int) SERVER nowhere;
  GRANT SELECT ON public.a_view, public.a_matview, public.an_unlogged, public.a_parent, public.a_child, public.parted,
    public.parted_1, public.a_foreign TO authenticated;
  CREATE SCHEMA closed;
  CREATE TABLE closed.rows (id int PRIMARY KEY);
  GRANT SELECT ON closed.rows TO authenticated;

  CREATE FUNCTION public.by_plpgsql(id int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN RETURN id > 0; END';
`

/** Tables with a policy of their own: what it says, and what is refused. */
const guarded: readonly (readonly [table: string, columns: string, using: string])[] = [
  ['by_function', 'id int PRIMARY KEY', 'public.by_plpgsql(id)'],
  ['by_aggregate', 'id int PRIMARY KEY', 'id < (SELECT count(*) FROM public.kinds)'],
  ['by_chance', 'id int PRIMARY KEY', 'random() < 0.5'],
  ['by_time', 'id int PRIMARY KEY, at timestamptz', 'at < now()'],
  ['by_untracked', 'id int PRIMARY KEY', 'id IN (SELECT u.id FROM public.untracked u WHERE u.user_id = auth.uid())'],
  ['by_hidden', 'id int PRIMARY KEY', 'id IN (SELECT h.id FROM public.hidden h)'],
  ['by_owner', 'id int PRIMARY KEY, owner uuid', 'owner = auth.uid()'],
  ['by_identity', 'id int PRIMARY KEY, owner uuid', 'owner = auth.uid()'],
  ['by_nothing', 'id int PRIMARY KEY, owner uuid', 'true'],
  ['by_filter', 'id int PRIMARY KEY, body text', 'true'],
  ['by_setting', 'id int PRIMARY KEY, tenant int', `tenant = current_setting('app.tenant')::int`],
]

const tracked = [
  'rooms',
  'members',
  'messages',
  'kinds',
  'hidden',
  'veiled',
  'unnamed',
  'parted',
  'closed.rows',
  ...guarded.map(([table]) => table),
]

export async function prepareRefusals(database: TestDatabase): Promise<void> {
  const policies = guarded.map(
    ([table, columns, using]) => `CREATE TABLE public.${table} (${columns});
      ALTER TABLE public.${table} ENABLE ROW LEVEL SECURITY;
      CREATE POLICY p ON public.${table} FOR SELECT TO authenticated USING (${using});
      GRANT SELECT ON public.${table} TO authenticated;`,
  )
  await prepareDatabase(database, schema + policies.join('\n'), tracked)
  // As where an administrator may make no event triggers: ours would mend REPLICA IDENTITY NOTHING at once.
  await database.query(`
    DO $$ DECLARE t name; BEGIN
      FOR t IN SELECT evtname FROM pg_event_trigger LOOP EXECUTE format('ALTER EVENT TRIGGER %I DISABLE', t); END LOOP;
    END $$;
    ALTER PUBLICATION tidegate ADD TABLE public.keyless;
    ALTER TABLE public.by_identity REPLICA IDENTITY DEFAULT;
    ALTER TABLE public.by_filter REPLICA IDENTITY DEFAULT;
    ALTER TABLE public.by_nothing REPLICA IDENTITY NOTHING;
    INSERT INTO public.by_owner SELECT 1, gen_random_uuid()`)
}
