// One history over every wire at once, each cut and taken up again where it stood: the same rows, the same events.
import { once } from 'node:events'
import { SignJWT } from 'jose'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { WebSocket } from 'ws'
import { LocalPostgres } from '../../src/cli/local-postgres.ts'
import type { ChangeEvent } from '../../src/protocol/messages.ts'
import { comparePositions, parsePosition, parseQueryPositions } from '../../src/protocol/position.ts'
import {
  asSet,
  jwtSecret,
  person,
  prepareDatabase,
  roomsSchema,
  SseStream,
  StrictRows,
  selectAs,
  TestNode,
  tokenFor,
} from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { Reader, wires } from '../support/readers.ts'

let server: LocalPostgres
let database: TestDatabase
let node: TestNode
const ada = person()
let token: string

beforeAll(async () => {
  // A server of its own, whose log tells every statement.
  server = await LocalPostgres.create({ settings: { log_statement: 'all', log_line_prefix: '%a@%d ', fsync: 'off' } })
  await server.start()
  database = await TestDatabase.create(server.url)
  await prepareDatabase(database, roomsSchema, ['rooms', 'members', 'messages'])
  node = await TestNode.start(database.url)
  token = await tokenFor(ada)
  await database.query(
    `INSERT INTO members VALUES (1, '${ada}'), (2, '${ada}'); INSERT INTO rooms VALUES (1, 'one'), (2, 'two'), (3, 'three')`,
  )
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.client.end()
  await server?.stop()
})

/** Several queries in one event stream, one position for all. */
class ManySse {
  readonly kind: 'live' | 'changes'
  readonly tables: readonly string[]
  readonly rows: StrictRows[]
  readonly changes: ChangeEvent[][]
  failure: unknown = null
  position: string | undefined
  #stream: SseStream | null = null

  constructor(kind: 'live' | 'changes', tables: readonly string[]) {
    this.kind = kind
    this.tables = tables
    this.rows = tables.map(() => new StrictRows())
    this.changes = tables.map(() => [])
  }

  async come(): Promise<void> {
    const query = new URLSearchParams(this.tables.map(table => ['q', table]))
    this.#stream = await SseStream.open(node, `/v1/${this.kind}?${query}`, token, this.position)
    expect(this.#stream.errorBody).toEqual({})
    const take = ({ event, id, data }: { event: string; id: string; data: unknown }): void => {
      const { q } = data as { q?: number }
      if (id !== '') this.position = id
      try {
        if (q !== undefined && event === 'change') this.changes[q]!.push(data as ChangeEvent)
        else if (q !== undefined) this.rows[q]!.take({ event, data })
      } catch (error) {
        this.failure ??= error
      }
    }
    for (const event of this.#stream.events) take(event)
    this.#stream.onEvent = take
  }

  async leave(): Promise<void> {
    this.#stream?.close()
  }
}

/** Without the number of the query, which each wire gives in its own way. */
const unnumbered = (event: ChangeEvent): string => JSON.stringify({ ...event, q: undefined, query: undefined })

/** Shows what differs first, not all that follows. */
function expectSame(events: readonly string[], expected: readonly string[]): void {
  const at = expected.findIndex((event, i) => event !== events[i])
  if (at >= 0) expect(events.slice(at, at + 3)).toEqual(expected.slice(at, at + 3))
  expect(events.length).toBe(expected.length)
}

const pause = (ms: number): Promise<void> => new Promise(resolve => setTimeout(resolve, ms))

async function until(condition: () => boolean, what: () => string): Promise<void> {
  const deadline = Date.now() + 15_000
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`timed out: ${what()}`)
    await pause(5)
  }
}

/** Comes and goes until it is told to stop, then stays. @returns how often it was cut */
async function wander(
  reader: { come(place: TestNode): Promise<void>; leave(): Promise<void> },
  signal: { stop: boolean },
): Promise<number> {
  let cuts = 0
  while (!signal.stop) {
    await pause(Math.random() * 40)
    await reader.leave()
    await pause(Math.random() * 30)
    await reader.come(node)
    cuts += 1
  }
  return cuts
}

async function writeHistory(steps: number): Promise<void> {
  const below = (n: number): number => Math.floor(Math.random() * n)
  for (let i = 0; i < steps; i++) {
    const id = below(40)
    const room = 1 + below(3)
    const statements = [
      `INSERT INTO messages VALUES (${id}, ${room}, 'w', 'v${i}') ON CONFLICT (id) DO UPDATE SET body = excluded.body`,
      `UPDATE messages SET room_id = ${room} WHERE id % 5 = ${below(5)}`,
      `DELETE FROM messages WHERE id = ${id}`,
      `UPDATE messages SET id = id + 1000 WHERE id = ${id} AND NOT EXISTS (SELECT FROM messages m WHERE m.id = ${id + 1000})`,
      `DELETE FROM messages WHERE id > 1000`,
      `UPDATE rooms SET name = 'n${i}' WHERE id = ${room}`,
      ...(below(10) === 0 ? ['TRUNCATE messages'] : []),
    ]
    const chosen = Array.from({ length: 1 + below(5) }, () => statements[below(statements.length)]!)
    await database.query(`BEGIN; ${chosen.join('; ')}; COMMIT`)
    if (i % 10 === 0) await pause(5)
  }
}

test('[P4] [P5] one history over every wire, each cut at any moment: the same rows and the same events', {
  timeout: 60_000,
}, async () => {
  const live = wires.map(transport => new Reader(transport, 'live', 'messages', token))
  const changes = wires.map(transport => new Reader(transport, 'changes', 'messages', token))
  const manyLive = new ManySse('live', ['messages', 'rooms'])
  const manyChanges = new ManySse('changes', ['rooms', 'messages'])
  const reference = new Reader('sse', 'changes', 'messages', token)
  const rooms = new Reader('sse', 'changes', 'rooms', token)
  const all = [...live, ...changes, manyLive, manyChanges]
  // The same place to begin at, for all.
  await reference.come(node)
  await rooms.come(node)
  await database.query(
    `INSERT INTO messages VALUES (2000, 1, 'w', 'begin'); INSERT INTO rooms VALUES (20, 'hidden'); UPDATE rooms SET name = 'begin' WHERE id = 1`,
  )
  await reference.until(() => reference.changes.at(-1)?.key?.id === 2000)
  await rooms.until(() => rooms.changes.at(-1)?.new?.name === 'begin')
  const begin = reference.changes.length
  const roomsBegin = rooms.changes.length
  for (const reader of changes) reader.position = reference.position
  manyChanges.position = `${rooms.position}~${reference.position}`
  for (const reader of all) await reader.come(node)
  for (const reader of live) await reader.until(() => reader.rows.exact)

  const signal = { stop: false }
  const wanderers = all.map(reader => wander(reader, signal))
  await writeHistory(700)
  signal.stop = true
  const cuts = await Promise.all(wanderers)
  await database.query(`INSERT INTO messages VALUES (3000, 1, 'w', 'end'); UPDATE rooms SET name = 'end' WHERE id = 1`)
  await reference.until(() => reference.changes.at(-1)?.key?.id === 3000)
  await rooms.until(() => rooms.changes.at(-1)?.new?.name === 'end')
  const events = reference.changes.slice(begin).map(unnumbered)
  expect(events.length).toBeGreaterThan(300)
  for (const reader of changes) {
    await reader.until(() => reader.changes.at(-1)?.key?.id === 3000)
    expectSame(reader.changes.map(unnumbered), events)
    expect(reader.resyncs).toEqual([])
  }
  await until(
    () => manyChanges.changes[1]!.at(-1)?.key?.id === 3000 && manyChanges.changes[0]!.at(-1)?.new?.name === 'end',
    () => 'several in one stream',
  )
  expectSame(manyChanges.changes[1]!.map(unnumbered), events)
  expectSame(manyChanges.changes[0]!.map(unnumbered), rooms.changes.slice(roomsBegin).map(unnumbered))

  const expected = asSet(await selectAs(database, ada, 'SELECT * FROM messages'))
  for (const reader of live) {
    await reader.until(() => asSet(reader.rows.list()).join() === expected.join())
    expect(reader.failure).toBe(null)
    expect(reader.resyncs, reader.transport).toEqual([])
  }
  const expectedRooms = asSet(await selectAs(database, ada, 'SELECT * FROM rooms'))
  await until(
    () =>
      asSet(manyLive.rows[0]!.list()).join() === expected.join() &&
      asSet(manyLive.rows[1]!.list()).join() === expectedRooms.join(),
    () => `several in one stream: ${manyLive.failure}`,
  )
  expect([manyLive.failure, manyChanges.failure]).toEqual([null, null])
  expect(manyLive.rows.flatMap(({ resyncs }) => resyncs)).toEqual([])
  expect(Math.min(...cuts)).toBeGreaterThan(3)
  for (const reader of [...all, reference, rooms]) await reader.leave()
})

interface Poll {
  readonly status: number
  readonly position: string
  readonly events: { event: string; data: unknown }[]
}

async function poll(query: string): Promise<Poll> {
  const response = await fetch(`${node.url}${query}`, {
    headers: { authorization: `Bearer ${token}`, accept: 'application/json' },
  })
  const text = await response.text()
  const body = text === '' ? {} : (JSON.parse(text) as Partial<Poll>)
  return {
    events: [],
    ...body,
    status: response.status,
    position: body.position ?? response.headers.get('tidegate-position') ?? '',
  }
}

test('plain polling, wait=0: nothing new is 304 and asks nothing of Postgres', async () => {
  const first = await poll('/v1/live/messages')
  let { position } = first
  await poll(`/v1/live/messages?wait=0&after=${encodeURIComponent(position)}`)
  const ofDatabase = (line: string): boolean => line.startsWith('tidegate') && line.includes(`@${database.name}`)
  expect(server.log.some(ofDatabase)).toBe(true)
  server.log.splice(0)
  const polls = 300
  for (let i = 0; i < polls; i++) {
    const answer = await poll(`/v1/live/messages?wait=0&after=${encodeURIComponent(position)}`)
    expect(answer.status).toBe(304)
    if (answer.position !== '') position = answer.position
  }
  await database.query(`SELECT 'the log has come so far'`)
  await until(
    () => server.log.some(line => line.includes('the log has come so far')),
    () => 'the log',
  )
  // What the server asks by itself every second is all there is: it reads no row of anybody's.
  const statements = server.log.filter(line => ofDatabase(line) && /statement|execute/.test(line))
  expect(statements.filter(line => /messages|members|request\.jwt|SET LOCAL ROLE/i.test(line))).toEqual([])
  expect(statements.length).toBeLessThan(polls / 3)
  await database.query(`INSERT INTO messages VALUES (4000, 1, 'w', 'news')`)
  for (let events: Poll['events'] = []; events.length === 0; ) {
    ;({ events } = await poll(`/v1/live/messages?wait=0&after=${encodeURIComponent(position)}`))
    if (events.length > 0) expect(JSON.stringify(events)).toContain('news')
  }
})

const wait = async (txid: string): Promise<{ status: number; position?: string; code?: string }> => {
  const response = await fetch(`${node.url}/v1/wait`, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}` },
    body: JSON.stringify({ txid }),
  })
  const body = (await response.json()) as { position?: string; code?: string }
  return { status: response.status, ...body }
}

test('[P1] a writer that waits for its transaction finds its rows at the position it is told', async () => {
  const reader = new Reader('sse', 'live', 'messages', token)
  await reader.come(node)
  await reader.until(() => reader.rows.exact)
  for (let i = 0; i < 20; i++) {
    const [row] = await database.query<{ txid: string }>(
      `INSERT INTO messages VALUES (${5000 + i}, ${i % 2 === 0 ? 1 : 3}, 'w', 'own') RETURNING pg_current_xact_id()::text AS txid`,
    )
    const { status, position } = await wait(row!.txid)
    expect(status).toBe(200)
    const written = parsePosition(position!)!
    if (i % 2 === 0) {
      await reader.until(() => reader.rows.rows.has(`[${5000 + i}]`))
      expect(comparePositions(parseQueryPositions(reader.position!)![0]!, written)).toBeGreaterThanOrEqual(0)
    }
    // Whoever begins now has it already.
    const fresh = await poll(`/v1/live/messages?id=eq.${5000 + i}`)
    expect(comparePositions(parseQueryPositions(fresh.position)![0]!, written)).toBeGreaterThanOrEqual(0)
    expect(JSON.stringify(fresh.events).includes('own')).toBe(i % 2 === 0)
  }
  await reader.leave()
})

test('[P8] transactions that wrote nothing tracked, were rolled back, are open, or never were', async () => {
  const txid = async (sql: string): Promise<string> => {
    await database.query('BEGIN')
    const [row] = await database.query<{ txid: string }>('SELECT pg_current_xact_id()::text AS txid')
    await database.query(sql)
    return row!.txid
  }
  await database.query('CREATE TABLE untracked (id int)')
  const untracked = await txid('INSERT INTO untracked VALUES (1)')
  await database.query('COMMIT')
  expect(await wait(untracked)).toMatchObject({ status: 200, position: expect.stringMatching(/^[0-9a-f]{8}-/) })
  const rolledBack = await txid(`INSERT INTO messages VALUES (6000, 1, 'w', 'undone')`)
  await database.query('ROLLBACK')
  expect((await wait(rolledBack)).code).toBe('TXID_INVALID')
  const open = await txid(`INSERT INTO messages VALUES (6001, 1, 'w', 'late')`)
  const waiting = wait(open)
  await pause(50)
  await database.query('COMMIT')
  expect((await waiting).status).toBe(200)
  expect((await wait('4000000000')).code).toBe('TXID_INVALID')
  expect((await wait('no number')).status).toBe(400)
})

const short = (seconds: number, claims: Record<string, unknown> = {}): Promise<string> =>
  new SignJWT({ role: 'authenticated', sub: ada, ...claims })
    .setProtectedHeader({ alg: 'HS256' })
    .setExpirationTime(Math.floor(Date.now() / 1000) + seconds)
    .sign(new TextEncoder().encode(jwtSecret))

interface Frame {
  readonly type: string
  readonly [field: string]: unknown
}

async function socket(bearer: string | null, query = ''): Promise<{ ws: WebSocket; frames: Frame[] }> {
  const headers = bearer === null ? {} : { authorization: `Bearer ${bearer}` }
  const ws = new WebSocket(`${node.url.replace('http', 'ws')}/v1/socket${query}`, { headers })
  const frames: Frame[] = []
  ws.on('message', data => frames.push(JSON.parse(String(data)) as Frame))
  await once(ws, 'open')
  return { ws, frames }
}

test('[P4] a token renewed in place loses no event and repeats none, also when other claims change', {
  timeout: 30_000,
}, async () => {
  const { ws, frames } = await socket(await short(60))
  ws.send(JSON.stringify({ type: 'subscribe', id: 1, kind: 'changes', table: 'messages', filter: 'id=gte.10000' }))
  ws.send(JSON.stringify({ type: 'subscribe', id: 2, kind: 'live', table: 'messages', filter: 'id=gte.10000' }))
  await until(
    () => frames.some(({ type, done }) => type === 'snapshot' && done === true),
    () => JSON.stringify(frames),
  )
  const rows = 300
  const writer = (async () => {
    for (let i = 0; i < rows; i++) await database.query(`INSERT INTO messages VALUES (${10_000 + i}, 1, 'w', 'x')`)
  })()
  for (let i = 0; i < 8; i++) {
    const renewals = frames.filter(({ type }) => type === 'authenticated').length
    ws.send(JSON.stringify({ type: 'auth', token: await short(60, i % 2 === 0 ? { extra: i } : {}) }))
    await until(
      () => frames.filter(({ type }) => type === 'authenticated').length > renewals,
      () => JSON.stringify(frames.slice(-3)),
    )
  }
  await writer
  const ids = Array.from({ length: rows }, (_, i) => 10_000 + i)
  const events = (): unknown[] =>
    frames.filter(({ type }) => type === 'change').map(({ key }) => (key as { id: number }).id)
  await until(
    () => events().at(-1) === ids.at(-1),
    () => JSON.stringify(frames.slice(-3)),
  )
  expect(events()).toEqual(ids)
  const inserted = (): unknown[] =>
    frames
      .filter(({ type }) => type === 'delta')
      .flatMap(({ changes }) => (changes as { key: { id: number } }[]).map(({ key }) => key.id))
  await until(
    () => inserted().at(-1) === ids.at(-1),
    () => JSON.stringify(frames.slice(-3)),
  )
  expect(inserted()).toEqual(ids)
  expect(frames.filter(({ type }) => type === 'resync' || type === 'error')).toEqual([])
  ws.terminate()
})

test('[P3] [P8] a token that expires ends the connection by its code, on each wire', { timeout: 20_000 }, async () => {
  const bearer = await short(2)
  const { ws, frames } = await socket(bearer)
  ws.send(JSON.stringify({ type: 'subscribe', id: 1, kind: 'live', table: 'messages' }))
  using stream = await SseStream.open(node, '/v1/live/messages', bearer)
  const [code] = (await once(ws, 'close')) as [number]
  expect(code).toBeGreaterThanOrEqual(4000)
  expect(JSON.stringify(frames.at(-1))).toContain('TOKEN_EXPIRED')
  await stream.waitFor(() => stream.ended)
  expect(stream.events.at(-1)).toMatchObject({ event: 'error', data: { code: 'TOKEN_EXPIRED' } })
  const response = await fetch(`${node.url}/v1/live/messages`, {
    headers: { authorization: `Bearer ${bearer}`, accept: 'application/json' },
  })
  expect([response.status, ((await response.json()) as { code: string }).code]).toEqual([401, 'TOKEN_EXPIRED'])
})

test('a ticket opens one WebSocket or one event stream, and its rows are those of the token', async () => {
  const ticket = async (): Promise<string> => {
    const response = await fetch(`${node.url}/v1/tickets`, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}` },
    })
    return ((await response.json()) as { ticket: string }).ticket
  }
  const expected = asSet(await selectAs(database, ada, 'SELECT * FROM messages'))
  const forSocket = await ticket()
  const { ws, frames } = await socket(null, `?ticket=${forSocket}`)
  ws.send(JSON.stringify({ type: 'subscribe', id: 1, kind: 'live', table: 'messages' }))
  const rows = new StrictRows()
  await until(
    () => frames.some(({ type, done }) => type === 'snapshot' && done === true),
    () => JSON.stringify(frames),
  )
  for (const frame of frames) rows.take({ event: frame.type, data: frame })
  expect(asSet(rows.list())).toEqual(expected)
  const again = await socket(null, `?ticket=${forSocket}`)
  const [code] = (await once(again.ws, 'close')) as [number]
  expect(code).toBeGreaterThanOrEqual(4000)
  ws.terminate()
  const response = await fetch(`${node.url}/v1/live/messages?ticket=${await ticket()}`, {
    headers: { accept: 'text/event-stream' },
  })
  expect(response.status).toBe(200)
  await response.body!.cancel()
})

test('[P4] the positions in the ids of a stream of several queries never step back', { timeout: 20_000 }, async () => {
  const queries = ['messages', 'messages?id=lt.950', 'messages?id=gt.1', 'messages?room_id=eq.1']
  const path = `?${queries.map(query => `q=${encodeURIComponent(query)}`).join('&')}`
  for (const kind of ['live', 'changes'] as const) {
    const stream = await SseStream.open(node, `/v1/${kind}${path}`, token)
    await stream.until(({ event, data }) => event === 'subscribed' && (data as { q: number }).q === 3)
    for (let id = 900; id < 903; id++)
      await database.query(`INSERT INTO messages VALUES (${id}, 1, 'w', 'to all of them')`)
    await stream.until(({ data }) => JSON.stringify(data).startsWith('{"q":3,') && JSON.stringify(data).includes('902'))
    const stands = queries.map(() => 0n)
    for (const { id } of stream.events) {
      for (const [q, part] of id.split('~').entries()) {
        if (part === '' || part === '-') continue
        const { lsn } = parseQueryPositions(part)![0]!
        expect(lsn, id).toBeGreaterThanOrEqual(stands[q]!)
        stands[q] = lsn
      }
    }
    stream.close()
    await database.query('DELETE FROM messages WHERE id >= 900')
  }
})
