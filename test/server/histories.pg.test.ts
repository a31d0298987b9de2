// Random histories: writers that never agree, readers that come and go, grants and revocations in between. At every quiet
// point each live query equals its reader's SELECT, and each event of a changes subscription came exactly once.
import { randomInt } from 'node:crypto'
import pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { asSet, LiveSse, person, prepareDatabase, selectAs, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'

const schema = `
  CREATE TABLE public.members (room_id int NOT NULL, user_id uuid NOT NULL, role text NOT NULL DEFAULT 'reader',
    PRIMARY KEY (room_id, user_id));
  CREATE TABLE public.messages (id int PRIMARY KEY, room_id int, is_public boolean NOT NULL DEFAULT false, body text);
  ALTER TABLE public.members ENABLE ROW LEVEL SECURITY;
  ALTER TABLE public.messages ENABLE ROW LEVEL SECURITY;
  CREATE POLICY own ON public.members FOR SELECT TO authenticated USING (user_id = (SELECT auth.uid()));
  CREATE POLICY readers ON public.messages FOR SELECT TO authenticated USING (
    is_public OR EXISTS (SELECT 1 FROM public.members m
      WHERE m.room_id = messages.room_id AND m.user_id = (SELECT auth.uid()) AND m.role IN ('reader', 'owner')));
  GRANT SELECT ON public.members, public.messages TO authenticated;
  GRANT USAGE ON SCHEMA public TO authenticated;
`

const rooms = 5
const ids = 60
const users = Array.from({ length: 5 }, person)
const filters = ['', '?room_id=eq.1', '?body=like.a*&select=id,body', '?or=(room_id.in.(2,3),is_public.is.true)']
const where = ['true', 'room_id = 1', `body LIKE 'a%'`, 'room_id IN (2, 3) OR is_public']
const select = ['*', '*', 'id, body', '*']

let database: TestDatabase
let node: TestNode

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, schema, ['members', 'messages'])
  node = await TestNode.start(database.url, { SNAPSHOT_CHUNK_ROWS: '7', MAX_HELD_MS: '10000', AUDIENCE_GRACE_MS: '50' })
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

/** A small generator, so that a seed repeats a run's choices. */
function generator(seed: number) {
  let state = seed >>> 0
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
  const below = (n: number): number => Math.floor(next() * n)
  const pick = <T>(items: readonly T[]): T => items[below(items.length)]!
  return { below, pick }
}

type Random = ReturnType<typeof generator>

function statement({ below, pick }: Random): string {
  const id = below(ids)
  const room = below(rooms)
  const user = pick(users)
  const role = pick(['reader', 'reader', 'owner', 'banned'])
  const body = pick(['alpha', 'apple', 'beta', 'gamma']) + below(100)
  return pick([
    () =>
      `INSERT INTO messages VALUES (${id}, ${room}, ${below(8) === 0}, '${body}') ON CONFLICT (id) DO UPDATE SET body = excluded.body`,
    () => `INSERT INTO messages VALUES (${id}, ${room}, false, '${body}') ON CONFLICT DO NOTHING`,
    () => `UPDATE messages SET body = '${body}' WHERE id = ${id}`,
    () => `UPDATE messages SET room_id = ${below(9) === 0 ? 'NULL' : room} WHERE id = ${id}`,
    () => `UPDATE messages SET is_public = NOT is_public WHERE id = ${id}`,
    () => `UPDATE messages SET id = ${below(ids)} + 1000 * (random() * 1000)::int WHERE id = ${id}`,
    () => `DELETE FROM messages WHERE id = ${id} OR id > 1000 AND id % 7 = ${below(7)}`,
    () => `UPDATE messages SET room_id = (room_id + 1) % ${rooms} WHERE id % 11 = ${below(11)}`,
    () =>
      `INSERT INTO members VALUES (${room}, '${user}', '${role}') ON CONFLICT (room_id, user_id) DO UPDATE SET role = excluded.role`,
    () => `DELETE FROM members WHERE user_id = '${user}' AND room_id = ${room}`,
    () => `UPDATE members SET role = '${role}' WHERE user_id = '${user}'`,
    () => `DELETE FROM members WHERE room_id = ${room}`,
    () => (below(12) === 0 ? 'TRUNCATE messages' : `DELETE FROM messages WHERE id = ${id}`),
    () => (below(25) === 0 ? 'TRUNCATE members' : `DELETE FROM members WHERE user_id = '${user}'`),
    () => `SAVEPOINT s; UPDATE messages SET body = 'rolled back'; ROLLBACK TO s`,
  ])()
}

async function write(random: Random, signal: { stop: boolean }): Promise<number> {
  const client = new pg.Client({ connectionString: database.url })
  await client.connect()
  let commits = 0
  try {
    while (!signal.stop) {
      const count = random.pick([1, 1, 1, 2, 3, 6])
      const sync = random.pick(['on', 'off', 'local'])
      const statements = Array.from({ length: count }, () => statement(random)).join('; ')
      try {
        await client.query(`BEGIN; SET LOCAL synchronous_commit = ${sync}; ${statements}; COMMIT`)
        commits += 1
      } catch (error) {
        // Unique keys and deadlocks are part of the game.
        await client.query('ROLLBACK')
        const code = (error as { code?: string }).code
        if (code !== '23505' && code !== '40P01') throw error
      }
    }
  } finally {
    await client.end()
  }
  return commits
}

interface Reader {
  readonly user: string
  readonly token: string
  readonly kind: number
  live: LiveSse
}

async function openReader(random: Random): Promise<Reader> {
  const user = random.pick(users)
  const kind = random.below(filters.length)
  const token = await tokenFor(user)
  const live = await LiveSse.open(node, `/v1/live/messages${filters[kind]}`, token)
  return { user, token, kind, live }
}

/** Waits until the reader's rows are those of its SELECT, and says what differs when they do not become so. */
async function settle(reader: Reader): Promise<void> {
  const expected = asSet(
    await selectAs(database, reader.user, `SELECT ${select[reader.kind]} FROM messages WHERE ${where[reader.kind]}`),
  )
  const same = (): boolean => asSet(reader.live.rows.list()).join() === expected.join()
  await reader.live.stream
    .waitFor(() => (reader.live.rows.exact && same()) || reader.live.failure !== null)
    .catch(() => {})
  if (reader.live.failure !== null) {
    const at = reader.live.rows.history.findIndex(line => line.startsWith('FAILED'))
    const key = /\[(\d+)\]/.exec(String(reader.live.failure))?.[1]
    console.log(
      reader.live.rows.history
        .slice(0, at + 1)
        .filter(
          (line, i) =>
            i > at - 6 ||
            line.includes(`"id":${key}}`) ||
            line.includes(`"id":${key},`) ||
            / (resync|subscribed|snapshot) /.test(line),
        )
        .map(line => line.slice(0, 300))
        .join('\n'),
    )
  }
  expect(reader.live.failure, `${filters[reader.kind]}`).toBe(null)
  expect(asSet(reader.live.rows.list()), filters[reader.kind]).toEqual(expected)
}

const rounds = Number(process.env.HISTORY_ROUNDS ?? 6)

test('[P1] [P4] random histories: every live query equals its SELECT at every quiet point', {
  timeout: 60_000 + rounds * 20_000,
}, async () => {
  const seed = Number(process.env.TEST_SEED ?? randomInt(2 ** 31))
  console.log(`histories: seed ${seed}`)
  const random = generator(seed)
  let readers: Reader[] = []
  let commits = 0
  let resumed = 0
  const resyncs: Record<string, number> = {}
  for (let round = 0; round < rounds; round++) {
    const signal = { stop: false }
    const writers = Array.from({ length: 4 }, (_, i) => write(generator(seed + round * 100 + i), signal))
    for (let step = 0; step < 12; step++) {
      const dice = random.below(10)
      if (readers.length < 12 || dice < 3) readers.push(await openReader(random))
      else {
        const reader = random.pick(readers)
        if (dice < 5) {
          reader.live.stream.close()
          readers = readers.filter(other => other !== reader)
        } else if (reader.live.stream.lastEventId !== '' && reader.live.rows.exact) {
          reader.live.stream.close()
          await new Promise(resolve => setImmediate(resolve))
          reader.live = await LiveSse.open(node, `/v1/live/messages${filters[reader.kind]}`, reader.token, reader.live)
          resumed += 1
        }
      }
      await new Promise(resolve => setTimeout(resolve, random.below(60)))
    }
    signal.stop = true
    for (const count of await Promise.all(writers)) commits += count
    for (const reader of readers) await settle(reader)
  }
  for (const reader of readers) {
    for (const code of reader.live.rows.resyncs) resyncs[code] = (resyncs[code] ?? 0) + 1
    reader.live.stream.close()
  }
  console.log(
    `histories: ${commits} commits, ${readers.length} readers at the end, ${resumed} resumed, resyncs ${JSON.stringify(resyncs)}`,
  )
  expect(commits).toBeGreaterThan(100)
  expect(Object.keys(resyncs).filter(code => code !== 'INPUTS_CHANGED')).toEqual([])
})
