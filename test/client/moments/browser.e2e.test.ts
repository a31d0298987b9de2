// The client in a real browser, through what happens to pages: frozen, in the background, cut off, forbidden, closed, loaded again, left
// and come back to.
import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { SignJWT } from 'jose'
import { rolldown } from 'rolldown'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { TransportName } from '../../../src/client/client.ts'
import { channelPolicies } from '../../support/channel-client.ts'
import { type ChromiumTab, ChromiumTabs } from '../../support/chromium-tabs.ts'
import { eventually } from '../../support/eventually.ts'
import { jwtSecret, person, prepareDatabase, roomsSchema, selectAs, TestNode } from '../../support/node.ts'
import { TestDatabase } from '../../support/postgres.ts'
import { crowding } from '../../support/within.ts'
import type { Said, Tab } from './tab.ts'

const heartbeatMs = 500
const graceMs = 2000
const ways: readonly TransportName[] = ['websocket', 'sse', 'long-poll']
const [ana, ben, cleo, dan] = [person(), person(), person(), person()]
let database: TestDatabase
let node: TestNode
let pages: Server
let browser: ChromiumTabs
let lastId = 0

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, roomsSchema + channelPolicies, ['rooms', 'members', 'messages'])
  await database.query(`INSERT INTO members VALUES ${[ana, ben, cleo, dan].map(user => `(1, '${user}')`)}`)
  node = await TestNode.start(database.url, {
    HEARTBEAT_MS: String(heartbeatMs),
    ALLOWED_ORIGINS: '*',
    CHANNELS: JSON.stringify([{ pattern: 'room:*', presence: { grace: graceMs } }]),
  })
  pages = await servePages()
  // Timers of a page behind others come once a minute, after a second instead of five minutes.
  browser = await ChromiumTabs.start(['--enable-features=IntensiveWakeUpThrottling:grace_period_seconds/1'])
})

afterAll(async () => {
  await browser?.[Symbol.asyncDispose]()
  pages?.close()
  await node?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

/** Pages at `/`, tokens at `/token`; at `/strict` a page whose policy lets it reach the service by http alone, at `/other` one without a client. */
async function servePages(): Promise<Server> {
  const input = fileURLToPath(new URL('tab.ts', import.meta.url))
  await using build = await rolldown({ input, platform: 'browser', logLevel: 'silent' })
  const { output } = await build.generate({ format: 'iife', codeSplitting: false })
  const server = createServer(async (request, response) => {
    const { pathname, searchParams } = new URL(request.url!, 'http://page')
    if (pathname === '/tab.js') return void response.setHeader('content-type', 'text/javascript').end(output[0].code)
    if (pathname === '/token') {
      const seconds = Number(searchParams.get('seconds') ?? 3600)
      const token = await new SignJWT({ role: 'authenticated', sub: searchParams.get('user')! })
        .setProtectedHeader({ alg: 'HS256' })
        .setExpirationTime(Math.ceil(Date.now() / 1000) + seconds)
        .sign(new TextEncoder().encode(jwtSecret))
      return void response.end(token)
    }
    response.setHeader('content-type', 'text/html')
    if (pathname === '/other') return void response.end('<p>other')
    if (pathname === '/strict')
      response.setHeader('content-security-policy', `connect-src ${pageUrl()} ${searchParams.get('url')}`)
    response.end('<script src="/tab.js"></script>')
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return server
}

const pageUrl = (): string => `http://127.0.0.1:${(pages.address() as AddressInfo).port}`

type Settings = Readonly<Record<string, string | number>>

const addressOf = (settings: Settings = {}, path = '/'): string => {
  const entries = Object.entries({ url: node.url, user: ana, ...settings }).map(([name, value]) => [name, `${value}`])
  return `${pageUrl()}${path}?${new URLSearchParams(entries)}`
}

/** With a client, in a context of its own. */
const open = (settings?: Settings, path?: string): Promise<ChromiumTab> => browser.open(addressOf(settings, path))

/** One for each transport. */
async function openEach(
  settings: (way: TransportName, n: number) => Settings,
): Promise<AsyncDisposable & { readonly pages: readonly ChromiumTab[] }> {
  const pages = await Promise.all(ways.map((way, n) => open(settings(way, n))))
  return {
    pages,
    async [Symbol.asyncDispose]() {
      for (const page of pages) await page[Symbol.asyncDispose]()
    },
  }
}

const tabOf = (page: ChromiumTab): Promise<Tab> => page.evaluate<Tab>('globalThis.tab')

const words = (said: readonly Said[]): string[] => said.map(({ name }) => name)

/** What was said since. */
const since = (tab: Tab, at: number): Said[] => tab.said.filter(said => said.at >= at)

/** Says that it is live, or degraded, its rows are those of the SELECT now, and it was told of what was inserted, each once. */
async function isRight(
  page: ChromiumTab,
  { name = 'live', inserted = [] }: { name?: 'live' | 'degraded'; inserted?: readonly number[] } = {},
): Promise<Tab> {
  const ids = (await selectAs(database, ana, 'SELECT id FROM public.messages ORDER BY id')).map(({ id }) => id)
  return eventually(async () => {
    const tab = await tabOf(page)
    expect([tab?.said.at(-1)?.name, tab?.feed, tab?.rows.toSorted((a, b) => a - b)]).toEqual([name, 'live', ids])
    expect([tab.inserted, tab.resyncs, tab.errors]).toEqual([inserted, [], []])
    return tab
  })
}

/** Another tab in front of it. */
async function hide(page: ChromiumTab): Promise<void> {
  await browser.open(`${pageUrl()}/other`, page.context)
  await eventually(async () => expect(await page.evaluate('document.visibilityState')).toBe('hidden'))
}

async function write(count = 1): Promise<number[]> {
  const ids = Array.from({ length: count }, () => ++lastId)
  for (const id of ids) await database.query(`INSERT INTO messages VALUES (${id}, 1, 'w', 'row')`)
  return ids
}

test('[P4] pages that are frozen past their connections and their tokens: they say that they were away, then are right', async () => {
  await using frozen = await openEach(way => ({ transports: way, seconds: 3 }))
  for (const page of frozen.pages) {
    await isRight(page)
    await hide(page)
    await page.send('Page.setWebLifecycleState', { state: 'frozen' })
    await eventually(async () => expect((await tabOf(page)).moments.at(-1)?.name).toBe('freeze'))
  }
  const frozenAt = Date.now()
  const ids = await write(2)
  // Longer than the token, and than a server waits for heartbeats.
  await sleep(3500)
  ids.push(...(await write(2)))
  const limitMs = 2 * heartbeatMs * crowding()
  for (const [n, page] of frozen.pages.entries()) {
    expect(since(await tabOf(page), frozenAt)).toEqual([])
    const wokeAt = Date.now()
    await page.send('Page.setWebLifecycleState', { state: 'active' })
    await page.show()
    const tab = await isRight(page, { inserted: ids })
    // Polls are no connection that is lost: they may have everything as soon.
    const [first] = since(tab, wokeAt)
    if (n < 2) expect(first!.name).toBe('offline')
    expect(Math.min(first?.at ?? Infinity, tab.insertedAt) - wokeAt).toBeLessThan(limitMs)
    expect(tab.asked.at(-1)).toBeGreaterThanOrEqual(wokeAt)
  }
})

test('[P8] pages in the background, whose timers come late, and those in chains once a minute: they stay connected, and renew their tokens', async () => {
  await using behind = await openEach(way => ({ transports: way, seconds: 5 }))
  for (const page of behind.pages) {
    await isRight(page)
    await hide(page)
  }
  for (const page of behind.pages) {
    // Once a second at first; then less often than a server waits for.
    await eventually(async () =>
      expect(Date.now() - (await page.evaluate<number>('globalThis.tickedAt'))).toBeGreaterThan(3 * heartbeatMs),
    )
    // Where each waits for its timer, and what it sends for another, some come after the token's end.
    await eventually(async () => expect((await tabOf(page)).asked.length).toBeGreaterThan(3))
  }
  const ids = await write()
  for (const page of behind.pages) {
    const tab = await isRight(page, { inserted: ids })
    expect(words(tab.said)).toEqual(['connecting', 'catching up', 'live'])
  }
})

test('[P8] the network goes and comes: offline is said by then, and it is back with the network, not after the wait', async () => {
  await using page = await open({}, '/other')
  // Before the socket is there that is to be cut.
  await page.send('Network.enable')
  await page.go(addressOf())
  await isRight(page)
  const setOffline = (offline: boolean): Promise<unknown> =>
    page.send('Network.emulateNetworkConditions', { offline, latency: 0, downloadThroughput: -1, uploadThroughput: -1 })
  const limitMs = 2 * heartbeatMs * crowding()
  const cutAt = Date.now()
  await setOffline(true)
  const ids = await write(2)
  // Until the next attempt is so far away that it will not be what brings the page back.
  const waits = await eventually(async () => {
    const last = (await tabOf(page)).said.at(-1)!
    expect((last.retryAt ?? 0) - Date.now()).toBeGreaterThan(2000)
    return last
  })
  const [first] = since(await tabOf(page), cutAt)
  expect(first!.name).toBe('offline')
  expect(first!.at - cutAt).toBeLessThan(limitMs + heartbeatMs)
  await setOffline(false)
  const tab = await isRight(page, { inserted: ids })
  const online = tab.moments.findLast(({ name }) => name === 'online')
  const [next] = since(tab, waits.at + 1)
  expect(next!.at).toBeLessThan(waits.retryAt!)
  expect(next!.at - online!.at).toBeLessThan(100 * crowding())
})

test("[P8] a page's policy forbids WebSockets: a stream at once, also on the next page; and back where nothing forbids them", async () => {
  await using page = await open({}, '/strict')
  const first = await isRight(page, { name: 'degraded' })
  const degraded = first.said.find(({ name }) => name === 'degraded')!
  expect(degraded).toMatchObject({ transport: 'sse', reason: { code: 'TRANSPORT_BLOCKED' } })
  // One wait from nothing to half a second lies between, and not the patience with a handshake.
  expect(degraded.at - first.said[0]!.at).toBeLessThan(1500 * crowding())
  await page.reload()
  const second = await isRight(page, { name: 'degraded' })
  expect(second.life).not.toBe(first.life)
  // Not tried again first.
  expect(words(second.said)).toEqual(['connecting', 'catching up', 'degraded'])
  expect(second.said.at(-1)).toMatchObject({ transport: 'sse', reason: { code: 'TRANSPORT_BLOCKED' } })
  await page.go(addressOf({ luck: 0.99 }))
  expect((await isRight(page, { name: 'degraded' })).life).not.toBe(second.life)
  const ids = await write(2)
  await isRight(page, { name: 'degraded', inserted: ids })
  expect((await isRight(page, { inserted: ids })).said.at(-1)).toMatchObject({ transport: 'websocket' })
  await page.reload()
  const { said } = await isRight(page)
  expect(said.at(-1)).toMatchObject({ transport: 'websocket' })
})

test('[P4] pages in a channel: loaded again they never left, closed they leave after the grace, over each transport', async () => {
  await using watching = await open({ user: ben })
  const others = [ana, cleo, dan]
  await using here = await openEach((transports, n) => ({ transports, user: others[n]!, track: 'yes' }))
  await eventually(async () => expect((await tabOf(watching)).here.toSorted()).toEqual(others.toSorted()))
  const before = await tabOf(watching)
  for (const page of here.pages) {
    await page.reload()
    await eventually(async () => expect((await tabOf(page)).isTracked).toBe(true))
  }
  // Past the grace.
  await sleep(graceMs + 500)
  const after = await tabOf(watching)
  expect([after.here.toSorted(), after.joined, after.left]).toEqual([others.toSorted(), before.joined, before.left])
  const closedAt = Date.now()
  for (const page of here.pages) await page.close()
  await eventually(async () => expect(await tabOf(watching)).toMatchObject({ here: [], left: before.left + 3 }))
  const { leftAt } = await tabOf(watching)
  expect(leftAt[0]! - closedAt).toBeGreaterThan(graceMs - 500)
})

test.each(ways)('[P4] over %s, a page that is left and come back to is right, with each change once', async way => {
  await using page = await open({ transports: way })
  const { life } = await isRight(page)
  await page.go(`${pageUrl()}/other`)
  const ids = await write(2)
  await sleep(3 * heartbeatMs)
  await page.evaluate('setTimeout(() => history.back()) && null')
  const tab = await isRight(page, { inserted: ids })
  // Kept as it was, not loaded again; else this would prove nothing.
  expect([tab.life, tab.moments.at(-1)?.name]).toEqual([life, 'pageshow'])
})
