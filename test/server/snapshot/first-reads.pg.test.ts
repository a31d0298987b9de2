// What subscriptions begin with, on a node whose database has one place for it: who waits for whom, and what is cut.
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { ServerFrame } from '../../../src/protocol/messages.ts'
import { eventually } from '../../support/eventually.ts'
import { person, prepareDatabase, SseStream, TestNode, tokenFor } from '../../support/node.ts'
import { TestDatabase } from '../../support/postgres.ts'
import { TestSocket } from '../deliver/support/gateway.ts'

let database: TestDatabase
let node: TestNode
const [ada, bob, eve] = [person(), person(), person()]
const tokens = new Map<string, string>()

/** Rows whose text is dear to compare: 100 ms for one letter, some seconds for many. */
const schema = `
  CREATE TABLE public.wide (id int PRIMARY KEY, body text COLLATE "C");
  CREATE TABLE public.small (id int PRIMARY KEY);
  INSERT INTO wide SELECT i, repeat('a', 7000) FROM generate_series(1, 8000) AS i;
  INSERT INTO small VALUES (1);
  ALTER TABLE public.wide ENABLE ROW LEVEL SECURITY;
  ALTER TABLE public.small ENABLE ROW LEVEL SECURITY;
  CREATE POLICY everybody ON public.wide FOR SELECT TO authenticated USING (true);
  CREATE POLICY everybody ON public.small FOR SELECT TO authenticated USING (true);
  GRANT SELECT ON public.wide, public.small TO authenticated;`
const dear = (last: string): string => `like.*${'a'.repeat(60)}${last}*`
const cheap = (last: string): string => `like.*${last}*`

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, schema, ['wide', 'small'])
  for (const each of [ada, bob, eve]) tokens.set(each, await tokenFor(each))
  node = await TestNode.start(database.url, { SNAPSHOT_TIMEOUT_MS: '1000', SNAPSHOT_QUEUE: '20', DATABASE_POOL: '4' })
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

const follow = (user: string, query: string): Promise<SseStream> =>
  SseStream.open(node, `/v1/live/${query}`, tokens.get(user)!)
const whole = (stream: SseStream) =>
  stream.until(({ event, data }) => event === 'snapshot' && (data as { done: boolean }).done)

test('[P7] [P8] a snapshot that is too slow is cut and told to its reader alone, later each time; its neighbour has its rows', async () => {
  using neighbour = await follow(bob, 'small')
  await whole(neighbour)
  for (const hintMs of [5000, 10_000]) {
    using slow = await follow(ada, `wide?body=${dear('b')}`)
    using newcomer = await follow(bob, 'small?id=eq.1')
    const { data } = await slow.until(({ event }) => event === 'error')
    expect(data).toMatchObject({ code: 'SNAPSHOT_SLOW', retry: true, retryAfterMs: hintMs })
    expect((data as { message: string }).message).toContain(
      'public.wide as authenticated took Postgres longer than 1000 ms',
    )
    await whole(newcomer)
  }
  await database.query('INSERT INTO small VALUES (2)')
  await neighbour.until(({ event }) => event === 'delta')
  expect(neighbour.events.filter(({ event }) => event === 'error')).toEqual([])
})

const scans = async (): Promise<number> => {
  const [row] = await database.query(
    `SELECT coalesce(seq_scan, 0) + coalesce(idx_scan, 0) AS n FROM pg_stat_user_tables WHERE relname = 'wide'`,
  )
  return Number((row as { n: string }).n)
}

test('readers of one audience who come at once share a read; one of another asks for itself', async () => {
  const before = await scans()
  const streams = await Promise.all([ada, bob, eve, ada, bob].map(user => follow(user, `wide?body=${cheap('shared')}`)))
  await Promise.all(streams.map(whole))
  for (const stream of streams) stream.close()
  using other = await follow(ada, `wide?body=${cheap('other')}`)
  await whole(other)
  // A read that is shared counts once, when its connection has told the statistics of it.
  await eventually(async () => expect(await scans()).toBe(before + 2))
})

test('[P7] who asks for more than may wait is told BUSY, and whoever asks for one thing waits for one of theirs at most', async () => {
  await using greedy = await TestSocket.open({ port: node.server.port }, tokens.get(ada)!)
  const asked = 60
  for (let id = 1; id <= asked; id++)
    greedy.send({ type: 'subscribe', id, kind: 'live', table: 'wide', filter: `body=${cheap(`greedy${id}`)}` })
  const refused = () => greedy.of('error').filter(({ code }) => code === 'BUSY')
  const served = () => greedy.of('snapshot' as ServerFrame['type']).length
  await greedy.until(() => refused().length > 0, 'a refusal')
  using modest = await follow(eve, 'small?id=eq.2')
  const servedBefore = served()
  await whole(modest)
  expect(served() - servedBefore).toBeLessThanOrEqual(2)
  await greedy.until(() => served() + refused().length === asked, 'all answers')
  // One was being read and twenty waited, of which the newest gave way to the modest one.
  expect(served()).toBeGreaterThanOrEqual(20)
  expect(refused().length).toBeGreaterThan(0)
  for (const refusal of refused()) {
    expect(refusal).toMatchObject({ retry: true })
    expect(refusal.retryAfterMs).toBeGreaterThan(0)
  }
})
