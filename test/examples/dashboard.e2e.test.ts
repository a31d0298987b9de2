import { readFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { type Browser, chromium, type Page } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { findChromium } from '../support/chromium.ts'
import { eventually } from '../support/eventually.ts'
import { FaultyLink } from '../support/faulty-link.ts'
import { prepareDatabase, selectAs, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { screenshot } from './screenshot.ts'

const ada = '00000000-0000-4000-8000-000000000ada'
const ben = '00000000-0000-4000-8000-000000000b0b'
const stack = new AsyncDisposableStack()
let database: TestDatabase
let node: TestNode
let link: FaultyLink
let browser: Browser
let origin: string
const problems: string[] = []

beforeAll(async () => {
  database = stack.use(await TestDatabase.create())
  const folder = new URL('../../examples/dashboard/', import.meta.url)
  const schema = await readFile(new URL('schema.sql', folder), 'utf8')
  await prepareDatabase(database, schema, ['public.shops', 'public.staff', 'public.orders', 'public.sales_by_hour'])
  const pages = createServer(async (request, response) => {
    if (request.url !== '/') return response.writeHead(404).end()
    response.setHeader('content-type', 'text/html')
    const text = await readFile(new URL('index.html', folder), 'utf8')
    response.end(text.replaceAll('http://localhost:4000', link.url))
  })
  await new Promise<void>(resolve => pages.listen(0, '127.0.0.1', resolve))
  stack.defer(() => new Promise<void>(resolve => pages.close(() => resolve())))
  stack.defer(() => pages.closeAllConnections())
  origin = `http://127.0.0.1:${(pages.address() as AddressInfo).port}`
  node = await TestNode.start(database.url, { ALLOWED_ORIGINS: origin })
  stack.defer(() => node.server.stop())
  link = stack.use(await FaultyLink.to(node.url))
  browser = await chromium.launch({
    executablePath: await findChromium(),
    args: ['--no-sandbox', '--disable-background-networking'],
  })
  stack.defer(() => browser.close())
}, 300_000)

afterAll(() => stack.disposeAsync(), 60_000)

/** A window in which somebody looks at the dashboard. */
async function open(token: string): Promise<Page> {
  const page = await (await browser.newContext({ viewport: { width: 1100, height: 1150 } })).newPage()
  page.on('pageerror', error => problems.push(error.message))
  await page.goto(origin)
  await page.getByLabel('Token').fill(token)
  await page.getByRole('button').click()
  return page
}

const status = (page: Page, text: string): Promise<void> =>
  page.locator('#status', { hasText: new RegExp(`^${text}$`) }).waitFor()

/** What the page shows, and what the same SELECTs say. */
const shownLatest = (page: Page): Promise<string[]> =>
  page
    .locator('#latest tr')
    .evaluateAll(lines => lines.map(line => `${line.children[1]!.textContent} ${line.children[3]!.textContent}`))

async function selectedLatest(user: string): Promise<string[]> {
  const rows = await selectAs(database, user, 'SELECT item, total FROM orders ORDER BY placed_at DESC, id LIMIT 10')
  return rows.map(({ item, total }) => `${item} €${Number(total).toFixed(2)}`)
}

async function selectedNumbers(user: string): Promise<string[]> {
  const [row] = await selectAs(
    database,
    user,
    `SELECT sum(orders) AS orders, (SELECT count(*) FROM orders WHERE state = 'placed') AS waiting
      FROM sales_by_hour WHERE hour > now() - interval '24 hours'`,
  )
  return [String(row!.orders), String(row!.waiting)]
}

const shownNumbers = (page: Page): Promise<string[]> =>
  page.evaluate(() => ['orders', 'waiting'].map(id => (document.getElementById(id) as HTMLOutputElement).value))

/** The page is what the database says. */
async function exact(page: Page, user = ada): Promise<void> {
  const expected = [await selectedLatest(user), await selectedNumbers(user)]
  await eventually(async () => expect([await shownLatest(page), await shownNumbers(page)]).toEqual(expected))
}

const order = (item: string, total = 42): Promise<unknown> =>
  database.query('INSERT INTO orders (shop_id, item, total) VALUES (1, $1, $2)', [item, total])

test('[P1] numbers and the latest orders are those of the database, and follow it', { timeout: 120_000 }, async () => {
  const page = await open(await tokenFor(ada))
  await status(page, 'live')
  await exact(page)
  await screenshot(page, 'dashboard')
  await order('Anchor chain', 310)
  await page.getByText('Anchor chain').waitFor()
  await exact(page)
  expect((await shownLatest(page))[0]).toBe('Anchor chain €310.00')
  // The window is filled again from behind when an order leaves it.
  await database.query(`DELETE FROM orders WHERE item = 'Anchor chain'`)
  await page.getByText('Anchor chain').waitFor({ state: 'detached' })
  await exact(page)
  await database.query(`UPDATE orders SET state = 'shipped' WHERE state = 'placed'`)
  await exact(page)
  await page.context().close()
})

test('[P4] a connection that is cut comes back by itself, and nothing is missing', { timeout: 120_000 }, async () => {
  const page = await open(await tokenFor(ada))
  await status(page, 'live')
  const reopened = page.waitForRequest(request => request.url().includes('/v1/live'))
  await page.evaluate(() => {
    // Would notice rows that are emptied on the way, or a page that is loaded anew.
    const state = { lines: 10 }
    Object.assign(globalThis, { state })
    new MutationObserver(() => {
      state.lines = Math.min(state.lines, document.querySelectorAll('#latest tr').length)
    }).observe(document.querySelector('#latest')!, { childList: true })
  })
  link.cut()
  await order('While away', 11)
  const request = await reopened
  expect((await request.allHeaders())['last-event-id']).toMatch(/!/)
  await page.getByText('While away').waitFor()
  await status(page, 'live')
  await exact(page)
  expect(await page.evaluate(() => (globalThis as unknown as { state: { lines: number } }).state.lines)).toBe(10)
  await page.context().close()
})

test('[P3] who is taken off the staff sees nothing of it any more, and others do', { timeout: 120_000 }, async () => {
  const [ofAda, ofBen] = [await open(await tokenFor(ada)), await open(await tokenFor(ben))]
  await Promise.all([status(ofAda, 'live'), status(ofBen, 'live')])
  await database.query('DELETE FROM staff WHERE user_id = $1', [ben])
  await ofBen.getByText('No shop shows you its sales').waitFor()
  expect(await ofBen.locator('#shown').isVisible()).toBe(false)
  await order('Not for Ben')
  await ofAda.getByText('Not for Ben').waitFor()
  expect(await ofBen.locator('#latest tr').count()).toBe(0)
  await database.query('INSERT INTO staff VALUES (1, $1)', [ben])
  await ofBen.getByText('Not for Ben').waitFor()
  await exact(ofBen, ben)
  await Promise.all([ofAda.context().close(), ofBen.context().close()])
})

test('[P8] a token that is no good is said to be, and asked for again', { timeout: 60_000 }, async () => {
  const page = await open('no token at all')
  await page.locator('#problem').waitFor()
  expect(await page.locator('#status').textContent()).toBe('not connected')
  await page.getByLabel('Token').fill(await tokenFor(ada))
  await page.getByRole('button').click()
  await status(page, 'live')
  await page.context().close()
  expect(problems).toEqual([])
})
