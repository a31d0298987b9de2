// A schema realtime that somebody else made: what is wrong with it is found, and mended by what the doctor says.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { TestDatabase } from '../../support/postgres.ts'
import { makeSupabase } from '../../support/supabase-schema.ts'
import { expectMended, Patient } from './database-break.ts'

let database: TestDatabase
let patient: Patient

beforeAll(async () => {
  database = await TestDatabase.create()
  await makeSupabase(database, { partitions: [-1, 0] })
  await database.query(
    'CREATE TABLE public.notes (id int PRIMARY KEY); ALTER PUBLICATION supabase_realtime ADD TABLE public.notes',
  )
  patient = new Patient({ databaseUrl: database.url, adminUrl: database.url })
  await patient.migrate()
})

afterAll(() => database[Symbol.asyncDispose]())

test('[P4] no partition takes what is sent tomorrow', async () => {
  await expectMended(patient, {
    check: 'realtime',
    about: 'PARTITION_MISSING',
    verdict: 'warning',
    reason: /has no partition for tomorrow/,
    remedy:
      /^CREATE TABLE realtime\.messages_\d{4}_\d\d_\d\d PARTITION OF realtime\.messages FOR VALUES FROM \('.*'\) TO \('.*'\);$/,
  })
})

test('[P2] whoever connects reads the claims of others', async () => {
  await database.query(`ALTER TABLE realtime.subscription DISABLE ROW LEVEL SECURITY;
    GRANT USAGE ON SCHEMA realtime TO anon; GRANT SELECT ON realtime.subscription TO anon`)
  await expectMended(patient, {
    check: 'realtime',
    about: 'CLAIMS_READABLE',
    verdict: 'warning',
    reason: /holds the claims of everybody/,
    remedy: /^REVOKE SELECT ON realtime\.subscription FROM PUBLIC, .*;$/,
  })
})

test('[P4] what cannot be sent is swallowed', async () => {
  await expectMended(patient, {
    check: 'realtime',
    about: 'SEND_SWALLOWS_ERRORS',
    verdict: 'warning',
    reason: /swallow/,
    remedy: 'tidegate migrate --adopt-realtime',
  })
})

test('what is only left to do is told, and fails nothing', async () => {
  const found = await patient.finding('realtime', 'PUBLICATION_NOT_FOLLOWED')
  expect(found).toMatchObject({ verdict: 'ok', about: 'PUBLICATION_NOT_FOLLOWED' })
  expect(found.reason).toContain('tidegate track --from-publication supabase_realtime')
})
