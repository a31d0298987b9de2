// A pooler between the doctor and Postgres: how it shows, whatever it is set to, and what to set.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { PgBouncer } from '../../support/pgbouncer.ts'
import { TestDatabase } from '../../support/postgres.ts'
import { Patient } from './database-break.ts'

let database: TestDatabase

beforeAll(async () => {
  database = await TestDatabase.create()
  const direct = new Patient({ databaseUrl: database.url, adminUrl: database.url })
  await direct.migrate()
}, 120_000)

afterAll(() => database[Symbol.asyncDispose]())

test.each([
  ['refuses what a session begins with', {}, /unsupported startup parameter: options/],
  [
    'leaves out what a session begins with',
    { ignore_startup_parameters: 'options,extra_float_digits,search_path' },
    /what a session begins with does not hold/,
  ],
] as const)(
  '[P8] one that %s is found, the rest is looked at through it, and a way past it mends it',
  async (_, settings, reason) => {
    await using pooler = await PgBouncer.start(database.url, settings)
    const patient = new Patient({ databaseUrl: pooler.url, adminUrl: database.url })
    const found = await patient.findings()
    const { hostname, port, username, password } = new URL(database.url)
    const told = found.find(({ check }) => check === 'pooler')!
    expect(told).toMatchObject({ verdict: 'failure', code: 'DATABASE_POOLED', remedy: { kind: 'setting' } })
    expect(told.reason).toMatch(reason)
    // The password is for whoever reads it to fill in.
    expect(told.remedy!.text).toBe(
      `DATABASE_REPLICATION_URL=postgres://${username}:<password>@${hostname}:${port}/${database.name}`,
    )
    expect(JSON.stringify(found)).not.toContain(`:${password}@`)
    expect(found.find(({ check }) => check === 'schema')).toMatchObject({ verdict: 'ok' })
    expect(found.find(({ check }) => check === 'wal-level')).toMatchObject({ verdict: 'ok' })

    await patient.run({ ...told.remedy!, text: told.remedy!.text.replace('<password>', password) })
    const after = await patient.findings()
    expect(after.filter(({ check }) => check === 'pooler' || check === 'replication-connection')).toEqual([
      expect.objectContaining({
        verdict: 'ok',
        about: null,
        reason: 'Postgres itself answers at DATABASE_REPLICATION_URL',
      }),
      expect.objectContaining({ verdict: 'ok', about: 'DATABASE_URL' }),
      expect.objectContaining({ verdict: 'ok', check: 'replication-connection' }),
    ])
  },
)

test('[P8] one that leads to another database than the sessions, or to nobody, is told', async () => {
  await using other = await TestDatabase.create()
  const patient = new Patient(
    { databaseUrl: other.url, adminUrl: database.url },
    { DATABASE_REPLICATION_URL: database.url },
  )
  const of = async () => (await patient.findings()).find(({ about }) => about === 'DATABASE_URL')
  expect(await of()).toMatchObject({
    check: 'pooler',
    verdict: 'failure',
    code: 'CONFIG_INVALID',
    reason: expect.stringContaining(`the database is ${other.name} there and ${database.name} here`),
  })
  patient.config = { ...patient.config, databaseUrl: 'postgres://nobody:secret@127.0.0.1:1/none' }
  expect(await of()).toMatchObject({ check: 'pooler', verdict: 'failure', code: 'DATABASE_UNREACHABLE' })
  patient.config = { ...patient.config, databaseUrl: `${database.url}?sslmode=perhaps` }
  expect(await of()).toMatchObject({ check: 'pooler', verdict: 'failure', code: 'CONFIG_INVALID' })
})
