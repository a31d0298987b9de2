// What keeps a tracked table from being followed or judged, broken on purpose, found, and mended by what the doctor says.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Site } from '../admin/site.ts'
import { expectMended, Patient } from './database-break.ts'

let site: Site
let patient: Patient
let reader: string

const admin = (sql: string): Promise<unknown> => site.database.query(sql)

/** A table of the application that the reader may SELECT, with row-level security and a policy that shows all. */
async function table(name: string, columns: string): Promise<string> {
  await site.app.query(`CREATE TABLE app.${name} ${columns}; ALTER TABLE app.${name} ENABLE ROW LEVEL SECURITY;
    CREATE POLICY all_of_it ON app.${name} FOR SELECT TO ${reader} USING (true); GRANT SELECT ON app.${name} TO ${reader}`)
  return `app.${name}`
}

beforeAll(async () => {
  site = await Site.create()
  reader = `${site.database.name}_reader`
  patient = new Patient(
    { databaseUrl: site.loginUrl, adminUrl: site.database.url },
    { JWT_ROLES: reader, DEFAULT_ROLE: reader },
  )
  await admin(`CREATE ROLE ${reader} NOLOGIN; GRANT ${reader} TO ${site.login}; GRANT USAGE ON SCHEMA app TO ${reader}`)
  await table('fine', '(id int PRIMARY KEY, note text)')
  await site.track(['app.fine'])
})

afterAll(async () => {
  await admin(`DROP OWNED BY ${reader}; DROP ROLE ${reader}`)
  await site[Symbol.asyncDispose]()
})

test('a table that can be followed and judged is fine', async () => {
  const found = (await patient.findings()).filter(({ area }) => area === 'policies')
  expect(found.filter(({ verdict }) => verdict !== 'ok')).toEqual([])
  expect(found.find(({ check }) => check === 'replica-identity')?.reason).toBe(
    'the tracked table has old rows with all that policies read',
  )
})

describe('what cannot be followed', () => {
  test('[P8] a table without a primary key: made of a unique index, or a new column', async () => {
    await table('keyless', '(place int NOT NULL, note text)')
    await site.app.query('CREATE UNIQUE INDEX keyless_place ON app.keyless (place)')
    await table('bare', '(note text)')
    await admin('ALTER PUBLICATION tidegate ADD TABLE app.keyless, app.bare')
    await expectMended(patient, {
      check: 'primary-key',
      about: 'app.keyless',
      verdict: 'failure',
      reason: /has no primary key/,
      remedy: 'ALTER TABLE "app"."keyless" ADD PRIMARY KEY USING INDEX "keyless_place";',
    })
    await expectMended(patient, {
      check: 'primary-key',
      about: 'app.bare',
      verdict: 'failure',
      reason: /has no primary key/,
      remedy: 'ALTER TABLE "app"."bare" ADD COLUMN "id" bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY;',
    })
    await admin('DROP TABLE app.keyless, app.bare')
  })

  test('[P8] a partition that is not logged, and a parent by inheritance', async () => {
    await table('parted', '(id int PRIMARY KEY) PARTITION BY RANGE (id)')
    await site.app.query('CREATE UNLOGGED TABLE app.parted_1 PARTITION OF app.parted FOR VALUES FROM (1) TO (9)')
    await admin('ALTER PUBLICATION tidegate ADD TABLE app.parted')
    await expectMended(patient, {
      check: 'table-kind',
      about: 'app.parted',
      verdict: 'failure',
      reason: /whose partition app\.parted_1 is unlogged/,
      remedy: 'ALTER TABLE app.parted_1 SET LOGGED;',
    })
    await admin('DROP TABLE app.parted')
    await table('parent', '(id int PRIMARY KEY)')
    await site.track(['app.parent'])
    await site.app.query('CREATE TABLE app.child () INHERITS (app.parent)')
    await expectMended(patient, {
      check: 'table-kind',
      about: 'app.parent',
      verdict: 'failure',
      reason: /an inheritance parent/,
      remedy: 'tidegate untrack app.parent',
    })
    await admin('DROP TABLE app.parent CASCADE')
  })
})

describe('who may read', () => {
  test('[P2] row-level security is off, and with it on there is no policy', async () => {
    await admin('ALTER TABLE app.fine DISABLE ROW LEVEL SECURITY; DROP POLICY all_of_it ON app.fine')
    await expectMended(patient, {
      check: 'row-security',
      about: 'app.fine',
      verdict: 'warning',
      reason: /row-level security is off/,
      remedy: 'ALTER TABLE "app"."fine" ENABLE ROW LEVEL SECURITY;',
    })
    await expectMended(patient, {
      check: 'policy-missing',
      about: 'app.fine',
      verdict: 'warning',
      reason: /no policy lets \S+_reader SELECT/,
      remedy: `CREATE POLICY "nobody reads it" ON "app"."fine" FOR SELECT TO "${reader}" USING (false);`,
    })
    await admin(
      `DROP POLICY "nobody reads it" ON app.fine; CREATE POLICY all_of_it ON app.fine FOR SELECT TO ${reader} USING (true)`,
    )
  })

  test('[P8] no role may SELECT the table, or its key', async () => {
    await admin(`REVOKE SELECT ON app.fine FROM ${reader}; REVOKE USAGE ON SCHEMA app FROM ${reader}`)
    await expectMended(patient, {
      check: 'table-access',
      about: 'app.fine',
      verdict: 'warning',
      reason: /no role of JWT_ROLES can read it/,
      remedy: `GRANT USAGE ON SCHEMA "app" TO "${reader}";\nGRANT SELECT ON "app"."fine" TO "${reader}";`,
    })
    await admin(`REVOKE SELECT ON app.fine FROM ${reader}; GRANT SELECT (note) ON app.fine TO ${reader}`)
    await expectMended(patient, {
      check: 'table-access',
      about: 'app.fine',
      verdict: 'warning',
      reason: /may not SELECT id, of the primary key of app\.fine/,
      remedy: `GRANT SELECT ("id") ON "app"."fine" TO "${reader}";`,
    })
    await admin(`GRANT SELECT ON app.fine TO ${reader}`)
  })
})

describe('what policies read', () => {
  /** A table whose policy reads another, by itself. */
  async function guarded(): Promise<void> {
    await table('seats', '(room int, seat uuid, active boolean NOT NULL, PRIMARY KEY (room, seat))')
    await table('notes', '(id int PRIMARY KEY, room int, note text)')
    await admin(`DROP POLICY all_of_it ON app.notes; CREATE POLICY by_seat ON app.notes FOR SELECT TO ${reader} USING (
      EXISTS (SELECT FROM app.seats s WHERE s.active AND s.room = notes.room AND s.seat::text = current_setting('request.jwt.claims', true)::jsonb ->> 'sub'))`)
  }
  const drop = (): Promise<unknown> => admin('DROP TABLE app.notes, app.seats')

  test('[P1] a table that decides is not tracked', async () => {
    await guarded()
    await site.track(['app.notes'])
    await expectMended(patient, {
      check: 'policy-inputs',
      about: 'app.seats',
      verdict: 'failure',
      reason: /app\.seats, which .* reads, is not tracked/,
      remedy: 'tidegate track app.seats',
    })
    await drop()
  })

  test('[P1] old rows lack what policies read: of the table, its partitions, and those that decide', async () => {
    await guarded()
    await site.track(['app.notes', 'app.seats'])
    await admin('ALTER TABLE app.notes REPLICA IDENTITY DEFAULT')
    await expectMended(patient, {
      check: 'replica-identity',
      about: 'app.notes',
      verdict: 'failure',
      reason: /the replica identity of app\.notes lacks room/,
      remedy: 'ALTER TABLE "app"."notes" REPLICA IDENTITY FULL;',
    })
    await admin('ALTER TABLE app.seats REPLICA IDENTITY DEFAULT')
    await expectMended(patient, {
      check: 'replica-identity',
      about: 'app.seats',
      verdict: 'failure',
      reason: /the replica identity of app\.seats lacks active/,
      remedy: 'ALTER TABLE "app"."seats" REPLICA IDENTITY FULL;',
    })
    await drop()
    await table('parts', '(id int PRIMARY KEY, room int) PARTITION BY RANGE (id)')
    await site.app.query('CREATE TABLE app.parts_1 PARTITION OF app.parts FOR VALUES FROM (1) TO (9)')
    await admin(`DROP POLICY all_of_it ON app.parts; CREATE POLICY one ON app.parts TO ${reader} USING (room = 1)`)
    await site.track(['app.parts'])
    await admin('ALTER EVENT TRIGGER tidegate_keep_writable DISABLE; ALTER TABLE app.parts_1 REPLICA IDENTITY DEFAULT')
    await expectMended(patient, {
      check: 'replica-identity',
      about: 'app.parts',
      verdict: 'failure',
      reason: /the replica identity of app\.parts lacks room/,
      remedy: 'tidegate track app.parts',
    })
    await admin('ALTER EVENT TRIGGER tidegate_keep_writable ENABLE; DROP TABLE app.parts')
  })

  test('[P8] old rows lack what filters of clients may read', async () => {
    await admin('ALTER TABLE app.fine REPLICA IDENTITY DEFAULT')
    await expectMended(patient, {
      check: 'replica-identity',
      about: 'app.fine',
      verdict: 'warning',
      reason: /old rows carry the primary key alone: filters of clients by columns outside of it are refused/,
      remedy: 'ALTER TABLE "app"."fine" REPLICA IDENTITY FULL;',
    })
  })

  test('[P1] the login cannot read what decides whole', async () => {
    await guarded()
    await site.track(['app.notes', 'app.seats'])
    await admin(`DROP FUNCTION tidegate."${await readFunctionOf('app.seats')}"`)
    await expectMended(patient, {
      check: 'index-readable',
      about: 'app.seats',
      verdict: 'failure',
      reason: /cannot read app\.seats whole/,
      remedy: 'tidegate track app.seats',
    })
    await admin('ALTER TABLE app.seats FORCE ROW LEVEL SECURITY')
    await expectMended(patient, {
      check: 'index-readable',
      about: 'app.seats',
      verdict: 'failure',
      reason: /cannot read app\.seats whole/,
      remedy: 'ALTER TABLE "app"."seats" NO FORCE ROW LEVEL SECURITY;',
    })
    await drop()
  })

  test('[P8] a policy raises for its reader', async () => {
    await guarded()
    await site.track(['app.notes', 'app.seats'])
    await admin(`REVOKE SELECT ON app.seats FROM ${reader}`)
    await expectMended(patient, {
      check: 'policy-raises',
      about: 'app.notes, policy "by_seat"',
      verdict: 'failure',
      reason: /reads app\.seats, which role \S+_reader may not SELECT/,
      remedy: `GRANT SELECT ON app.seats TO "${reader}";`,
    })
    await drop()
  })

  test('[P8] a policy calls what its reader may not', async () => {
    await table('called', '(id int PRIMARY KEY, owner text)')
    await admin(`CREATE SCHEMA tools AUTHORIZATION ${site.owner};
      CREATE FUNCTION tools.mine(text) RETURNS boolean LANGUAGE sql STABLE AS 'SELECT $1 = current_user::text';
      REVOKE EXECUTE ON FUNCTION tools.mine FROM PUBLIC;
      DROP POLICY all_of_it ON app.called; CREATE POLICY own ON app.called TO ${reader} USING (tools.mine(owner))`)
    await site.track(['app.called'])
    await expectMended(patient, {
      check: 'policy-raises',
      about: 'app.called, policy "own"',
      verdict: 'failure',
      reason: /calls the function tools\.mine|calls function tools\.mine/,
      remedy: `GRANT EXECUTE ON FUNCTION tools.mine TO "${reader}";\nGRANT USAGE ON SCHEMA tools TO "${reader}";`,
    })
    await admin('DROP TABLE app.called; DROP SCHEMA tools CASCADE')
  })

  test.each([
    ['a comment in the place of blanks', 'f/**/TO/**/PUBLIC;GRANT/**/pg_monitor/**/TO/**/PUBLIC;--'],
    ['a statement of its own', 'f; GRANT pg_monitor TO PUBLIC; --'],
    ['a quote', 'f" TO PUBLIC; GRANT pg_monitor TO PUBLIC; --'],
  ])('[P8] a name that holds SQL is never run by what the doctor says: %s', async (_, name) => {
    const evil = `"${name.replaceAll('"', '""')}"`
    await table('lured', '(id int PRIMARY KEY, owner text)')
    await admin(`CREATE FUNCTION app.${evil}(text) RETURNS boolean LANGUAGE sql STABLE AS 'SELECT $1 = current_user::text';
      REVOKE EXECUTE ON FUNCTION app.${evil} FROM PUBLIC;
      DROP POLICY all_of_it ON app.lured; CREATE POLICY own ON app.lured TO ${reader} USING (app.${evil}(owner))`)
    await site.track(['app.lured'])
    const found = await patient.finding('policy-raises', 'app.lured, policy "own"')
    expect(found.reason).toContain('may not EXECUTE')
    const text = found.remedy?.text ?? ''
    expect(text.replace(/"(?:[^"]|"")*"/g, 'quoted')).not.toContain('pg_monitor')
    if (found.remedy !== null) await patient.run(found.remedy)
    await admin(`DROP TABLE app.lured; DROP FUNCTION app.${evil}`)
  })

  test('[P1] a policy that only Postgres can judge is told with its reason', async () => {
    await table('asked', '(id int PRIMARY KEY, note text)')
    await admin(`CREATE FUNCTION app.maybe(int) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN $1 > 1; END';
      GRANT EXECUTE ON FUNCTION app.maybe TO ${reader};
      CREATE POLICY sometimes ON app.asked FOR SELECT TO ${reader} USING (app.maybe(id))`)
    await site.track(['app.asked'])
    const found = await patient.finding('policy-asked', 'app.asked, policy "sometimes"')
    expect(found).toMatchObject({ verdict: 'warning', code: 'POLICY_ASKED', remedy: null })
    expect(found.reason).toMatch(/it uses function app\.maybe.* in language plpgsql/)
    await admin(`DROP POLICY sometimes ON app.asked`)
    expect(await patient.finding('policy-asked')).toMatchObject({ verdict: 'ok' })
    await admin('DROP TABLE app.asked')
  })
})

async function readFunctionOf(name: string): Promise<string> {
  const [row] = await site.database.query<{ read: string }>(
    'SELECT read_function AS read FROM tidegate.tracked WHERE name = $1',
    [name],
  )
  return row!.read
}
