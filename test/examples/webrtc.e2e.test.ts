import { readFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { extname } from 'node:path'
import { type Browser, chromium, type Page } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { readBlocks } from '../docs/guide-page.ts'
import { findChromium } from '../support/chromium.ts'
import { prepareDatabase, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'

const users = ['00000000-0000-4000-8000-00000000000a', '00000000-0000-4000-8000-00000000000b']
const stack = new AsyncDisposableStack()
let node: TestNode
let browser: Browser
let origin: string

beforeAll(async () => {
  const database = stack.use(await TestDatabase.create())
  const blocks = await readBlocks('guide/channel-policies')
  const sql = blocks.slice(
    0,
    blocks.findIndex(({ language }) => language === 'js'),
  )
  await prepareDatabase(database, sql.flatMap(({ language, text }) => (language === 'sql' ? [text] : [])).join(''), [
    'public.members',
  ])
  const folder = new URL('../../examples/webrtc/', import.meta.url)
  const types: Record<string, string> = { '.js': 'text/javascript', '.html': 'text/html' }
  const pages = createServer(async (request, response) => {
    const name = request.url === '/' ? 'index.html' : request.url!.slice(1)
    response.setHeader('content-type', types[extname(name)] ?? 'text/plain')
    const text = await readFile(new URL(name, folder), 'utf8').catch(() => '')
    response.end(text.replaceAll('localhost:4000', `127.0.0.1:${node.server.port}`))
  })
  await new Promise<void>(resolve => pages.listen(0, '127.0.0.1', resolve))
  stack.defer(() => new Promise<void>(resolve => pages.close(() => resolve())))
  origin = `http://127.0.0.1:${(pages.address() as AddressInfo).port}`
  node = await TestNode.start(database.url, { ALLOWED_ORIGINS: origin })
  stack.defer(() => node.server.stop())
  browser = await chromium.launch({
    executablePath: await findChromium(),
    args: ['--no-sandbox', '--disable-background-networking', '--disable-features=WebRtcHideLocalIpsWithMdns'],
  })
  stack.defer(() => browser.close())
}, 300_000)

afterAll(() => stack.disposeAsync(), 60_000)

/** A window in which somebody has entered the room. */
async function enter(user: string): Promise<Page> {
  const page = await browser.newPage()
  await page.goto(origin)
  await page.locator('[name=token]').fill(await tokenFor(user))
  await page.locator('button').click()
  return page
}

const shown = (page: Page, text: string): Promise<void> => page.locator('#log', { hasText: text }).waitFor()

async function say(page: Page, text: string): Promise<void> {
  await page.locator('#text').fill(text)
  await page.locator('#text').press('Enter')
}

test('browsers find each other through a channel, and talk without it', { timeout: 120_000 }, async () => {
  const ana = await enter(users[0]!)
  const ben = await enter(users[1]!)
  await Promise.all([shown(ana, 'is here'), shown(ben, 'is here')])
  // Each met one other, once.
  for (const page of [ana, ben]) expect((await page.locator('#log').textContent())!.match(/is here/g)).toHaveLength(1)
  await node.server.stop()
  await say(ana, 'no server between us')
  await shown(ben, ': no server between us')
  await say(ben, 'so it seems')
  await shown(ana, ': so it seems')
})
