// Streams without a WebSocket over many nodes: read here, sent to there.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { NodeProcess } from '../faults/node-process.ts'
import { post, TestFrameStream } from '../server/deliver/support/frame-stream.ts'
import { channelPolicies } from '../support/channel-client.ts'
import { FaultyLink } from '../support/faulty-link.ts'
import { person, prepareDatabase, roomsSchema, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { type RedisProcess, startRedis } from '../support/redis-process.ts'

let database: TestDatabase
let redis: RedisProcess
/** The second node's way to Redis. */
let link: FaultyLink
let a: TestNode
let b: TestNode
const [ada, ben] = [person(), person()]
let [adas, bens] = ['', '']
const at = ({ url }: { url: string }) => ({ port: Number(new URL(url).port) })

beforeAll(async () => {
  database = await TestDatabase.create()
  redis = await startRedis()
  link = await FaultyLink.to(redis.url)
  await prepareDatabase(database, roomsSchema + channelPolicies, ['rooms', 'members', 'messages'])
  await database.query(`INSERT INTO members (room_id, user_id) VALUES (1, '${ada}'), (1, '${ben}')`)
  a = await TestNode.start(database.url, { REDIS_URL: redis.url })
  b = await TestNode.start(database.url, { REDIS_URL: link.url })
  adas = await tokenFor(ada)
  bens = await tokenFor(ben)
})

afterAll(async () => {
  for (const node of [a, b]) await node?.[Symbol.asyncDispose]()
  await link?.[Symbol.asyncDispose]()
  await redis?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

/** Read from one node, sent to over another. */
async function opened(reads = a, sends = b, token = adas): Promise<TestFrameStream> {
  const stream = await TestFrameStream.open(at(reads), token)
  stream.posts = at(sends)
  return stream
}

let lastId = 0
async function write(): Promise<number> {
  lastId += 1
  await database.query(`INSERT INTO messages VALUES (${lastId}, 1, 'a', 'b')`)
  return lastId
}

const idsOf = (stream: TestFrameStream): unknown[] =>
  stream
    .of('delta')
    .flatMap(({ changes }) => changes)
    .map(change => ('key' in change ? change.key.id : null))

test('[P5] what is sent over another node is done by the stream, in its order', async () => {
  await using stream = await opened()
  await stream.subscribe(1, 'messages')
  await stream.frame('snapshot', frame => frame.done)
  const id = await write()
  await stream.until(() => idsOf(stream).includes(id), 'the row')
  await stream.join(2, 'room:1', { self: true })
  for (let n = 0; n < 20; n += 1) {
    stream.send({ type: 'send', id: 2, ref: n, event: 'count', payload: n })
    if (n % 3 === 0) await stream.sent()
  }
  await stream.until(() => stream.of('message').length === 20 && stream.of('sent').length === 20, 'twenty messages')
  expect(stream.of('message').map(({ payload }) => payload)).toEqual(Array.from({ length: 20 }, (_, n) => n))
  expect(stream.answers.every(({ status }) => status === 204)).toBe(true)
  expect(stream.of('message')[0]!.sender).toEqual({ user: ada, connection: stream.of('welcome')[0]!.connection })
})

test('[P4] a POST that comes again, on any node, is done once', async () => {
  await using stream = await opened()
  const frames = [{ type: 'join', id: 1, topic: 'room:1', self: true }]
  expect((await stream.post({ seq: 1, frames })).status).toBe(204)
  await stream.frame('joined')
  const send = { seq: 2, frames: [{ type: 'send', id: 1, ref: 1, event: 'once' }] }
  const answers = await Promise.all(
    [at(a), at(b), at(b)].map(node => post(node, `/v1/stream/${stream.key}`, send, adas)),
  )
  expect(answers.map(({ status }) => status)).toEqual([204, 204, 204])
  expect((await stream.post({ seq: 3, frames: [{ type: 'send', id: 1, ref: 2, event: 'last' }] })).status).toBe(204)
  await stream.frame('sent', ({ ref }) => ref === 2)
  await stream.frame('message', ({ event }) => event === 'last')
  expect(stream.of('message').map(({ event }) => event)).toEqual(['once', 'last'])
  expect(await stream.post({ seq: 5, frames: [] })).toMatchObject({ status: 400, body: { code: 'BAD_FRAME' } })
})

test('[P8] nobody but its subject sends to a stream; one that is over, or of a node that is not, is unknown', async () => {
  let key = ''
  {
    await using stream = await opened()
    key = stream.key
    for (const node of [a, b]) {
      for (const token of [bens, await tokenFor(ada, { role: 'anon' })])
        expect(await post(at(node), `/v1/stream/${key}`, { seq: 1, frames: [] }, token)).toMatchObject({
          status: 404,
          body: { code: 'STREAM_UNKNOWN', retry: true },
        })
      expect(await post(at(node), `/v1/stream/${key}`, { seq: 1, frames: [] }, null)).toMatchObject({ status: 401 })
    }
    expect((await stream.post({ seq: 1, frames: [] })).status).toBe(204)
  }
  const [secret, nodeId] = key.split('.') as [string, string]
  const others = [key, secret, `${secret}.0123456789abcdef`, `${secret}x.${nodeId}`, `${secret}.%2f..`, 'x']
  for (const other of others)
    await expect
      .poll(async () => (await post(at(b), `/v1/stream/${other}`, { seq: 1, frames: [] }, adas)).body?.code)
      .toBe('STREAM_UNKNOWN')
})

test('a token is renewed by a frame over another node, and later POSTs bring the new one', async () => {
  await using stream = await opened()
  await stream.subscribe(1, 'messages')
  await stream.frame('snapshot', frame => frame.done)
  stream.token = await tokenFor(ada, { level: 2 })
  stream.send({ type: 'auth', token: stream.token })
  await stream.frame('authenticated')
  const id = await write()
  await stream.until(() => idsOf(stream).includes(id), 'the row')
  stream.send({ type: 'auth', token: bens })
  expect((await stream.closed).reason).toBe('TOKEN_INVALID')
})

test('a transaction is waited for over another node: its rows, where everything stands, and then that it has passed', async () => {
  await using stream = await opened()
  await stream.subscribe(1, 'messages')
  await stream.frame('snapshot', frame => frame.done)
  for (let ref = 1; ref <= 5; ref += 1) {
    lastId += 1
    const [row] = (await database.query(
      `WITH said AS (INSERT INTO messages VALUES (${lastId}, 1, 'a', 'b')) SELECT pg_current_xact_id()::text AS xid`,
    )) as { xid: string }[]
    stream.send({ type: 'wait', ref, txid: row!.xid })
    const waited = await stream.frame('waited', frame => frame.ref === ref)
    const place = stream.frames.indexOf(waited)
    expect(idsOf(stream)).toContain(lastId)
    const beat = stream.frames.slice(0, place).findLast(({ type }) => type === 'heartbeat')
    expect(beat).toMatchObject({ positions: { 1: expect.anything() } })
    const standing = (beat as { positions: Record<string, string> }).positions[1]!.split('.')[0]!
    expect(BigInt(`0x${standing.split('-')[1]}`)).toBeGreaterThanOrEqual(BigInt(`0x${waited.position.split('-')[1]}`))
  }
})

test('[P4] while Redis does not answer, a POST is refused to be sent again, and is then done once', async () => {
  await using stream = await opened()
  await stream.join(1, 'room:1', { self: true })
  const send = { seq: 2, frames: [{ type: 'send', id: 1, ref: 1, event: 'once' }] }
  link.freeze()
  const refused = await post(at(b), `/v1/stream/${stream.key}`, send, adas)
  expect(refused).toMatchObject({ status: 503, body: { code: 'UNAVAILABLE', retry: true } })
  link.thaw()
  await expect.poll(async () => (await stream.post(send)).status, { timeout: 15_000 }).toBe(204)
  expect((await stream.post(send)).status).toBe(204)
  await stream.frame('sent')
  await stream.frame('message')
  expect(stream.of('message')).toHaveLength(1)
})

test('[P4] when a node dies its streams are unknown elsewhere, and go on there from where they stood', async () => {
  const dying = await NodeProcess.start(database.url, { REDIS_URL: redis.url })
  const stream = await TestFrameStream.open(at(dying), adas)
  try {
    stream.posts = at(b)
    const { tag } = await stream.subscribe(1, 'messages')
    await stream.frame('snapshot', frame => frame.done)
    const first = await write()
    await stream.until(() => idsOf(stream).includes(first), 'the row')
    const since = `${stream.of('delta').at(-1)!.position}.${tag}`
    await dying.kill()
    await stream.closed
    const second = await write()
    expect(await stream.post({ seq: 2, frames: [] })).toMatchObject({ status: 404, body: { code: 'STREAM_UNKNOWN' } })
    const frames = [{ type: 'subscribe', id: 1, kind: 'live', table: 'messages', since }] as const
    await using again = await TestFrameStream.open(at(b), adas, frames)
    expect(await again.frame('subscribed')).toMatchObject({ resumed: true })
    await again.until(() => idsOf(again).length > 0, 'what it missed')
    expect(idsOf(again)).toEqual([second])
  } finally {
    await dying.kill()
  }
})
