import { randomBytes } from 'node:crypto'
import type pg from 'pg'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { migrate } from '../../src/cli/commands/migrate.ts'
import { track } from '../../src/cli/commands/track.ts'
import { createCatalog } from '../../src/server/authorize/policy-catalog.ts'
import { settingsList } from '../../src/server/authorize/settings.ts'
import type { PostgresCatalog } from '../../src/server/catalog/catalog.ts'
import { explain } from '../../src/server/explain/explain.ts'
import type { Explanation, RowExplanation } from '../../src/server/explain/explanation.ts'
import { parseExplainRequest } from '../../src/server/explain/request.ts'
import { createLog } from '../../src/server/log/log.ts'
import { createPool } from '../../src/server/postgres/database.ts'
import { createRoleGate } from '../../src/server/subscribe/roles.ts'
import { prepareDatabase } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'

const ada = '00000000-0000-4000-8000-00000000000a'
const bob = '00000000-0000-4000-8000-00000000000b'

const schema = `
  CREATE TABLE members (room_id int, user_id uuid, role text, PRIMARY KEY (room_id, user_id));
  CREATE TABLE bans (id int PRIMARY KEY, room_id int, user_id uuid);
  CREATE TABLE teams (id int PRIMARY KEY, team_id int);
  CREATE TABLE untracked (room_id int);
  CREATE TABLE messages (id bigint PRIMARY KEY, room_id int, author uuid, level int, body text, kind char(9));
  ALTER TABLE members ENABLE ROW LEVEL SECURITY;
  ALTER TABLE messages ENABLE ROW LEVEL SECURITY;
  CREATE POLICY own ON members FOR SELECT TO authenticated USING (user_id = (SELECT auth.uid()));
  CREATE FUNCTION is_owner(room int) RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER AS $$
    SELECT EXISTS (SELECT FROM public.members m WHERE m.room_id = room AND m.user_id = auth.uid() AND m.role = 'owner') $$;
  CREATE FUNCTION by_plpgsql(room int) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
    BEGIN RETURN EXISTS (SELECT FROM public.untracked u WHERE u.room_id = room); END $$;
  GRANT SELECT ON members, bans, untracked TO authenticated;
  GRANT SELECT (id, room_id, body) ON messages TO authenticated;
  INSERT INTO members VALUES (7, '${ada}', 'member'), (7, '${bob}', 'owner'), (8, '${bob}', 'member');
  INSERT INTO bans VALUES (1, 7, '${bob}');
  INSERT INTO messages VALUES (42, 7, '${bob}', 1, 'the secret'), (43, 8, NULL, 2, 'another'), (44, NULL, NULL, NULL, NULL);
`

let database: TestDatabase
let pool: pg.Pool

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, schema, ['members', 'bans', 'messages'])
  pool = createPool(database.url, { maxConnections: 2 })
})

afterAll(async () => {
  await pool?.end()
  await database?.[Symbol.asyncDispose]()
})

beforeEach(async () => {
  for (const { name } of await database.query<{ name: string }>(
    `SELECT quote_ident(polname) AS name FROM pg_policy WHERE polrelid = 'messages'::regclass`,
  ))
    await database.query(`DROP POLICY ${name} ON messages`)
})

interface Asking {
  readonly role?: string
  readonly claims?: object
  readonly key?: string
  readonly table?: string
  readonly pool?: pg.Pool
  readonly catalog?: PostgresCatalog
}

function ask({ role = 'authenticated', claims, key, table = 'messages', pool: as = pool, catalog }: Asking = {}) {
  const gate = createRoleGate({ pool: as, allowed: ['authenticated', 'anon'] })
  const texts = { table, role, claims: claims && JSON.stringify(claims), keys: key === undefined ? [] : [key] }
  return explain(
    {
      pool: as,
      catalog: () => catalog ?? createCatalog({ pool: as, publication: 'tidegate', log: createLog('silent') }),
      publication: 'tidegate',
      admit: each => gate.admit(each),
      settingsOf: principal => settingsList(principal, { claimSettings: [] }),
      maxRows: 1000,
      timeoutMs: 10_000,
    },
    parseExplainRequest(texts, 'role'),
  )
}

async function row(key: string, sub: string, more: Asking = {}): Promise<RowExplanation> {
  const { row: found } = await ask({ key, claims: { sub }, ...more })
  return found!
}

const policyOf = ({ policies }: Explanation, name: string) => policies.find(policy => policy.name === name)!

const readers = `CREATE POLICY readers ON messages FOR SELECT TO authenticated USING (
  EXISTS (SELECT FROM members m WHERE m.room_id = messages.room_id AND m.user_id = auth.uid()))`
const notBanned = `CREATE POLICY not_banned ON messages AS RESTRICTIVE TO authenticated USING (
  NOT EXISTS (SELECT FROM bans b WHERE b.room_id = messages.room_id AND b.user_id = auth.uid()))`

describe('each policy', () => {
  test('[P8] is told with its kind, its roles, its SQL, how it is judged and why', async () => {
    await database.query(`${readers}; ${notBanned};
      CREATE POLICY odd ON messages TO authenticated, anon USING (by_plpgsql(room_id));
      CREATE POLICY staff ON messages TO anon USING (true);
      CREATE POLICY writing ON messages FOR INSERT TO authenticated WITH CHECK (true)`)
    const explanation = await ask()
    expect(explanation.policies.map(({ name, kind, roles, judged }) => ({ name, kind, roles, judged }))).toEqual([
      { name: 'not_banned', kind: 'restrictive', roles: ['authenticated'], judged: 'compiled' },
      { name: 'odd', kind: 'permissive', roles: ['authenticated', 'anon'], judged: 'asked' },
      { name: 'readers', kind: 'permissive', roles: ['authenticated'], judged: 'compiled' },
      { name: 'staff', kind: 'permissive', roles: ['anon'], judged: 'not applied' },
    ])
    expect(policyOf(explanation, 'odd').reason).toBe('function public.by_plpgsql() in language plpgsql')
    expect(policyOf(explanation, 'staff').using).toBe('true')
    expect(explanation.exact).toBe(false)
    expect((await ask({ role: 'anon' })).policies.map(({ judged }) => judged)).toEqual([
      ...['not applied', 'asked', 'not applied', 'compiled'],
    ])
  })

  test('[P8] tells the columns, claims and tables that it reads, through functions and the inner tables’ own policies', async () => {
    await database.query(`${readers}; CREATE POLICY owners ON messages USING (is_owner(room_id) OR level < 2)`)
    const explanation = await ask()
    expect(policyOf(explanation, 'owners').reads).toMatchObject({
      columns: ['room_id', 'level'],
      settings: ['request.jwt.claim.sub', 'request.jwt.claims'],
      time: false,
      tables: [{ table: 'public.members', columns: ['room_id', 'user_id', 'role'] }],
    })
    // `members.own` is of its reader; inside the SECURITY DEFINER function its owner sees all.
    expect(policyOf(explanation, 'readers').reads.tables).toEqual([
      { table: 'public.members', columns: ['room_id', 'user_id'] },
    ])
    expect(explanation.exact).toBe(true)
    expect(explanation.problems).toEqual([])
  })

  test('[P8] that does not compile names the tables that Postgres has recorded, and the statement for those untracked', async () => {
    await database.query(`CREATE POLICY counted ON messages USING (
      (SELECT count(*) FROM untracked u WHERE u.room_id = messages.room_id) > 1)`)
    const explanation = await ask()
    const [counted] = explanation.policies
    expect(counted!.reads.tables).toEqual([{ table: 'public.untracked', columns: ['room_id'] }])
    expect(explanation.problems).toContainEqual(
      expect.objectContaining({ code: 'POLICY_UNSUPPORTED', run: 'tidegate track public.untracked' }),
    )
  })

  test('[P8] columns that the role may not SELECT are told, and those of them that decide', async () => {
    await database.query(`CREATE POLICY own ON messages USING (author = auth.uid())`)
    expect((await ask()).columns).toEqual({
      readable: ['id', 'room_id', 'body'],
      hidden: ['author', 'level', 'kind'],
      hiddenButRead: ['author'],
    })
  })
})

describe('what is missing', () => {
  test('[P8] a replica identity that does not suffice is told with the statement that mends it', async () => {
    await database.query(`${readers}; CREATE POLICY owners ON messages USING (is_owner(room_id));
      ALTER TABLE members REPLICA IDENTITY DEFAULT`)
    const before = await ask()
    const [problem] = before.problems
    expect(before.problems).toHaveLength(1)
    expect(problem).toMatchObject({
      code: 'IDENTITY_INSUFFICIENT',
      message: 'the replica identity of public.members lacks role',
    })
    expect(before.tables.find(({ table }) => table === 'public.members')).toMatchObject({
      replicaIdentity: 'default',
      missing: ['role'],
    })
    await database.query(problem!.run!)
    expect((await ask()).problems).toEqual([])
  })

  test('[P8] a table that is not tracked, and one that the login cannot read whole, or a role it may not take', async () => {
    const login = `explain_${randomBytes(4).toString('hex')}`
    await database.query(`${readers}; CREATE ROLE ${login} LOGIN PASSWORD 'x';
      CREATE POLICY untracked ON messages USING (room_id IN (SELECT room_id FROM untracked))`)
    const as = createPool(database.urlFor(login, 'x'), { maxConnections: 2 })
    try {
      const { problems, tables } = await ask({ pool: as })
      expect(problems.map(({ code, run }) => ({ code, run }))).toEqual(
        expect.arrayContaining([
          { code: 'ROLE_REFUSED', run: null },
          { code: 'INDEX_NOT_READABLE', run: 'tidegate track public.messages' },
          { code: 'INDEX_NOT_READABLE', run: 'tidegate track public.members' },
          { code: 'POLICY_UNSUPPORTED', run: 'tidegate track public.untracked' },
        ]),
      )
      expect(problems.find(({ code }) => code === 'ROLE_REFUSED')!.message).toContain(
        `GRANT "authenticated" TO "${login}"`,
      )
      expect(tables.map(({ readThrough }) => readThrough)).toEqual([null, null])
      expect(await row('id=42', ada, { pool: as })).toMatchObject({
        visible: null,
        code: 'INDEX_NOT_READABLE',
        agrees: null,
      })
    } finally {
      await as.end()
      await database.query(`DROP ROLE ${login}`)
    }
  })

  test('[P8] of a partitioned table the statement reaches its partitions', async () => {
    const options = { databaseUrl: database.url, adminUrl: database.url, name: 'tidegate', print: false, dryRun: false }
    const tracked = () => track({ ...options, tables: ['parted'] }, { write: () => true })
    await database.query(`CREATE TABLE parted (id int PRIMARY KEY, owner uuid) PARTITION BY RANGE (id);
      CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (100);
      ALTER TABLE parted ENABLE ROW LEVEL SECURITY; GRANT SELECT ON parted TO authenticated;
      CREATE POLICY own ON parted USING (owner = auth.uid())`)
    await tracked()
    expect((await ask({ table: 'parted' })).problems).toEqual([])
    // As where no event trigger may be made.
    await database.query(`SET session_replication_role = replica; ALTER TABLE parted_1 REPLICA IDENTITY DEFAULT;
      RESET session_replication_role`)
    const { problems } = await ask({ table: 'parted' })
    expect(problems).toMatchObject([{ code: 'IDENTITY_INSUFFICIENT', run: 'tidegate track public.parted' }])
    await tracked()
    expect((await ask({ table: 'parted' })).problems).toEqual([])
  })

  test('[P8] a table that a policy reads and that is not tracked ends with the statement, and shows nobody anything', async () => {
    await database.query(`CREATE POLICY listed ON messages USING (room_id IN (SELECT room_id FROM untracked))`)
    const { policies, problems, exact, row: found } = await ask({ claims: { sub: ada }, key: 'id=42' })
    expect(policies).toMatchObject([{ judged: 'refused', reason: expect.stringContaining('which is not tracked') }])
    expect(problems).toMatchObject([{ code: 'POLICY_UNSUPPORTED', run: 'tidegate track public.untracked' }])
    expect(exact).toBe(false)
    expect(found).toMatchObject({ visible: null, judgedBy: 'refused', code: 'POLICY_UNSUPPORTED', agrees: null })
  })

  test('[P8] of a table that Postgres is asked for no replica identity is missing; that it is asked is a warning', async () => {
    await database.query(`${readers}; ALTER TABLE messages REPLICA IDENTITY DEFAULT`)
    expect((await ask()).problems.map(({ code }) => code)).toEqual(['IDENTITY_INSUFFICIENT'])
    await database.query('CREATE POLICY odd ON messages USING (by_plpgsql(room_id))')
    const { problems, warnings } = await ask()
    expect(problems).toEqual([])
    expect(warnings.map(({ code }) => code)).toEqual(['POLICY_ASKED'])
    await database.query('ALTER TABLE messages REPLICA IDENTITY FULL')
  })

  test('[P8] a primary key that the role may not SELECT', async () => {
    await database.query(`${readers}; REVOKE SELECT (id) ON messages FROM authenticated`)
    const { problems, row: found } = await ask({ claims: { sub: ada }, key: 'id=42' })
    expect(problems.map(({ code }) => code)).toEqual(['KEY_NOT_READABLE'])
    expect(found).toMatchObject({ visible: true, postgres: { visible: null, sqlState: '42501' }, agrees: null })
    await database.query('GRANT SELECT (id) ON messages TO authenticated')
  })

  test('[P8] a login that reads tables through their owner’s function explains as well', async () => {
    const login = `explain_${randomBytes(4).toString('hex')}`
    await database.query(`${readers}; CREATE ROLE ${login} LOGIN PASSWORD 'x'; GRANT authenticated TO ${login}`)
    const url = database.urlFor(login, 'x')
    const options = { databaseUrl: url, adminUrl: database.url, name: 'tidegate', print: false, dryRun: false }
    const silent = { write: () => true }
    const as = createPool(url, { maxConnections: 2 })
    try {
      await migrate({ ...options, conventions: true }, silent)
      await track({ ...options, tables: ['members', 'messages'] }, silent)
      const { problems, tables } = await ask({ pool: as })
      expect([problems, tables.map(({ readThrough }) => readThrough)]).toEqual([[], ['function', 'function']])
      expect(await row('id=42', ada, { pool: as })).toMatchObject({ visible: true, agrees: true })
      expect(await row('id=43', ada, { pool: as })).toMatchObject({ visible: false, agrees: true })
    } finally {
      await as.end()
      await database.query(`DROP OWNED BY ${login}; DROP ROLE ${login}`)
    }
  })

  test('[P8] a table without SELECT for the role is refused, as Postgres raises', async () => {
    const { problems, row: found } = await ask({ role: 'anon', key: 'id=42' })
    expect(problems.map(({ code }) => code)).toContain('TABLE_REFUSED')
    expect(found).toMatchObject({ visible: null, code: 'TABLE_REFUSED', postgres: { sqlState: '42501' }, agrees: true })
  })

  test('[P8] a table that is not tracked says what to run', async () => {
    const { problems } = await ask({ table: 'untracked' })
    expect(problems.map(({ message }) => message)).toContain(
      'public.untracked is not tracked; run tidegate track public.untracked',
    )
  })
})

describe('a row and a reader', () => {
  test('[P8] visible, by which policy and which memberships', async () => {
    await database.query(`${readers}; ${notBanned}`)
    const found = await row('id=42', ada)
    expect(found).toMatchObject({ found: true, visible: true, judgedBy: 'tidegate', agrees: true })
    expect(found.because).toBe(`visible by policy "readers": public.members (room_id=7, user_id=${ada}) has 1 row`)
    expect(found.policies.find(({ name }) => name === 'not_banned')!.memberships).toEqual([
      {
        table: 'public.bans',
        key: { room_id: '7', user_id: ada },
        negated: true,
        rows: 0,
        candidates: 0,
        through: [],
      },
    ])
  })

  test('[P8] hidden, by a restrictive policy or for want of a permissive one', async () => {
    await database.query(`${readers}; ${notBanned}`)
    expect((await row('id=42', bob)).because).toBe(
      `hidden by restrictive policy "not_banned": public.bans (room_id=7, user_id=${bob}) has 1 row`,
    )
    const other = await row('id=43', ada)
    expect(other).toMatchObject({ visible: false, agrees: true })
    expect(other.because).toContain(`"readers": public.members (room_id=8, user_id=${ada}) has none`)
  })

  test('[P8] a membership that is there and does not suffice is told apart from one that is not', async () => {
    await database.query(`CREATE POLICY owners ON messages TO authenticated USING (is_owner(room_id))`)
    const { memberships } = (await row('id=42', ada)).policies[0]!
    expect(memberships).toMatchObject([{ key: { room_id: '7', user_id: ada }, rows: 0, candidates: 1 }])
    await database.query(`CREATE POLICY strict ON messages TO authenticated USING (EXISTS (
      SELECT FROM members m WHERE m.room_id = messages.room_id AND m.user_id = auth.uid() AND m.role > 'z' COLLATE "C"))`)
    const strict = (await row('id=42', ada)).policies.find(({ name }) => name === 'strict')!
    expect(strict.memberships).toMatchObject([{ rows: 0, candidates: 1 }])
  })

  test('[P8] unknown is told as such: a NULL decides', async () => {
    await database.query(`CREATE POLICY own ON messages USING (author = auth.uid())`)
    const found = await row('id=43', ada)
    expect(found.policies).toMatchObject([{ answer: 'unknown' }])
    expect(found).toMatchObject({ visible: false, agrees: true })
  })

  test('[P8] claims that do not fit are CLAIM_INVALID, where Postgres raises', async () => {
    await database.query(readers)
    const { row: found, problems } = await ask({ claims: { sub: 'nobody' }, key: 'id=42' })
    expect(found).toMatchObject({ visible: null, code: 'CLAIM_INVALID', judgedBy: 'refused', agrees: true })
    expect(found!.postgres).toEqual({ visible: null, sqlState: '22P02' })
    expect(problems.map(({ code }) => code)).toEqual(['CLAIM_INVALID'])
    // Of nobody in particular nothing is asked.
    expect((await ask()).problems).toEqual([])
  })

  test('[P1] claims that do not fit one policy do not matter where another decides alone', async () => {
    await database.query(`${readers}; CREATE POLICY everybody ON messages USING (true)`)
    const found = await row('id=42', 'nobody')
    expect(found).toMatchObject({ visible: true, agrees: true, because: 'visible by policy "everybody"' })
    expect(found.policies).toMatchObject([{ answer: 'true' }, { answer: 'invalid' }])
  })

  test('[P1] a key that the membership’s type cannot hold finds none, and one of another spelling is found', async () => {
    await database.query(`CREATE POLICY same_id ON messages USING (EXISTS (SELECT FROM bans b WHERE b.id = messages.id));
      CREATE POLICY same_text ON messages USING (kind IN (SELECT m.role FROM members m));
      INSERT INTO messages (id, kind) VALUES (5000000000, NULL), (1, NULL), (2, 'owner')`)
    try {
      expect(await row('id=5000000000', ada)).toMatchObject({ visible: false, agrees: true })
      expect(await row('id=1', ada)).toMatchObject({ visible: true, agrees: true })
      expect(await row('id=2', bob)).toMatchObject({ visible: true, agrees: true })
    } finally {
      await database.query('DELETE FROM messages WHERE id NOT IN (42, 43, 44)')
    }
  })

  test('[P8] more memberships than may be read are told, not judged', async () => {
    await database.query(`CREATE POLICY anywhere ON messages USING (room_id NOT IN (SELECT b.room_id FROM bans b))`)
    await database.query('INSERT INTO bans SELECT g, g FROM generate_series(100, 1200) g')
    try {
      const found = await row('id=43', ada)
      expect(found).toMatchObject({ visible: null, code: 'MEMBERSHIP_TOO_LARGE', judgedBy: 'refused', agrees: null })
      expect(found.policies).toMatchObject([{ answer: 'failed' }])
    } finally {
      await database.query('DELETE FROM bans WHERE id >= 100')
    }
  })

  test('[P8] a key that no row has is told as such', async () => {
    await database.query(readers)
    expect(await row('id=4711', ada)).toMatchObject({ found: false, visible: false, agrees: true })
  })

  test('[P8] what is asked of Postgres is answered by Postgres, unless what compiles decides alone', async () => {
    await database.query(`CREATE POLICY odd ON messages USING (by_plpgsql(room_id)); ${notBanned};
      INSERT INTO untracked VALUES (8), (7)`)
    expect(await row('id=43', ada)).toMatchObject({ visible: true, judgedBy: 'postgres', agrees: null })
    expect(await row('id=44', ada)).toMatchObject({ visible: false, judgedBy: 'postgres' })
    expect(await row('id=42', bob)).toMatchObject({ visible: false, judgedBy: 'tidegate', agrees: true })
    await database.query('TRUNCATE untracked')
  })

  test('[P2] nothing of the row but its key and the memberships’ keys is told', async () => {
    await database.query(`${readers}; CREATE POLICY level ON messages USING (level = 1 OR body = 'x')`)
    const explanation = await ask({ claims: { sub: ada, private: 'a claim' }, key: 'id=42' })
    const text = JSON.stringify(explanation)
    expect(explanation.row).toMatchObject({ visible: true })
    for (const value of ['the secret', bob, 'a claim', 'owner']) expect(text).not.toContain(value)
  })

  test('[P1] when Postgres says otherwise, it is told so', async () => {
    await database.query(readers)
    const catalog = createCatalog({ pool, publication: 'tidegate', log: createLog('silent') })
    expect(await row('id=42', ada, { catalog })).toMatchObject({ visible: true, agrees: true })
    // The catalog has read the policy, and judges by what is not there any more: the only way to be wrong on purpose.
    await database.query('ALTER POLICY readers ON messages USING (false)')
    const { row: found } = await ask({ key: 'id=42', claims: { sub: ada }, catalog })
    expect(found).toMatchObject({ visible: true, postgres: { visible: false }, agrees: false })
  })

  test('[P8] row-level security that is off, and a role that it does not bind', async () => {
    await database.query('ALTER TABLE messages DISABLE ROW LEVEL SECURITY')
    const off = await ask({ key: 'id=42', claims: { sub: ada } })
    expect(off).toMatchObject({ rowSecurity: 'off', row: { visible: true, agrees: true } })
    expect(off.warnings.map(({ code }) => code)).toEqual(['NO_ROW_SECURITY'])
    await database.query('ALTER TABLE messages ENABLE ROW LEVEL SECURITY')
    const none = await ask({ key: 'id=42', claims: { sub: ada } })
    expect(none).toMatchObject({ rowSecurity: 'on', row: { visible: false, agrees: true } })
    expect(none.warnings.map(({ code }) => code)).toEqual(['NO_POLICY'])
  })
})

describe('what does not fit is refused', () => {
  test.each([
    [{ key: 'id=x' }, 'FILTER_INVALID', 'key id is "x"'],
    [{ key: 'body=x' }, 'COLUMN_UNKNOWN', 'the key of public.messages is (id)'],
    [{ table: 'nowhere' }, 'TABLE_UNKNOWN', 'nowhere'],
    [{ role: 'nobody_at_all' }, 'ROLE_REFUSED', 'there is no database role'],
  ] as const)('%j', async (asking, code, message) => {
    await expect(ask(asking)).rejects.toMatchObject({ code, message: expect.stringContaining(message) })
  })
})
