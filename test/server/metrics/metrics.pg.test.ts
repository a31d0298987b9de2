// What /metrics of a real node tells, and that each of it moves when the thing happens.
import { once } from 'node:events'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { WebSocket } from 'ws'
import { peerCodes, resyncCodes } from '../../../src/protocol/codes.ts'
import { operatorCodes } from '../../../src/protocol/operator-codes.ts'
import { stages } from '../../../src/server/figures/stage.ts'
import { metrics } from '../../../src/server/metrics/table.ts'
import { release } from '../../../src/server/nodes/release.ts'
import { askedSchema, askedTables } from '../../support/asked.ts'
import { ChannelClient, channelPolicies } from '../../support/channel-client.ts'
import { FaultyLink } from '../../support/faulty-link.ts'
import { LiveSse, person, prepareDatabase, roomsSchema, SseStream, TestNode, tokenFor } from '../../support/node.ts'
import { TestDatabase } from '../../support/postgres.ts'
import { Queues, SlowReader } from '../../support/slow-reader.ts'
import { Exposition } from './exposition.ts'

const operatorToken = 'an-operator-of-these-tests-and-of-no-others'
const [ada, ben] = [person(), person()]

let database: TestDatabase
/** Between the node and Postgres. */
let link: FaultyLink
let node: TestNode
let token: string

beforeAll(async () => {
  database = await TestDatabase.create()
  const tables = ['rooms', 'members', 'messages', ...askedTables]
  await prepareDatabase(database, roomsSchema + channelPolicies + askedSchema, tables)
  await database.query(`INSERT INTO members VALUES (1, '${ada}'), (1, '${ben}'), (2, '${ada}')`)
  await database.query(`INSERT INTO messages SELECT i, 1, 'w', 'a row' FROM generate_series(1, 40) i`)
  link = await FaultyLink.to(database.url)
  node = await TestNode.start(link.url, { OPERATOR_TOKEN: operatorToken, BEACON_MS: '500' })
  token = await tokenFor(ada)
})

afterAll(async () => {
  link?.thaw()
  await node?.[Symbol.asyncDispose]()
  await link?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

const ask = (headers: Record<string, string> = { authorization: `Bearer ${operatorToken}` }): Promise<Response> =>
  fetch(`${node.url}/metrics`, { headers })

const textNow = async (): Promise<string> => (await ask()).text()
const scrape = async (): Promise<Exposition> => new Exposition(await textNow())

/** Waits until it is so of a scrape. */
const whenTold = (isSo: (told: Exposition) => boolean): Promise<void> =>
  expect.poll(async () => isSo(await scrape()), { timeout: 10_000 }).toBe(true)

const live = async (query = '', of = token): Promise<LiveSse> =>
  (await LiveSse.open(node, `/v1/live/messages${query}`, of)).exact()

async function socket(): Promise<{ ws: WebSocket; heard: string[] } & Disposable> {
  const ws = new WebSocket(`${node.url.replace('http', 'ws')}/v1/socket`, {
    headers: { authorization: `Bearer ${token}` },
  })
  const heard: string[] = []
  ws.on('message', data => heard.push(String(data)))
  await once(ws, 'open')
  return { ws, heard, [Symbol.dispose]: () => ws.terminate() }
}

test('only operators are told, in the format of Prometheus', async () => {
  expect((await ask({})).status).toBe(401)
  expect((await ask({ authorization: `Bearer ${token}` })).status).toBe(401)
  const response = await ask()
  expect(response.status).toBe(200)
  expect(response.headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8')
  const told = new Exposition(await response.text())
  expect([...told.families.keys()]).toEqual(expect.arrayContaining(Object.keys(metrics)))
  expect(told.find('tidegate_build_info', { version: release })).toBe(1)
})

test('a node that leads is ready, knows its slot, and is not behind', async () => {
  await whenTold(told => told.find('tidegate_slot_wal_status', { status: 'reserved' }) === 1)
  const told = await scrape()
  for (const name of ['tidegate_ready', 'tidegate_leader']) expect(told.value(name)).toBe(1)
  for (const name of ['tidegate_stale', 'tidegate_draining', 'tidegate_trouble']) expect(told.value(name)).toBe(0)
  expect(told.value('tidegate_slot_wal_limit_bytes')).toBe(1024 ** 3)
  // The window is held back in the slot.
  await whenTold(told => told.value('tidegate_slot_lag_bytes') > 0)
  await whenTold(told => told.value('tidegate_slot_retained_wal_bytes') >= told.value('tidegate_slot_lag_bytes'))
  expect(told.value('tidegate_window_commits')).toBeGreaterThan(0)
  expect(told.value('tidegate_window_bytes')).toBeGreaterThan(0)
  await whenTold(told => told.find('tidegate_node_lag_bytes') === 0 && told.find('tidegate_relay_lag_bytes') === 0)
  expect(told.value('tidegate_node_lag_seconds')).toBeLessThan(5)
  expect(told.value('tidegate_postgres_connections_limit')).toBeGreaterThan(3)
})

test('the slot that is not acknowledged grows older and holds WAL back', async () => {
  const before = await scrape()
  await database.query(`SELECT pg_logical_emit_message(false, 'filler', repeat('x', 100000))`)
  await whenTold(
    told =>
      told.value('tidegate_slot_lag_seconds') > before.value('tidegate_slot_lag_seconds') &&
      told.value('tidegate_slot_lag_bytes') > before.value('tidegate_slot_lag_bytes') + 100_000,
  )
})

test('a commit is counted and timed in every stage of its way', async () => {
  using first = await live()
  using second = await live()
  const before = await scrape()
  await database.query(`INSERT INTO messages VALUES (1000, 1, 'w', 'for two'), (1001, 1, 'w', 'for two')`)
  for (const { stream, rows } of [first, second]) await stream.waitFor(() => rows.rows.size === 42)
  const after = await scrape()
  const grown = (name: string, labels = {}): number => after.value(name, labels) - before.value(name, labels)
  expect(grown('tidegate_changes_total')).toBe(2)
  expect(grown('tidegate_decisions_total', { kind: 'compiled' })).toBe(2)
  expect(grown('tidegate_decisions_total', { kind: 'cached' })).toBe(2)
  expect(grown('tidegate_decisions_total', { kind: 'asked' })).toBe(0)
  expect(grown('tidegate_batches_total')).toBe(1)
  expect(grown('tidegate_deliveries_total')).toBe(2)
  for (const name of ['commits', 'commit_bytes', 'wal_messages', 'wal_bytes', 'writes', 'delivered_bytes'])
    expect(grown(`tidegate_${name}_total`)).toBeGreaterThan(0)
  for (const stage of stages) expect(grown('tidegate_stage_duration_seconds_count', { stage })).toBeGreaterThan(0)
  expect(grown('tidegate_commit_to_delivery_seconds_count')).toBe(1)
  const seconds = grown('tidegate_commit_to_delivery_seconds_sum')
  expect(seconds).toBeGreaterThan(0)
  expect(seconds).toBeLessThan(10)
  expect(after.value('tidegate_connections')).toBe(2)
  expect(after.value('tidegate_subscriptions')).toBe(2)
  expect(after.value('tidegate_audiences')).toBeGreaterThanOrEqual(1)
  expect(after.value('tidegate_queries')).toBeGreaterThanOrEqual(1)
})

test('of many commits in a row, frames go out together, and only some are timed', async () => {
  using reader = await live('?id=gt.5000')
  const before = await scrape()
  const many = 3000
  await database.query(
    `DO $$ BEGIN FOR i IN 1..${many} LOOP INSERT INTO messages VALUES (5000 + i, 1, 'w', 'a row'); COMMIT; END LOOP; END $$`,
  )
  await reader.stream.waitFor(() => reader.rows.rows.size === many)
  const after = await scrape()
  const grown = (name: string, labels = {}): number => after.value(name, labels) - before.value(name, labels)
  expect(grown('tidegate_deliveries_total')).toBeGreaterThanOrEqual(many)
  expect(grown('tidegate_frames_merged_total')).toBeGreaterThan(0)
  expect(grown('tidegate_frames_merged_total') + grown('tidegate_writes_total')).toBeGreaterThanOrEqual(many)
  const timed = grown('tidegate_stage_duration_seconds_count', { stage: 'deliver' })
  expect(timed).toBeGreaterThan(0)
  expect(timed).toBeLessThan(many)
  await database.query('DELETE FROM messages WHERE id > 5000')
})

test('first rows are counted and timed', async () => {
  const before = await scrape()
  using one = await live('?id=lt.11')
  using limited = await live('?order=id&limit=7')
  const after = await scrape()
  const rows = one.rows.list().length + limited.rows.list().length
  expect(rows).toBe(17)
  expect(after.value('tidegate_snapshot_rows_total') - before.value('tidegate_snapshot_rows_total')).toBe(rows)
  const count = 'tidegate_snapshot_duration_seconds_count'
  expect(after.value(count) - before.value(count)).toBe(2)
})

test('a policy that Postgres is asked about shows as such', async () => {
  await database.query(`INSERT INTO crew VALUES (1, '${ada}'); INSERT INTO papers VALUES (1, 1, 'w', 'asked about')`)
  const before = await scrape()
  using papers = await (await LiveSse.open(node, '/v1/live/papers', token)).exact()
  expect(papers.rows.list()).toHaveLength(1)
  await whenTold(
    told =>
      told.value('tidegate_decisions_total', { kind: 'asked' }) >
      before.value('tidegate_decisions_total', { kind: 'asked' }),
  )
})

test('a revocation is told, and whoever reads what it hid has it no more', async () => {
  const eve = person()
  await database.query(`INSERT INTO members VALUES (1, '${eve}')`)
  using hers = await live('', await tokenFor(eve))
  const before = await scrape()
  await database.query(`DELETE FROM members WHERE user_id = '${eve}'`)
  await hers.stream.waitFor(() => hers.rows.list().length === 0)
  const after = await scrape()
  expect(after.value('tidegate_deliveries_total')).toBeGreaterThan(before.value('tidegate_deliveries_total'))
})

test('what is refused, ended and begun anew is told by its code', async () => {
  const before = await scrape()
  // A table that is not there, over HTTP, and over a WebSocket.
  const refused = await SseStream.open(node, '/v1/live/nowhere', token)
  using one = await socket()
  one.ws.send(JSON.stringify({ type: 'subscribe', id: 1, kind: 'live', table: 'nowhere' }))
  await expect.poll(() => one.heard.filter(frame => frame.includes('"error"')).length).toBe(1)
  const { code } = JSON.parse(one.heard.at(-1)!) as { code: string }
  expect(refused.errorBody.code).toBe(code)
  // No HTTP at all.
  const answered = await fetch(`${node.url}/v1/live/messages`, { method: 'DELETE' })
  expect(answered.status).toBe(405)
  // A connection that breaks the protocol, one that goes, and a poll.
  one.ws.send('no frame')
  await once(one.ws, 'close')
  const another = await socket()
  another.ws.close(1000)
  await once(another.ws, 'close')
  const poll = await fetch(`${node.url}/v1/live/messages?wait=0`, {
    headers: { authorization: `Bearer ${token}`, accept: 'application/json' },
  })
  expect(poll.status).toBe(200)
  await poll.text()
  // Another query than the position is of.
  using earlier = await live('?id=lt.5')
  using later = await LiveSse.open(node, '/v1/live/messages?id=lt.6', token, earlier)
  await later.stream.until(({ event }) => event === 'resync')

  await whenTold(after => {
    const grown = (name: string, label: string): number =>
      after.value(name, { code: label }) - before.value(name, { code: label })
    return (
      grown('tidegate_refusals_total', code) === 2 &&
      grown('tidegate_refusals_total', 'METHOD_NOT_ALLOWED') === 1 &&
      grown('tidegate_connections_closed_total', 'BAD_FRAME') === 1 &&
      grown('tidegate_connections_closed_total', 'CLIENT_LEFT') >= 1 &&
      grown('tidegate_connections_closed_total', 'ANSWERED') === 1 &&
      grown('tidegate_resyncs_total', 'QUERY_CHANGED') === 1
    )
  })
  const after = await scrape()
  const open = after.value('tidegate_connections_opened_total') - after.sum('tidegate_connections_closed_total')
  expect(open).toBe(after.value('tidegate_connections'))
})

test('channels, their members and who is present are told while they are there', async () => {
  const client = await ChannelClient.open(node, token)
  const room = await client.join('room:1')
  await room.track({ name: 'the secret name' })
  await room.send('typing', { secret: 'a payload that is nobody else’s' })
  await whenTold(
    told =>
      told.value('tidegate_channels') === 1 &&
      told.value('tidegate_channel_members') === 1 &&
      told.value('tidegate_presence_rooms') === 1,
  )
  client.close()
  await whenTold(told => told.value('tidegate_channels') === 0 && told.value('tidegate_channel_members') === 0)
})

test('what a slow reader leaves waits in bytes, and is folded when it reads again', async () => {
  using queues = new Queues()
  const slow = await SlowReader.open(node, 'websocket', 'live/messages', token)
  try {
    await slow.until(() => slow.rows.exact)
    const before = await scrape()
    slow.socket.pause()
    let round = 0
    const write = async (): Promise<void> => {
      round += 1
      await database.query(`UPDATE messages SET body = repeat('${round % 10}', 20000) WHERE id <= 40`)
    }
    await queues.stall(write)
    await whenTold(told => told.value('tidegate_queued_bytes') > 100_000)
    for (let more = 0; more < 4; more++) await write()
    slow.socket.resume()
    await whenTold(told => {
      const grown = (name: string): number => told.value(name) - before.value(name)
      return told.value('tidegate_queued_bytes') === 0 && grown('tidegate_commits_folded_total') > 0
    })
  } finally {
    slow.close()
  }
})

test('labels are codes, stages and kinds of ours; no token, topic, table, user or value of a row is in it', async () => {
  const text = await textNow()
  const { families } = new Exposition(text)
  const codes = { ...peerCodes, ...resyncCodes, ...operatorCodes, CLIENT_LEFT: 0, ANSWERED: 0, OTHER: 0 }
  const allowed: Record<string, ReadonlySet<string>> = {
    code: new Set(Object.keys(codes)),
    stage: new Set(stages),
    kind: new Set(['compiled', 'asked', 'cached']),
    status: new Set(['reserved', 'extended', 'unreserved', 'lost']),
    lane: new Set(['upkeep', 'look', 'slot', 'catalog', 'reads', 'snapshots', 'asked', 'explain']),
    version: new Set([release]),
    of: new Set(['process', 'heap']),
    fate: new Set(['sent', 'skipped', 'lost']),
  }
  for (const name of Object.keys(metrics))
    for (const { labels } of families.get(name)!.series)
      for (const [label, value] of Object.entries(labels))
        if (label !== 'le') expect(allowed[label]?.has(value), `${name} ${label}=${value}`).toBe(true)
  const samples = text.split('\n').filter(line => !line.startsWith('#'))
  const hidden = [
    ada,
    ben,
    token,
    operatorToken,
    'room:1',
    'nowhere',
    'public.',
    'papers',
    'secret',
    'a row',
    'authenticated',
  ]
  for (const each of hidden) expect(samples.filter(line => line.includes(each))).toEqual([])
})

test('a stream that stands still shows as stale and in trouble, with how long, and as over afterwards', async () => {
  link.isolate()
  await whenTold(told => told.value('tidegate_stale') === 1 && told.value('tidegate_node_lag_seconds') > 1.5)
  link.cut()
  await whenTold(
    told =>
      told.value('tidegate_trouble') === 1 &&
      told.value('tidegate_trouble_total', { code: 'DATABASE_UNREACHABLE' }) > 0,
  )
  link.thaw()
  link.cut()
  await whenTold(
    told =>
      told.value('tidegate_stale') === 0 &&
      told.value('tidegate_trouble') === 0 &&
      told.value('tidegate_leader') === 1 &&
      told.value('tidegate_node_lag_seconds') < 1.5,
  )
})

test('a node that leaves says so to whoever still asks', async () => {
  using waiting = await live()
  const leaving = node.server.stop()
  const told = await scrape().catch(() => null)
  if (told !== null) {
    expect(told.value('tidegate_draining')).toBe(1)
    expect(told.value('tidegate_ready')).toBe(0)
  }
  await leaving
  expect(
    waiting.stream.events.some(
      ({ event, data }) => event === 'error' && (data as { code: string }).code === 'GOING_AWAY',
    ),
  ).toBe(true)
})
