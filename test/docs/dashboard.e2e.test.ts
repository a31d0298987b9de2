// The dashboard for Grafana: a real Prometheus scrapes a real node under load, and every panel has something to show.

import { readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { alertRules } from '../../scripts/alert-rules.ts'
import { dashboard } from '../../scripts/dashboard.ts'
import { type Query, rows } from '../../scripts/dashboard-panels.ts'
import { ChannelClient, channelPolicies } from '../support/channel-client.ts'
import { FaultyLink } from '../support/faulty-link.ts'
import { LiveSse, person, prepareDatabase, roomsSchema, SseStream, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { Prometheus } from '../support/prometheus.ts'
import { unknownIn } from './promql.ts'

const operatorToken = 'an-operator-of-the-dashboard-and-no-other'
const alerts = fileURLToPath(new URL('../../docs/operations/alerts.yml', import.meta.url))
const panels = rows.flatMap(row => row.panels.map(panel => ({ ...panel, row: row.title })))
const named = panels.map(panel => [`${panel.row}: ${panel.title}`, panel] as const)

/** As Grafana fills it in, for all nodes. */
const filled = (expr: string): string => expr.replaceAll('$instance', '.*').replaceAll('$__rate_interval', '1m')

test('docs/operations/grafana.json equals its table; if not: npm run docs', async () => {
  const file = await readFile(new URL('../../docs/operations/grafana.json', import.meta.url), 'utf8')
  expect(file).toBe(dashboard())
})

test('Grafana can import it: a source of data to choose, panels that do not overlap, each under its row', () => {
  const { __inputs, templating, panels: placed, schemaVersion } = JSON.parse(dashboard())
  expect(__inputs).toMatchObject([{ name: 'DS_PROMETHEUS', type: 'datasource', pluginId: 'prometheus' }])
  expect(templating.list).toMatchObject([{ name: 'instance', type: 'query' }])
  expect(schemaVersion).toBeGreaterThanOrEqual(39)
  const ids = placed.map(({ id }: { id: number }) => id)
  expect(new Set(ids).size).toBe(ids.length)
  const taken = new Set<string>()
  for (const { title, gridPos } of placed) {
    expect(gridPos.x + gridPos.w).toBeLessThanOrEqual(24)
    for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++)
      for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
        expect(taken.has(`${x} ${y}`), `${title} covers another`).toBe(false)
        taken.add(`${x} ${y}`)
      }
  }
  expect(placed.filter(({ type }: { type: string }) => type === 'row')).toHaveLength(rows.length)
})

test.each(named)('%s says what to make of it, of metrics that exist', (_, { description, queries }) => {
  expect(description).toMatch(/^[A-Z].{20,}[.]$/)
  expect(queries.length).toBeGreaterThan(0)
  for (const { expr, legend } of queries) {
    expect(unknownIn(filled(expr))).toEqual([])
    expect(expr).toContain('instance=~"$instance"')
    expect(legend).not.toBe('')
  }
})

const ada = person()
let database: TestDatabase
let link: FaultyLink
let node: TestNode
let prometheus: Prometheus

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, roomsSchema + channelPolicies, ['rooms', 'members', 'messages'])
  await database.query(`INSERT INTO members VALUES (1, '${ada}')`)
  link = await FaultyLink.to(database.url)
  node = await TestNode.start(link.url, { OPERATOR_TOKEN: operatorToken, BEACON_MS: '500' })
  prometheus = await Prometheus.start(node.url.replace('http://', ''), operatorToken, [alerts])
}, 300_000)

afterAll(async () => {
  await prometheus?.[Symbol.asyncDispose]()
  await node?.[Symbol.asyncDispose]()
  await link?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

/** Rows for readers who come and go, something refused, something begun anew. */
async function live(token: string, round: number): Promise<void> {
  using earlier = await (await LiveSse.open(node, '/v1/live/messages?id=gt.0', token)).exact()
  await database.query(`INSERT INTO messages VALUES (${round}, 1, 'w', 'a row')`)
  await earlier.stream.waitFor(() => earlier.rows.rows.size === round)
  using later = await LiveSse.open(node, '/v1/live/messages?id=gt.-1', token, earlier)
  await later.stream.until(({ event }) => event === 'resync')
  using refused = await SseStream.open(node, '/v1/live/nowhere', token)
  expect(refused.status).toBeGreaterThanOrEqual(400)
}

const isShown = async ({ expr }: Query): Promise<boolean> =>
  (await prometheus.query(filled(expr))).some(({ value }) => Number.isFinite(value))

test('every query of every panel has something to show', { timeout: 120_000 }, async () => {
  const token = await tokenFor(ada)
  link.cut()
  await expect.poll(() => node.server.figures.troubles.of('DATABASE_UNREACHABLE')).toBeGreaterThan(0)
  const client = await ChannelClient.open(node, token)
  const room = await client.join('room:1')
  await room.track({ name: 'somebody' })
  let empty = panels.flatMap(({ title, queries }) => queries.map(query => ({ title, query })))
  const began = performance.now()
  for (let round = 1; empty.length > 0 && performance.now() - began < 90_000; round++) {
    await live(token, round)
    // Each begins a subscription anew: a hundred of them in five minutes would be an alarm.
    await sleep(1000)
    const shown = await Promise.all(empty.map(({ query }) => isShown(query)))
    empty = empty.filter((_, place) => !shown[place])
  }
  client.close()
  expect(empty).toEqual([])
  const [ready] = await prometheus.query('sum(tidegate_ready{instance=~".*"})')
  expect(ready?.value).toBe(1)
})

test('every alert can be judged by what a node tells, and none of a whole node fires', async () => {
  await expect
    .poll(async () => [...(await prometheus.rules()).entries()].filter(([, health]) => health !== 'ok'))
    .toEqual([])
  expect([...(await prometheus.rules()).keys()].sort()).toEqual(alertRules.map(({ name }) => name).sort())
  const firing = await prometheus.query('ALERTS{alertstate="firing"}')
  expect(firing.map(({ labels }) => labels.alertname)).toEqual([])
})
