// What a reader's memberships may grow to while they are followed, and what happens when one of them cannot be judged.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { prepareDatabase, roomsSchema, SseStream, TestNode, tokenFor } from '../../support/node.ts'
import { TestDatabase } from '../../support/postgres.ts'

const [ada, bob] = ['00000000-0000-4000-8000-00000000000a', '00000000-0000-4000-8000-00000000000b']

/** A policy that casts a column of the membership table. */
const codes = `
  CREATE TABLE public.badges (id int PRIMARY KEY, user_id uuid NOT NULL, room text NOT NULL);
  CREATE TABLE public.doors (id int PRIMARY KEY, room_id int NOT NULL);
  ALTER TABLE public.doors ENABLE ROW LEVEL SECURITY;
  CREATE POLICY p ON public.doors TO authenticated USING (
    EXISTS (SELECT FROM public.badges b WHERE b.user_id = auth.uid() AND b.room::int > 0));
  GRANT SELECT ON public.doors, public.badges TO authenticated;
`

let database: TestDatabase
let node: TestNode

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, roomsSchema + codes, ['rooms', 'members', 'messages', 'badges', 'doors'])
  await database.query(`INSERT INTO rooms SELECT n, 'room' FROM generate_series(1, 9) AS n;
    INSERT INTO messages (id, room_id) SELECT n, n FROM generate_series(1, 9) AS n;
    INSERT INTO members (room_id, user_id) VALUES (1, '${ada}'), (1, '${bob}');
    INSERT INTO badges VALUES (1, '${ada}', '1'), (2, '${bob}', '1'); INSERT INTO doors VALUES (1, 1)`)
  node = await TestNode.start(database.url, { MEMBERSHIP_MAX_ROWS: '4' })
})

afterAll(async () => {
  await node[Symbol.asyncDispose]()
  await database[Symbol.asyncDispose]()
})

const follow = async (sub: string, table: string): Promise<SseStream> => {
  const stream = await SseStream.open(node, `/v1/live/${table}`, await tokenFor(sub))
  if (stream.status === 200) await stream.until(({ event }) => event === 'snapshot')
  return stream
}

test('[P7] memberships that grow past the limit while they are followed end their own reader, with the code, and no neighbour', async () => {
  const [hers, his] = [await follow(ada, 'messages'), await follow(bob, 'messages')]
  await database.query(`INSERT INTO members (room_id, user_id) SELECT n, '${ada}' FROM generate_series(2, 4) AS n`)
  await hers.until(({ event, data }) => event === 'delta' && JSON.stringify(data).includes('"id":4'))
  await database.query(`INSERT INTO members (room_id, user_id) SELECT n, '${ada}' FROM generate_series(5, 9) AS n;
    INSERT INTO messages (id, room_id) VALUES (100, 1)`)
  const refusal = {
    code: 'MEMBERSHIP_TOO_LARGE',
    message: 'public.members has more than 4 rows that decide for this reader',
  }
  expect((await hers.until(({ event }) => event === 'error')).data).toMatchObject({ ...refusal, retry: false })
  await his.until(({ event, data }) => event === 'delta' && JSON.stringify(data).includes('"id":100'))
  expect(his.events.map(({ event }) => event).filter(event => event === 'error' || event === 'resync')).toEqual([])
  expect((await follow(ada, 'messages')).errorBody).toMatchObject(refusal)
  // Within the limit again, it is loaded anew.
  await database.query(`DELETE FROM members WHERE user_id = '${ada}' AND room_id > 2`)
  const back = await follow(ada, 'messages')
  expect(back.events.find(({ event }) => event === 'snapshot')?.data).toMatchObject({
    rows: [{ id: 1 }, { id: 2 }, { id: 100 }],
  })
  for (const stream of [hers, his, back]) stream.close()
})

test('[P8] a membership that cannot be judged ends those it decides for, as Postgres raises for them', async () => {
  const [hers, his] = [await follow(ada, 'doors'), await follow(bob, 'doors')]
  await database.query(`INSERT INTO badges VALUES (3, '${ada}', 'many')`)
  expect((await hers.until(({ event }) => event === 'error')).data).toMatchObject({
    code: 'CLAIM_INVALID',
    retry: false,
  })
  expect((await follow(ada, 'doors')).errorBody).toMatchObject({ code: 'CLAIM_INVALID' })
  await database.query(`INSERT INTO doors VALUES (2, 1)`)
  await his.until(({ event, data }) => event === 'delta' && JSON.stringify(data).includes('"id":2'))
  await database.query(`DELETE FROM badges WHERE id = 3`)
  const back = await follow(ada, 'doors')
  expect(back.events.find(({ event }) => event === 'snapshot')?.data).toMatchObject({ rows: [{ id: 1 }, { id: 2 }] })
  for (const stream of [hers, his, back]) stream.close()
})
