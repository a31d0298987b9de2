// Policies on realtime.messages that do not compile: Postgres is asked.
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { eventually } from '../../../support/eventually.ts'
import { prepareDatabase, TestNode } from '../../../support/node.ts'
import { TestDatabase } from '../../../support/postgres.ts'
import { principalOf, Watched } from '../watched.ts'
import { membershipTables, people, policySets, schema } from './policy-sets.ts'
import { install, truthOf } from './policy-truth.ts'

const { ada, bob } = people
const all = 'rR sS'
const none = '-- --'
const member = (user: string): string =>
  `INSERT INTO room_members VALUES (1, '${user}', 'room:1', 'owner', false, NULL)`

let database: TestDatabase
let node: TestNode

beforeAll(async () => {
  database = await TestDatabase.create()
  // What nobody follows.
  const apart =
    'CREATE TABLE apart (open boolean); INSERT INTO apart VALUES (true); GRANT SELECT ON apart TO authenticated;'
  await prepareDatabase(database, schema + apart, membershipTables)
  node = await TestNode.start(database.url, {
    AUDIENCE_GRACE_MS: '200',
    RECHECK_MS: '600',
    ASKED_TIMEOUT_MS: '1000',
    ASKED_MAX_AUDIENCES_PER_TABLE: '2',
  })
})

afterAll(async () => {
  await node[Symbol.asyncDispose]()
  await database[Symbol.asyncDispose]()
})

beforeEach(() => database.query(`TRUNCATE room_members; ${member(ada)}`))

const both = (expression: string): string =>
  `CREATE POLICY p_r ON M FOR SELECT TO authenticated USING (${expression});
   CREATE POLICY p_s ON M FOR INSERT TO authenticated WITH CHECK (${expression});`

async function settle(sql: string): Promise<void> {
  await install(database, { sql })
  const [{ xid }] = (await database.query<{ xid: string }>(
    `BEGIN; SELECT pg_current_xact_id()::text AS xid, pg_logical_emit_message(true, 'other', '')`,
  )) as [{ xid: string }]
  await database.query('COMMIT')
  await node.server.subscriptions.waitForTransaction(BigInt(xid), 10_000)
}

test.each(policySets.filter(({ asked }) => asked === true))(
  '[P2] asked: $name: who may receive and send is whom Postgres lets',
  async ({ sql }) => {
    await settle(sql)
    for (const sub of [ada, bob])
      for (const topic of ['room:1', 'room:2', 'room:abc', 'lobby', `it's \\ "quoted"`]) {
        using watched = await Watched.open(node, principalOf(sub), topic)
        const [receive, Receive, send, Send] = await truthOf(database, principalOf(sub), topic)
        const truth = `${receive ? 'r' : '-'}${Receive ? 'R' : '-'} ${send ? 's' : '-'}${Send ? 'S' : '-'}`
        expect([sub, topic, watched.answers, watched.permission.isExact]).toEqual([sub, topic, truth, false])
      }
  },
)

test('[P2] asked: a membership that is deleted, and one given again, in a table known to be read', async () => {
  await settle(both('by_plpgsql(topic)'))
  using watched = await Watched.open(node, principalOf(ada), 'room:1')
  expect(watched.answers).toBe(all)
  await database.query('DELETE FROM room_members')
  await watched.untilAnswers(none)
  await database.query(member(ada))
  await watched.untilAnswers(all)
  expect(watched.told).toEqual([none, all])
})

test('[P2] asked: what no commit tells of is noticed within RECHECK_MS', async () => {
  await settle(both(`topic ~* 'room' AND EXISTS (SELECT FROM apart a WHERE a.open)`))
  using watched = await Watched.open(node, principalOf(ada), 'room:1')
  expect(watched.answers).toBe(all)
  await database.query('UPDATE apart SET open = false')
  await watched.untilAnswers(none)
  await database.query('UPDATE apart SET open = true')
  await watched.untilAnswers(all)
})

test('[P2] asked: a policy that raises lets nobody in, and says nothing of the other actions', async () => {
  await settle(`CREATE POLICY r ON M FOR SELECT USING (by_plpgsql(topic));
    CREATE POLICY s ON M FOR INSERT WITH CHECK (by_plpgsql(topic) AND 1 / (length(topic) - 6) > 0);`)
  using watched = await Watched.open(node, principalOf(ada), 'room:1')
  expect(watched.answers).toBe('rR --')
})

test('[P2] asked: a policy that becomes slow lets nobody in until it is fast again', async () => {
  await settle(
    both(
      `by_plpgsql(topic) AND (SELECT count(*) FROM pg_sleep((SELECT CASE WHEN a.open THEN 0 ELSE 3 END FROM apart a))) = 1`,
    ),
  )
  using watched = await Watched.open(node, principalOf(ada), 'room:1')
  expect(watched.answers).toBe(all)
  await database.query('UPDATE apart SET open = false')
  await watched.untilAnswers(none)
  await database.query('UPDATE apart SET open = true')
  await watched.untilAnswers(all)
}, 30_000)

test('[P3] asked: policies that change are told, and who is judged by memberships from then on comes again', async () => {
  await settle(both('by_plpgsql(topic)'))
  using watched = await Watched.open(node, principalOf(ada), 'room:1')
  await database.query(`CREATE POLICY nobody ON realtime.messages AS RESTRICTIVE FOR SELECT USING (false)`)
  await watched.until(() => watched.answers === '-- sS' || watched.ended !== null)
  await settle(both('is_member(1)'))
  await watched.until(() => watched.ended !== null)
  using again = await Watched.open(node, principalOf(ada), 'room:1')
  expect([again.answers, again.permission.isExact]).toEqual([all, true])
})

test('[P7] asked: readers are asked for up to a bound, equal ones once, and forgotten after a grace', async () => {
  await settle(both('by_plpgsql(topic)'))
  using first = await Watched.open(node, principalOf(ada), 'room:1')
  using same = await Watched.open(node, principalOf(ada), 'room:1')
  const second = await Watched.open(node, principalOf(ada), 'room:2')
  expect(node.server.guards.holdings).toMatchObject({ permissions: 3, asked: 2 })
  await expect(Watched.open(node, principalOf(bob), 'room:1')).rejects.toMatchObject({ code: 'ASKED_TOO_MANY' })
  second.permission.release()
  using third = await Watched.open(node, principalOf(bob), 'room:1')
  expect([first.answers, same.answers, third.answers]).toEqual([all, all, none])
  first.permission.release()
  same.permission.release()
  third.permission.release()
  await eventually(() => expect(node.server.guards.holdings).toEqual({ permissions: 0, guards: 0, asked: 0 }))
})
