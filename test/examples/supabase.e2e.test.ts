// The chat of examples/supabase, as it lies there, with the published client from the address its page names: two people, in Chromium,
// through nginx as docs/guide/supabase.md has it.
import { readFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { type Browser, chromium, type Page } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { startNginxGateway } from '../deploy/supabase-gateways.ts'
import { findChromium } from '../support/chromium.ts'
import { eventually } from '../support/eventually.ts'
import { FaultyLink } from '../support/faulty-link.ts'
import { person, prepareDatabase, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { runCli } from '../support/run-cli.ts'
import { RestOfSupabase } from './rest-of-supabase.ts'
import { screenshot } from './screenshot.ts'

const folder = new URL('../../examples/supabase/', import.meta.url)
const published = new URL('../../node_modules/@supabase/supabase-js/dist/umd/supabase.js', import.meta.url)
const ada = { id: person(), email: 'ada@example.com', password: 'ada, the first' }
const ben = { id: person(), email: 'ben@example.com', password: 'ben, the second' }
const cleo = { id: person(), email: 'cleo@example.com', password: 'cleo, who is not in' }

const stack = new AsyncDisposableStack()
const problems: string[] = []
let database: TestDatabase
let link: FaultyLink
let browser: Browser
let origin: string
let ofAda: Page
let ofBen: Page

beforeAll(async () => {
  database = stack.use(await TestDatabase.create())
  await prepareDatabase(database, 'CREATE PUBLICATION supabase_realtime', [])
  await database.query(await readFile(new URL('schema.sql', folder), 'utf8'))
  await database.query(`INSERT INTO members VALUES ('lobby', '${ada.id}'), ('lobby', '${ben.id}')`)
  const readme = await readFile(new URL('README.md', folder), 'utf8')
  const [, track = ''] = /^npx tidegate (track .*)$/m.exec(readme) ?? []
  const tracked = await runCli(track.split(' '), { DATABASE_URL: database.url })
  expect(tracked).toMatchObject({ code: 0 })
  const node = stack.use(await TestNode.start(database.url))
  link = stack.use(await FaultyLink.to(node.url))
  const rest = stack.use(await RestOfSupabase.start(database.url, [ada, ben, cleo]))
  const gateway = stack.use(await startNginxGateway({ tidegateUrl: link.url, restUrl: rest.url }))
  origin = await servePage(gateway.url, await tokenFor(person(), { role: 'anon' }))
  browser = await chromium.launch({
    executablePath: await findChromium(),
    args: ['--no-sandbox', '--disable-background-networking'],
  })
  stack.defer(() => browser.close())
  ofAda = await open()
  ofBen = await open()
}, 300_000)

afterAll(() => stack.disposeAsync(), 60_000)

/** @returns its origin. Only `config.js` is written for it, as its reader would. */
async function servePage(gatewayUrl: string, key: string): Promise<string> {
  const types: Record<string, string> = {
    '/': 'text/html',
    '/chat.js': 'text/javascript',
    '/config.js': 'text/javascript',
  }
  const server = createServer(async (request, response) => {
    const path = request.url ?? ''
    const type = types[path]
    if (type === undefined) return response.writeHead(404).end()
    response.setHeader('content-type', type)
    const text = await readFile(new URL(path === '/' ? 'index.html' : path.slice(1), folder), 'utf8')
    response.end(
      path !== '/config.js' ? text : text.replace('http://localhost:8000', gatewayUrl).replace('your-anon-key', key),
    )
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  stack.defer(() => new Promise<void>(resolve => server.close(() => resolve())))
  stack.defer(() => server.closeAllConnections())
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

async function open(): Promise<Page> {
  const page = await (await browser.newContext({ viewport: { width: 760, height: 620 } })).newPage()
  page.setDefaultTimeout(20_000)
  page.on('pageerror', error => problems.push(error.message))
  await page.route('https://cdn.jsdelivr.net/npm/@supabase/supabase-js@2', async route =>
    route.fulfill({ contentType: 'text/javascript', body: await readFile(published, 'utf8') }),
  )
  await page.goto(origin)
  return page
}

async function signIn(page: Page, { email, password }: { email: string; password: string }): Promise<void> {
  await page.getByLabel('Email').fill(email)
  await page.getByLabel('Password').fill(password)
  await page.getByRole('button', { name: 'Sign in' }).click()
}

const status = (page: Page, text: string): Promise<void> =>
  page.locator('#status', { hasText: new RegExp(`^${text}$`) }).waitFor()
const people = (page: Page): Promise<string[]> => page.locator('#people li').allTextContents()
const said = async (page: Page): Promise<string[]> =>
  (await page.locator('#messages li').allTextContents()).map(text => text.replace(/Delete$/, ''))

async function say(page: Page, text: string): Promise<void> {
  await page.getByLabel('Message', { exact: true }).fill(text)
  await page.getByRole('button', { name: 'Send' }).click()
}

test('two people sign in and see each other', { timeout: 120_000 }, async () => {
  await signIn(ofAda, ada)
  await status(ofAda, 'SUBSCRIBED')
  await signIn(ofBen, ben)
  await status(ofBen, 'SUBSCRIBED')
  for (const page of [ofAda, ofBen]) await eventually(async () => expect(await people(page)).toEqual(['ada', 'ben']))
})

test('what one writes the other reads, and sees that it is being written', { timeout: 60_000 }, async () => {
  await ofAda.getByLabel('Message', { exact: true }).pressSequentially('Hello, Ben')
  await ofBen.getByText('ada typing').waitFor()
  await ofAda.getByRole('button', { name: 'Send' }).click()
  await say(ofBen, 'Hello, Ada')
  for (const page of [ofAda, ofBen])
    await eventually(async () => expect(await said(page)).toEqual(['ada: Hello, Ben', 'ben: Hello, Ada']))
  await screenshot(ofAda, 'supabase')
  expect(await ofAda.getByText('ada typing').count()).toBe(0)
})

test('a row that is deleted goes for both', { timeout: 60_000 }, async () => {
  await ofBen.getByRole('button', { name: 'Delete' }).click()
  for (const page of [ofAda, ofBen]) await eventually(async () => expect(await said(page)).toEqual(['ada: Hello, Ben']))
})

test('[P4] a connection that is cut comes back, and nothing is missing', { timeout: 120_000 }, async () => {
  link.isRefusing = true
  link.cut()
  await Promise.all([status(ofAda, 'CHANNEL_ERROR'), status(ofBen, 'CHANNEL_ERROR')])
  await say(ofAda, 'While you were away')
  link.isRefusing = false
  await Promise.all([status(ofAda, 'SUBSCRIBED'), status(ofBen, 'SUBSCRIBED')])
  await eventually(async () => expect(await said(ofBen)).toEqual(['ada: Hello, Ben', 'ada: While you were away']))
  for (const page of [ofAda, ofBen]) await eventually(async () => expect(await people(page)).toEqual(['ada', 'ben']))
})

test('[P2] who is no member is told so, and gets nothing', { timeout: 60_000 }, async () => {
  const ofCleo = await open()
  await signIn(ofCleo, cleo)
  await ofCleo.locator('#problem', { hasText: 'Unauthorized' }).waitFor()
  expect([await said(ofCleo), await people(ofCleo)]).toEqual([[], []])
  await ofCleo.context().close()
})

test('[P3] who is taken out is out with that commit', { timeout: 120_000 }, async () => {
  await database.query(`DELETE FROM members WHERE user_id = '${ben.id}'`)
  await ofBen.locator('#problem', { hasText: 'Unauthorized' }).waitFor()
  await eventually(async () => expect(await people(ofAda)).toEqual(['ada']))
  await say(ofAda, 'Ben is gone')
  await eventually(async () => expect(await said(ofAda)).toContain('ada: Ben is gone'))
  expect(await said(ofBen)).not.toContain('ada: Ben is gone')
  await database.query(`INSERT INTO members VALUES ('lobby', '${ben.id}')`)
  await status(ofBen, 'SUBSCRIBED')
  await eventually(async () => expect(await said(ofBen)).toContain('ada: Ben is gone'))
})

test('who leaves is seen no more, and no page had a problem', { timeout: 60_000 }, async () => {
  await ofBen.getByRole('button', { name: 'Leave' }).click()
  await ofBen.getByRole('button', { name: 'Sign in' }).waitFor()
  await eventually(async () => expect(await people(ofAda)).toEqual(['ada']))
  expect(problems).toEqual([])
})
