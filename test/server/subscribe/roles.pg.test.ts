import type pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createPool } from '../../../src/server/postgres/database.ts'
import { createRoleGate, openRolesOf, refuseUnbound } from '../../../src/server/subscribe/roles.ts'
import { FaultyLink } from '../../support/faulty-link.ts'
import { TestDatabase } from '../../support/postgres.ts'
import { expectWithin } from '../../support/within.ts'

let database: TestDatabase
let pool: pg.Pool
const suffix = Math.random().toString(36).slice(2, 8)
const name = (role: string) => `${role}_${suffix}`

beforeAll(async () => {
  database = await TestDatabase.create()
  await database.query(`
    CREATE ROLE ${name('login')} LOGIN PASSWORD 'x' NOINHERIT;
    CREATE ROLE ${name('member')}; CREATE ROLE ${name('stranger')}; CREATE ROLE ${name('bypass')} BYPASSRLS;
    CREATE ROLE ${name('boss')} SUPERUSER;
    GRANT ${name('member')}, ${name('bypass')}, ${name('boss')} TO ${name('login')}`)
  pool = createPool(database.urlFor(name('login'), 'x'), { maxConnections: 2 })
})

afterAll(async () => {
  await pool.end()
  for (const role of ['login', 'member', 'stranger', 'bypass', 'boss'])
    await database.query(`DROP ROLE IF EXISTS ${name(role)}`)
  await database[Symbol.asyncDispose]()
})

const refusal = async (promise: Promise<unknown>): Promise<string> => {
  try {
    await promise
    return 'admitted'
  } catch (error) {
    return error instanceof Error && 'code' in error ? `${error.code}: ${error.message}` : String(error)
  }
}

test('[P2] a role is admitted only if it is listed, exists, and the login is a member of it', async () => {
  const gate = createRoleGate({ pool, allowed: [name('member'), name('stranger'), 'nobody_at_all'] })
  expect(await refusal(gate.admit(name('member')))).toBe('admitted')
  expect(await refusal(gate.admit(name('stranger')))).toBe(
    `ROLE_REFUSED: the server's login "${name('login')}" may not take the role "${name('stranger')}": GRANT "${name('stranger')}" TO "${name('login')}"`,
  )
  expect(await refusal(gate.admit('nobody_at_all'))).toContain(
    'ROLE_REFUSED: there is no database role "nobody_at_all"',
  )
  expect(await refusal(gate.admit('unlisted"; DROP'))).toContain('ROLE_REFUSED: JWT_ROLES does not list')
})

test.each(['bypass', 'boss'])(
  '[P2] a role that anybody may have is refused where row-level security does not bind it: %s',
  async role => {
    const key = (kind: string) => ({ key: `sb_${kind}_0123456789`, role: name(role) })
    const { signal } = new AbortController()
    for (const open of [
      { defaultRole: name(role), apiKeys: [] },
      { defaultRole: name('member'), apiKeys: [key('publishable')] },
    ]) {
      const roles = openRolesOf(open)
      expect(await refusal(refuseUnbound(pool, roles, signal))).toMatch(
        new RegExp(`^CONFIG_INVALID: row-level security does not bind the role "${name(role)}"`),
      )
      const gate = createRoleGate({ pool, allowed: [name(role), name('member')], bound: roles })
      expect(await refusal(gate.admit(name(role)))).toContain('ROLE_REFUSED: row-level security does not bind')
      expect(await refusal(gate.admit(name('member')))).toBe('admitted')
    }
    for (const open of [
      { defaultRole: name('member'), apiKeys: [key('secret')] },
      { defaultRole: 'nobody_at_all', apiKeys: [] },
    ])
      expect(await refusal(refuseUnbound(pool, openRolesOf(open), signal))).toBe('admitted')
  },
)

test('[P2] superusers and BYPASSRLS roles only if they are named', async () => {
  const usual = createRoleGate({ pool, allowed: [name('member')] })
  const named = createRoleGate({ pool, allowed: [name('bypass'), name('boss')] })
  for (const role of [name('bypass'), name('boss')]) {
    expect(await refusal(usual.admit(role))).toContain('ROLE_REFUSED')
    expect(await refusal(named.admit(role))).toBe('admitted')
  }
})

test('the answer is Postgres’s own: SET ROLE works exactly for those admitted', async () => {
  const gate = createRoleGate({ pool, allowed: [name('member'), name('stranger')] })
  for (const role of [name('member'), name('stranger')]) {
    const set = await pool.query(`SET ROLE ${role}; RESET ROLE`).then(
      () => 'admitted',
      () => 'refused',
    )
    expect((await refusal(gate.admit(role))) === 'admitted' ? 'admitted' : 'refused').toBe(set)
  }
})

test('a membership granted without SET is none', async () => {
  const [{ version }] = (await database.query<{ version: number }>(
    `SELECT current_setting('server_version_num')::int AS version`,
  )) as [{ version: number }]
  if (version < 160000) return
  const gate = createRoleGate({ pool, allowed: [name('stranger')] })
  await database.query(`GRANT ${name('stranger')} TO ${name('login')} WITH SET FALSE`)
  expect(await refusal(gate.admit(name('stranger')))).toContain('ROLE_REFUSED')
  await database.query(`REVOKE ${name('stranger')} FROM ${name('login')}`)
})

test('[P3] a revoked membership is noticed within the bound, or at once when told', async () => {
  let now = 0
  const gate = createRoleGate({ pool, allowed: [name('member')], now: () => now, maxAgeMs: 1000 })
  expect(await refusal(gate.admit(name('member')))).toBe('admitted')
  await database.query(`REVOKE ${name('member')} FROM ${name('login')}`)
  now = 999
  expect(await refusal(gate.admit(name('member')))).toBe('admitted')
  now = 1000
  expect(await refusal(gate.admit(name('member')))).toContain('ROLE_REFUSED')
  await database.query(`GRANT ${name('member')} TO ${name('login')}`)
  gate.invalidate()
  expect(await refusal(gate.admit(name('member')))).toBe('admitted')
})

test('[P8] nobody waits for a silent database as long as a question may take: they are sent on, and admitted when it answers', async () => {
  await using link = await FaultyLink.to(database.urlFor(name('login'), 'x'))
  const silent = createPool(link.url, { maxConnections: 1 })
  const gate = createRoleGate({ pool: silent, allowed: [name('member')], maxAgeMs: 0, patienceMs: 200 })
  expect(await refusal(gate.admit(name('member')))).toBe('admitted')
  link.isolate()
  const beganAt = performance.now()
  expect(await refusal(gate.admit(name('member')))).toBe('UNAVAILABLE: the database does not answer')
  expectWithin(performance.now() - beganAt, 2000)
  link.thaw()
  expect(await refusal(gate.admit(name('member')))).toBe('admitted')
  await silent.end()
})
