// What an inspector is told of a real node with real subscribers.
import { readdirSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { CommitTraces } from '../../../src/server/figures/commit-trace.ts'
import { stages } from '../../../src/server/figures/stage.ts'
import type {
  ChannelsPage,
  CommitsSeen,
  InspectedChannel,
  InspectedQuery,
  NodesPage,
  Overview,
  QueriesPage,
} from '../../../src/server/inspect/wire.ts'
import { ChannelClient, channelPolicies } from '../../support/channel-client.ts'
import { LiveSse, prepareDatabase, roomsSchema, type SseStream, TestNode, tokenFor } from '../../support/node.ts'
import { TestDatabase } from '../../support/postgres.ts'
import { admitted, dataOf, inspected, inspecting, operatorHeaders, operatorToken } from './support.ts'

const ada = '00000000-0000-4000-8000-00000000000a'
const ben = '00000000-0000-4000-8000-00000000000b'

/** Postgres is asked who may see its rows. */
const askedSchema = `
  CREATE TABLE public.asked (id int PRIMARY KEY, body text);
  ALTER TABLE public.asked ENABLE ROW LEVEL SECURITY;
  CREATE POLICY asked ON public.asked FOR SELECT TO authenticated USING (random() < 2);
  GRANT SELECT ON public.asked TO authenticated;`

let database: TestDatabase
let node: TestNode

beforeAll(async () => {
  database = await TestDatabase.create()
  const tables = ['rooms', 'members', 'messages', 'asked']
  await prepareDatabase(database, roomsSchema + channelPolicies + askedSchema, tables)
  await database.query(`INSERT INTO members VALUES (1, '${ada}'), (1, '${ben}'), (2, '${ben}')`)
  node = await TestNode.start(database.url, {
    OPERATOR_TOKEN: operatorToken,
    CHANNELS: JSON.stringify([{ pattern: 'lobby', public: true, history: { length: 100, age: '60s' } }]),
  })
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

describe('the stream', () => {
  test('begins with how the node stands, and says so again each second', async () => {
    using live = await LiveSse.open(node, '/v1/live/messages', await tokenFor(ada))
    await live.exact()
    using stream = await inspecting(node, 'stream')
    await stream.waitFor(() => dataOf(stream, 'overview').length > 1)
    const [first] = dataOf<Overview>(stream, 'overview')
    expect(first).toMatchObject({
      leads: true,
      stale: false,
      connections: node.server.connections(),
      subscriptions: 1,
      audiences: 1,
      queuedBytes: 0,
      slotMaxBytes: 1024 ** 3,
    })
    expect(first!.stages.map(({ stage }) => stage)).toEqual(stages)
  })

  test('shows each commit with its way, and no value of a row', async () => {
    using live = await LiveSse.open(node, '/v1/live/messages', await tokenFor(ada))
    await live.exact()
    using stream = await inspecting(node, 'stream')
    await stream.until(({ event }) => event === 'overview')
    const [{ xid }] = (await database.query<{ xid: number }>(
      `INSERT INTO messages VALUES (100, 1, 'a hidden author', 'a hidden body') RETURNING xmin::text::int AS xid`,
    )) as [{ xid: number }]
    const traces = () => dataOf<CommitsSeen>(stream, 'commits').flatMap(seen => seen.traces)
    await stream.waitFor(() => traces().some(trace => trace.xid === xid))
    const trace = traces().find(each => each.xid === xid)!
    expect(trace).toMatchObject({ changes: 1, tables: ['public.messages'], audiences: 1, deliveries: 1 })
    expect(trace.spans.map(({ stage }) => stage)).toEqual(stages)
    expect(JSON.stringify(stream.events)).not.toContain('hidden')
  })

  test('counts the commits that it does not show', async () => {
    using stream = await inspecting(node, 'stream')
    const of = (overviews: Overview[]) => overviews.map(({ commitsPerSecond }) => commitsPerSecond)
    await stream.until(({ event }) => event === 'overview')
    const before = node.server.figures.commits
    const many = 2000
    await database.query(
      `DO $$ BEGIN FOR i IN 1..${many} LOOP INSERT INTO messages VALUES (1000 + i, 9, NULL, NULL); COMMIT; END LOOP; END $$`,
    )
    const told = () =>
      dataOf<CommitsSeen>(stream, 'commits').reduce((sum, seen) => sum + seen.traces.length + seen.skipped, 0)
    await stream.waitFor(() => node.server.figures.commits - before >= many && told() >= many)
    for (const seen of dataOf<CommitsSeen>(stream, 'commits')) expect(seen.traces.length).toBeLessThanOrEqual(25)
    expect(dataOf<CommitsSeen>(stream, 'commits').some(({ skipped }) => skipped > 0)).toBe(true)
    // Heartbeats are commits as well, and a few of before may be told with these.
    expect(told()).toBeLessThanOrEqual(node.server.figures.commits - before + 50)
    await stream.waitFor(() => of(dataOf<Overview>(stream, 'overview')).some(rate => rate >= 100))
    const busy = dataOf<Overview>(stream, 'overview').find(({ commitsPerSecond }) => commitsPerSecond >= 100)!
    expect(busy.stages.find(({ stage }) => stage === 'relay')!.p99Ms).toBeGreaterThan(0)
  })

  test('traces commits only while somebody watches', async () => {
    const record = vi.spyOn(CommitTraces.prototype, 'record')
    const passed = async (id: number): Promise<void> => {
      const before = node.server.figures.commits
      await database.query(`INSERT INTO messages VALUES (${id}, 1, NULL, NULL)`)
      await expect.poll(() => node.server.figures.commits).toBeGreaterThan(before)
    }
    try {
      let id = 200
      // The node may not know yet that those of the tests before have gone.
      await expect
        .poll(async () => {
          record.mockClear()
          await passed(id++)
          return record.mock.calls.length
        })
        .toBe(0)
      using stream = await inspecting(node, 'stream')
      await passed(id)
      await stream.until(({ event }) => event === 'commits')
      expect(record).toHaveBeenCalled()
    } finally {
      record.mockRestore()
    }
  })

  test('[P7] is for eight at once; the ninth is told BUSY, and comes in when one has gone', async () => {
    const streams: SseStream[] = []
    for (let place = 0; place < 8; place += 1) streams.push(await admitted(node, 'stream'))
    const ninth = await inspecting(node, 'stream')
    expect([ninth.status, ninth.errorBody.code]).toEqual([503, 'BUSY'])
    streams[3]!.close()
    streams.push(await admitted(node, 'stream'))
    for (const stream of streams) stream.close()
  })

  test('takes no place of a client', async () => {
    const before = node.server.connections()
    using stream = await admitted(node, 'stream')
    await stream.until(({ event }) => event === 'overview')
    expect(node.server.connections()).toBe(before)
  })
})

describe('queries', () => {
  const find = async (condition: (query: InspectedQuery) => boolean): Promise<InspectedQuery | undefined> =>
    (await inspected<QueriesPage>(node, 'queries')).queries.find(condition)

  test('are told with their audiences, and are gone with their subscribers', async () => {
    const path = '/v1/live/messages?room_id=eq.1&select=id,body&order=id.desc&limit=5'
    const readers = await Promise.all(
      [ada, ada, ben].map(async sub => (await LiveSse.open(node, path, await tokenFor(sub))).exact()),
    )
    expect(await find(({ filter }) => filter === 'room_id=eq.1')).toEqual({
      number: expect.any(Number),
      kind: 'live',
      table: 'public.messages',
      columns: ['id', 'body'],
      filter: 'room_id=eq.1',
      order: 'id.desc',
      limit: 5,
      subscribers: 3,
      audiences: [
        { role: 'authenticated', isAsked: false, isHeld: false, subscribers: 2, behind: 0 },
        { role: 'authenticated', isAsked: false, isHeld: false, subscribers: 1, behind: 0 },
      ],
      moreAudiences: 0,
    })
    for (const { stream } of readers) stream.close()
    await expect.poll(() => find(({ filter }) => filter === 'room_id=eq.1')).toBeUndefined()
  })

  test('that Postgres is asked for say so', async () => {
    using live = await LiveSse.open(node, '/v1/live/asked', await tokenFor(ada))
    await live.exact()
    const query = await find(({ table }) => table === 'public.asked')
    expect(query!.audiences).toEqual([
      { role: 'authenticated', isAsked: true, isHeld: false, subscribers: 1, behind: 0 },
    ])
  })

  test('hold nobody’s claims', async () => {
    using live = await LiveSse.open(node, '/v1/changes/messages', await tokenFor(ada, { team: 'a hidden claim' }))
    expect(live.stream.status).toBe(200)
    const page = JSON.stringify(await inspected(node, 'queries'))
    expect(page).toContain('"changes"')
    expect(page).not.toMatch(/hidden|00000000-0000/)
  })
})

describe('channels', () => {
  const find = async (topic: string): Promise<InspectedChannel | undefined> =>
    (await inspected<ChannelsPage>(node, 'channels')).channels.find(channel => channel.topic === topic)

  test('are told with their members and who is present, and no word of what is said in them', async () => {
    const [a, b] = await Promise.all([ada, ben].map(async sub => ChannelClient.open(node, await tokenFor(sub))))
    const [joined] = await Promise.all([
      a!.join('room:1', { presence: true, track: { meta: { mood: 'a hidden mood' } } }),
      b!.join('room:1', { presence: true, track: { meta: {} } }),
      b!.join('lobby', { private: false }),
    ])
    await joined.send('said', { text: 'a hidden word' })
    await expect.poll(async () => (await find('room:1'))?.present?.map(({ key }) => key).sort()).toEqual([ada, ben])
    expect(await find('room:1')).toMatchObject({ isPrivate: true, members: 2, morePresent: 0, history: null })
    expect((await find('room:1'))!.present!.map(({ connections }) => connections)).toEqual([1, 1])
    expect(await find('lobby')).toMatchObject({
      isPrivate: false,
      members: 1,
      present: null,
      history: '100 messages, 60 s',
    })
    expect(JSON.stringify(await inspected(node, 'channels'))).not.toContain('hidden')
    a!.cut()
    b!.cut()
    await expect.poll(() => find('room:1')).toBeUndefined()
  })
})

test('a node without Redis is the only one', async () => {
  const { nodes } = await inspected<NodesPage>(node, 'nodes')
  expect(nodes).toEqual([
    {
      id: expect.stringMatching(/^[0-9a-f]{16}$/),
      address: expect.stringContaining(`:${node.server.port}`),
      release: expect.any(String),
      leads: true,
      connections: node.server.connections(),
      lagMs: expect.any(Number),
      isThis: true,
    },
  ])
})

describe('the door', () => {
  const paths = ['stream', 'queries', 'channels', 'nodes', 'watch?table=messages&role=authenticated']

  test.each(paths)('[P2] %s is told to nobody without the operator’s token', async path => {
    for (const headers of [{}, { authorization: `Bearer ${await tokenFor(ada)}` }]) {
      const response = await fetch(`${node.url}/v1/inspect/${path}`, { headers })
      expect(response.status).toBe(401)
      expect(await response.json()).toMatchObject({ code: expect.stringMatching(/^TOKEN_(MISSING|INVALID)$/) })
    }
  })

  test.each(['queries', 'channels', 'nodes'])('%s is kept by nobody on the way', async path => {
    const response = await fetch(`${node.url}/v1/inspect/${path}`, { headers: operatorHeaders })
    expect(response.headers.get('cache-control')).toBe('no-store')
  })

  test('pages of other origins are told nothing', async () => {
    const headers = { ...operatorHeaders, origin: 'https://elsewhere.example' }
    const response = await fetch(`${node.url}/v1/inspect/queries`, { headers })
    expect([response.status, response.headers.get('access-control-allow-origin')]).toEqual([403, null])
    const own = await fetch(`${node.url}/v1/inspect/queries`, { headers: { ...operatorHeaders, origin: node.url } })
    expect(own.status).toBe(200)
  })

  test('the page is there for everybody, loads nothing from elsewhere, and goes into no frame', async () => {
    const page = await fetch(`${node.url}/inspect`)
    expect([page.status, page.headers.get('content-type')]).toEqual([200, 'text/html; charset=utf-8'])
    expect(page.headers.get('content-security-policy')).toBe(
      "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    )
    expect(page.headers.get('x-content-type-options')).toBe('nosniff')
    expect(page.headers.get('referrer-policy')).toBe('no-referrer')
    const again = await fetch(`${node.url}/inspect`, { headers: { 'if-none-match': page.headers.get('etag')! } })
    expect([again.status, await again.text()]).toEqual([304, ''])
  })

  test('every file of the page is served as what it is, and nothing beside', async () => {
    const files = readdirSync(new URL('../../../src/server/inspect/page/', import.meta.url))
    for (const file of files.filter(name => name !== 'index.html')) {
      const response = await fetch(`${node.url}/inspect/${file}`)
      expect([file, response.status]).toEqual([file, 200])
      const type = file.endsWith('.css') ? 'text/css' : 'text/javascript'
      expect(response.headers.get('content-type')).toBe(`${type}; charset=utf-8`)
    }
    for (const path of ['/inspect/', '/inspect/nothing.js', '/inspect/..%2finspector.ts', '/inspect/../inspector.ts'])
      expect((await fetch(`${node.url}${path}`)).status).toBe(404)
  })
})

// These end the node of the file.
test('a node that leaves tells whoever watches to look elsewhere, and takes nobody', async () => {
  using stream = await admitted(node, 'stream')
  using watch = await inspecting(node, 'watch', { table: 'messages', role: 'authenticated' })
  await watch.until(({ event }) => event === 'snapshot')
  await node.server.stop()
  for (const each of [stream, watch]) {
    await each.waitFor(() => each.ended)
    expect(each.events.at(-1)).toMatchObject({ event: 'error', data: { code: 'GOING_AWAY', retry: true } })
  }
})

test('without OPERATOR_TOKEN none of it exists', async () => {
  await using bare = await TestNode.start(database.url)
  for (const path of ['/inspect', '/v1/inspect/stream', '/v1/inspect/queries'])
    expect((await fetch(`${bare.url}${path}`, { headers: operatorHeaders })).status).toBe(404)
})

test('with ADMIN_PORT it is there alone, and its page is let in by that address', async () => {
  await using apart = await TestNode.start(database.url, { OPERATOR_TOKEN: operatorToken, ADMIN_PORT: '0' })
  const operators = { url: `http://127.0.0.1:${apart.server.adminPort}` }
  for (const path of ['/inspect', '/v1/inspect/queries'])
    expect((await fetch(`${apart.url}${path}`, { headers: operatorHeaders })).status).toBe(404)
  expect((await fetch(`${operators.url}/inspect`)).headers.get('content-type')).toContain('text/html')
  const from = async (origin: string): Promise<number> =>
    (await fetch(`${operators.url}/v1/inspect/queries`, { headers: { ...operatorHeaders, origin } })).status
  expect([await from(operators.url), await from(apart.url)]).toEqual([200, 403])
  using stream = await inspecting(operators, 'stream')
  using watch = await inspecting(operators, 'watch', { table: 'messages', role: 'authenticated' })
  await watch.until(({ event }) => event === 'snapshot')
  await stream.until(({ event }) => event === 'overview')
  await apart.server.stop()
  for (const each of [stream, watch]) {
    await each.waitFor(() => each.ended)
    expect(each.events.at(-1)).toMatchObject({ event: 'error', data: { code: 'GOING_AWAY' } })
  }
})
