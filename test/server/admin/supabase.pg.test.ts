// Beside the schema of a Supabase: what migrate adds, what it leaves, what it says, and what remove takes back.
import { describe, expect, test } from 'vitest'
import { migrate } from '../../../src/cli/commands/migrate.ts'
import { remove } from '../../../src/cli/commands/remove.ts'
import { track } from '../../../src/cli/commands/track.ts'
import { findingsOfRealtimeSchema } from '../../../src/server/admin/realtime-findings.ts'
import { MessageSweep } from '../../../src/server/channels/sql/message-sweep.ts'
import { createPool } from '../../../src/server/postgres/database.ts'
import { makePartitions, makeSupabase, type SupabaseSchemaOptions } from '../../support/supabase-schema.ts'
import { dump, startServer } from './dump.ts'
import { connect, Lines, print, runPrinted, Site } from './site.ts'

interface SupabaseSite {
  readonly site: Site
  /** As Supabase's `postgres`. */
  readonly asPostgres: Site['options']
  readonly postgres: string
}

async function makeSite(site: Site, options: SupabaseSchemaOptions = {}): Promise<SupabaseSite> {
  const postgres = `${site.database.name}_postgres`
  const login = { name: postgres, password: 'secret' }
  await makeSupabase(site.database, { ...options, login })
  return { site, postgres, asPostgres: { ...site.options, adminUrl: site.database.urlFor(postgres, 'secret') } }
}

/** Of a server that other tests use too. */
const dropPostgres = ({ database }: Site, postgres: string): Promise<unknown> =>
  database.query(
    `ALTER DATABASE ${database.name} OWNER TO CURRENT_USER; DROP OWNED BY ${postgres} CASCADE; DROP ROLE ${postgres}`,
  )

const ofTheirs = (column: string): string => `${column}::regnamespace::text IN ('auth', 'realtime')`
const relationsOfTheirs = `(SELECT oid FROM pg_class WHERE ${ofTheirs('relnamespace')})`

/** What the catalog says of the schemas auth and realtime, of their publications and of their roles: each fact a line. */
async function theirs(site: Site): Promise<string[]> {
  const rows = await site.database.query<{ line: string }>(`
    SELECT concat_ws(' ', 'function', pg_get_functiondef(oid), proowner::regrole, proacl) AS line FROM pg_proc WHERE ${ofTheirs('pronamespace')}
    UNION ALL SELECT concat_ws(' ', 'relation', oid::regclass, relkind, relowner::regrole, relacl, relreplident, relrowsecurity, relforcerowsecurity,
        reloptions, pg_get_expr(relpartbound, oid)) FROM pg_class WHERE ${ofTheirs('relnamespace')}
    UNION ALL SELECT concat_ws(' ', 'column', a.attrelid::regclass, attnum, attname, format_type(atttypid, atttypmod), attnotnull, attacl,
        pg_get_expr(adbin, adrelid)) FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND adnum = attnum
        WHERE a.attrelid IN ${relationsOfTheirs}
    UNION ALL SELECT concat_ws(' ', 'constraint', conrelid::regclass, conname, pg_get_constraintdef(oid), convalidated)
        FROM pg_constraint WHERE ${ofTheirs('connamespace')}
    UNION ALL SELECT concat_ws(' ', 'trigger', tgrelid::regclass, tgname) FROM pg_trigger WHERE tgrelid IN ${relationsOfTheirs}
    UNION ALL SELECT concat_ws(' ', 'policy', p.*) FROM pg_policies p WHERE schemaname IN ('auth', 'realtime')
    UNION ALL SELECT concat_ws(' ', 'type', typname, typowner::regrole, typacl) FROM pg_type WHERE ${ofTheirs('typnamespace')}
    UNION ALL SELECT concat_ws(' ', 'schema', nspname, nspowner::regrole, nspacl) FROM pg_namespace WHERE nspname IN ('auth', 'realtime')
    UNION ALL SELECT concat_ws(' ', 'publication', pubname, pubowner::regrole, puballtables, pubviaroot, pubinsert, pubupdate, pubdelete, pubtruncate,
        (SELECT json_agg(prrelid::regclass ORDER BY 1) FROM pg_publication_rel WHERE prpubid = p.oid)) FROM pg_publication p WHERE pubname ~ '^supabase'
    UNION ALL SELECT concat_ws(' ', 'role', r.*) FROM pg_roles r WHERE rolname ~ '^(anon|authenticated|service_role|supabase_.*)$'
    ORDER BY 1`)
  return rows.map(({ line }) => line)
}

const swallows =
  /^warning: realtime\.send and realtime\.send_binary swallow their errors: .* tidegate migrate --adopt-realtime /m
const tellsClaims =
  /^warning: anon and authenticated may read realtime\.subscription, which holds the claims of everybody .*; REVOKE SELECT ON realtime\.subscription FROM PUBLIC, anon, authenticated$/m

interface Administered {
  readonly who: string
  readonly isSuperuser: boolean
  readonly isRestricted: boolean
  readonly isLogin?: boolean
  /** Whether it may put the table of messages into the publication. */
  readonly publishes: boolean
}

const administrators: readonly Administered[] = [
  { who: 'a superuser', isSuperuser: true, isRestricted: false, publishes: true },
  { who: "Supabase's postgres, which is none", isSuperuser: false, isRestricted: false, publishes: true },
  {
    who: 'the same, who runs the server too',
    isSuperuser: false,
    isRestricted: false,
    isLogin: true,
    publishes: true,
  },
  {
    who: 'that of later releases, which owns nothing in realtime',
    isSuperuser: false,
    isRestricted: true,
    publishes: false,
  },
]

test.each(administrators)(
  '[P6] migrated by $who, nothing of theirs is changed, and remove leaves the database as it was',
  async each => {
    const { isSuperuser, isRestricted, isLogin = false, publishes } = each
    await using server = await startServer()
    await using site = await Site.create(server.url)
    const { asPostgres } = await makeSite(site, { isRestricted })
    const options = isSuperuser
      ? site.options
      : isLogin
        ? { ...asPostgres, databaseUrl: asPostgres.adminUrl }
        : asPostgres
    const [before, theirsBefore] = [await dump(site), await theirs(site)]
    const said = await print(out => migrate(options, out))
    expect(said).toMatch(swallows)
    expect(said).toMatch(tellsClaims)
    expect(/warning: messages sent from SQL will not arrive.* must be owner of table messages/.test(said)).toBe(
      !publishes,
    )
    expect(await theirs(site)).toEqual(theirsBefore)
    const published = `SELECT r.prrelid::regclass::text AS name, pubviaroot FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
    WHERE pubname = 'tidegate' AND r.prrelid = 'realtime.messages'::regclass`
    expect(await site.database.query(published)).toEqual(
      publishes ? [{ name: 'realtime.messages', pubviaroot: true }] : [],
    )
    await migrate(options, new Lines())
    expect(await theirs(site)).toEqual(theirsBefore)
    await remove(options, new Lines())
    expect(await dump(site)).toBe(before)
  },
)

describe('findings of the schema realtime', () => {
  const kinds = async (site: Site): Promise<string[]> =>
    (await findingsOfRealtimeSchema(site.database.client, 'tidegate')).map(
      ({ kind, severity }) => `${severity} ${kind}`,
    )

  test('a database of its own has none, migrated or not', async () => {
    await using site = await Site.create()
    expect(await kinds(site)).toEqual([])
    await migrate(site.options, new Lines())
    expect(await kinds(site)).toEqual([])
  })

  test('each is there while it is so, and its remedy, typed as it is given, ends it', async () => {
    await using server = await startServer()
    await using site = await Site.create(server.url)
    await makeSupabase(site.database)
    await migrate(site.options, new Lines())
    const standing = ['warning SEND_SWALLOWS_ERRORS', 'warning CLAIMS_READABLE']
    expect(await kinds(site)).toEqual(standing)
    const remedyOf = async (kind: string): Promise<string> => {
      const found = await findingsOfRealtimeSchema(site.database.client, 'tidegate')
      return found.find(each => each.kind === kind)?.remedy ?? ''
    }
    // The partition of tomorrow, then also today's.
    const day = async (ahead: number): Promise<string> =>
      (
        await site.database.query<{ day: string }>(
          `SELECT to_char(timezone('UTC', now()) + interval '${ahead} days', 'YYYY_MM_DD') AS day`,
        )
      )[0]!.day
    for (const [ahead, when] of [
      [1, 'tomorrow'],
      [0, 'today'],
    ] as const) {
      await site.database.query(`DROP TABLE realtime.messages_${await day(ahead)}`)
      expect(await kinds(site)).toEqual([standing[0], 'warning PARTITION_MISSING', standing[1]])
      const said = await print(out => migrate(site.options, out))
      expect(said).toContain(
        `warning: realtime.messages has no partition for ${when}, ${(await day(ahead)).replaceAll('_', '-')} (UTC)`,
      )
      const [, byHand] = (await remedyOf('PARTITION_MISSING')).split('by hand: ')
      await site.database.query(byHand!)
      expect(await kinds(site)).toEqual(standing)
    }
    await site.database.query(await remedyOf('CLAIMS_READABLE'))
    expect(await kinds(site)).toEqual([standing[0]])
    await site.database.query(`CREATE TABLE public.todos (id int PRIMARY KEY); CREATE TABLE public.notes (id int PRIMARY KEY);
      ALTER PUBLICATION supabase_realtime ADD TABLE public.todos, public.notes`)
    expect(await kinds(site)).toEqual([standing[0], 'notice PUBLICATION_NOT_FOLLOWED'])
    expect(await remedyOf('PUBLICATION_NOT_FOLLOWED')).toContain('tidegate track --from-publication supabase_realtime')
    await track({ ...site.options, tables: ['todos'] }, new Lines())
    expect(await kinds(site)).toEqual([standing[0]])
    await migrate({ ...site.options, adoptRealtime: true }, new Lines())
    expect(await kinds(site)).toEqual([])
  })

  test('messages that nobody put into the publication, until somebody does what it says', async () => {
    await using site = await Site.create()
    const { asPostgres, postgres } = await makeSite(site, { isRestricted: true })
    try {
      expect(await kinds(site)).not.toContain('warning MESSAGES_UNPUBLISHED')
      const said = await print(out => migrate(asPostgres, out))
      expect(said.match(/not in the publication/g)).toHaveLength(1)
      const [first] = await findingsOfRealtimeSchema(site.database.client, 'tidegate')
      expect(first).toMatchObject({ kind: 'MESSAGES_UNPUBLISHED', severity: 'warning' })
      await site.database.query(first!.remedy)
      expect(await kinds(site)).not.toContain('warning MESSAGES_UNPUBLISHED')
    } finally {
      await dropPostgres(site, postgres)
    }
  })

  test('a table without any partition, one parted by something else, and a default partition', async () => {
    await using site = await Site.create()
    const parted = (key: string): string => `DROP SCHEMA IF EXISTS realtime CASCADE; CREATE SCHEMA realtime;
      CREATE TABLE realtime.messages (topic text, inserted_at timestamptz NOT NULL DEFAULT now()) PARTITION BY ${key};`
    await site.database.query(parted('RANGE (inserted_at)'))
    expect(await kinds(site)).toEqual(['warning PARTITION_MISSING'])
    await site.database.query('CREATE TABLE realtime.messages_rest PARTITION OF realtime.messages DEFAULT')
    expect(await kinds(site)).toEqual([])
    await site.database.query(parted('LIST (topic)'))
    expect(await kinds(site)).toEqual([])
  })

  test('a body swallows errors that are all caught, and none told', async () => {
    await using site = await Site.create()
    await site.database.query('CREATE SCHEMA realtime')
    for (const [body, swallowsErrors] of [
      ['BEGIN NULL; EXCEPTION WHEN others THEN NULL; END', true],
      ["BEGIN NULL; EXCEPTION\n  WHEN OTHERS THEN -- quiet\n    raise log 'x'; END", true],
      ["BEGIN NULL; EXCEPTION WHEN OTHERS THEN RAISE EXCEPTION 'x'; END", false],
      ['BEGIN NULL; EXCEPTION WHEN OTHERS THEN RAISE; END', false],
      ['BEGIN NULL; /* EXCEPTION WHEN OTHERS THEN NULL; */ END', false],
      ['BEGIN NULL; EXCEPTION WHEN unique_violation THEN NULL; END', false],
    ] as const) {
      await site.database.query(`CREATE OR REPLACE FUNCTION realtime.send(payload jsonb, event text, topic text, private boolean DEFAULT true)
      RETURNS void LANGUAGE plpgsql AS $f$ ${body} $f$`)
      expect([body, ...(await kinds(site))]).toEqual([
        body,
        ...(swallowsErrors ? ['warning SEND_SWALLOWS_ERRORS'] : []),
      ])
    }
  })
})

describe('adopted', () => {
  test('[P4] realtime.send fails the transaction where it lost the message, and remove puts theirs back', async () => {
    await using server = await startServer()
    await using site = await Site.create(server.url)
    const { asPostgres } = await makeSite(site)
    await site.database.query('CREATE TABLE public.audit (n int)')
    const [before, theirsBefore] = [await dump(site), await theirs(site)]
    const lost = `BEGIN; INSERT INTO public.audit VALUES (1); SELECT realtime.send('{}', 'e', NULL); COMMIT`
    await migrate(asPostgres, new Lines())
    await site.database.query(lost)
    expect(await site.database.query('SELECT n FROM public.audit')).toEqual([{ n: 1 }])

    const said = await print(out => migrate({ ...asPostgres, adoptRealtime: true }, out))
    expect(said).not.toMatch(swallows)
    await expect(site.database.query(lost)).rejects.toMatchObject({
      code: '22023',
      message: expect.stringContaining('realtime.send: the topic NULL is null, empty'),
    })
    await site.database.query('ROLLBACK')
    expect(await site.database.query('SELECT n FROM public.audit')).toEqual([{ n: 1 }])
    // Only the bodies are others.
    const changed = (await theirs(site)).filter(line => !theirsBefore.includes(line))
    expect(changed.map(line => /FUNCTION (\S+?)\(.* supabase_realtime_admin$/s.exec(line)?.[1])).toEqual([
      'realtime.send',
      'realtime.send_binary',
    ])
    // Also by a later migrate that is not told so again.
    await migrate(asPostgres, new Lines())
    await expect(site.database.query(lost)).rejects.toMatchObject({ code: '22023' })
    await site.database.query('ROLLBACK')
    await remove(asPostgres, new Lines())
    expect(await theirs(site)).toEqual(theirsBefore)
    expect(await dump(site)).toBe(before)
  })

  test('the daily partitions go on being made, and dropped after three days, by the login of the server', async () => {
    await using site = await Site.create()
    const { asPostgres, postgres } = await makeSite(site, { partitions: [-6, 0] })
    const pool = createPool(site.loginUrl, { maxConnections: 1 })
    const sweep = (): Promise<number> => new MessageSweep(pool).sweep(0, new AbortController().signal)
    try {
      const days = async (): Promise<{ ahead: number; owner: string }[]> =>
        await site.database.query(
          `SELECT to_date(c.relname, '"messages_"YYYY_MM_DD') - timezone('UTC', now())::date AS ahead, relowner::regrole::text AS owner
           FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid WHERE inhparent = 'realtime.messages'::regclass ORDER BY 1`,
        )
      const range = (first: number, last: number): object[] =>
        Array.from({ length: last - first + 1 }, (_, i) => ({ ahead: first + i, owner: 'supabase_realtime_admin' }))
      await migrate(asPostgres, new Lines())
      await sweep()
      expect(await days()).toEqual(range(-6, 0))
      await migrate({ ...asPostgres, adoptRealtime: true }, new Lines())
      expect(await days()).toEqual(range(-3, 3))
      const [gone] = await site.database.query<{ name: string }>(
        `SELECT to_char(timezone('UTC', now()) + interval '2 days', '"realtime.messages_"YYYY_MM_DD') AS name`,
      )
      await site.database.query(`DROP TABLE ${gone!.name}`)
      await makePartitions(site.database, -5, -4)
      await sweep()
      expect(await days()).toEqual(range(-3, 3))
      await site.database.query(
        `INSERT INTO realtime.messages (topic, extension, inserted_at) VALUES ('t', 'broadcast', timezone('UTC', now()) + interval '2 days')`,
      )
      expect(await site.database.query('SELECT tableoid::regclass::text AS name FROM realtime.messages')).toEqual([
        gone,
      ])
      await site.asLogin(async client => {
        await client.query('SET ROLE authenticated')
        await expect(client.query('SELECT tidegate.keep_partitions()')).rejects.toMatchObject({ code: '42501' })
        await expect(client.query(`SELECT FROM ${gone!.name}`)).rejects.toMatchObject({ code: '42501' })
      })
      await remove(asPostgres, new Lines())
      expect(await days()).toEqual(range(-3, 3))
    } finally {
      await pool.end()
      await dropPostgres(site, postgres)
    }
  })

  test('a partition that reaches over its day, with rows or without, is left as it is', async () => {
    await using site = await Site.create()
    await makeSupabase(site.database, { partitions: [-1, 0] })
    await site.database.query(`CREATE TABLE realtime.messages_rest PARTITION OF realtime.messages DEFAULT;
      INSERT INTO realtime.messages (topic, extension, inserted_at) VALUES ('t', 'broadcast', timezone('UTC', now()) + interval '1 day')`)
    await migrate({ ...site.options, adoptRealtime: true }, new Lines())
    const [row] = await site.database.query(`SELECT count(*)::int AS partitions,
      (SELECT count(*)::int FROM realtime.messages_rest) AS rest FROM pg_inherits WHERE inhparent = 'realtime.messages'::regclass`)
    // Yesterday, today, the rest, and of the three days ahead those two that it has no row of.
    expect(row).toEqual({ partitions: 5, rest: 1 })
  })

  test('whoever owns nothing of it is told who may, and nothing is changed', async () => {
    await using server = await startServer()
    await using site = await Site.create(server.url)
    const { asPostgres } = await makeSite(site, { isRestricted: true })
    await migrate(asPostgres, new Lines())
    const before = await dump(site)
    await expect(migrate({ ...asPostgres, adoptRealtime: true }, new Lines())).rejects.toMatchObject({
      code: 'PRIVILEGE_MISSING',
      message: expect.stringContaining(
        'permission denied for schema realtime. Set ADMIN_DATABASE_URL to a login that may',
      ),
    })
    expect(await dump(site)).toBe(before)
    // As supabase_admin may.
    await migrate({ ...site.options, adoptRealtime: true }, new Lines())
    const client = await connect(asPostgres.adminUrl)
    await expect(client.query(`SELECT realtime.send('{}', NULL, 't')`)).rejects.toMatchObject({ code: '22004' })
    await client.end()
  })

  test('what --print gives for it does the same with psql, and remove shows what it puts back', async () => {
    await using server = await startServer()
    await using site = await Site.create(server.url)
    await makeSupabase(site.database)
    const before = await dump(site)
    await runPrinted(
      site.database.url,
      await print(out => migrate({ ...site.options, adoptRealtime: true, print: true }, out)),
    )
    await expect(site.database.query(`SELECT realtime.send('{}', NULL, 't')`)).rejects.toMatchObject({ code: '22004' })
    expect(await print(out => migrate(site.options, out))).not.toMatch(swallows)
    const shown = await print(out => remove({ ...site.options, dryRun: true }, out))
    expect(shown).toContain('CREATE OR REPLACE FUNCTION realtime.send(')
    await runPrinted(site.database.url, shown)
    expect(await dump(site)).toBe(before)
  })

  test('where nobody else has made it, it is as migrate makes it', async () => {
    await using server = await startServer()
    await using site = await Site.create(server.url)
    await migrate(site.options, new Lines())
    const before = await dump(site)
    await migrate({ ...site.options, adoptRealtime: true }, new Lines())
    expect(await dump(site)).toBe(before)
    expect(await site.database.query(`SELECT FROM tidegate.installed WHERE kind = 'adopted'`)).toEqual([])
  })
})
