// The hooks as a browser runs them, with React's development build, against a whole node: once for each major version.
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Browser, type BrowserContext, chromium, type Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { findChromium } from '../support/chromium.ts'
import { eventually } from '../support/eventually.ts'
import { FaultyLink } from '../support/faulty-link.ts'
import { person, prepareDatabase, roomsSchema, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import type { View } from './app.ts'
import type * as ServerEntry from './server-entry.ts'
import { bundle, type ReactMajor, type Site, serveSite } from './site.ts'

const channelPolicies = `
  CREATE POLICY members_only ON realtime.messages TO authenticated USING (
    EXISTS (SELECT FROM public.members m
      WHERE 'room:' || m.room_id = (SELECT realtime.topic()) AND m.user_id = (SELECT auth.uid())));`

const [ada, ben] = [person(), person()]
const stack = new AsyncDisposableStack()
let database: TestDatabase
let link: FaultyLink
let browser: Browser

beforeAll(async () => {
  database = stack.use(await TestDatabase.create())
  await prepareDatabase(database, roomsSchema + channelPolicies, ['public.rooms', 'public.members', 'public.messages'])
  const node = stack.use(await TestNode.start(database.url, { ALLOWED_ORIGINS: '*' }))
  link = stack.use(await FaultyLink.to(node.url))
  browser = await chromium.launch({
    executablePath: await findChromium(),
    args: ['--no-sandbox', '--disable-background-networking'],
  })
  stack.defer(() => browser.close())
}, 300_000)

afterAll(() => stack.disposeAsync(), 60_000)

describe.each<ReactMajor>([19, 18])('React %i', major => {
  let site: Site
  let server: typeof ServerEntry
  let folder: string
  let context: BrowserContext
  /** Frames that the page has sent, and what React or the browser complained of. */
  let sent: { type: string; table?: string; filter?: string; topic?: string; id?: number }[]
  let problems: string[]

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tidegate-react-'))
    const file = join(folder, 'server.mjs')
    await writeFile(file, await bundle('server-entry.ts', major, 'node'))
    server = (await import(file)) as typeof ServerEntry
    site = await serveSite(await bundle('app.ts', major, 'browser'), () => server.render(link.url).html)
  }, 60_000)

  afterAll(async () => {
    await site[Symbol.asyncDispose]()
    await rm(folder, { recursive: true, force: true })
  })

  beforeEach(async () => {
    sent = []
    problems = []
    await database.query('TRUNCATE members, messages, rooms')
    await database.query('INSERT INTO members (room_id, user_id) VALUES (1, $1), (2, $1), (1, $2)', [ada, ben])
    await say(1, 1, 'one')
    await say(2, 1, 'two')
    await say(3, 2, 'other')
    context = await browser.newContext()
  })

  afterEach(async () => {
    await context.close()
    expect(problems).toEqual([])
  })

  const say = (id: number, room: number, body: string): Promise<unknown> =>
    database.query('INSERT INTO messages (id, room_id, body) VALUES ($1, $2, $3)', [id, room, body])

  async function open(path = '/'): Promise<Page> {
    const page = await context.newPage()
    page.on('pageerror', error => problems.push(error.message))
    page.on('console', message => {
      // The browser itself says when a connection fails, as it shall.
      if (message.type() === 'error' && !/WebSocket|ERR_/.test(message.text())) problems.push(message.text())
    })
    page.on('websocket', socket => socket.on('framesent', ({ payload }) => sent.push(JSON.parse(String(payload)))))
    await page.goto(`${site.origin}${path}`)
    return page
  }

  const settingsOf = async (user: string, strict = true) => ({ url: link.url, token: await tokenFor(user), strict })

  /** A page with the application in StrictMode, connected. */
  async function start(user: string, view: View): Promise<Page> {
    const page = await open()
    await page.evaluate(settings => app.start(settings), await settingsOf(user))
    await set(page, view)
    return page
  }

  const set = (page: Page, view: View): Promise<void> => page.evaluate(next => app.set(next), view)
  const bodies = (page: Page, list = 0): Promise<string[]> => page.locator(`[data-list="${list}"] li`).allTextContents()
  const shows = (page: Page, expected: string[], list = 0): Promise<void> =>
    eventually(async () => expect(await bodies(page, list)).toEqual(expected))
  const log = <K extends keyof typeof app.log>(page: Page, name: K): Promise<(typeof app.log)[K]> =>
    page.evaluate(key => app.log[key], name) as Promise<(typeof app.log)[K]>
  const asked = (): string[] =>
    sent.flatMap(({ type, table, filter, topic }) =>
      type === 'subscribe'
        ? [`${table}?${filter ?? ''}`]
        : type === 'join'
          ? [topic!]
          : type === 'unsubscribe'
            ? [type]
            : [],
    )

  test('StrictMode, which mounts twice, asks once, also over a connection that is open', async () => {
    const page = await start(ada, { lists: [1], status: true })
    await shows(page, ['one', 'two'])
    await page.locator('#status', { hasText: /^live$/ }).waitFor()
    expect(asked()).toEqual(['messages?room_id=eq.1'])
    await set(page, { lists: [1, 2], changes: 'a', channel: 'a', name: 'Ada' })
    await shows(page, ['other'], 1)
    await page.locator('#changes', { hasText: /^live$/ }).waitFor()
    await page.locator('#room', { hasText: 'Ada' }).waitFor()
    expect(asked().sort()).toEqual(['messages?', 'messages?room_id=eq.1', 'messages?room_id=eq.2', 'room:1'])
    expect(sent.filter(({ type }) => /track/.test(type)).map(({ type }) => type)).toEqual(['track'])
  })

  test('components that ask the same share one subscription, and one that comes later has its rows at once', async () => {
    const page = await start(ada, { lists: [1, 1] })
    await shows(page, ['one', 'two'])
    await shows(page, ['one', 'two'], 1)
    await set(page, { lists: [1, 1, 1] })
    expect(await bodies(page, 2)).toEqual(['one', 'two'])
    await say(4, 1, 'three')
    for (const list of [0, 1, 2]) await shows(page, ['one', 'two', 'three'], list)
    expect(asked()).toEqual(['messages?room_id=eq.1'])
  })

  test('who leaves and comes back at once goes on; who stays away is unsubscribed, and comes back to exact rows', async () => {
    const page = await start(ada, { lists: [1] })
    await shows(page, ['one', 'two'])
    await set(page, { lists: [] })
    await set(page, { lists: [1] })
    expect(await bodies(page)).toEqual(['one', 'two'])
    expect(asked()).toEqual(['messages?room_id=eq.1'])
    await set(page, { lists: [] })
    await eventually(() => expect(asked()).toEqual(['messages?room_id=eq.1', 'unsubscribe']))
    await database.query(`DELETE FROM messages WHERE id = 1`)
    await set(page, { lists: [1] })
    await shows(page, ['two'])
  })

  test('another query is another list: no commit shows the rows of one under the name of the other', async () => {
    const page = await start(ada, { lists: [1] })
    await shows(page, ['one', 'two'])
    await set(page, { lists: [2] })
    await shows(page, ['other'])
    await set(page, { lists: [1] })
    await shows(page, ['one', 'two'])
    const commits = await log(page, 'commits')
    expect(commits.filter(({ asked, rooms }) => rooms.some(room => room !== asked))).toEqual([])
    expect(new Set(commits.map(({ asked }) => asked))).toEqual(new Set([1, 2]))
  })

  test('the same query of another client is another: nobody is shown rows that were asked as somebody else', async () => {
    const page = await start(ada, { lists: [1, 2] })
    await shows(page, ['other'], 1)
    await page.evaluate(settings => app.become(settings), await settingsOf(ben))
    await page.locator('[data-list="1"][data-status="live"]').waitFor({ state: 'attached' })
    expect(await bodies(page, 1)).toEqual([])
    await shows(page, ['one', 'two'])
  })

  test('null and enabled: false ask nothing', async () => {
    const page = await start(ada, { lists: [null], status: true })
    await page.locator('[data-list="0"][data-status="idle"]').waitFor({ state: 'attached' })
    await set(page, { lists: [1], enabled: false })
    await page.locator('[data-list="0"][data-status="idle"]').waitFor({ state: 'attached' })
    expect(await page.locator('#status').textContent()).toBe('idle')
    expect(sent).toEqual([])
    await set(page, { enabled: true })
    await shows(page, ['one', 'two'])
    await set(page, { enabled: false })
    await shows(page, [])
  })

  test('a row that does not change is the same object: only what changed renders again', async () => {
    const page = await start(ada, { lists: [1] })
    await shows(page, ['one', 'two'])
    const before = await log(page, 'renders')
    await database.query(`UPDATE messages SET body = 'changed' WHERE id = 2`)
    await shows(page, ['one', 'changed'])
    const after = await log(page, 'renders')
    expect(after[1]).toBe(before[1])
    expect(after[2]).toBeGreaterThan(before[2]!)
    // Nor does it when the connection is lost and found again.
    link.cut()
    await say(4, 1, 'while away')
    await shows(page, ['one', 'changed', 'while away'])
    expect((await log(page, 'renders'))[1]).toBe(before[1])
  })

  test('a commit that arrives while React renders a tree piece by piece tears nothing', {
    timeout: 60_000,
  }, async () => {
    const page = await start(ada, { lists: [1] })
    await shows(page, ['one', 'two'])
    await page.evaluate(() => app.startTransition(() => app.set({ slow: 1 })))
    await eventually(async () => expect((await log(page, 'read')).length).toBeGreaterThan(10))
    await say(4, 1, 'in between')
    await eventually(async () => expect((await log(page, 'shown')).at(-1)).toEqual(['in between']))
    const read = await log(page, 'read')
    // The change came in the middle of the tree, not before or behind it: else nothing could have torn.
    expect(read.indexOf('in between') % 150).not.toBe(0)
    expect(read[0]).toBe('two')
    for (const shown of await log(page, 'shown')) expect(shown).toHaveLength(1)
  })

  test('a delta is told when it is the only step since the state shown before, else null', async () => {
    const page = await start(ada, { scripted: true })
    await page.locator('#scripted').waitFor()
    await page.evaluate(() => app.scripted.insert(1))
    await page.locator('#scripted', { hasText: '1' }).waitFor()
    await page.evaluate(() => {
      app.scripted.insert(2)
      app.scripted.insert(3)
    })
    await page.locator('#scripted', { hasText: '3' }).waitFor()
    await page.evaluate(() => app.scripted.insert(4, 5))
    await page.locator('#scripted', { hasText: '5' }).waitFor()
    const deltas = (await log(page, 'deltas')).filter(({ ids }) => ids.length > 0)
    expect(deltas).toEqual([
      { ids: [1], delta: 1 },
      { ids: [1, 2, 3], delta: null },
      { ids: [1, 2, 3, 4, 5], delta: 2 },
    ])
  })

  test('[P3] a revocation empties the rows, and closes the channel', async () => {
    const page = await start(ben, { lists: [1], channel: 'a', name: 'Ben' })
    await shows(page, ['one', 'two'])
    await page.locator('#room', { hasText: 'Ben' }).waitFor()
    await database.query('DELETE FROM members WHERE user_id = $1', [ben])
    await shows(page, [])
    await page.locator('#room[data-status="refused"][data-count="0"]').waitFor({ state: 'attached' })
    expect(await page.locator('#room').textContent()).toBe('')
    // Who comes anew asks anew.
    await set(page, { channel: null })
    await database.query('INSERT INTO members (room_id, user_id) VALUES (1, $1)', [ben])
    await shows(page, ['one', 'two'])
    await set(page, { channel: 'a' })
    await page.locator('#room[data-status="live"]', { hasText: 'Ben' }).waitFor()
  })

  test('changes and messages come once, and the listener is the one of the last render', async () => {
    const page = await start(ada, { changes: 'first', channel: 'first' })
    const other = await start(ben, { channel: 'other' })
    await page.locator('#changes', { hasText: /^live$/ }).waitFor()
    for (const each of [page, other]) await each.locator('#room[data-status="live"]').waitFor({ state: 'attached' })
    const before = asked().length
    await say(4, 1, 'three')
    await other.evaluate(() => app.send('a'))
    await eventually(async () => expect(await log(page, 'changes')).toEqual(['first: insert 4']))
    await eventually(async () => expect(await log(page, 'heard')).toEqual(['first: a']))
    await set(page, { changes: 'second', channel: 'second' })
    await say(5, 1, 'four')
    await other.evaluate(() => app.send('b'))
    await eventually(async () => expect(await log(page, 'changes')).toEqual(['first: insert 4', 'second: insert 5']))
    await eventually(async () => expect(await log(page, 'heard')).toEqual(['first: a', 'second: b']))
    expect(asked()).toHaveLength(before)
    expect(await log(other, 'heard')).toEqual([])
  })

  test('two pages see each other come, change and go', async () => {
    const page = await start(ada, { channel: 'a', name: 'Ada' })
    const other = await start(ben, { channel: 'b', name: 'Ben' })
    const here = (each: Page, names: string): Promise<void> =>
      each.locator('#room', { hasText: new RegExp(`^${names}$`) }).waitFor()
    await Promise.all([here(page, 'Ada,Ben'), here(other, 'Ada,Ben')])
    await set(other, { name: 'Benjamin' })
    await Promise.all([here(page, 'Ada,Benjamin'), here(other, 'Ada,Benjamin')])
    expect(await page.locator('#room').getAttribute('data-count')).toBe('2')
    await set(other, { channel: null })
    await here(page, 'Ada')
    await set(other, { channel: 'b' })
    await here(page, 'Ada,Benjamin')
    expect(sent.filter(({ type }) => type === 'untrack')).toHaveLength(1)
  })

  test('the status says that the server is away, and that it is back', { timeout: 60_000 }, async () => {
    const page = await start(ada, { lists: [1], status: true })
    await shows(page, ['one', 'two'])
    const status = (name: string): Promise<void> =>
      page.locator('#status', { hasText: new RegExp(`^${name}$`) }).waitFor()
    await status('live')
    link.isRefusing = true
    link.cut()
    await status('offline')
    await page.locator('[data-list="0"][data-status="offline"]').waitFor({ state: 'attached' })
    // What was known stays to be seen.
    expect(await bodies(page)).toEqual(['one', 'two'])
    await say(4, 1, 'three')
    link.isRefusing = false
    await status('(live|degraded)')
    await shows(page, ['one', 'two', 'three'])
  })

  test('[P8] a client that is refused says why, and who logs out sees nothing any more', async () => {
    const page = await open()
    await page.evaluate(settings => app.start({ ...settings, token: 'no token' }), await settingsOf(ada))
    await set(page, { lists: [1], status: true, channel: 'a' })
    await page.locator('#status', { hasText: 'refused' }).waitFor()
    const list = page.locator('[data-list="0"]')
    expect([await list.getAttribute('data-status'), await list.getAttribute('data-error')]).toEqual([
      'refused',
      'TOKEN_INVALID',
    ])
    expect(await page.locator('#room').getAttribute('data-status')).toBe('refused')
    const other = await start(ada, { lists: [1] })
    await shows(other, ['one', 'two'])
    await other.evaluate(() => app.logOut())
    await shows(other, [])
  })

  test('on a server the first state is rendered, and no connection is opened', async () => {
    let connections = 0
    const listener = createServer(socket => {
      connections += 1
      socket.destroy()
    })
    await new Promise<void>(resolve => listener.listen(0, '127.0.0.1', resolve))
    const { port } = listener.address() as { port: number }
    const { html, status } = server.render(`http://127.0.0.1:${port}`)
    expect(html).toBe(
      '<section data-status="connecting" data-client="idle" data-channel="idle" data-here="0"></section>',
    )
    expect(status).toBe('idle')
    // Whoever connects after this one would have connected before it.
    await fetch(`http://127.0.0.1:${port}`).catch(() => {})
    expect(connections).toBe(1)
    await new Promise<void>(resolve => listener.close(() => resolve()))
  })

  test('what a server rendered is taken over without a difference, and then live', async () => {
    const page = await open('/rendered')
    expect(await page.locator('section').getAttribute('data-status')).toBe('connecting')
    await page.evaluate(settings => app.hydrate(settings), await settingsOf(ada))
    await page.locator('#root section[data-status="live"] p', { hasText: 'two' }).waitFor()
    expect(await log(page, 'errors')).toEqual([])
  })

  test('also where the client has the rows already', async () => {
    const page = await open('/rendered')
    await page.evaluate(settings => app.follow(settings), await settingsOf(ada))
    await page.locator('aside section[data-status="live"] p', { hasText: 'two' }).waitFor()
    await page.evaluate(settings => app.hydrate(settings), await settingsOf(ada))
    await page.locator('#root section[data-status="live"] p', { hasText: 'two' }).waitFor()
    expect(await log(page, 'errors')).toEqual([])
    expect(asked().sort()).toEqual(['messages?room_id=eq.1', 'room:1'])
  })
})
