// What Supabase's clients are not told any more once their right is gone: behind a slow socket, while a join is not answered, while
// another user takes a channel over, in private channels and of who is there.
import pg from 'pg'
import { afterAll, beforeAll, beforeEach, expect, test, vi } from 'vitest'
import { SendQueue } from '../../../../src/server/deliver/send-queue.ts'
import { channelPolicies } from '../../../support/channel-client.ts'
import { eventually } from '../../../support/eventually.ts'
import { person, prepareDatabase, roomsSchema, TestNode, tokenFor } from '../../../support/node.ts'
import { TestDatabase } from '../../../support/postgres.ts'
import { Queues } from '../../../support/slow-reader.ts'
import { Peer } from './support/peer.ts'

const stack = new AsyncDisposableStack()
let database: TestDatabase
let node: TestNode

// A second table under the same policy, whose reader waits for a lock while it joins.
const notes = `
  CREATE TABLE public.notes (id bigint PRIMARY KEY, room_id int NOT NULL, body text);
  ALTER TABLE public.notes ENABLE ROW LEVEL SECURITY;
  CREATE POLICY by_membership ON public.notes FOR SELECT TO authenticated USING (
    EXISTS (SELECT 1 FROM public.members m WHERE m.room_id = notes.room_id AND m.user_id = (SELECT auth.uid())));
  GRANT SELECT ON public.notes TO authenticated;`

/** Asked of Postgres, and slow while the lock 77 is held. */
const slow = `
  CREATE FUNCTION public.waits(room int) RETURNS boolean LANGUAGE plpgsql VOLATILE AS
    $$ BEGIN PERFORM pg_advisory_xact_lock_shared(77); RETURN true; END $$;
  CREATE TABLE public.slow (id bigint PRIMARY KEY, room_id int NOT NULL);
  ALTER TABLE public.slow ENABLE ROW LEVEL SECURITY;
  CREATE POLICY slow ON public.slow FOR SELECT TO authenticated USING (public.waits(room_id));
  GRANT SELECT ON public.slow TO authenticated;
  INSERT INTO public.slow VALUES (1, 1);`

beforeAll(async () => {
  database = stack.use(await TestDatabase.create())
  const tables = ['rooms', 'members', 'messages', 'notes', 'slow']
  await prepareDatabase(database, roomsSchema + notes + slow + channelPolicies, tables)
  node = stack.use(await TestNode.start(database.url))
}, 120_000)

afterAll(() => stack.disposeAsync(), 60_000)

let alice: string
let bob: string
let aliceToken: string
let bobToken: string
let nextId = 1

beforeEach(async () => {
  alice = person()
  bob = person()
  ;[aliceToken, bobToken] = await Promise.all([tokenFor(alice), tokenFor(bob)])
  await database.query(`DELETE FROM members; DELETE FROM messages; DELETE FROM notes;
    INSERT INTO members VALUES (1, '${alice}'), (2, '${alice}'), (2, '${bob}')`)
})

const filler = 'x'.repeat(60_000)
const insert = (room: number, body: string, table = 'messages'): Promise<unknown> =>
  database.query(`INSERT INTO ${table} (id, room_id, body) VALUES ($1, $2, $3)`, [nextId++, room, body])
const fill = async (): Promise<void> => void (await insert(2, filler))
const revoke = (): Promise<unknown> => database.query(`DELETE FROM members WHERE room_id = 1 AND user_id = '${alice}'`)
const bound = (...tables: string[]) => ({
  postgres_changes: tables.map(table => ({ event: '*', schema: 'public', table })),
})
const bodies = (peer: Peer, topic?: string): string[] =>
  peer.of('postgres_changes', topic).map(({ payload: { data } }) => (data.record ?? data.old_record).body)

/** By then everything committed so far has been served. */
async function served(): Promise<void> {
  const sub = person()
  await database.query(`INSERT INTO members VALUES (3, '${sub}')`)
  await using witness = await Peer.open(node.url, await tokenFor(sub))
  await witness.join('realtime:witness', bound('messages'))
  await insert(3, 'seen')
  await eventually(() => expect(bodies(witness)).toEqual(['seen']))
}

test.each([[['messages']], [['messages', 'notes']]])(
  '[P2] [P3] [P4] what waits for a slow reader of %j is not sent once it is hidden, all else once and in order',
  async tables => {
    using queues = new Queues()
    await using peer = await Peer.open(node.url, aliceToken)
    await peer.join('realtime:a', bound(...tables))
    peer.ws.pause()
    await queues.stall(fill)
    await insert(1, 'the secret')
    await insert(2, 'before')
    if (tables.length > 1) await insert(1, 'the secret note', 'notes')
    await database.query(`BEGIN; DELETE FROM members WHERE room_id = 1 AND user_id = '${alice}';
      INSERT INTO messages (id, room_id, body) VALUES (${nextId++}, 1, 'the secret of the commit'); COMMIT`)
    await insert(1, 'the secret after')
    await insert(2, 'after')
    await served()
    expect(queues.taken).toBeGreaterThan(0)
    peer.ws.resume()
    await eventually(() => expect(bodies(peer).at(-1)).toBe('after'))
    expect(bodies(peer).filter(body => body !== filler)).toEqual(['before', 'after'])
    const ids = peer.ids() as number[]
    expect(ids).toEqual([...new Set(ids)].sort((a, b) => a - b))
    expect(peer.of('phx_error')).toEqual([])
  },
)

test('[P2] [P3] what waits for a slow reader is not sent after a second join of its channel either', async () => {
  using queues = new Queues()
  await using peer = await Peer.open(node.url, aliceToken)
  await peer.join('realtime:a', bound('messages'))
  peer.ws.pause()
  await queues.stall(fill)
  await insert(1, 'the secret')
  await insert(2, 'before')
  await served()
  const ref = peer.push('realtime:a', 'phx_join', { config: bound('messages') })
  await eventually(() => expect(pushed(`"${ref}","${ref}","realtime:a","phx_reply"`)).toBe(true))
  await revoke()
  await insert(2, 'after')
  await served()
  peer.ws.resume()
  await eventually(() => expect(bodies(peer).at(-1)).toBe('after'))
  expect(bodies(peer).filter(body => body !== filler)).toEqual(['before', 'after'])
})

test('[P2] [P3] nor after another user took its channel over', async () => {
  using queues = new Queues()
  await using peer = await Peer.open(node.url, aliceToken)
  await peer.join('realtime:a', bound('messages'))
  peer.ws.pause()
  await queues.stall(fill)
  await insert(1, 'the secret')
  await insert(2, 'before')
  await served()
  peer.push('realtime:a', 'access_token', { access_token: bobToken })
  await eventually(() => expect(pushed('RESYNC')).toBe(true))
  await revoke()
  await served()
  peer.ws.resume()
  // What waited was the other's to see: their client begins anew.
  await peer.until(({ event }) => event === 'phx_error')
  await peer.join('realtime:a', bound('messages'), bobToken)
  await insert(2, 'after')
  await eventually(() => expect(bodies(peer)).toContain('after'))
  expect(bodies(peer)).not.toContain('the secret')
})

/** Whether such a text was handed to a queue. */
const pushed = (text: string): boolean =>
  vi.spyOn(SendQueue.prototype, 'push').mock.calls.some(([frame]) => frame.includes(text))

test('[P2] [P3] what came while a join is not answered is not sent once it is hidden', async () => {
  await using peer = await Peer.open(node.url, aliceToken)
  const lock = await held(77)
  const ref = peer.push('realtime:a', 'phx_join', { config: bound('messages', 'slow') })
  await using other = await Peer.open(node.url, aliceToken)
  await other.join('realtime:other', bound('messages'))
  await insert(1, 'the secret')
  await insert(2, 'before')
  await eventually(() => expect(bodies(other)).toHaveLength(2))
  await revoke()
  await insert(2, 'after')
  await served()
  expect(peer.said).toEqual([])
  await lock.release()
  await peer.until(said => said.ref === ref && said.payload.status === 'ok')
  await eventually(() => expect(bodies(peer).at(-1)).toBe('after'))
  expect(bodies(peer)).not.toContain('the secret')
})

test('[P3] [P4] [P8] a private channel whose right goes while its join is not answered yet ends, and its client is told', async () => {
  await using peer = await Peer.open(node.url, aliceToken)
  const lock = await held(77)
  const config = { private: true, broadcast: { self: true, ack: true }, presence: { enabled: true } }
  const ref = peer.push('realtime:room:1', 'phx_join', { config: { ...config, ...bound('slow') } })
  // Another of theirs stands already, so that this one does too but for the table.
  await using other = await Peer.open(node.url, aliceToken)
  await other.join('realtime:room:1', config)
  await other.ask('realtime:room:1', 'presence', { type: 'presence', event: 'track', payload: { name: 'hidden' } })
  await other.ask('realtime:room:1', 'broadcast', { type: 'broadcast', event: 'e', payload: { text: 'hidden' } })
  await revoke()
  await other.until(({ event }) => event === 'phx_error')
  await lock.release()
  const reply = await peer.until(said => said.ref === ref && said.event === 'phx_reply')
  if (reply.payload.status === 'ok') await peer.until(({ event }) => event === 'phx_error')
  else expect(reply.payload.response.reason).toContain('Unauthorized')
  expect(JSON.stringify(peer.said)).not.toContain('hidden')
  expect((await peer.join('realtime:room:1', config)).response.reason).toContain('Unauthorized')
})

test('[P2] [P3] a private channel ends for a slow reader with what waits of it, also of who is there', async () => {
  using queues = new Queues()
  await database.query(`INSERT INTO members VALUES (1, '${bob}')`)
  await using peer = await Peer.open(node.url, aliceToken)
  await using other = await Peer.open(node.url, bobToken)
  const config = { private: true, presence: { enabled: true, key: bob } }
  await other.join('realtime:room:1', { ...config, broadcast: { ack: true } })
  await peer.join('realtime:room:1', { private: true, presence: { enabled: true } })
  await peer.join('realtime:filled', bound('messages'))
  peer.ws.pause()
  await queues.stall(fill)
  const secret = { text: 'the secret' }
  await other.ask('realtime:room:1', 'broadcast', { type: 'broadcast', event: 'e', payload: secret })
  const tracked = await other.ask('realtime:room:1', 'presence', { type: 'presence', event: 'track', payload: secret })
  expect(tracked.status).toBe('ok')
  await other.until(({ event }) => event === 'presence_diff')
  await revoke()
  await served()
  peer.ws.resume()
  await peer.until(({ event, topic }) => event === 'phx_error' && topic === 'realtime:room:1')
  expect(JSON.stringify(peer.said)).not.toContain('the secret')
  expect(peer.of('system', 'realtime:room:1').at(-1)?.payload).toMatchObject({ status: 'error' })
  const again = await peer.join('realtime:room:1', { private: true })
  expect(again.response.reason).toMatch(/^Unauthorized: /)
  // The others of its socket stand.
  await insert(2, 'after')
  await eventually(() => expect(bodies(peer, 'realtime:filled')).toContain('after'))
})

/** @returns what lets it go */
async function held(lock: number) {
  const client = new pg.Client({ connectionString: database.url })
  await client.connect()
  await client.query(`SELECT pg_advisory_lock(${lock})`)
  return {
    release: async () => {
      await client.query(`SELECT pg_advisory_unlock(${lock})`)
      await client.end()
    },
  }
}
