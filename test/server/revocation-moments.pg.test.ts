// Grants and revocations at the worst moment: stalled before what they hide, held while their rows are read, cut off in
// between, taken back before they were told.
import { once } from 'node:events'
import pg from 'pg'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { WebSocket } from 'ws'
import { LocalPostgres } from '../../src/cli/local-postgres.ts'
import type { DeltaEvent } from '../../src/protocol/messages.ts'
import {
  asSet,
  person,
  prepareDatabase,
  roomsSchema,
  type SseEvent,
  SseStream,
  StrictRows,
  selectAs,
  TestNode,
  tokenFor,
} from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { Reader, type Wire, wires } from '../support/readers.ts'
import { Stalled, until } from '../support/stalled.ts'

let server: LocalPostgres
let database: TestDatabase
let node: TestNode
let stalled: Stalled | null = null
let ada: string
let token: string
let readers: { leave(): Promise<void> }[] = []

/** Messages are for members of their room, and for those with whom they are shared. Notes are for everybody. */
const schema = `${roomsSchema}
  CREATE TABLE public.shares (message_id bigint, user_id uuid, PRIMARY KEY (message_id, user_id));
  ALTER TABLE public.shares ENABLE ROW LEVEL SECURITY;
  CREATE POLICY own ON public.shares FOR SELECT TO authenticated USING (user_id = (SELECT auth.uid()));
  CREATE POLICY by_share ON public.messages FOR SELECT TO authenticated USING (
    id IN (SELECT s.message_id FROM public.shares s WHERE s.user_id = (SELECT auth.uid())));
  CREATE TABLE public.notes (id bigint PRIMARY KEY, body text);
  ALTER TABLE public.notes ENABLE ROW LEVEL SECURITY;
  CREATE POLICY everybody ON public.notes FOR SELECT TO authenticated USING (true);
  GRANT SELECT ON public.shares, public.notes TO authenticated;`

beforeAll(async () => {
  server = await LocalPostgres.create({ settings: { fsync: 'off' } })
  await server.start()
  database = await TestDatabase.create(server.url)
  await prepareDatabase(database, schema, ['rooms', 'members', 'messages', 'shares', 'notes'])
  await database.query('SET synchronous_commit = local')
  node = await TestNode.start(database.url, { MAX_HELD_MS: '60000', SLOT_MAX_BYTES: '268435456' })
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
  await server?.stop()
})

beforeEach(async () => {
  ada = person()
  token = await tokenFor(ada)
  await database.query('DELETE FROM messages; DELETE FROM notes')
  await database.query(`INSERT INTO members VALUES (1, '${ada}');
    INSERT INTO messages VALUES (1, 1, 'a', 'one'), (2, 2, 'a', 'two'), (3, 2, 'a', 'three')`)
})

afterEach(async () => {
  for (const reader of readers) await reader.leave()
  readers = []
  await stalled?.[Symbol.asyncDispose]()
  stalled = null
})

const grant = () => `INSERT INTO members VALUES (2, '${ada}')`
const revoke = (room = 1) => `DELETE FROM members WHERE room_id = ${room} AND user_id = '${ada}'`
const share = (id: number) => `INSERT INTO shares VALUES (${id}, '${ada}')`
const unshare = (id: number) => `DELETE FROM shares WHERE message_id = ${id} AND user_id = '${ada}'`
const select = () => selectAs(database, ada, 'SELECT * FROM messages')

async function come(transport: Wire, kind: 'live' | 'changes' = 'live', table = 'messages'): Promise<Reader> {
  const reader = new Reader(transport, kind, table, token)
  await reader.come(node)
  readers.push(reader)
  if (kind === 'live') await reader.until(() => reader.rows.exact)
  return reader
}

async function equalsSelect(reader: Reader): Promise<void> {
  const expected = asSet(await select()).join()
  await reader.until(() => asSet(reader.rows.list()).join() === expected)
  expect(reader.resyncs).toEqual([])
}

let marks = 5000

/** Resolves when everything committed so far has reached this reader of messages. */
async function passed(reader: Reader, room: number): Promise<void> {
  const id = marks++
  await database.query(`INSERT INTO messages VALUES (${id}, ${room}, 'w', 'mark')`)
  await reader.until(() => reader.rows.rows.has(`[${id}]`) || reader.changes.some(({ key }) => key?.id === id))
}

/** Nobody can read messages: what a grant moves cannot be had, and its readers are held. */
class Locked implements AsyncDisposable {
  readonly #client: pg.Client

  private constructor(client: pg.Client) {
    this.#client = client
  }

  static async begin(): Promise<Locked> {
    const client = new pg.Client({ connectionString: database.url })
    await client.connect()
    await client.query('BEGIN; LOCK TABLE messages IN ACCESS EXCLUSIVE MODE')
    return new Locked(client)
  }

  /** Resolves when somebody waits for the rows. */
  async wanted(): Promise<void> {
    await until(async () => {
      const waiting = await database.query<{ n: number }>(
        `SELECT count(*)::int AS n FROM pg_locks WHERE relation = 'messages'::regclass AND NOT granted`,
      )
      return waiting[0]!.n > 0
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#client.end()
  }
}

test.each(wires)('[P3] %s: a revocation stalled before the message that it hides, hides it', async transport => {
  await database.query(grant())
  const standing = [await come(transport), await come(transport, 'changes')]
  stalled = await Stalled.begin(database.url)
  await stalled.commit(revoke(1))
  await database.query(`INSERT INTO messages VALUES (9, 1, 'w', 'the secret')`)
  // SQL shows the message and not the revocation before it: whoever asked SQL would send it.
  expect((await select()).map(({ body }) => body)).toContain('the secret')
  const late = [await come(transport), await come(transport, 'changes')]
  for (const reader of [...standing, ...late]) await passed(reader, 2)
  await stalled.release()
  for (const reader of [...standing, ...late]) {
    await passed(reader, 2)
    if (reader.kind === 'live') await equalsSelect(reader)
    expect(reader.events.join()).not.toContain('the secret')
  }
})

test('[P3] one who comes back between the two is not sent it either', async () => {
  await database.query(grant())
  const gone = [
    await come('sse'),
    await come('sse', 'changes'),
    await come('long-poll'),
    await come('long-poll', 'changes'),
  ]
  for (const reader of gone) {
    await passed(reader, 2)
    await reader.leave()
  }
  stalled = await Stalled.begin(database.url)
  await stalled.commit(revoke(1))
  await database.query(`INSERT INTO messages VALUES (9, 1, 'w', 'the secret')`)
  for (const reader of gone) {
    await reader.come(node)
    await passed(reader, 2)
  }
  await stalled.release()
  for (const reader of gone) {
    await passed(reader, 2)
    if (reader.kind === 'live') await equalsSelect(reader)
    expect(reader.events.join()).not.toContain('the secret')
  }
})

/** Messages and notes in one connection or stream, able to leave and to come back at its position. */
class Both {
  readonly #transport: Wire
  readonly messages = new StrictRows()
  readonly notes = new StrictRows()
  /** Keys of messages, as often as they were inserted. */
  readonly inserted: number[] = []
  failure: unknown = null
  /** Of the stream, or of each of the two. */
  #positions: [string | null, string | null] = [null, null]
  #leave = (): void => {}

  constructor(transport: Wire) {
    this.#transport = transport
  }

  async come(): Promise<void> {
    if (this.#transport === 'websocket') await this.#bySocket()
    else if (this.#transport === 'sse') await this.#byStream()
    else this.#byPolls()
  }

  async leave(): Promise<void> {
    this.#leave()
  }

  async until(condition: () => boolean): Promise<void> {
    await until(() => {
      if (this.failure !== null) throw this.failure
      return condition()
    })
  }

  #take(q: number, event: string, data: unknown): void {
    try {
      if (event === 'error') throw new Error(JSON.stringify(data))
      if (q === 0 && event === 'delta')
        for (const change of (data as DeltaEvent).changes)
          if (change.op === 'insert') this.inserted.push(Number(change.key.id))
      ;[this.messages, this.notes][q]!.take({ event, data })
    } catch (error) {
      this.failure ??= error
    }
  }

  async #byStream(): Promise<void> {
    const last = this.#positions[0] ?? undefined
    const stream = await SseStream.open(node, '/v1/live?q=messages&q=notes', token, last)
    const take = ({ event, id, data }: SseEvent): void => {
      if (id !== '') this.#positions[0] = id
      const { q } = data as { q?: number }
      if (q !== undefined) this.#take(q, event, data)
    }
    for (const event of stream.events) take(event)
    stream.onEvent = take
    this.#leave = () => stream.close()
  }

  #byPolls(): void {
    const abort = new AbortController()
    const { signal } = abort
    const poll = async (): Promise<void> => {
      while (!signal.aborted) {
        const [after] = this.#positions
        const query = after === null ? '' : `&after=${encodeURIComponent(after)}&wait=20`
        const headers = { authorization: `Bearer ${token}`, accept: 'application/json' }
        const response = await fetch(`${node.url}/v1/live?q=messages&q=notes${query}`, { headers, signal })
        if (response.status === 304) continue
        const body = (await response.json()) as { events: { event: string; data: { q: number } }[]; position: string }
        if (signal.aborted) return
        for (const { event, data } of body.events) this.#take(data.q, event, data)
        this.#positions[0] = body.position
      }
    }
    poll().catch(error => {
      if (!signal.aborted) this.failure ??= error
    })
    this.#leave = () => abort.abort()
  }

  async #bySocket(): Promise<void> {
    const headers = { authorization: `Bearer ${token}` }
    const socket = new WebSocket(`${node.url.replace('http', 'ws')}/v1/socket`, { headers })
    let isGone = false
    const queries = new Map<number, number>()
    const tags: string[] = []
    socket.on('error', () => {})
    await once(socket, 'open')
    socket.on('message', text => {
      const frame = JSON.parse(String(text)) as {
        type: string
        id?: number
        query?: number
        position?: string
        tag?: string
      }
      if (isGone || frame.type === 'welcome' || frame.type === 'heartbeat') return
      if (frame.type === 'subscribed') {
        queries.set(frame.query!, frame.id!)
        tags[frame.id!] = frame.tag!
      }
      const q = frame.id ?? queries.get(frame.query!)!
      const isState = frame.type === 'snapshot' || frame.type === 'delta'
      if (isState && frame.position !== undefined) this.#positions[q] = `${frame.position}.${tags[q]}`
      this.#take(q, frame.type, frame)
    })
    for (const [id, table] of ['messages', 'notes'].entries()) {
      const since = this.#positions[id]
      socket.send(JSON.stringify({ type: 'subscribe', id, kind: 'live', table, ...(since === null ? {} : { since }) }))
    }
    this.#leave = () => {
      isGone = true
      socket.terminate()
    }
  }
}

test.each(wires)(
  '[P4] %s: a client cut between a grant and its move-in, ten later deltas received, gets the granted rows once',
  async transport => {
    const both = new Both(transport)
    readers.push(both)
    await both.come()
    await both.until(() => both.messages.exact && both.notes.exact)
    {
      await using locked = await Locked.begin()
      await database.query(grant())
      await locked.wanted()
      for (let id = 1; id <= 10; id++) await database.query(`INSERT INTO notes VALUES (${id}, 'note')`)
      await both.until(() => both.notes.rows.size === 10)
      expect([...both.messages.rows.keys()]).toEqual(['[1]'])
      await both.leave()
    }
    await both.come()
    await both.until(() => both.messages.rows.size === 3)
    await database.query(`INSERT INTO notes VALUES (11, 'later'); INSERT INTO messages VALUES (4, 2, 'a', 'later')`)
    await both.until(() => both.notes.rows.size === 11 && both.messages.rows.size === 4)
    expect(both.inserted).toEqual([2, 3, 4])
    expect(asSet(both.messages.list())).toEqual(asSet(await select()))
    expect([both.messages.resyncs, both.notes.resyncs]).toEqual([[], []])
  },
)

test.each(wires)(
  '[P4] [P5] %s: ten commits behind a grant whose rows cannot be had yet wait for it; one cut meanwhile gets all once',
  async transport => {
    const stays = await come(transport)
    const goes = await come(transport)
    {
      await using locked = await Locked.begin()
      await database.query(grant())
      await locked.wanted()
      for (let i = 0; i < 10; i++) await database.query(share(1000 + i))
      await goes.leave()
    }
    for (let i = 0; i < 10; i++) await database.query(`INSERT INTO messages VALUES (${10 + i}, 1, 'a', 'behind')`)
    await goes.come(node)
    for (const reader of [stays, goes]) await equalsSelect(reader)
  },
)

test.each(wires)('[P3] %s: a grant that is revoked while its rows are read tells nothing of them', async transport => {
  const reader = await come(transport)
  {
    await using locked = await Locked.begin()
    await database.query(grant())
    await locked.wanted()
    await database.query(revoke(2))
  }
  await passed(reader, 1)
  await equalsSelect(reader)
  expect(reader.events.join()).not.toMatch(/"two"|"three"/)
})

test('[P1] a grant revoked while its rows are read, and given again, tells of them once', async () => {
  const reader = await come('sse')
  {
    await using locked = await Locked.begin()
    await database.query(grant())
    await locked.wanted()
    await database.query(revoke(2))
    await database.query(grant())
  }
  await equalsSelect(reader)
  await passed(reader, 1)
  expect(reader.events.join().match(/"two"/g)).toHaveLength(1)
})

/** Two ways to see message 1: by its room, and by its share. */
test.each([
  ['share, then leave the room', () => [share(1), revoke(1)], true],
  ['share and leave the room at once', () => [`BEGIN; ${share(1)}; ${revoke(1)}; COMMIT`], true],
  ['leave the room and share at once', () => [`BEGIN; ${revoke(1)}; ${share(1)}; COMMIT`], true],
  ['share, then unshare', () => [share(1), unshare(1)], true],
  ['share and unshare at once', () => [`BEGIN; ${share(1)}; ${unshare(1)}; COMMIT`], true],
  [
    'share, leave the room, come back, unshare',
    () => [share(1), revoke(1), `INSERT INTO members VALUES (1, '${ada}')`, unshare(1)],
    true,
  ],
  ['share, leave the room, unshare', () => [share(1), revoke(1), unshare(1)], false],
  ['share, unshare, leave the room', () => [share(1), unshare(1), revoke(1)], false],
  ['share, then lose both at once', () => [share(1), `BEGIN; ${unshare(1)}; ${revoke(1)}; COMMIT`], false],
])('[P1] [P3] a row visible by two branches: %s', async (_, statements, stays) => {
  await database.query(`INSERT INTO members VALUES (7, '${ada}')`)
  const [live, changes] = [await come('sse'), await come('sse', 'changes')]
  for (const sql of statements()) await database.query(sql)
  for (const reader of [live, changes]) await passed(reader, 7)
  await equalsSelect(live)
  expect(live.rows.rows.has('[1]')).toBe(stays)
  // Who still may see it is told nothing, who may not that it has gone. Nobody touched it.
  const told = live.events.filter(event => event.startsWith('delta') && event.includes('"key":{"id":1}'))
  expect(told).toHaveLength(stays ? 0 : 1)
  expect(changes.changes.filter(({ key }) => key?.id === 1)).toEqual([])
})

test('[P1] [P3] a row visible by two branches, the one revoked while the other is still being read', async () => {
  await database.query(`INSERT INTO members VALUES (7, '${ada}')`)
  const reader = await come('sse')
  {
    await using locked = await Locked.begin()
    await database.query(share(1))
    await locked.wanted()
    await database.query(revoke(1))
  }
  await passed(reader, 7)
  await equalsSelect(reader)
  expect(reader.events.filter(event => event.includes('"key":{"id":1}'))).toEqual([])
})
