// Channels of one node over a real database: policies, messages of SQL, and their order with rows.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { ChannelClient, channelPolicies } from '../../support/channel-client.ts'
import { person, prepareDatabase, roomsSchema, SseStream, TestNode, tokenFor } from '../../support/node.ts'
import { TestDatabase } from '../../support/postgres.ts'

const keptPolicy = `
  CREATE POLICY "kept" ON realtime.messages FOR SELECT TO authenticated USING (
    EXISTS (SELECT 1 FROM public.members m WHERE m.user_id = (SELECT auth.uid()) AND 'kept:' || m.room_id = realtime.topic()));
`

let database: TestDatabase
let node: TestNode
const [ann, bob] = [person(), person()]

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, roomsSchema + channelPolicies + keptPolicy, ['rooms', 'members', 'messages'])
  await database.query(`INSERT INTO members VALUES (1, '${ann}'), (1, '${bob}'), (2, '${ann}')`)
  node = await TestNode.start(database.url, {
    CHANNELS: JSON.stringify([
      { pattern: 'kept:*', history: { length: 50_000, age: '10m' } },
      { pattern: 'news', public: true },
    ]),
  })
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

const open = async (sub: string): Promise<ChannelClient> => ChannelClient.open(node, await tokenFor(sub))

test('[P2] members talk, strangers are refused', async () => {
  using a = await open(ann)
  using b = await open(bob)
  using stranger = await open(person())
  const [inA, inB] = [await a.join('room:1'), await b.join('room:1')]
  await expect(stranger.join('room:1')).rejects.toMatchObject({ code: 'CHANNEL_REFUSED' })
  await expect(b.join('room:2')).rejects.toMatchObject({ code: 'CHANNEL_REFUSED' })
  const sent = await inA.send('typing', { on: true })
  await inB.waitFor(() => inB.messages.length === 1)
  expect(inB.messages[0]).toMatchObject({
    id: sent.message,
    event: 'typing',
    payload: { on: true },
    sender: { user: ann, connection: a.connection },
  })
  expect(inA.messages).toEqual([])
})

test('[P3] a membership deleted closes the channel with that commit', async () => {
  const cid = person()
  await database.query(`INSERT INTO members VALUES (1, '${cid}')`)
  using a = await open(ann)
  using c = await open(cid)
  const [inA, inC] = [await a.join('room:1'), await c.join('room:1')]
  await database.query(`DELETE FROM members WHERE user_id = '${cid}'`)
  await inA.send('said', 'after', { after: await lastTransaction() })
  await inC.waitFor(() => inC.ended !== null)
  expect(inC.told).toMatchObject([{ kind: 'error', code: 'CHANNEL_CLOSED' }])
  await expect(inC.send('said', 'still here')).rejects.toThrow()
})

/** A transaction that committed after all before. */
async function lastTransaction(): Promise<string> {
  const [row] = await database.query<{ xid: string }>('SELECT pg_current_xact_id()::text AS xid')
  return row!.xid
}

test('[P5] what SQL says comes on commit, behind the rows of its transaction, in order; a rollback says nothing', async () => {
  using a = await open(ann)
  const inA = await a.join('room:1')
  await database.query('BEGIN')
  await database.query(`SELECT realtime.send('{"n": 0}', 'never', 'room:1')`)
  await database.query('ROLLBACK')
  await database.query(
    `DO $$ BEGIN FOR n IN 1..1000 LOOP PERFORM realtime.send(jsonb_build_object('n', n), 'counted', 'room:1'); END LOOP; END $$`,
  )
  await inA.waitFor(() => inA.messages.length === 1000, 20_000)
  expect(inA.messages.map(({ payload }) => (payload as { n: number }).n)).toEqual(
    Array.from({ length: 1000 }, (_, n) => n + 1),
  )
  expect(new Set(inA.messages.map(({ event }) => event))).toEqual(new Set(['counted']))
})

test('[P5] [P7] a transaction that says far more than may wait comes whole into a history, in order', {
  timeout: 60_000,
}, async () => {
  await database.query(`INSERT INTO members VALUES (3, '${ann}')`)
  using a = await open(ann)
  const inA = await a.join('kept:3')
  await database.query(
    `SELECT realtime.send(jsonb_build_object('n', n, 'text', repeat('x', 500)), 'counted', 'kept:3') FROM generate_series(1, 30000) n`,
  )
  await inA.waitFor(() => (inA.messages.at(-1)?.payload as { n: number } | undefined)?.n === 30_000, 50_000)
  expect(inA.told.every(({ kind }) => kind === 'message')).toBe(true)
  expect(inA.messages.map(({ payload }) => (payload as { n: number }).n)).toEqual(
    Array.from({ length: 30_000 }, (_, n) => n + 1),
  )
})

test('the same over an event stream, and sent by POST', async () => {
  using stream = await SseStream.open(node, '/v1/channels/room%3A1', await tokenFor(bob))
  await stream.until(({ event }) => event === 'joined')
  const answer = await fetch(`${node.url}/v1/channels/room%3A1`, {
    method: 'POST',
    headers: { authorization: `Bearer ${await tokenFor(ann)}`, 'content-type': 'application/json' },
    body: JSON.stringify({ event: 'said', payload: 'over HTTP' }),
  })
  expect([answer.status, await answer.json()]).toMatchObject([200, { message: expect.any(String) }])
  const { data } = await stream.until(({ event }) => event === 'message')
  expect(data).toMatchObject({ event: 'said', payload: 'over HTTP', sender: { user: ann, connection: null } })
})

test('a public channel takes no policy', async () => {
  using a = await open(person())
  using b = await open(person())
  const [inA, inB] = [await a.join('news', { private: false }), await b.join('news', { private: false })]
  await inA.send('said', 1)
  await inB.waitFor(() => inB.messages.length === 1)
})
