// What is left of sockets, channels and joins of Supabase's wire once they are gone: nothing, however they went.
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import pg from 'pg'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { channelPolicies } from '../../../support/channel-client.ts'
import { eventually } from '../../../support/eventually.ts'
import { person, prepareDatabase, roomsSchema, TestNode, tokenFor, trackTables } from '../../../support/node.ts'
import { TestDatabase } from '../../../support/postgres.ts'
import { Peer } from './support/peer.ts'

const stack = new AsyncDisposableStack()
const unhandled: unknown[] = []
const note = (error: unknown): unknown => unhandled.push(error)
let database: TestDatabase
let node: TestNode

/** Asked of Postgres, and slow while the lock 77 is held. */
const slow = `
  CREATE FUNCTION public.waits(room int) RETURNS boolean LANGUAGE plpgsql VOLATILE AS
    $$ BEGIN PERFORM pg_advisory_xact_lock_shared(77); RETURN true; END $$;
  CREATE TABLE public.slow (id bigint PRIMARY KEY, room_id int NOT NULL);
  ALTER TABLE public.slow ENABLE ROW LEVEL SECURITY;
  CREATE POLICY slow ON public.slow FOR SELECT TO authenticated USING (public.waits(room_id));
  GRANT SELECT ON public.slow TO authenticated;
  INSERT INTO public.slow VALUES (1, 1);
  CREATE TABLE public.coming (id int PRIMARY KEY); GRANT SELECT ON public.coming TO authenticated;`

const alice = person()
const bob = person()

beforeAll(async () => {
  process.on('unhandledRejection', note)
  database = stack.use(await TestDatabase.create())
  await prepareDatabase(database, roomsSchema + slow + channelPolicies, ['rooms', 'members', 'messages', 'slow'])
  await database.query(`INSERT INTO members VALUES (1, '${alice}'), (2, '${bob}')`)
  node = stack.use(await TestNode.start(database.url, { MAX_FRAMES_PER_SECOND: '1000', MAX_FRAME_BURST: '1000' }))
}, 120_000)

afterEach(async () => {
  await eventually(() => expect(node.server.connections()).toBe(0))
  await eventually(() => expect(node.server.holdings()).toMatchObject({ listed: 0, splices: 0 }))
  expect(unhandled).toEqual([])
})

afterAll(async () => {
  process.off('unhandledRejection', note)
  await stack.disposeAsync()
}, 60_000)

const bound = (...tables: string[]) => ({
  postgres_changes: tables.map(table => ({ event: '*', schema: 'public', table })),
})

/** @returns what lets it go */
async function locked(lock: number) {
  const client = new pg.Client({ connectionString: database.url })
  await client.connect()
  await client.query(`SELECT pg_advisory_lock(${lock})`)
  return async () => {
    await client.query(`SELECT pg_advisory_unlock(${lock})`)
    await client.end()
  }
}

/** Tokens of one user, each another text. */
const tokensOf = (sub: string, count: number): Promise<string[]> =>
  Promise.all(Array.from({ length: count }, (_, n) => tokenFor(sub, { jti: `${n}` })))

test('[P7] joins that are not answered: left, joined again, given tokens, broken off', async () => {
  const token = await tokenFor(alice)
  const unlock = await locked(77)
  const config = { ...bound('slow', 'messages', '*'), presence: { enabled: true }, broadcast: { ack: true } }
  const left = await Peer.open(node.url, token)
  const again = await Peer.open(node.url, token)
  const renewed = await Peer.open(node.url, token)
  const broken = await Peer.open(node.url, token)
  for (const peer of [left, again, renewed, broken]) peer.push('realtime:a', 'phx_join', { config })
  left.push('realtime:a', 'phx_leave')
  for (let i = 0; i < 100; i += 1) again.push('realtime:a', 'phx_join', { config })
  for (const text of await tokensOf(alice, 50)) renewed.push('realtime:a', 'access_token', { access_token: text })
  const early = await renewed.ask('realtime:a', 'presence', { type: 'presence', event: 'track', payload: { a: 1 } })
  expect(early).toMatchObject({ status: 'error' })
  await left.until(({ event }) => event === 'phx_close')
  await eventually(() => expect(again.of('phx_close')).toHaveLength(100))
  await broken[Symbol.asyncDispose]()
  await unlock()
  const [last] = again.of('phx_close').slice(-1)
  await again.until(({ event, ref }) => event === 'phx_reply' && Number(ref) > Number(last!.ref))
  await renewed.until(({ event, payload }) => event === 'phx_reply' && payload.status === 'ok')
  expect((await renewed.ask('realtime:a', 'broadcast', { type: 'broadcast', event: 'e', payload: {} })).status).toBe(
    'ok',
  )
  expect(renewed.of('phx_error')).toEqual([])
  left.push('realtime:a', 'access_token', { access_token: token })
  expect((await left.ask('realtime:a', 'broadcast', {})).status).toBe('error')
  for (const peer of [left, again, renewed]) await peer[Symbol.asyncDispose]()
})

test('[P7] tokens by the hundred, of one user and of two by turns: the last one holds, and the channel stays', async () => {
  const [ofAlice, ofBob] = await Promise.all([tokensOf(alice, 200), tokensOf(bob, 100)])
  await using peer = await Peer.open(node.url, ofAlice[0]!)
  await peer.join('realtime:a', { ...bound('messages'), broadcast: { ack: true } })
  for (const token of ofAlice) peer.push('realtime:a', 'access_token', { access_token: token })
  expect((await peer.ask('realtime:a', 'broadcast', { type: 'broadcast', event: 'e', payload: {} })).status).toBe('ok')
  for (let i = 0; i < 100; i += 1) {
    peer.push('realtime:a', 'access_token', { access_token: ofAlice[i] })
    peer.push('realtime:a', 'access_token', { access_token: ofBob[i] })
  }
  let id = 0
  await eventually(async () => {
    id += 1
    await database.query(`INSERT INTO messages VALUES (${id}, 2, 'a', 'b')`)
    expect(peer.ids()).toContain(id)
  })
  await database.query(`INSERT INTO messages VALUES (0, 1, 'a', 'b'); INSERT INTO messages VALUES (1000, 2, 'a', 'b')`)
  await eventually(() => expect(peer.ids()).toContain(1000))
  expect(peer.ids()).not.toContain(0)
  expect(peer.of('phx_error')).toEqual([])
  await peer.ask('realtime:a', 'phx_leave')
})

test('[P7] a hundred joins at once that are all refused', async () => {
  await using peer = await Peer.open(node.url, await tokenFor(alice))
  for (let i = 0; i < 100; i += 1) {
    const wrong = [{ config: { private: true } }, { config: {}, access_token: 'none' }, { config: { private: 7 } }][
      i % 3
    ]
    peer.push(`realtime:${i}`, 'phx_join', wrong)
  }
  await eventually(() =>
    expect(peer.of('phx_reply').filter(({ payload }) => payload.status === 'error')).toHaveLength(100),
  )
  expect(JSON.stringify(peer.said)).not.toContain('INTERNAL')
  await eventually(() => expect(node.server.holdings().listed).toBe(2))
})

test('[P7] [P8] a table of all tables that goes and comes again is heard again', async () => {
  await using peer = await Peer.open(node.url, await tokenFor(alice))
  await peer.join('realtime:a', bound('*'))
  const told = () =>
    peer.of('postgres_changes', 'realtime:a').filter(({ payload: { data } }) => data.table === 'coming')
  let id = 0
  const heard = (): Promise<void> => {
    const before = told().length
    return eventually(async () => {
      id += 1
      await database.query(`INSERT INTO coming VALUES (${id})`)
      expect(told().length).toBeGreaterThan(before)
    })
  }
  await trackTables(database, ['coming'])
  await heard()
  for (let i = 0; i < 2; i += 1) {
    await peer.join(`realtime:witness ${i}`, bound('coming'))
    await database.query('DROP TABLE coming')
    await peer.until(
      said => said.topic === `realtime:witness ${i}` && said.payload.message?.startsWith('TABLE_UNKNOWN'),
    )
    await database.query('CREATE TABLE public.coming (id int PRIMARY KEY); GRANT SELECT ON coming TO authenticated')
    await trackTables(database, ['coming'])
    await heard()
  }
  expect(peer.of('phx_error')).toEqual([])
})

test('[P7] two thousand joins and leaves leave the heap as it was', async () => {
  const token = await tokenFor(alice)
  const churn = async (count: number): Promise<void> => {
    await using peer = await Peer.open(node.url, token)
    const config = { ...bound('messages'), presence: { enabled: true } }
    for (let done = 0; done < count; done += 50) {
      const before = peer.said.length
      for (let i = 0; i < 50; i += 1)
        peer.push(`realtime:room ${i}`, 'phx_join', { config: { ...config, n: done + i } })
      await eventually(() =>
        expect(peer.said.slice(before).filter(({ event }) => event === 'phx_reply')).toHaveLength(50),
      )
      for (let i = 0; i < 50; i += 1) peer.push(`realtime:room ${i}`, 'phx_leave')
      await eventually(() =>
        expect(peer.said.slice(before).filter(({ event }) => event === 'phx_close')).toHaveLength(50),
      )
      peer.said.length = 0
    }
  }
  await churn(500)
  const before = heapUsed()
  await churn(2000)
  expect(heapUsed() - before).toBeLessThan(3e6)
}, 60_000)

function heapUsed(): number {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  for (let i = 0; i < 3; i += 1) collect()
  return process.memoryUsage().heapUsed
}
