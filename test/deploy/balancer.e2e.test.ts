// deploy/nginx.conf before two nodes that run as processes: what docker-compose.yml does, on a machine without Docker.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { freePort } from '../../src/cli/local-postgres.ts'
import { jwtSecret, person, prepareDatabase, roomsSchema, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { transports } from '../support/readers.ts'
import { findRedis, type TestRedis } from '../support/redis.ts'
import { type RunningProcess, startCli } from '../support/run-cli.ts'
import { writing } from '../support/writing.ts'
import { ComingBack } from './coming-back.ts'
import { type Nginx, startNginx } from './nginx.ts'

const reader = person()
let database: TestDatabase
let redis: TestRedis
let ports: readonly [number, number]
let nodes: [RunningProcess, RunningProcess]
let nginx: Nginx
let token: string

beforeAll(async () => {
  database = await TestDatabase.create()
  redis = await findRedis()
  await prepareDatabase(database, roomsSchema, ['rooms', 'members', 'messages'])
  await database.query(`INSERT INTO members VALUES (1, '${reader}')`)
  ports = [await freePort(), await freePort()]
  nodes = [start(0), start(1)]
  await Promise.all(nodes.map(isReady))
  nginx = await startNginx(ports)
  token = await tokenFor(reader)
}, 240_000)

afterAll(async () => {
  await nginx?.[Symbol.asyncDispose]()
  for (const node of nodes ?? []) await node[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
  await redis?.[Symbol.asyncDispose]()
})

const start = (place: 0 | 1): RunningProcess =>
  startCli(['start'], {
    DATABASE_URL: database.url,
    REDIS_URL: redis.url,
    JWT_SECRET: jwtSecret,
    PORT: String(ports[place]),
    BEACON_MS: '500',
    DATABASE_POOL: '4',
  })

const isReady = (node: RunningProcess): Promise<void> => node.until(({ out }) => out.includes('tidegate is ready'))

test('nginx takes the configuration as it is, and asks one node or the other for /ready', async () => {
  for (let time = 0; time < 4; time++) expect((await fetch(`${nginx.url}/ready?scope=node`)).status).toBe(200)
})

test('events come as they are made, and a page of the same host and port may connect', async () => {
  const headers = { authorization: `Bearer ${token}`, accept: 'text/event-stream', origin: nginx.url }
  const leave = new AbortController()
  const response = await fetch(`${nginx.url}/v1/live/messages`, { headers, signal: leave.signal })
  expect([response.status, response.headers.get('content-type')]).toEqual([200, 'text/event-stream; charset=utf-8'])
  let text = ''
  const body = response.body!.pipeThrough(new TextDecoderStream()).getReader()
  const until = async (part: string): Promise<void> => {
    while (!text.includes(part)) text += (await body.read()).value ?? ''
  }
  await until('event: snapshot')
  // Not when the stream ends, or a few kilobytes more have come.
  await database.query(`INSERT INTO messages VALUES (1, 1, 'a', 'at once')`)
  await until('at once')
  leave.abort()
})

test('[P4] readers on all three wires go on over kills and drains of the nodes, one after the other', async () => {
  const readers = transports.map(transport => new ComingBack(transport, nginx.url, 'messages', token))
  const written = await writing(database, { afterId: 1, everyMs: 50 }, async () => {
    for (const each of readers) await each.until(({ rows }) => rows.exact)
    for (const place of [0, 1] as const) {
      // Without a word, and back.
      nodes[place].child.kill('SIGKILL')
      await nodes[place].end()
      await progress(readers)
      nodes[place] = start(place)
      await isReady(nodes[place])
    }
    for (const place of [0, 1] as const) {
      // As a rolling restart does.
      nodes[place].child.kill('SIGTERM')
      expect((await nodes[place].end()).code).toBe(0)
      nodes[place] = start(place)
      await isReady(nodes[place])
      await progress(readers)
    }
  })
  for (const each of readers) {
    await each.until(({ rows }) => rows.rows.size === written)
    expect([each.transport, each.resyncs, each.failure]).toEqual([each.transport, [], null])
    // A poll that a node leaves unanswered is asked of the other one by nginx itself.
    if (each.transport !== 'long-poll') expect(each.connections).toBeGreaterThan(1)
    await each[Symbol.asyncDispose]()
  }
}, 240_000)

/** Everybody gets rows that are written from now on. */
async function progress(readers: readonly ComingBack[]): Promise<void> {
  const [{ last } = { last: 0 }] = await database.query<{ last: number }>('SELECT max(id)::int AS last FROM messages')
  for (const each of readers) await each.until(({ rows }) => rows.rows.has(JSON.stringify([last + 5])))
}
