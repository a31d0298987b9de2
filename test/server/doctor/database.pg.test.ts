// Each prerequisite inside of a database, broken on purpose: the doctor finds it, and what it says, run as it stands, mends it.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Site } from '../admin/site.ts'
import { expectMended, Patient } from './database-break.ts'

let site: Site
let patient: Patient
let reader: string
let powerful: string

const admin = (sql: string): Promise<unknown> => site.database.query(sql)

beforeAll(async () => {
  site = await Site.create()
  reader = `${site.database.name}_reader`
  powerful = `${site.database.name}_powerful`
  patient = new Patient(
    { databaseUrl: site.loginUrl, adminUrl: site.database.url },
    { JWT_ROLES: 'anon,authenticated' },
  )
})

afterAll(async () => {
  await admin(`DROP OWNED BY ${reader}, ${powerful}; DROP ROLE ${reader}, ${powerful}`)
  await site[Symbol.asyncDispose]()
})

describe('what migrate makes', () => {
  test('[P8] nothing is installed: tidegate migrate', async () => {
    const found = await patient.findings()
    expect(found.find(({ check }) => check === 'publication')).toMatchObject({
      verdict: 'failure',
      code: 'PUBLICATION_MISSING',
      remedy: { kind: 'shell', text: 'tidegate migrate' },
    })
    await expectMended(patient, {
      check: 'schema',
      verdict: 'failure',
      reason: /there is no schema tidegate/,
      remedy: 'tidegate migrate',
    })
    const after = await patient.findings()
    // What belongs to the whole server, others share.
    expect(after.filter(({ verdict, check }) => verdict !== 'ok' && check !== 'slot-wal-limit')).toEqual([])
  })

  test('[P8] the schema is of an older release, or somebody changed a function', async () => {
    await admin(
      `DELETE FROM tidegate.kysely_migration WHERE name = '0005_adopted_realtime'; DROP TABLE tidegate.replaced_function`,
    )
    await expectMended(patient, {
      check: 'schema',
      verdict: 'failure',
      reason: /of an older release: it lacks the migration 0005_adopted_realtime/,
      remedy: 'tidegate migrate',
    })
    await admin(
      `CREATE OR REPLACE FUNCTION tidegate.keep_writable() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'`,
    )
    await expectMended(patient, {
      check: 'schema',
      verdict: 'warning',
      reason: /somebody changed tidegate\.keep_writable/,
      remedy: /CREATE OR REPLACE FUNCTION tidegate\.keep_writable/,
    })
  })

  test('[P8] the login lacks what migrate grants', async () => {
    await admin(
      `REVOKE SELECT ON tidegate.catalog_key FROM ${site.login}; REVOKE USAGE ON SCHEMA tidegate FROM ${site.login}`,
    )
    await expectMended(patient, {
      check: 'login-grants',
      verdict: 'failure',
      reason: /may not use all/,
      remedy: `GRANT USAGE ON SCHEMA tidegate TO ${site.login};\nGRANT SELECT ON tidegate.catalog_key TO ${site.login};`,
    })
  })

  test('[P3] event triggers are gone, or off', async () => {
    await admin('ALTER EVENT TRIGGER tidegate_announce DISABLE')
    await expectMended(patient, {
      check: 'event-triggers',
      verdict: 'warning',
      reason: /tidegate_announce is disabled/,
      remedy: 'ALTER EVENT TRIGGER "tidegate_announce" ENABLE;',
    })
    await admin('DROP EVENT TRIGGER tidegate_keep_writable')
    await expectMended(patient, {
      check: 'event-triggers',
      verdict: 'warning',
      reason: /there is no event trigger tidegate_keep_writable/,
      remedy: 'tidegate migrate',
    })
  })
})

describe('roles', () => {
  test('[P8] the login may not stream the WAL', async () => {
    await admin(`ALTER ROLE ${site.login} NOREPLICATION`)
    await expectMended(patient, {
      check: 'replication-privilege',
      verdict: 'failure',
      reason: /may not stream the WAL/,
      remedy: `ALTER ROLE "${site.login}" REPLICATION;`,
    })
  })

  test('[P8] a role of JWT_ROLES is not there, or the login may not take it', async () => {
    patient.config = { ...patient.config, jwtRoles: [reader] }
    const grant = `GRANT "${reader}" TO "${site.login}" WITH SET TRUE;`
    await expectMended(patient, {
      check: 'roles',
      about: reader,
      verdict: 'failure',
      reason: /there is no database role/,
      remedy: `CREATE ROLE "${reader}" NOLOGIN NOINHERIT;\n${grant}`,
    })
    await admin(`REVOKE ${reader} FROM ${site.login}; GRANT ${reader} TO ${site.login} WITH SET FALSE`)
    await expectMended(patient, {
      check: 'roles',
      about: reader,
      verdict: 'failure',
      reason: /may not take the role/,
      remedy: grant,
    })
  })

  test('[P2] a role of JWT_ROLES sees past row-level security', async () => {
    await admin(`CREATE ROLE ${powerful} BYPASSRLS; GRANT ${powerful} TO ${site.login}`)
    patient.config = { ...patient.config, jwtRoles: [reader, powerful] }
    await expectMended(patient, {
      check: 'role-powers',
      about: powerful,
      verdict: 'warning',
      reason: /has BYPASSRLS/,
      remedy: `JWT_ROLES=${reader}`,
    })
  })
})

describe('the publication', () => {
  test('[P4] leaves out operations, roots or generated columns', async () => {
    await admin(`ALTER PUBLICATION tidegate SET (publish = 'insert, update')`)
    await expectMended(patient, {
      check: 'publication-operations',
      verdict: 'failure',
      reason: /leaves out delete, truncate/,
      remedy: `ALTER PUBLICATION "tidegate" SET (publish = 'insert, update, delete, truncate');`,
    })
    await admin('ALTER PUBLICATION tidegate SET (publish_via_partition_root = false)')
    await expectMended(patient, {
      check: 'publication-root',
      verdict: 'warning',
      reason: /publish_via_partition_root is off/,
      remedy: 'ALTER PUBLICATION "tidegate" SET (publish_via_partition_root = true);',
    })
    await admin('ALTER PUBLICATION tidegate SET (publish_generated_columns = none)')
    await expectMended(patient, {
      check: 'publication-generated',
      verdict: 'warning',
      reason: /publish_generated_columns is not stored/,
      remedy: 'ALTER PUBLICATION "tidegate" SET (publish_generated_columns = stored);',
    })
  })

  test('[P4] has not what it must have, or more than it should', async () => {
    await admin('ALTER PUBLICATION tidegate DROP TABLE tidegate.orders')
    await expectMended(patient, {
      check: 'publication-scope',
      about: 'tidegate.orders',
      verdict: 'failure',
      reason: /tidegate\.kick and tidegate\.revoke are not heard/,
      remedy: 'ALTER PUBLICATION "tidegate" ADD TABLE tidegate.orders;',
    })
    await admin('ALTER TABLE app.rooms REPLICA IDENTITY FULL; ALTER PUBLICATION tidegate ADD TABLES IN SCHEMA app')
    await expectMended(patient, {
      check: 'publication-scope',
      about: 'app',
      verdict: 'warning',
      reason: /all tables of the schema app/,
      remedy:
        'BEGIN;\nALTER PUBLICATION "tidegate" DROP TABLES IN SCHEMA "app";\nALTER PUBLICATION "tidegate" ADD TABLE "app"."rooms";\nCOMMIT;',
    })
    await admin('DROP PUBLICATION tidegate; CREATE PUBLICATION tidegate FOR ALL TABLES')
    await expectMended(patient, {
      check: 'publication-scope',
      verdict: 'warning',
      reason: /FOR ALL TABLES/,
      remedy: `BEGIN;
DROP PUBLICATION "tidegate";
CREATE PUBLICATION "tidegate" FOR TABLE "app"."rooms", "realtime"."messages", "tidegate"."orders" WITH (publish_via_partition_root = true, publish_generated_columns = stored);
COMMIT;`,
    })
    await admin('ALTER PUBLICATION tidegate DROP TABLE app.rooms; ALTER TABLE app.rooms REPLICA IDENTITY DEFAULT')
  })

  test('[P1] shows rows or columns of a table alone', async () => {
    const remedy =
      'BEGIN;\nALTER PUBLICATION "tidegate" DROP TABLE "app"."rooms";\nALTER PUBLICATION "tidegate" ADD TABLE "app"."rooms";\nCOMMIT;'
    const expected = { check: 'publication-filter', about: 'app.rooms', remedy }
    await admin('ALTER PUBLICATION tidegate ADD TABLE app.rooms WHERE (id > 5)')
    await expectMended(patient, { ...expected, verdict: 'failure', reason: /rows of \(id > 5\) alone/ })
    await admin('ALTER PUBLICATION tidegate DROP TABLE app.rooms; ALTER PUBLICATION tidegate ADD TABLE app.rooms (id)')
    await expectMended(patient, { ...expected, verdict: 'warning', reason: /the columns id alone/ })
    await admin('ALTER PUBLICATION tidegate DROP TABLE app.rooms')
  })

  test('[P4] lacks the messages that are sent from SQL', async () => {
    await admin('ALTER PUBLICATION tidegate DROP TABLE realtime.messages')
    await expectMended(patient, {
      check: 'realtime',
      about: 'MESSAGES_UNPUBLISHED',
      verdict: 'warning',
      reason: /messages sent from SQL do not arrive/,
      remedy: 'ALTER PUBLICATION "tidegate" ADD TABLE realtime.messages;',
    })
  })
})

test('[P8] what the login may not look at is unknown, with the reason, and the rest is told', async () => {
  await admin('REVOKE SELECT ON pg_catalog.pg_event_trigger FROM PUBLIC')
  const found = await patient.findings()
  expect(found.filter(({ verdict }) => verdict === 'unknown').map(({ check }) => check)).toEqual([
    'schema',
    'login-grants',
    'event-triggers',
  ])
  expect(found.find(({ check }) => check === 'event-triggers')!.reason).toBe(
    'it could not be looked at: permission denied for table pg_event_trigger',
  )
  expect(found.find(({ check }) => check === 'roles')).toMatchObject({ verdict: 'ok' })
  await admin('GRANT SELECT ON pg_catalog.pg_event_trigger TO PUBLIC')
  expect((await patient.findings()).filter(({ verdict }) => verdict === 'unknown')).toEqual([])
})
