// Policies of nested subqueries at random: what they compile to, against what Postgres returns under them.
import type pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Row } from '../../../src/predicate/algebra.ts'
import { bind } from '../../../src/predicate/bind.ts'
import { evaluate } from '../../../src/predicate/evaluate.ts'
import { TidegateError } from '../../../src/protocol/tidegate-error.ts'
import { compileAccess } from '../../../src/server/authorize/policies.ts'
import { createCatalog } from '../../../src/server/authorize/policy-catalog.ts'
import { settingsList, settingsOf } from '../../../src/server/authorize/settings.ts'
import type { PostgresCatalog } from '../../../src/server/catalog/catalog.ts'
import type { Table, TableAccess } from '../../../src/server/catalog/table.ts'
import { createLog } from '../../../src/server/log/log.ts'
import { createPool, queryText } from '../../../src/server/postgres/database.ts'
import type { Principal } from '../../../src/server/subscribe/subscription.ts'
import { plainMemberships, rowOf } from '../../support/plain-memberships.ts'
import { TestDatabase } from '../../support/postgres.ts'
import { randomOf, SubqueryGenerator, schemaOf, tableNames, users } from './subquery-generator.ts'

const seed = Number(process.env.SUBQUERIES_SEED ?? 20_260_726)
const count = Number(process.env.SUBQUERIES_COUNT ?? 520)

let database: TestDatabase
let pool: pg.Pool
let client: pg.PoolClient
let catalog: PostgresCatalog
let role: string
const contents = new Map<number, readonly Row[]>()

beforeAll(async () => {
  database = await TestDatabase.create()
  role = `reader_${database.name.slice(-6)}`
  await database.query(`
    CREATE ROLE ${role};
    CREATE PUBLICATION tidegate FOR ALL TABLES;
    CREATE SCHEMA auth; GRANT USAGE ON SCHEMA auth TO ${role};
    CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS $$
      SELECT nullif(current_setting('request.jwt.claim.sub', true), '')::uuid $$;
    ${schemaOf(randomOf(seed))}
    GRANT SELECT ON ALL TABLES IN SCHEMA public TO ${role};
    ALTER TABLE docs ENABLE ROW LEVEL SECURITY`)
  pool = createPool(database.url, { maxConnections: 3 })
  catalog = createCatalog({ pool, publication: 'tidegate', roles: [role], log: createLog('silent') })
  client = await pool.connect()
  for (const name of tableNames) {
    const table = await catalog.table('public', name)
    contents.set(
      table.oid,
      (await queryText(pool, `SELECT * FROM ${name} ORDER BY 1`)).map(row => rowOf(row)),
    )
  }
})

afterAll(async () => {
  client?.release()
  await pool?.end()
  await database?.query(`DROP OWNED BY ${role} CASCADE; DROP ROLE ${role}`)
  await database?.[Symbol.asyncDispose]()
})

const readers = (): Principal[] =>
  [...users, null].map(sub => ({ role, claims: sub === null ? {} : { sub }, expiresAt: null }))

interface Played {
  /** As Postgres prints it. */
  readonly using: string
  /** Keys by reader; the message where Postgres raises. */
  readonly shown: readonly (readonly string[])[] | string
}

/** Creates a policy, asks Postgres what each reader sees, and undoes it. */
async function play(using: string): Promise<Played> {
  await client.query('BEGIN')
  try {
    await client.query(`CREATE POLICY generated ON docs USING (${using})`)
    const { rows } = await client.query<{ text: string }>(
      `SELECT set_config('search_path', '', true), pg_get_expr(polqual, polrelid) AS text FROM pg_policy WHERE polname = 'generated'`,
    )
    const printed = rows[0]!.text
    const shown: string[][] = []
    for (const reader of readers()) {
      const settings = settingsList(reader, { claimSettings: [] }).filter(([name]) => name !== 'role')
      const sub = reader.claims.sub === undefined ? [['request.jwt.claim.sub', '']] : []
      for (const [name, value] of [...settings, ...sub])
        await client.query('SELECT set_config($1, $2, true)', [name, value])
      await client.query(`SET LOCAL ROLE ${role}`)
      shown.push((await queryText(client, 'SELECT id FROM public.docs ORDER BY id')).map(row => row[0]!))
      await client.query('RESET ROLE')
    }
    return { using: printed, shown }
  } catch (error) {
    return { using, shown: error instanceof Error ? error.message : String(error) }
  } finally {
    await client.query('ROLLBACK')
  }
}

async function compiled(docs: Table, using: string): Promise<TableAccess | string> {
  const policy = { name: 'generated', permissive: true, roles: [0], command: 'SELECT' as const, using, check: null }
  try {
    return await catalog.compiled(docs, role, input =>
      compileAccess({ ...input, relation: { ...input.relation, policies: [policy] } }),
    )
  } catch (error) {
    if (error instanceof TidegateError) return `${error.code}: ${error.message}`
    throw error
  }
}

function judged({ policy, table, memberships }: TableAccess, reader: Principal): string[] {
  const bound = bind(policy, settingsOf(reader, { claimSettings: [] }))
  const read = new Map(memberships.map(({ oid }) => [oid, contents.get(oid)!]))
  const index = plainMemberships(read)
  return contents.get(table.oid)!.flatMap(row => (evaluate(bound, row, index) === true ? [row.text(0)!] : []))
}

/** What inner tables hide is hidden by policies of their own, which read further tables. */
const innerPolicies: readonly string[] = [
  '',
  `ALTER TABLE members ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON members USING (user_id = auth.uid());
   ALTER TABLE bans ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON bans USING (user_id = auth.uid() OR project_id < 3);`,
  `ALTER TABLE teams ENABLE ROW LEVEL SECURITY;
   CREATE POLICY mine ON teams USING (id IN (SELECT m.team_id FROM members m WHERE m.user_id = auth.uid()));
   ALTER TABLE projects ENABLE ROW LEVEL SECURITY;
   CREATE POLICY mine ON projects USING (owner = auth.uid() OR EXISTS (SELECT FROM teams t WHERE t.id = projects.team_id AND t.kind = 'a'));
   CREATE POLICY live ON projects AS RESTRICTIVE USING (NOT coalesce(archived, false));`,
]

test(
  `[P1] ${count} generated policies show each reader what SELECT shows, seed ${seed}`,
  async () => {
    const generator = new SubqueryGenerator(randomOf(seed))
    const refusals = new Map<string, number>()
    let agreed = 0
    let rowsShown = 0
    for (const [part, statements] of innerPolicies.entries()) {
      if (statements !== '') await database.query(statements)
      catalog.invalidate()
      const docs = await catalog.table('public', 'docs')
      for (let i = 0; i < count / innerPolicies.length; i++) {
        const { using, shown } = await play(generator.policy('docs'))
        const access = await compiled(docs, using)
        if (typeof access === 'string') {
          const reason = access.replace(/^POLICY_UNSUPPORTED: .*? uses /, '').replaceAll(/public\.\w+/g, 'T')
          refusals.set(reason, (refusals.get(reason) ?? 0) + 1)
          continue
        }
        expect(
          readers().map(reader => judged(access, reader)),
          `part ${part}: ${using}`,
        ).toEqual(shown)
        agreed++
        rowsShown += typeof shown === 'string' ? 0 : shown.flat().length
      }
    }
    if (process.env.SUBQUERIES_VERBOSE !== undefined)
      console.log(
        agreed,
        rowsShown,
        [...refusals].sort((a, b) => b[1] - a[1]),
      )
    expect(agreed).toBeGreaterThan(count * 0.6)
    // Neither all nor nothing: of so many rows and readers, between a tenth and nine.
    expect(rowsShown / (agreed * 500)).toBeGreaterThan(0.1)
    expect(rowsShown / (agreed * 500)).toBeLessThan(0.9)
  },
  60_000 + count * 200,
)
