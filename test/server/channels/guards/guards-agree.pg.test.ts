// Who may receive and send, as policies on realtime.messages are judged here, against what Postgres does with a real row.
import type pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Row } from '../../../../src/predicate/algebra.ts'
import { evaluate } from '../../../../src/predicate/evaluate.ts'
import { createCatalog } from '../../../../src/server/authorize/policy-catalog.ts'
import { settingsList } from '../../../../src/server/authorize/settings.ts'
import { readChannelAccess } from '../../../../src/server/channels/guards/guards-access.ts'
import { type Plan, planOf } from '../../../../src/server/channels/guards/guards-plan.ts'
import { createLog } from '../../../../src/server/log/log.ts'
import { createPool, queryText } from '../../../../src/server/postgres/database.ts'
import type { Principal } from '../../../../src/server/subscribe/subscription.ts'
import { prepareDatabase } from '../../../support/node.ts'
import { plainMemberships, rowOf } from '../../../support/plain-memberships.ts'
import { TestDatabase } from '../../../support/postgres.ts'
import { membershipTables, people, policySets, schema } from './policy-sets.ts'
import { install, truthOf } from './policy-truth.ts'

const readers: Readonly<Record<string, Principal>> = {
  ada: {
    role: 'authenticated',
    claims: {
      role: 'authenticated',
      sub: people.ada,
      aal: 'aal2',
      app_metadata: { rooms: ['room:1', 'org:7:events'], ids: [1, 'abc'], role: 'staff' },
    },
    expiresAt: null,
  },
  bob: { role: 'authenticated', claims: { role: 'authenticated', sub: people.bob, aal: 'aal1' }, expiresAt: null },
  cid: {
    role: 'authenticated',
    claims: { role: 'authenticated', sub: people.cid, app_metadata: { rooms: [], ids: [], role: null } },
    expiresAt: null,
  },
  guest: { role: 'anon', claims: { role: 'anon' }, expiresAt: null },
}

const topics = ['room:1', 'room:2', 'room:abc', 'room:', 'lobby', `user:${people.ada}`, 'org:7:events', 'üñí:1', '%']

let database: TestDatabase
let pool: pg.Pool
const log = createLog('silent')

beforeAll(async () => {
  database = await TestDatabase.create()
  const secrets = 'CREATE TABLE secrets (topic text PRIMARY KEY);'
  await prepareDatabase(database, schema + secrets, [...membershipTables, 'public.secrets'])
  pool = createPool(database.url, { maxConnections: 2 })
})

afterAll(async () => {
  await pool.end()
  await database[Symbol.asyncDispose]()
})

test.each(policySets)('[P1] [P2] $name: who may receive and send is whom Postgres lets', async ({ sql, asked }) => {
  await install(database, { sql })
  const catalog = createCatalog({ pool, publication: 'tidegate', roles: ['authenticated', 'anon'], log })
  const tables = new Map<number, Row[]>()
  for (const name of membershipTables) {
    const [schemaName, tableName] = name.split('.') as [string, string]
    const { oid, columns } = await catalog.inspect(schemaName, tableName)
    const list = columns.map(column => `"${column.name}"`).join(', ')
    tables.set(oid, (await queryText(pool, `SELECT ${list} FROM ${name}`)).map(rowOf))
  }
  const memberships = plainMemberships(tables, BigInt(Date.now()) * 1000n)
  const seen = { askedSlots: 0, judged: 0 }
  for (const [name, principal] of Object.entries(readers)) {
    const access = await readChannelAccess(catalog, principal.role, log).catch(error => {
      if (error.code === 'TABLE_REFUSED') return null
      throw error
    })
    for (const topic of topics) {
      const truth = await truthOf(database, principal, topic)
      const found =
        access === null
          ? [false, false, false, false]
          : answersOf(planOf(access, topic, settingsList(principal, { claimSettings: [] })), part =>
              evaluate(part, rowOf([]), memberships),
            )
      const compared = found.map((answer, place) => answer ?? truth[place])
      expect([name, topic, ...compared]).toEqual([name, topic, ...truth])
      seen.askedSlots += found.filter(answer => answer === null).length
      seen.judged += 1
    }
  }
  expect(seen.judged).toBe(topics.length * 4)
  expect(seen.askedSlots > 0).toBe(asked === true)
})

test('[P2] without a privilege nothing may be done that needs it', async () => {
  await install(database, { sql: 'CREATE POLICY p ON M USING (true);' })
  const reader = readers.ada!
  const answers = async (): Promise<(boolean | null)[]> => {
    const catalog = createCatalog({ pool, publication: 'tidegate', log })
    const access = await readChannelAccess(catalog, reader.role, log)
    return answersOf(planOf(access, 'room:1', settingsList(reader, { claimSettings: [] })), () => true)
  }
  await database.query('REVOKE INSERT ON realtime.messages FROM authenticated')
  expect([await answers(), await truthOf(database, reader, 'room:1')]).toEqual([
    [true, true, false, false],
    [true, true, false, false],
  ])
  await database.query('REVOKE SELECT ON realtime.messages FROM authenticated')
  await expect(answers()).rejects.toMatchObject({
    code: 'TABLE_REFUSED',
    message: expect.stringContaining('GRANT SELECT'),
  })
  await database.query('GRANT INSERT ON realtime.messages TO authenticated')
  expect([await answers(), await truthOf(database, reader, 'room:1')]).toEqual([
    [false, false, true, true],
    [false, false, true, true],
  ])
  await database.query('GRANT SELECT ON realtime.messages TO authenticated')
})

test('[P1] who is above policies may do all, and the owner where they are not forced', async () => {
  await install(database, { sql: '' })
  const role = `above_${database.name.slice(-6)}`
  await database.query(`CREATE ROLE ${role} BYPASSRLS; GRANT authenticated TO ${role}`)
  try {
    const principal = { role, claims: { role }, expiresAt: null }
    const answers = async (): Promise<(boolean | null)[]> => {
      const catalog = createCatalog({ pool, publication: 'tidegate', log })
      return answersOf(planOf(await readChannelAccess(catalog, role, log), 'room:1', []), () => true)
    }
    const compare = async (expected: boolean): Promise<void> => {
      const all = Array.from({ length: 4 }, () => expected)
      expect([await answers(), await truthOf(database, principal, 'room:1')]).toEqual([all, all])
    }
    await compare(true)
    await database.query(`ALTER ROLE ${role} NOBYPASSRLS`)
    await compare(false)
    const [{ owner }] = (await database.query<{ owner: string }>(
      `SELECT relowner::regrole::text AS owner FROM pg_class WHERE oid = 'realtime.messages'::regclass`,
    )) as [{ owner: string }]
    await database.query(`ALTER TABLE realtime.messages OWNER TO ${role}`)
    await compare(true)
    await database.query('ALTER TABLE realtime.messages FORCE ROW LEVEL SECURITY')
    await compare(false)
    await database.query(`ALTER TABLE realtime.messages NO FORCE ROW LEVEL SECURITY`)
    await database.query(`ALTER TABLE realtime.messages OWNER TO "${owner}"`)
  } finally {
    await database.query(`DROP OWNED BY ${role}; DROP ROLE ${role}`)
  }
})

test('[P8] without the table, or its columns, channels are off', async () => {
  const apart = await TestDatabase.create()
  const apartPool = createPool(apart.url, { maxConnections: 1 })
  try {
    const read = () =>
      readChannelAccess(createCatalog({ pool: apartPool, publication: 'tidegate', log }), 'authenticated', log)
    await expect(read()).rejects.toMatchObject({ code: 'CHANNELS_OFF' })
    await apart.query('CREATE SCHEMA realtime; CREATE TABLE realtime.messages (id int PRIMARY KEY, topic text)')
    await expect(read()).rejects.toMatchObject({
      code: 'CHANNELS_OFF',
      message: expect.stringContaining('no column extension'),
    })
  } finally {
    await apartPool.end()
    await apart[Symbol.asyncDispose]()
  }
})

test('[P1] a partitioned table whose columns stand in another order is judged alike', async () => {
  const apart = await TestDatabase.create()
  const apartPool = createPool(apart.url, { maxConnections: 1 })
  try {
    await apart.query(`CREATE SCHEMA realtime; GRANT USAGE ON SCHEMA realtime TO authenticated;
      CREATE TABLE realtime.messages (inserted_at timestamp NOT NULL DEFAULT now(), extension text, private boolean, topic text)
        PARTITION BY RANGE (inserted_at);
      CREATE TABLE realtime.messages_all PARTITION OF realtime.messages DEFAULT;
      GRANT SELECT, INSERT ON realtime.messages TO authenticated; ALTER TABLE realtime.messages ENABLE ROW LEVEL SECURITY;
      CREATE POLICY p ON realtime.messages USING (topic = 'a' AND extension = 'presence' AND private);`)
    const catalog = createCatalog({ pool: apartPool, publication: 'tidegate', log })
    const access = await readChannelAccess(catalog, 'authenticated', log)
    for (const topic of ['a', 'b']) {
      const found = answersOf(planOf(access, topic, []), () => null)
      expect(found).toEqual(await truthOf(apart, readers.ada!, topic))
    }
  } finally {
    await apartPool.end()
    await apart[Symbol.asyncDispose]()
  }
})

/** By place; null where Postgres is asked. */
function answersOf(
  { slots, memberships }: Plan,
  judge: (part: Parameters<typeof evaluate>[0]) => unknown,
): (boolean | null)[] {
  return slots.map(slot => {
    if (typeof slot === 'boolean') return slot
    if (slot.by === 'postgres') return null
    const predicate = memberships?.predicate
    if (predicate?.kind !== 'or') throw new Error('an OR of what is judged was expected')
    return judge(predicate.args[slot.at]!) === true
  })
}
