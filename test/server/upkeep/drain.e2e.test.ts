// `tidegate start` as a process that gets SIGTERM, once and twice.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { freePort } from '../../../src/cli/local-postgres.ts'
import type { ReadinessBody } from '../../../src/server/upkeep/readiness.ts'
import { jwtSecret, LiveSse, person, prepareDatabase, roomsSchema, tokenFor } from '../../support/node.ts'
import { TestDatabase } from '../../support/postgres.ts'
import { type RunningProcess, startCli } from '../../support/run-cli.ts'
import { until } from '../../support/stalled.ts'
import { expectWithin } from '../../support/within.ts'

const ada = person()
let database: TestDatabase
let token: string

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, roomsSchema, ['rooms', 'members', 'messages'])
  await database.query(`INSERT INTO members VALUES (1, '${ada}')`)
  token = await tokenFor(ada)
})

afterAll(() => database?.[Symbol.asyncDispose]())

async function start(env: Record<string, string>): Promise<{ node: RunningProcess; url: string }> {
  const port = await freePort()
  const node = startCli(['start'], {
    DATABASE_URL: database.url,
    JWT_SECRET: jwtSecret,
    PORT: String(port),
    BEACON_MS: '500',
    ...env,
  })
  await node.until(({ out }) => out.includes('tidegate is ready'))
  return { node, url: `http://127.0.0.1:${port}` }
}

async function ready(url: string, scope = ''): Promise<ReadinessBody & { status: number }> {
  const response = await fetch(`${url}/ready${scope}`)
  return { ...((await response.json()) as ReadinessBody), status: response.status }
}

test('[P4] [P8] after SIGTERM a node is not ready, serves on until the balancer has noticed, then says goodbye and ends', async () => {
  const { node, url } = await start({ DRAIN_DELAY_MS: '6000' })
  await using _ = node
  using live = await (await LiveSse.open({ url }, '/v1/live/messages', token)).exact()
  expect((await ready(url)).status).toBe(200)
  node.child.kill('SIGTERM')
  await until(async () => (await ready(url)).draining)
  for (const scope of ['', '?scope=node'])
    expect(await ready(url, scope)).toMatchObject({ status: 503, ready: false, why: 'draining', draining: true })
  expect((await fetch(`${url}/health`)).status).toBe(200)
  // A balancer that has not noticed yet sends another one: it is served, and so is the first.
  using late = await (await LiveSse.open({ url }, '/v1/live/messages', token)).exact()
  await database.query(`INSERT INTO messages VALUES (1, 1, 'a', 'while it leaves')`)
  for (const each of [live, late]) await each.stream.waitFor(() => each.rows.list().length === 1)
  expect((await node.end()).code).toBe(0)
  for (const { stream, failure } of [live, late]) {
    await stream.waitFor(() => stream.ended)
    expect([failure, stream.events.at(-1)?.data]).toMatchObject([null, { code: 'GOING_AWAY', retry: true }])
  }
})

test('a second SIGTERM ends it at once, whatever it waits for', async () => {
  const { node, url } = await start({ DRAIN_DELAY_MS: '600000' })
  await using _ = node
  node.child.kill('SIGTERM')
  await until(async () => (await ready(url)).draining)
  node.child.kill('SIGTERM')
  expect((await node.end()).code).toBe(143)
})

test('a node whose readiness nobody asks for ends at the first SIGTERM without a delay', async () => {
  const { node } = await start({})
  await using _ = node
  const beganAt = performance.now()
  node.child.kill('SIGINT')
  expect((await node.end()).code).toBe(0)
  expectWithin(performance.now() - beganAt, 4000)
})
