// Stores as a browser has them, and a page that is loaded again while the service is out of reach.
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'
import { type Browser, chromium, type Page } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { bundle } from '../../../scripts/bundle-size.ts'
import type { createClient } from '../../../src/client/client.ts'
import type * as Stores from '../../../src/client/store/stored-queries.ts'
import { findChromium } from '../../support/chromium.ts'
import { eventually } from '../../support/eventually.ts'
import { FaultyLink } from '../../support/faulty-link.ts'
import { person, prepareDatabase, roomsSchema, TestNode, tokenFor } from '../../support/node.ts'
import { TestDatabase } from '../../support/postgres.ts'

declare const module: typeof Stores & { createClient: typeof createClient }

const stack = new AsyncDisposableStack()
let database: TestDatabase
let link: FaultyLink
let browser: Browser
let origin: string

beforeAll(async () => {
  database = stack.use(await TestDatabase.create())
  await prepareDatabase(database, roomsSchema, ['public.rooms', 'public.members', 'public.messages'])
  const node = stack.use(await TestNode.start(database.url, { ALLOWED_ORIGINS: '*' }))
  link = stack.use(await FaultyLink.to(node.url))
  const built = async (name: string): Promise<string> =>
    (await bundle(fileURLToPath(new URL(`../../../src/client/${name}`, import.meta.url)))).code
  const scripts = new Map([
    ['/client.js', await built('client.ts')],
    ['/store.js', await built('store/stored-queries.ts')],
  ])
  const pages = createServer((request, response) => {
    const script = scripts.get(request.url ?? '')
    if (script !== undefined) return response.setHeader('content-type', 'text/javascript').end(script)
    response.setHeader('content-type', 'text/html')
    response.end(`<script type="module">import { createClient } from '/client.js'; import * as stores from '/store.js'
      globalThis.module = { ...stores, createClient }</script>`)
  })
  await new Promise<void>(resolve => pages.listen(0, '127.0.0.1', resolve))
  stack.defer(() => pages.closeAllConnections())
  origin = `http://127.0.0.1:${(pages.address() as AddressInfo).port}`
  browser = await chromium.launch({ executablePath: await findChromium(), args: ['--no-sandbox'] })
  stack.defer(() => browser.close())
}, 300_000)

afterAll(() => stack.disposeAsync(), 60_000)

async function open(page: Page): Promise<void> {
  await page.goto(origin)
  await page.waitForFunction(() => 'module' in globalThis)
}

const kinds = ['indexedDbStore', 'webStore'] as const

test.each(kinds)('%s keeps texts over a reload, and deletes by the beginning of a key', async kind => {
  const page = await browser.newPage()
  await open(page)
  const store = (name: string): string =>
    `(globalThis.store = ${name === 'webStore' ? 'module.webStore(localStorage)' : 'module.indexedDbStore()'}, 0)`
  await page.evaluate(store(kind))
  const run = <T>(ask: (store: Stores.Store) => Promise<T>): Promise<T> => page.evaluate(`(${ask})(store)`)
  await run(async store => {
    for (const key of ['a/1', 'a/2', 'a', 'b/1', 'a/\u{10ffff}']) await store.set(key, `of ${key}`)
    await store.set('a/1', 'new')
  })
  await open(page)
  await page.evaluate(store(kind))
  expect(await run(async store => [await store.get('a/1'), await store.get('none')])).toEqual(['new', null])
  expect((await run(store => store.keys('a/'))).sort()).toEqual(['a/1', 'a/2', 'a/\u{10ffff}'])
  await run(store => store.delete('a/1'))
  await run(store => store.clear('a/'))
  expect((await run(store => store.keys(''))).sort()).toEqual(['a', 'b/1'])
  await run(store => store.clear(''))
  await page.close()
})

test('another page may delete the database while this one has it open', async () => {
  const page = await browser.newPage()
  await open(page)
  const keys = await page.evaluate(async () => {
    const store = module.indexedDbStore('shared')
    await store.set('a', '1')
    await new Promise((resolve, reject) => {
      const request = indexedDB.deleteDatabase('shared')
      request.onsuccess = resolve
      request.onerror = request.onblocked = reject
    })
    await store.set('b', '2')
    return store.keys('')
  })
  expect(keys).toEqual(['b'])
  await page.close()
})

interface View {
  readonly ids: unknown[]
  readonly status: string
}

/** A page that follows room 1, and whose view can be asked. */
async function follow(page: Page, kind: (typeof kinds)[number], token: string): Promise<() => Promise<View>> {
  await open(page)
  await page.evaluate(
    ({ url, token, kind }) => {
      const store = kind === 'webStore' ? module.webStore(localStorage) : module.indexedDbStore()
      const tide = module.createClient(url, { token, store: module.storedRows(store) })
      const query = tide.from('messages').where('room_id', '=', 1).orderBy('id').live()
      query.subscribe(() => {})
      Object.assign(globalThis, { tide, query })
    },
    { url: link.url, token, kind },
  )
  return () => page.evaluate('({ ids: query.current.rows.map(row => row.id), status: query.current.status })')
}

const storedIn = (page: Page): Promise<string> =>
  page.evaluate(async () => {
    const store = module.indexedDbStore()
    return (await Promise.all((await store.keys('')).map(key => store.get(key)))).join()
  })

test.each(kinds)(
  '[P4] with %s a page that is loaded again shows its rows without the service, and takes up where it stood',
  async kind => {
    const user = person()
    link.isRefusing = false
    await database.query('TRUNCATE members, messages')
    await database.query(`INSERT INTO members VALUES (1, '${user}'); INSERT INTO messages VALUES (1, 1, 'a', 'first')`)
    const context = await browser.newContext()
    const page = await context.newPage()
    const token = await tokenFor(user)
    const first = await follow(page, kind, token)
    await eventually(async () => expect(await first()).toEqual({ ids: [1], status: 'live' }))
    await database.query(`INSERT INTO messages VALUES (2, 1, 'a', 'second')`)
    await eventually(async () => expect(await first()).toEqual({ ids: [1, 2], status: 'live' }))
    // Leaving the page writes what its quiet moment has not; a browser may not finish what it is asked of IndexedDB then.
    if (kind === 'indexedDbStore') await eventually(async () => expect(await storedIn(page)).toContain('second'))
    link.isRefusing = true
    link.cut()
    const second = await follow(page, kind, token)
    await eventually(async () => expect((await second()).ids).toEqual([1, 2]))
    expect((await second()).status).not.toBe('live')
    await database.query(`DELETE FROM messages WHERE id = 1; INSERT INTO messages VALUES (3, 1, 'a', 'third')`)
    link.isRefusing = false
    await eventually(async () => expect(await second()).toEqual({ ids: [2, 3], status: 'live' }))
    await page.evaluate('tide.logout()')
    const third = await follow(page, kind, token)
    expect((await third()).ids).toEqual([])
    await context.close()
  },
)
