// Policies change in the middle of what is written: each event is judged by those of its own commit, on every wire, in place.
// What strangers write into the WAL holds up nobody.
import { once } from 'node:events'
import { afterAll, beforeAll, beforeEach, expect, test, vi } from 'vitest'
import { WebSocket } from 'ws'
import { PostgresCatalog } from '../../src/server/catalog/catalog.ts'
import { CatalogWatch } from '../../src/server/upkeep/catalog-watch.ts'
import { asSet, LiveSse, person, prepareDatabase, selectAs, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { Reader, wires } from '../support/readers.ts'

let database: TestDatabase
let node: TestNode
let token: string
const [ada, ben] = [person(), person()]
const stranger = `stranger_${process.pid}`
let nextId = 1

const schema = `
  CREATE TABLE public.notes (id int PRIMARY KEY, body text);
  ALTER TABLE public.notes ENABLE ROW LEVEL SECURITY;
  CREATE TABLE public.marks (id serial PRIMARY KEY);
  CREATE POLICY shown ON public.notes FOR SELECT TO authenticated USING (true);
  GRANT SELECT ON public.notes TO authenticated;
`
const odd = `ALTER POLICY shown ON public.notes USING (id IN (${Array.from({ length: 500 }, (_, i) => 2 * i + 1).join()}))`

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, schema, ['notes', 'marks'])
  await database.query(`CREATE ROLE ${stranger} LOGIN PASSWORD 'p'; CREATE SCHEMA strange AUTHORIZATION ${stranger}`)
  node = await TestNode.start(database.url)
  token = await tokenFor(ada)
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.query(`DROP OWNED BY ${stranger}; DROP ROLE ${stranger}`)
  await database?.[Symbol.asyncDispose]()
})

beforeEach(async () => {
  nextId = 1
  await database.query('DELETE FROM notes')
  await use('true')
})

/** Sets the policy, and resolves when the stream has passed that. */
async function use(policy: string): Promise<void> {
  await database.query(`ALTER POLICY shown ON public.notes USING (${policy})`)
  const [row] = await database.query<{ txid: string }>(
    'INSERT INTO marks DEFAULT VALUES RETURNING pg_current_xact_id()::text AS txid',
  )
  await fetch(`${node.url}/v1/wait`, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    body: JSON.stringify({ txid: row!.txid }),
  }).then(response => response.json())
}

const insert = (body: string): Promise<unknown> => database.query('INSERT INTO notes VALUES ($1, $2)', [nextId++, body])

const isEven = (id: number): boolean => id % 2 === 0

test.each(wires)(
  '[P2] [P5] %s: events before a change of policy come by the old one, those after it by the new',
  async transport => {
    const live = new Reader(transport, 'live', 'notes', token)
    const changes = new Reader(transport, 'changes', 'notes', token)
    await live.come(node)
    await changes.come(node)
    await changes.until(() => changes.events.length > 0 || changes.position !== null)
    await insert('first')
    await Promise.all([live.until(() => live.rows.rows.size === 1), changes.until(() => changes.changes.length === 1)])
    const all: Promise<unknown>[] = []
    // Without waiting in between: the change stands among commits that are in the stream with it.
    for (let i = 0; i < 99; i++) all.push(insert('old'))
    all.push(database.query(odd))
    for (let i = 0; i < 100; i++) all.push(insert('new'))
    all.push(insert('last'))
    await Promise.all(all)
    // A poll that is being answered from the window has no place where it could go on.
    await changes.until(() => changes.changes.at(-1)?.new?.body === 'last' || changes.resyncs.length > 0)
    if (transport !== 'long-poll') expect(changes.resyncs).toEqual([])
    nextId = 301
    await insert('final')
    await changes.until(() => changes.changes.at(-1)?.new?.body === 'final')
    const ids = changes.changes.map(({ key }) => Number(key!.id))
    expect(ids.filter(id => id > 100 && isEven(id))).toEqual([])
    expect(ids).toEqual(ids.toSorted((a, b) => a - b))
    if (changes.resyncs.length === 0) expect(ids).toHaveLength(152)
    const wanted = asSet(await selectAs(database, ada, 'SELECT * FROM notes')).join()
    await live.until(() => asSet(live.rows.list()).join() === wanted)
    expect(live.resyncs).toEqual(['POLICY_CHANGED'])
    await Promise.all([live.leave(), changes.leave()])
  },
)

test('[P2] two changes that are read at once: what was hidden between them is not told by the second', async () => {
  const changes = new Reader('websocket', 'changes', 'notes', token)
  await changes.come(node)
  await changes.until(() => changes.events.length > 0)
  const { promise: bothAreMade, resolve } = Promise.withResolvers<void>()
  const { look } = PostgresCatalog.prototype
  const looks = vi.spyOn(PostgresCatalog.prototype, 'look').mockImplementation(async function (
    this: PostgresCatalog,
    sees,
  ) {
    await bothAreMade
    return look.call(this, sees)
  })
  try {
    await database.query('ALTER POLICY shown ON public.notes USING (false)')
    await insert('hidden')
    await database.query('ALTER POLICY shown ON public.notes USING (id > 0)')
    await insert('shown')
    resolve()
    await changes.until(() => changes.resyncs.length > 0)
    nextId = 10
    await insert('last')
    await changes.until(() => changes.changes.at(-1)?.new?.body === 'last')
    expect(changes.changes.map(({ new: row }) => row!.body)).not.toContain('hidden')
    expect(changes.resyncs).toEqual(['POLICY_CHANGED'])
  } finally {
    looks.mockRestore()
    await changes.leave()
  }
})

test('[P4] a WebSocket is told of the subscription anew, with its number and tag, and stays open', async () => {
  const socket = new WebSocket(`${node.url.replace('http', 'ws')}/v1/socket`, {
    headers: { authorization: `Bearer ${token}` },
  })
  const frames: { type: string; id?: number; query?: number; tag?: string; resumed?: boolean; code?: string }[] = []
  socket.on('message', data => frames.push(JSON.parse(String(data))))
  await once(socket, 'open')
  for (const [i, kind] of ['live', 'changes'].entries())
    socket.send(JSON.stringify({ type: 'subscribe', id: i + 1, kind, table: 'notes' }))
  const of = (type: string) => frames.filter(frame => frame.type === type)
  await vi.waitUntil(() => of('subscribed').length === 2 && of('snapshot').length === 1, 5000)
  await database.query(odd)
  await vi.waitUntil(() => of('subscribed').length === 4 && of('snapshot').length === 2, 5000)
  await insert('x')
  await vi.waitUntil(() => of('delta').length === 1 && of('change').length === 1, 5000)
  const told = (id: number) => of('subscribed').filter(frame => frame.id === id)
  for (const [id, type] of [
    [1, 'delta'],
    [2, 'change'],
  ] as const) {
    expect(told(id)).toHaveLength(2)
    expect(told(id)[1]!.tag).not.toBe(told(id)[0]!.tag)
    expect(of(type)[0]!.query).toBe(told(id)[1]!.query)
  }
  expect(of('resync')).toMatchObject([{ id: 1, code: 'POLICY_CHANGED' }])
  expect(told(2)[1]!.resumed).toBe(true)
  expect(of('error')).toEqual([])
  socket.terminate()
})

test('[P7] a reader whose answer is the same is not disturbed', async () => {
  const readable = (who: string) => `id < 100 OR (auth.uid() = '${who}' AND id < 200)`
  await use(readable(person()))
  using live = await (await LiveSse.open(node, '/v1/live/notes', token)).exact()
  using hers = await (await LiveSse.open(node, '/v1/live/notes', await tokenFor(ben))).exact()
  await use(readable(ben))
  await hers.stream.until(({ event }) => event === 'resync')
  nextId = 150
  await insert('for ben')
  await hers.stream.waitFor(() => hers.rows.rows.has('[150]'))
  nextId = 1
  await insert('for both')
  await live.stream.waitFor(() => live.rows.rows.has('[1]'))
  expect(live.stream.events.map(({ event }) => event).filter(event => event !== 'heartbeat')).toEqual([
    'subscribed',
    'snapshot',
    'delta',
  ])
})

test('[P7] messages of strangers are not taken for a change of the catalog, nor copies of ours', async () => {
  await using asStranger = await Client.open(database.urlFor(stranger, 'p'))
  const reached = vi.spyOn(CatalogWatch.prototype, 'reached')
  try {
    await expect(asStranger.query('SELECT FROM tidegate.catalog_key')).rejects.toMatchObject({ code: '42501' })
    await database.query('GRANT SELECT ON public.notes TO authenticated')
    const isOurs = ({ prefix }: { prefix: string }): boolean => prefix === 'tidegate catalog'
    const ours = () => reached.mock.calls.findIndex(([commit]) => commit.messages.some(isOurs))
    await vi.waitUntil(() => ours() >= 0, 5000)
    expect(reached.mock.results[ours()]!.value).not.toBe(null)
    const copy = reached.mock.calls[ours()]![0].messages.find(isOurs)!.content.toString()
    for (const content of [copy, 'f'.repeat(64), '', 'x'.repeat(5000)])
      await asStranger.query(`SELECT pg_logical_emit_message(true, 'tidegate catalog', $1)`, [content])
    using live = await (await LiveSse.open(node, '/v1/live/notes', token)).exact()
    await insert('after them')
    await live.stream.waitFor(() => live.rows.rows.size === 1)
    const copies = reached.mock.calls.flatMap(([commit], i) => (i > ours() && commit.messages.some(isOurs) ? [i] : []))
    expect(copies).toHaveLength(4)
    for (const i of copies) expect(reached.mock.results[i]!.value).toBe(null)
  } finally {
    reached.mockRestore()
  }
})

test('[P7] a flood of changes by a stranger costs few looks, and rows of others come through meanwhile', async () => {
  using live = await (await LiveSse.open(node, '/v1/live/notes', token)).exact()
  const reached = vi.spyOn(CatalogWatch.prototype, 'reached')
  const clients = await Promise.all(Array.from({ length: 4 }, () => Client.open(database.urlFor(stranger, 'p'))))
  try {
    const flood = clients.map(async (client, n) => {
      for (let i = 0; i < 100; i++)
        await client.query(`CREATE OR REPLACE FUNCTION strange.f${n}() RETURNS int LANGUAGE sql AS 'SELECT ${i}'`)
    })
    for (let i = 0; i < 20; i++) {
      await insert('meanwhile')
      const { size } = { size: i + 1 }
      await live.stream.waitFor(() => live.rows.rows.size === size)
    }
    await Promise.all(flood)
    await insert('last')
    await live.stream.waitFor(() => live.rows.rows.size === 21)
    const looks = reached.mock.results.filter(({ value }) => value !== null).length
    const announced = reached.mock.calls.filter(([{ messages }]) => messages.some(m => m.prefix === 'tidegate catalog'))
    expect(announced.length).toBe(400)
    expect(looks).toBeLessThan(200)
    expect(live.rows.resyncs).toEqual([])
  } finally {
    reached.mockRestore()
    for (const client of clients) await client[Symbol.asyncDispose]()
  }
})

/** A connection of another role. */
class Client {
  readonly #database: TestDatabase

  private constructor(database: TestDatabase) {
    this.#database = database
  }

  static async open(url: string): Promise<Client> {
    return new Client(await TestDatabase.connect({ name: '', url } as TestDatabase))
  }

  query(sql: string, values?: unknown[]): Promise<unknown> {
    return this.#database.query(sql, values)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#database.client.end()
  }
}
