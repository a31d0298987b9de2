// Compares what a compiled policy lets each reader see with what Postgres itself returns to them.
import type pg from 'pg'
import type { Memberships, Row } from '../../../src/predicate/algebra.ts'
import { bind } from '../../../src/predicate/bind.ts'
import { evaluate } from '../../../src/predicate/evaluate.ts'
import { createCatalog } from '../../../src/server/authorize/policy-catalog.ts'
import { settingsList, settingsOf } from '../../../src/server/authorize/settings.ts'
import type { PostgresCatalog } from '../../../src/server/catalog/catalog.ts'
import type { Table, TableAccess } from '../../../src/server/catalog/table.ts'
import { createLog } from '../../../src/server/log/log.ts'
import { createPool, queryText, type TextRow } from '../../../src/server/postgres/database.ts'
import type { Principal } from '../../../src/server/subscribe/subscription.ts'
import { plainMemberships, rowOf } from '../../support/plain-memberships.ts'
import { TestDatabase } from '../../support/postgres.ts'

export const ada = '00000000-0000-4000-8000-00000000000a'
export const bob = '00000000-0000-4000-8000-00000000000b'

export const claimSettings = [
  { setting: 'app.tenant_id', claim: 'tenant' },
  { setting: 'app.deep', claim: 'app_metadata.tenant' },
  { setting: 'app.orgs', claim: 'orgs' },
  { setting: 'realtime.topic', claim: 'topic' },
]

const principal = (role: string, claims: Record<string, unknown>): Principal => ({ role, claims, expiresAt: null })

export class PolicyBench {
  readonly database: TestDatabase
  readonly pool: pg.Pool
  readonly catalog: PostgresCatalog
  /** Roles are the server's, not the database's: named apart so that test files do not meet. */
  readonly roles: Readonly<Record<'anon' | 'authenticated' | 'staff' | 'keeper', string>>
  readonly principals: Readonly<Record<string, Principal>>

  private constructor(database: TestDatabase, pool: pg.Pool, roles: PolicyBench['roles']) {
    this.database = database
    this.pool = pool
    this.roles = roles
    this.catalog = createCatalog({
      pool,
      publication: 'tidegate',
      roles: Object.values(roles),
      log: createLog('silent'),
    })
    const { anon, authenticated, staff } = roles
    const lists = {
      rooms: [1, 3],
      editors: [ada, null],
      names: ['open', 'draft'],
      flags: { a: true, open: null },
      deep: [[1]],
    }
    const claims = {
      role: authenticated,
      tenant: ada,
      app_metadata: { roles: 'editor', tenant: 7, ...lists },
      groups: '{1,2}',
      orgs: '10,30',
      email: 'Ada@Example.org',
      topic: 'room:2:Hello',
    }
    this.principals = {
      ada: principal(authenticated, { ...claims, sub: ada }),
      bob: principal(authenticated, {
        role: authenticated,
        sub: bob,
        app_metadata: { roles: 'none', rooms: [] },
        topic: 'user:3',
      }),
      nobody: principal(authenticated, { role: authenticated }),
      anonymous: principal(anon, {}),
      staff: principal(staff, { ...claims, sub: bob, role: staff }),
    }
  }

  static async create(): Promise<PolicyBench> {
    const database = await TestDatabase.create()
    const suffix = database.name.slice(-6)
    const roles = {
      anon: `anon_${suffix}`,
      authenticated: `auth_${suffix}`,
      staff: `staff_${suffix}`,
      keeper: `keeper_${suffix}`,
    }
    await database.query(`${schema(roles)}; ALTER DATABASE ${database.name} SET app.fixed = 'open'`)
    return new PolicyBench(database, createPool(database.url, { maxConnections: 2 }), roles)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.pool.end()
    const names = Object.values(this.roles).join(', ')
    await this.database.query(`DROP OWNED BY ${names} CASCADE; DROP ROLE ${names}`)
    await this.database[Symbol.asyncDispose]()
  }

  /** `$anon` and the like become the roles' names. */
  withRoles(text: string): string {
    return text.replaceAll(
      /\$(anon|authenticated|staff|keeper)\b/g,
      (_, name: keyof PolicyBench['roles']) => this.roles[name],
    )
  }

  /** By what the catalog says now. */
  async access(reader: Principal): Promise<TableAccess> {
    this.catalog.invalidate()
    return this.#access(reader)
  }

  async #access(reader: Principal): Promise<TableAccess> {
    return this.catalog.access(await this.catalog.table('public', 'messages'), reader.role)
  }

  /** Keys of the messages that the compiled policy lets the reader see, by the catalog as it was read last. */
  async compiled(reader: Principal): Promise<string[]> {
    const { table, policy, memberships } = await this.#access(reader)
    const bound = bind(policy, settingsOf(reader, { claimSettings }))
    const index = await this.#memberships(memberships)
    const rows = await this.#rows(table)
    return rows.filter(row => evaluate(bound, rowOf(row), index) === true).map(row => row[0]!)
  }

  /** The same from Postgres; an error of its own as text. */
  async asked(reader: Principal): Promise<string[] | string> {
    const client = await this.pool.connect()
    try {
      await client.query('BEGIN')
      for (const [name, value] of settingsList(reader, { claimSettings }))
        await client.query('SELECT set_config($1, $2, true)', [name, value])
      const rows = await queryText(client, 'SELECT id FROM public.messages ORDER BY id')
      return rows.map(row => row[0]!)
    } catch (error) {
      return error instanceof Error ? `error: ${error.message}` : 'error'
    } finally {
      await client.query('ROLLBACK')
      client.release()
    }
  }

  async #memberships(tables: readonly Table[]): Promise<Memberships> {
    const rows = new Map<number, Row[]>()
    for (const table of tables) rows.set(table.oid, (await this.#rows(table)).map(rowOf))
    return plainMemberships(rows, BigInt(Date.now()) * 1000n)
  }

  #rows({ schema: namespace, name, columns }: Table): Promise<TextRow[]> {
    const list = columns.map(column => `"${column.name}"`).join(', ')
    return queryText(this.pool, `SELECT ${list} FROM "${namespace}"."${name}" ORDER BY 1`)
  }
}

const schema = ({ anon, authenticated, staff, keeper }: PolicyBench['roles']): string => `
  CREATE ROLE ${anon}; CREATE ROLE ${authenticated}; CREATE ROLE ${staff}; CREATE ROLE ${keeper};
  GRANT ${authenticated} TO ${staff};
  CREATE PUBLICATION tidegate FOR ALL TABLES WITH (publish_via_partition_root = true);
  CREATE SCHEMA auth; CREATE SCHEMA private;
  GRANT USAGE ON SCHEMA auth, private TO ${anon}, ${authenticated}, ${keeper};
  -- As Supabase defines them.
  CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS $$
    select coalesce(
      nullif(current_setting('request.jwt.claim.sub', true), ''),
      (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')
    )::uuid $$;
  CREATE FUNCTION auth.role() RETURNS text LANGUAGE sql STABLE AS $$
    select coalesce(
      nullif(current_setting('request.jwt.claim.role', true), ''),
      (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role')
    )::text $$;
  CREATE FUNCTION auth.jwt() RETURNS jsonb LANGUAGE sql STABLE AS $$
    select coalesce(
      nullif(current_setting('request.jwt.claim', true), ''),
      nullif(current_setting('request.jwt.claims', true), '')
    )::jsonb $$;
  CREATE TYPE public.mood AS ENUM ('sad', 'ok', 'glad');
  CREATE DOMAIN public.short AS text CHECK (length(VALUE) < 30);
  CREATE COLLATION public.nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
  CREATE TABLE public.members (
    room_id int, user_id uuid, role text NOT NULL DEFAULT 'member', muted boolean, PRIMARY KEY (room_id, user_id));
  CREATE TABLE public.bans (id int PRIMARY KEY, room_id int, user_id uuid);
  CREATE TABLE public.profiles (id uuid PRIMARY KEY, org_id int, role text, moods public.mood);
  CREATE TABLE private.secrets (room_id int, user_id uuid);
  CREATE TABLE public.messages (
    id int PRIMARY KEY, room_id int, author uuid, body text, is_public boolean, status varchar(20), mood public.mood,
    tags text[], editors uuid[], org_id bigint, price numeric(10, 2), meta jsonb, label public.short,
    nick text COLLATE public.nocase, code text COLLATE "C", pad char(5), on_day date, reader_role name, at timestamptz);
  INSERT INTO public.members VALUES (1, '${ada}', 'owner', false), (2, '${ada}', 'member', NULL), (2, '${bob}', 'member', true),
    (3, '${bob}', 'admin', false);
  INSERT INTO public.bans VALUES (1, 1, '${bob}'), (2, 2, '${ada}'), (3, NULL, '${bob}');
  INSERT INTO public.profiles VALUES ('${ada}', 10, 'admin', 'glad'), ('${bob}', 20, 'user', NULL);
  INSERT INTO private.secrets VALUES (1, '${ada}'), (NULL, '${ada}'), (3, '${bob}');
  INSERT INTO public.messages VALUES
    (1, 1, '${ada}', 'hello', true, 'open', 'sad', '{a,b}', '{${ada}}', 10, 1.50, '{"room": "1", "own": true}', 'x@y', 'Ada', 'abc', 'ab', '2026-01-01', '${authenticated}', '2026-01-01 10:00:00+00'),
    (2, 1, '${bob}', 'world', false, 'closed', 'ok', '{}', '{${bob},${ada}}', 20, 10.00, '{"room": "2"}', 'z', 'bob', 'ABC', 'ab  ', '2026-02-01', '${anon}', NULL),
    (3, 2, '${ada}', NULL, NULL, 'draft', 'glad', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
    (4, 2, NULL, '50% off_', true, NULL, NULL, '{NULL,a}', '{NULL}', 10, 2.00, '{"own": null}', 'X@Y', 'ADA', 'b', 'b', '2025-12-31', '${staff}', '2020-01-01 00:00:00+00'),
    (5, 3, '${bob}', 'Hello', false, 'open', 'ok', '{b}', '{}', 20, 1.5, '{"room": 3, "own": false}', 'y', 'ada', 'Z', 'Z', '2026-01-01', '${keeper}', '2026-01-01 10:00:00+00'),
    (6, NULL, '${ada}', 'none', false, 'open', 'sad', '{a}', '{}', 10, 0, '[]', 'q', 'x', 'a', 'a', NULL, NULL, NULL),
    (7, 4, '${bob}', 'héllo', true, 'closed', 'glad', '{c}', '{}', 30, -1, '{"room": "4"}', 'r', 'y', 'ä', 'c', NULL, NULL, NULL);
  GRANT SELECT ON ALL TABLES IN SCHEMA public TO ${anon}, ${authenticated};
  ALTER TABLE public.messages ENABLE ROW LEVEL SECURITY;
`
