// What is told of a permission while it stands: memberships that come and go, time, policies, grants, columns.
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { eventually } from '../../../support/eventually.ts'
import { prepareDatabase, TestNode, trackTables } from '../../../support/node.ts'
import { TestDatabase } from '../../../support/postgres.ts'
import { principalOf, Watched } from '../watched.ts'
import { membershipTables, people, schema } from './policy-sets.ts'
import { install } from './policy-truth.ts'

const { ada, bob, cid } = people
const all = 'rR sS'
const none = '-- --'

let database: TestDatabase
let node: TestNode

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, schema, membershipTables)
  node = await TestNode.start(database.url, { AUDIENCE_GRACE_MS: '200' })
})

afterAll(async () => {
  await node[Symbol.asyncDispose]()
  await database[Symbol.asyncDispose]()
})

beforeEach(async () => {
  await database.query(`TRUNCATE rooms, room_members, org_members, bans, profiles;
    INSERT INTO rooms VALUES (1, 'room:1', false, 7, NULL);
    INSERT INTO room_members VALUES (1, '${ada}', 'room:1', 'owner', false, NULL)`)
})

/** Whether the stream has served everything that committed before. */
async function served(): Promise<void> {
  const [{ xid }] = (await database.query<{ xid: string }>(
    `BEGIN; SELECT pg_current_xact_id()::text AS xid, pg_logical_emit_message(true, 'other', '')`,
  )) as [{ xid: string }]
  await database.query('COMMIT')
  await node.server.subscriptions.waitForTransaction(BigInt(xid), 10_000)
}

const member = `EXISTS (SELECT FROM room_members m WHERE m.topic = realtime.topic() AND m.user_id = auth.uid())`
const both = (expression: string, name = 'p'): string =>
  `CREATE POLICY ${name}_r ON M FOR SELECT TO authenticated USING (${expression});
   CREATE POLICY ${name}_s ON M FOR INSERT TO authenticated WITH CHECK (${expression});`

async function settle(sql: string): Promise<void> {
  await install(database, { sql })
  await served()
}

test('[P3] a membership that is deleted is told at its commit, and one that is given again', async () => {
  await settle(both(member))
  using watched = await Watched.open(node, principalOf(ada), 'room:1')
  using other = await Watched.open(node, principalOf(ada), 'room:2')
  expect([watched.answers, other.answers, watched.permission.isExact]).toEqual([all, none, true])
  await database.query(`DELETE FROM room_members WHERE user_id = '${ada}'`)
  await watched.untilAnswers(none)
  await database.query(`INSERT INTO room_members VALUES (2, '${ada}', 'room:2'), (1, '${ada}', 'room:1')`)
  await watched.untilAnswers(all)
  await other.untilAnswers(all)
  expect([watched.told, other.told]).toEqual([[none, all], [all]])
  await database.query(`UPDATE room_members SET role = 'guest' WHERE user_id = '${ada}'`)
  await served()
  expect(watched.told).toHaveLength(2)
})

test('[P3] a revocation is told before the head is at its commit: nothing of it, or after it, has been delivered', async () => {
  await settle(both(member))
  using watched = await Watched.open(node, principalOf(ada), 'room:1')
  const commits: bigint[] = []
  for (const sql of [
    `DELETE FROM room_members WHERE user_id = '${ada}'`,
    `INSERT INTO room_members VALUES (1, '${ada}', 'room:1')`,
    `DELETE FROM room_members; INSERT INTO room_members SELECT i, '${bob}', 'room:' || i FROM generate_series(1, 5000) i`,
  ]) {
    await database.query(`SELECT realtime.send('{}'::jsonb, 'before', 'room:1', true)`)
    const [{ xid }] = (await database.query<{ xid: string }>(
      `BEGIN; ${sql}; SELECT realtime.send('{}'::jsonb, 'within', 'room:1', true);
       SELECT pg_current_xact_id()::text AS xid`,
    )) as [{ xid: string }]
    await database.query('COMMIT')
    commits.push((await node.server.subscriptions.waitForTransaction(BigInt(xid), 10_000)).lsn)
  }
  expect(watched.told).toEqual([none, all, none])
  expect(watched.toldAt.map((lsn, i) => lsn < commits[i]! && (i === 0 || lsn >= commits[i - 1]!))).toEqual([
    true,
    true,
    true,
  ])
})

test('[P3] a ban that is inserted, one that is lifted, and a truncated table', async () => {
  await settle(
    `${both('true')} CREATE POLICY b ON M AS RESTRICTIVE USING (
      NOT EXISTS (SELECT FROM bans b WHERE b.topic = realtime.topic() AND b.user_id = auth.uid()));`,
  )
  using watched = await Watched.open(node, principalOf(bob), 'room:1')
  expect(watched.answers).toBe(all)
  await database.query(
    `INSERT INTO bans VALUES (1, 'room:1', '${bob}'), (2, 'room:2', '${bob}'), (3, 'room:1', '${cid}')`,
  )
  await watched.untilAnswers(none)
  await database.query('DELETE FROM bans WHERE id = 1')
  await watched.untilAnswers(all)
  await database.query(`INSERT INTO bans VALUES (1, 'room:1', '${bob}')`)
  await watched.untilAnswers(none)
  await database.query('TRUNCATE bans')
  await watched.untilAnswers(all)
})

test('[P3] what one may send and what one may receive change apart', async () => {
  await settle(`CREATE POLICY r ON M FOR SELECT USING (${member});
    CREATE POLICY s ON M FOR INSERT WITH CHECK (extension = 'presence' OR EXISTS (
      SELECT FROM room_members m WHERE m.topic = messages.topic AND m.user_id = auth.uid() AND m.muted IS NOT TRUE));`)
  using watched = await Watched.open(node, principalOf(ada), 'room:1')
  expect(watched.answers).toBe(all)
  await database.query(`UPDATE room_members SET muted = true`)
  await watched.untilAnswers('rR -S')
  await database.query(`DELETE FROM room_members`)
  await watched.untilAnswers('-- -S')
  expect(watched.told).toEqual(['rR -S', '-- -S'])
})

test('[P3] a chain of tables: what is reached anew is waited for, and its loss told at once', async () => {
  await settle(
    both(`EXISTS (SELECT FROM rooms r JOIN org_members o ON o.org_id = r.org_id
      WHERE r.topic = realtime.topic() AND o.user_id = auth.uid())`),
  )
  using watched = await Watched.open(node, principalOf(ada), 'room:1')
  expect(watched.answers).toBe(none)
  await database.query(`INSERT INTO org_members VALUES (7, '${ada}')`)
  await watched.untilAnswers(all)
  await database.query(`UPDATE rooms SET org_id = 8`)
  await watched.untilAnswers(none)
  await database.query(`INSERT INTO org_members VALUES (8, '${ada}')`)
  await watched.untilAnswers(all)
  await database.query(`DELETE FROM org_members WHERE org_id = 8`)
  await watched.untilAnswers(none)
  expect(watched.told).toEqual([all, none, all, none])
})

test('[P3] a membership ends when its time comes, without a commit that says so', async () => {
  await settle(
    both(
      `EXISTS (SELECT FROM room_members m WHERE m.topic = realtime.topic() AND m.user_id = auth.uid() AND m.expires_at > now())`,
    ),
  )
  await database.query(`UPDATE room_members SET expires_at = now() + interval '1.5 seconds'`)
  const beganMs = Date.now()
  using watched = await Watched.open(node, principalOf(ada), 'room:1')
  expect(watched.answers).toBe(all)
  await watched.untilAnswers(none)
  expect(Date.now() - beganMs).toBeGreaterThan(900)
  expect(watched.told).toEqual([none])
})

test('[P3] policies that are altered, added and dropped hold from their own commit', async () => {
  await settle(both(member))
  using watched = await Watched.open(node, principalOf(ada), 'room:1')
  await database.query(`ALTER POLICY p_s ON realtime.messages WITH CHECK (extension = 'broadcast')`)
  await watched.untilAnswers('rR s-')
  await database.query(`ALTER POLICY p_r ON realtime.messages USING (${member} AND extension = 'presence')`)
  await watched.untilAnswers('-R s-')
  await database.query(`CREATE POLICY nobody ON realtime.messages AS RESTRICTIVE USING (false)`)
  await watched.untilAnswers(none)
  await database.query(`DROP POLICY nobody ON realtime.messages`)
  await watched.until(() => watched.answers === '-R s-' || watched.ended !== null)
  expect(watched.told.slice(0, 3)).toEqual(['rR s-', '-R s-', none])
})

test('[P3] a policy that reads what nobody holds yet ends the permission, to come again by the new rules', async () => {
  await settle(both('true'))
  using watched = await Watched.open(node, principalOf(ada), 'room:1')
  await database.query(`ALTER POLICY p_r ON realtime.messages USING (is_member(1))`)
  await watched.until(() => watched.ended !== null)
  expect(watched.ended).toMatchObject({ code: 'UNSUBSCRIBED_TABLE_CHANGED' })
  expect(watched.answers).toBe(none)
  using again = await Watched.open(node, principalOf(ada), 'room:1')
  expect(again.answers).toBe(all)
})

test('[P3] a grant that is revoked, a helper that is replaced, and row security', async () => {
  await settle(both('is_member(1)'))
  using watched = await Watched.open(node, principalOf(ada), 'room:1')
  expect(watched.answers).toBe(all)
  await database.query('REVOKE INSERT ON realtime.messages FROM authenticated')
  await watched.untilAnswers('rR --')
  await database.query('GRANT INSERT ON realtime.messages TO authenticated')
  await watched.until(() => watched.answers === all)
  await database.query(`CREATE OR REPLACE FUNCTION is_member(room bigint) RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path = '' AS 'SELECT room > 1'`)
  await watched.untilAnswers(none)
  await database.query('ALTER TABLE realtime.messages DISABLE ROW LEVEL SECURITY')
  await watched.untilAnswers(all)
  await database.query('ALTER TABLE realtime.messages ENABLE ROW LEVEL SECURITY')
  await watched.untilAnswers(none)
  await database.query('REVOKE SELECT, INSERT ON realtime.messages FROM authenticated')
  await watched.until(() => watched.ended !== null)
  expect(watched.ended).toMatchObject({ code: 'TABLE_REFUSED' })
  await database.query('GRANT SELECT, INSERT ON realtime.messages TO authenticated')
  await database.query(`CREATE OR REPLACE FUNCTION is_member(room bigint) RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path = '' AS 'SELECT EXISTS (SELECT 1 FROM public.room_members m WHERE m.room_id = room AND m.user_id = auth.uid())'`)
})

test('[P3] a membership table whose columns change is not judged by any more', async () => {
  await settle(both(member))
  using watched = await Watched.open(node, principalOf(ada), 'room:1')
  await database.query('ALTER TABLE room_members ADD COLUMN note text')
  await watched.until(() => watched.ended !== null)
  using again = await Watched.open(node, principalOf(ada), 'room:1')
  expect(again.answers).toBe(all)
})

test('[P8] a table that is not tracked is named, with what to run', async () => {
  await database.query('CREATE TABLE guests (topic text PRIMARY KEY); GRANT SELECT ON guests TO authenticated')
  await settle(both('realtime.topic() IN (SELECT g.topic FROM guests g)'))
  await expect(Watched.open(node, principalOf(ada), 'room:1')).rejects.toMatchObject({
    code: 'POLICY_UNSUPPORTED',
    message: expect.stringContaining('run tidegate track public.guests'),
  })
  await trackTables(database, ['public.guests'])
  await served()
  using watched = await Watched.open(node, principalOf(ada), 'room:1')
  expect([watched.answers, watched.permission.isExact]).toEqual([none, true])
  await settle('DROP TABLE guests CASCADE')
})

test('[P7] messages of SQL look no guard up, and nothing is left of those who went', async () => {
  await settle(both(member))
  const before = node.server.guards.holdings
  const watched = await Promise.all([ada, bob, ada].map(sub => Watched.open(node, principalOf(sub), 'room:1')))
  expect(node.server.guards.holdings).toEqual({
    permissions: before.permissions + 3,
    guards: before.guards + 2,
    asked: before.asked,
  })
  await database.query(`SELECT realtime.send('{}'::jsonb, 'e', 'room:1', true) FROM generate_series(1, 10)`)
  await served()
  expect(watched.flatMap(({ told }) => told)).toEqual([])
  for (const each of watched) each.permission.release()
  for (const each of watched) each.permission.release()
  expect(node.server.guards.holdings).toEqual(before)
  expect(watched.map(({ answers }) => answers)).toEqual([none, none, none])
  await eventually(() => expect(node.server.holdings()).toMatchObject({ audiences: 0, memberships: 0, routes: 0 }))
})

test('a public channel asks nobody', async () => {
  await settle('')
  const permission = await node.server.guards.acquire(
    principalOf(ada),
    { topic: 'room:1', isPrivate: false },
    { changed: () => {}, ended: () => {} },
  )
  expect(permission.may('send', 'presence')).toBe(true)
})

test('[P2] a role that may not be taken is refused', async () => {
  const principal = { ...principalOf(ada), role: 'postgres' }
  await expect(
    node.server.guards.acquire(principal, { topic: 'a', isPrivate: true }, { changed: () => {}, ended: () => {} }),
  ).rejects.toMatchObject({ code: 'ROLE_REFUSED' })
})
