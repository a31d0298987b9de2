// What the inspector's page makes of states that a real node is seldom in: stale, full, refusing, very busy.
import type { Browser, BrowserContextOptions, Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import type { InspectedQuery } from '../../../src/server/inspect/wire.ts'
import { eventually } from '../../support/eventually.ts'
import { gone, launchChromium, openInspector, readabilities, rowOf, shown, signIn } from './browser.ts'
import { FakeNode, overview, trace } from './fake-node.ts'

let browser: Browser
let node: FakeNode
let page: Page
const problems: string[] = []

beforeAll(async () => {
  browser = await launchChromium()
}, 300_000)

afterAll(() => browser.close())

beforeEach(async () => {
  node = await FakeNode.start()
})

afterEach(async () => {
  await page.context().close()
  await node[Symbol.asyncDispose]()
  expect(problems.splice(0)).toEqual([])
})

async function open(options: BrowserContextOptions = {}): Promise<void> {
  page = await openInspector(browser, node.url, problems, options)
  await signIn(page, 'whatever')
  await shown(page.getByRole('tab', { name: 'Stream' }))
}

const banner = () => page.locator('#banner')
const commits = () => page.locator('#view-stream tr[data-row]')
const tellCommits = (from: number, many: number, skipped = 0): void =>
  node.say({
    event: 'commits',
    data: { traces: Array.from({ length: many }, (_, place) => trace(from + place)), skipped },
  })

test('[P8] a stale stream is told, and forgotten when it moves again', async () => {
  await open()
  await shown(page.getByText('follower'))
  node.say({ event: 'overview', data: overview({ stale: true, lagMs: 70_000 }) })
  await shown(banner().getByText('The stream stands still'))
  await shown(page.locator('#link').getByText('stale'))
  await shown(page.locator('#facts').getByText('70 s'))
  expect((await readabilities(page)).filter(({ ratio }) => ratio < 4.5)).toEqual([])
  node.say({ event: 'overview', data: overview() })
  await gone(banner())
})

test('[P8] a node that is full is asked again when it says, and its code is told', async () => {
  node.refusal = {
    status: 503,
    body: JSON.stringify({ code: 'BUSY', message: '8 watch already', retry: true, retryAfterMs: 1 }),
  }
  page = await openInspector(browser, node.url, problems)
  await signIn(page, 'whatever')
  await shown(banner().getByText('BUSY: 8 watch already'))
  await shown(banner().getByText(/Trying again/))
  node.refusal = null
  await gone(banner())
  expect(node.asked).toBeGreaterThan(1)
})

test('[P8] what will not mend is not asked again', async () => {
  node.refusal = {
    status: 404,
    body: JSON.stringify({ code: 'NOT_FOUND', message: 'no inspector here', retry: false }),
  }
  page = await openInspector(browser, node.url, problems)
  await signIn(page, 'whatever')
  await shown(banner().getByText('no inspector here Reload the page to try again.'))
  await shown(page.locator('#link').getByText('refused'))
  expect(node.asked).toBe(1)
})

test('an answer of somebody else, a proxy that has no node, is told as what it is', async () => {
  node.refusal = { status: 502, body: '<html>Bad gateway</html>' }
  page = await openInspector(browser, node.url, problems)
  await signIn(page, 'whatever')
  await shown(banner().getByText('HTTP_502: the answer is 502 Bad Gateway'))
})

test('a token that is taken back signs out', async () => {
  await open()
  node.end({ code: 'TOKEN_INVALID', message: 'the token is not OPERATOR_TOKEN', retry: false })
  await shown(page.getByText('Not signed in: the token is not OPERATOR_TOKEN.'))
  expect(await page.evaluate(() => sessionStorage.length)).toBe(0)
})

test('[P8] a node that leaves is told in its own words, and found again', async () => {
  await open()
  node.end({ code: 'GOING_AWAY', message: 'this node is shutting down', retry: true, retryAfterMs: 500 })
  await shown(banner().getByText('GOING_AWAY: this node is shutting down'))
  await gone(banner())
  expect(node.asked).toBe(2)
})

test('[P7] however many commits come, the page holds forty, and says how many it left out', async () => {
  await open()
  await eventually(() => expect(node.streams).toBe(1))
  for (let told = 0; told < 120; told++) tellCommits(25 * told, 25, 25)
  await shown(rowOf(page, 'stream', `public.table_${25 * 120 - 1}`))
  expect(await commits().count()).toBe(40)
  expect(await page.locator('.lane i').count()).toBeLessThanOrEqual(24)
  await shown(page.getByText('42 more at this moment'))
  await page.evaluate(() => {
    for (const animation of document.getAnimations()) animation.finish()
  })
  await eventually(async () => expect(await page.locator('.lane i').count()).toBe(0))
  const elements = await page.evaluate(() => document.querySelectorAll('*').length)
  expect(elements).toBeLessThan(1200)
})

test('rows stand still while one of them has the focus', async () => {
  await open()
  tellCommits(1, 3)
  await rowOf(page, 'stream', 'public.table_2').focus()
  tellCommits(100, 5)
  await shown(page.getByText('standing still while a row has the focus: 5 commits since'))
  expect(await commits().count()).toBe(3)
  await page.getByRole('button', { name: 'Pause' }).focus()
  tellCommits(200, 1)
  await shown(rowOf(page, 'stream', 'public.table_200'))
})

test('who wants no motion gets none', async () => {
  await open({ reducedMotion: 'reduce' })
  tellCommits(1, 5)
  await shown(commits().first())
  expect(await page.locator('.lane i').count()).toBe(0)
})

test('[P7] long lists are cut, and what is left out is said', async () => {
  const query = (number: number): InspectedQuery => ({
    number,
    kind: 'live',
    table: `public.t${number}`,
    columns: ['id'],
    filter: `note=eq.${'long '.repeat(400)}`,
    order: null,
    limit: null,
    subscribers: 1000 - number,
    audiences: [
      { role: 'authenticated', isAsked: true, subscribers: 2, behind: 1, isHeld: false },
      { role: 'authenticated', isAsked: false, subscribers: 1, behind: 0, isHeld: true },
    ],
    moreAudiences: 7,
  })
  const queries = Array.from({ length: 500 }, (_, number) => query(number))
  node.lists.set('/v1/inspect/queries', { queries, more: 12 })
  await open()
  await page.keyboard.press('2')
  await shown(page.getByText('500 in all; 12 smaller ones are not listed'))
  await shown(page.getByText('200 more are not shown.'))
  const first = page.locator('#view-queries tr[data-row]').first()
  expect(await first.locator('td').allTextContents()).toEqual(expect.arrayContaining(['1,000', '9', 'both', '1']))
  await first.click()
  expect((await first.textContent())!.length).toBeLessThan(400)
  await shown(page.getByText('held: waits for rows'))
  await shown(page.getByText(query(0).filter!.trim()))
  await shown(page.getByText('7 more audiences, smaller, not listed.'))
  // A list that could not be had again stays, and says so.
  node.lists.set('/v1/inspect/queries', null)
  await shown(page.getByText('These are from before: the server failed; see its log'))
  expect((await readabilities(page)).filter(({ ratio }) => ratio < 4.5)).toEqual([])
})

test('[P7] a tab that nobody looks at for five minutes gives its place to others, and comes back when it is looked at', async () => {
  page = await openInspector(browser, node.url, problems)
  await page.clock.install()
  await signIn(page, 'whatever')
  await eventually(() => expect(node.streams).toBe(1))
  const look = (isHidden: boolean): Promise<void> =>
    page.evaluate(hidden => {
      Object.defineProperty(document, 'hidden', { value: hidden, configurable: true })
      document.dispatchEvent(new Event('visibilitychange'))
    }, isHidden)
  await look(true)
  await page.clock.fastForward(299_000)
  await page.clock.fastForward(1000)
  await eventually(() => expect(node.streams).toBe(0))
  const { asked } = node
  await page.clock.runFor(60_000)
  await page.evaluate(() => fetch('v1/inspect/nodes').then(response => response.text()))
  expect([node.streams, node.asked]).toEqual([0, asked])
  await look(false)
  await eventually(() => expect(node.streams).toBe(1))
  await shown(page.locator('#link').getByText('live'))
})
