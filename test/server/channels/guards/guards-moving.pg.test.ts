// Permissions while much moves: random histories, memberships that are still being read, large commits, new epochs.
import fc from 'fast-check'
import pg from 'pg'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { dropSlot } from '../../../checker/slot-loss.ts'
import { prepareDatabase, TestNode } from '../../../support/node.ts'
import { TestDatabase } from '../../../support/postgres.ts'
import { principalOf, Watched } from '../watched.ts'
import { membershipTables, people, schema } from './policy-sets.ts'
import { install, truthOf } from './policy-truth.ts'

const { ada, bob, cid } = people
/** Of each kind of policies: GUARD_HISTORIES=100 for as many as one likes. */
const numRuns = Number(process.env.GUARD_HISTORIES ?? 6)
const all = 'rR sS'
const none = '-- --'

let database: TestDatabase
let node: TestNode

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, schema, membershipTables)
  node = await TestNode.start(database.url, { AUDIENCE_GRACE_MS: '200', SPOOL_BYTES: '20000' })
})

afterAll(async () => {
  await node[Symbol.asyncDispose]()
  await database[Symbol.asyncDispose]()
})

beforeEach(() => database.query('TRUNCATE rooms, room_members, org_members, bans, profiles'))

const both = (expression: string): string =>
  `CREATE POLICY p_r ON M FOR SELECT TO authenticated USING (${expression});
   CREATE POLICY p_s ON M FOR INSERT TO authenticated WITH CHECK (${expression});`

/** Resolves when the stream has served what these statements commit together. */
async function commit(...statements: readonly string[]): Promise<bigint> {
  const [{ xid }] = (await database.query<{ xid: string }>(
    `BEGIN; ${statements.map(each => `${each};`).join('')}
     SELECT pg_current_xact_id()::text AS xid, pg_logical_emit_message(true, 'other', '')`,
  )) as [{ xid: string }]
  await database.query('COMMIT')
  return (await node.server.subscriptions.waitForTransaction(BigInt(xid), 10_000)).lsn
}

async function settle(sql: string): Promise<void> {
  await install(database, { sql })
  await commit()
}

const inOrganisation = `EXISTS (SELECT FROM rooms r JOIN org_members o ON o.org_id = r.org_id
  WHERE r.topic = realtime.topic() AND o.user_id = auth.uid())`

const histories: Readonly<Record<string, string>> = {
  members: both(
    `EXISTS (SELECT FROM room_members m WHERE m.topic = realtime.topic() AND m.user_id = auth.uid() AND NOT coalesce(m.muted, false))`,
  ),
  'members that are not banned': `${both(`realtime.topic() IN (SELECT my_topics())`)}
    CREATE POLICY b ON M AS RESTRICTIVE USING (realtime.topic() NOT IN (SELECT b.topic FROM bans b WHERE b.user_id = auth.uid()));`,
  organisations: both(inOrganisation),
  'rooms that are open, or one’s own': `${both(`EXISTS (SELECT FROM rooms r WHERE 'room:' || r.id = realtime.topic()
      AND (r.is_open OR r.id IN (SELECT m.room_id FROM room_members m WHERE m.user_id = auth.uid())))`)}
    CREATE POLICY admin ON M FOR SELECT USING ((SELECT p.is_admin FROM profiles p WHERE p.id = auth.uid()));`,
}

const id = fc.integer({ min: 1, max: 3 })
const user = fc.constantFrom(ada, bob, cid)
const flag = fc.constantFrom('true', 'false', 'NULL')
const topic = fc.oneof(
  id.map(each => `'room:${each}'`),
  fc.constant('NULL'),
)
const statement = fc.oneof(
  fc.tuple(id, user, topic, flag).map(
    ([room, who, named, muted]) => `INSERT INTO room_members VALUES (${room}, '${who}', ${named}, 'x', ${muted}, NULL)
      ON CONFLICT (room_id, user_id) DO UPDATE SET topic = excluded.topic, muted = excluded.muted`,
  ),
  fc.tuple(id, user).map(([room, who]) => `DELETE FROM room_members WHERE room_id = ${room} AND user_id = '${who}'`),
  fc.tuple(id, topic, flag, id).map(
    ([
      room,
      named,
      open,
      org,
    ]) => `INSERT INTO rooms VALUES (${room}, ${named === 'NULL' ? 'NULL' : `'room:${room}'`}, ${open}, ${org}, NULL)
      ON CONFLICT (id) DO UPDATE SET is_open = excluded.is_open, org_id = excluded.org_id`,
  ),
  id.map(room => `DELETE FROM rooms WHERE id = ${room}`),
  fc.tuple(id, user).map(([org, who]) => `INSERT INTO org_members VALUES (${org}, '${who}') ON CONFLICT DO NOTHING`),
  fc.tuple(id, user).map(([org, who]) => `DELETE FROM org_members WHERE org_id = ${org} AND user_id = '${who}'`),
  fc.tuple(id, topic, user).map(
    ([ban, named, who]) => `INSERT INTO bans VALUES (${ban}, ${named}, '${who}')
      ON CONFLICT (id) DO UPDATE SET topic = excluded.topic, user_id = excluded.user_id`,
  ),
  id.map(ban => `DELETE FROM bans WHERE id = ${ban}`),
  fc
    .tuple(user, flag)
    .map(
      ([who, admin]) =>
        `INSERT INTO profiles VALUES ('${who}', ${admin}) ON CONFLICT (id) DO UPDATE SET is_admin = excluded.is_admin`,
    ),
  fc.constantFrom('TRUNCATE bans', 'TRUNCATE room_members'),
)

test.each(Object.entries(histories))(
  '[P1] [P3] after each commit of a random history: %s',
  async (_, sql) => {
    await settle(sql)
    const readers = [ada, bob, cid].flatMap(sub => ['room:1', 'room:2', 'room:3'].map(each => ({ sub, topic: each })))
    let judged = 0
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.array(statement, { minLength: 1, maxLength: 4 }), { maxLength: 8 }),
        async commits => {
          await database.query('TRUNCATE rooms, room_members, org_members, bans, profiles')
          await commit()
          const watched = await Promise.all(
            readers.map(reader => Watched.open(node, principalOf(reader.sub), reader.topic)),
          )
          try {
            for (const statements of commits) {
              await commit(...statements)
              for (const [i, { sub, topic: at }] of readers.entries()) {
                const [receive, Receive, send, Send] = await truthOf(database, principalOf(sub), at)
                const truth = `${receive ? 'r' : '-'}${Receive ? 'R' : '-'} ${send ? 's' : '-'}${Send ? 'S' : '-'}`
                const { answers } = watched[i]!
                const leaks = [...answers].filter((letter, place) => letter !== '-' && letter !== truth[place])
                expect([sub, at, answers, leaks]).toEqual([sub, at, answers, []])
                // A gain by a chain of tables comes when what it reaches has been read.
                if (watched[i]!.answers !== truth) await watched[i]!.untilAnswers(truth)
                judged += 1
              }
            }
            for (const each of watched)
              expect([each.ended, each.told.at(-1) ?? each.answers]).toEqual([null, each.answers])
          } finally {
            for (const each of watched) each.permission.release()
          }
        },
      ),
      { numRuns },
    )
    // Some are drawn empty; on the average one has three or four commits, each judged for nine readers.
    expect(judged).toBeGreaterThan(4 * numRuns)
  },
  120_000,
)

/** Holds a table so that it can be written and not be read. */
async function locked<T>(table: string, work: () => Promise<T>): Promise<T> {
  const other = new pg.Client({ connectionString: database.url })
  await other.connect()
  try {
    await other.query(`BEGIN; LOCK TABLE ${table} IN ACCESS EXCLUSIVE MODE`)
    return await work()
  } finally {
    await other.end()
  }
}

/** Rooms by topic, of any of one's organisations: whose rooms are read when one comes into it. */
const farther = `EXISTS (SELECT FROM bans t JOIN rooms r ON r.id = t.id JOIN org_members o ON o.org_id = r.org_id
  WHERE t.topic = realtime.topic() AND o.user_id = auth.uid())`
const topics = `INSERT INTO bans VALUES (1, 'room:1'), (2, 'room:2')`

test('[P2] [P3] while what is reached anew is being read, nothing is gained and what is lost is told', async () => {
  await commit(
    `INSERT INTO rooms VALUES (1, 'room:1', false, 1), (2, 'room:2', false, 2)`,
    topics,
    `INSERT INTO org_members VALUES (1, '${ada}')`,
  )
  await settle(both(farther))
  using first = await Watched.open(node, principalOf(ada), 'room:1')
  using second = await Watched.open(node, principalOf(ada), 'room:2')
  expect([first.answers, second.answers]).toEqual([all, none])
  await locked('rooms', async () => {
    await commit(`INSERT INTO org_members VALUES (2, '${ada}')`)
    expect([first.answers, second.answers]).toEqual([all, none])
    await commit(`DELETE FROM org_members WHERE org_id = 1`)
    expect([first.answers, second.answers]).toEqual([none, none])
  })
  await second.untilAnswers(all)
  expect([first.told, second.told]).toEqual([[none], [all]])
})

test('[P2] where what is being read might exclude, the permission ends, to come again', async () => {
  await commit(`INSERT INTO rooms VALUES (2, 'room:2', false, 2)`, topics)
  await settle(both(`NOT ${farther}`))
  using watched = await Watched.open(node, principalOf(ada), 'room:2')
  expect(watched.answers).toBe(all)
  await locked('rooms', async () => {
    await commit(`INSERT INTO org_members VALUES (2, '${ada}')`)
    expect([watched.answers, watched.ended?.code]).toEqual([none, 'UNAVAILABLE'])
  })
  using again = await Watched.open(node, principalOf(ada), 'room:2')
  expect(again.answers).toBe(none)
})

test('[P3] a commit too large to hold tells of its revocations before the head is there', async () => {
  const members = (who: string): string =>
    `INSERT INTO room_members SELECT i, '${who}', 'room:' || i FROM generate_series(1, 3000) i`
  await commit(`INSERT INTO room_members VALUES (1, '${ada}', 'room:1')`)
  await settle(both('is_member(1)'))
  using watched = await Watched.open(node, principalOf(ada), 'room:1')
  const gone = await commit('DELETE FROM room_members', members(bob))
  expect([watched.told, watched.toldAt.at(-1)! < gone]).toEqual([[none], true])
  const back = await commit('DELETE FROM room_members', members(ada))
  expect([watched.told, watched.toldAt.at(-1)! < back, watched.toldAt.at(-1)! >= gone]).toEqual([
    [none, all],
    true,
    true,
  ])
})

test('[P2] while the catalog cannot be read nobody stands, and nobody is taken', async () => {
  await settle(both('true'))
  using watched = await Watched.open(node, principalOf(ada), 'room:1')
  node.server.guards.shut()
  expect([watched.answers, watched.ended?.code]).toEqual([none, 'UNAVAILABLE'])
  await expect(Watched.open(node, principalOf(ada), 'room:1')).rejects.toMatchObject({ code: 'UNAVAILABLE' })
  node.server.guards.reopen()
  using again = await Watched.open(node, principalOf(ada), 'room:1')
  expect(again.answers).toBe(all)
})

test('[P2] a new epoch ends what memberships decided, which may have changed in between, and nothing else', async () => {
  await commit(`INSERT INTO room_members VALUES (1, '${ada}', 'room:1')`)
  await settle(`${both('is_member(1)')} CREATE POLICY lobby ON M FOR SELECT USING (topic = 'lobby');`)
  using watched = await Watched.open(node, principalOf(ada), 'room:1')
  using lobby = await Watched.open(node, { role: 'anon', claims: { role: 'anon' }, expiresAt: null }, 'lobby')
  const { epoch } = node.server.subscriptions.head().position
  await dropSlot(database.url, true)
  await watched.until(() => watched.ended !== null, 30_000)
  expect([watched.answers, watched.ended?.code]).toEqual([none, 'UNAVAILABLE'])
  expect(node.server.subscriptions.head().position.epoch).not.toBe(epoch)
  expect([lobby.answers, lobby.ended]).toEqual(['rR --', null])
  using again = await Watched.open(node, principalOf(ada), 'room:1')
  expect(again.answers).toBe(all)
}, 60_000)
