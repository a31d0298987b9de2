// The board as its README says: the package installed in a folder of its own, a database in which Tidegate's login owns nothing, two
// people at the page.
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import pg from 'pg'
import { type Browser, chromium, type Locator, type Page } from 'playwright-core'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { freePort, LocalPostgres } from '../../src/cli/local-postgres.ts'
import { Shell } from '../docs/shell.ts'
import { findChromium } from '../support/chromium.ts'
import { eventually } from '../support/eventually.ts'
import { FaultyLink } from '../support/faulty-link.ts'
import { jwtSecret, tokenFor } from '../support/node.ts'
import { PackedPackage, repository } from '../support/packed.ts'
import { screenshot } from './screenshot.ts'

const source = new URL('../../examples/board/', import.meta.url)
const ben = '00000000-0000-4000-8000-000000000b0b'
const cleo = '00000000-0000-4000-8000-000000000c1e'

const stack = new AsyncDisposableStack()
let installed: PackedPackage
let database: pg.Client
let link: FaultyLink
let browser: Browser
let origin: string
let ofAda: Page
let ofBen: Page
const problems: string[] = []

beforeAll(async () => {
  const postgres = stack.use(await LocalPostgres.create({ settings: { max_slot_wal_keep_size: '1GB' } }))
  await postgres.start()
  database = new pg.Client({ connectionString: postgres.url })
  await database.connect()
  stack.defer(() => database.end())
  await database.query(`CREATE ROLE tidegate LOGIN REPLICATION PASSWORD 'choose-one'`)
  const login = new URL(postgres.url)
  Object.assign(login, { username: 'tidegate', password: 'choose-one' })
  installed = stack.use(await PackedPackage.install(source))

  const [port, boardPort] = [await freePort(), await freePort()]
  origin = `http://localhost:${boardPort}`
  link = stack.use(await FaultyLink.to(`http://localhost:${port}`))
  const settings = { DATABASE_URL: login.href, JWT_SECRET: jwtSecret }
  const readme = await readFile(new URL('README.md', source), 'utf8')
  const [prepare = '', start = ''] = [...readme.matchAll(/^```sh\n(.*?)^```$/gms)].map(match =>
    match[1]!.replaceAll('http://localhost:3000', origin),
  )
  const run = (script: string, env: Record<string, string>): Shell =>
    new Shell(script, { cwd: installed.folder, env: { ...settings, ...env } })
  const admin = { ADMIN_DATABASE_URL: postgres.url, PORT: String(port) }
  await run('npx tidegate migrate', admin).end()
  // Installed it is: this tree, as npm packs it.
  const tidegate = stack.use(run(prepare.replace('npm install\n', ''), admin))
  await tidegate.until(() => tidegate.stdout.includes('tidegate is ready'))
  const board = stack.use(run(start, { PORT: String(boardPort), TIDEGATE_URL: link.url }))
  await board.until(() => board.stdout.includes(origin))

  browser = await chromium.launch({
    executablePath: await findChromium(),
    args: ['--no-sandbox', '--disable-background-networking'],
  })
  stack.defer(() => browser.close())
  ofAda = await open('Ada')
  ofBen = await open('Ben')
}, 300_000)

afterAll(() => stack.disposeAsync(), 60_000)

async function open(name: string): Promise<Page> {
  const page = await (await browser.newContext({ viewport: { width: 1100, height: 720 } })).newPage()
  page.setDefaultTimeout(30_000)
  page.on('pageerror', error => problems.push(error.message))
  await page.goto(`${origin}/?as=${name}`)
  return page
}

const column = (page: Page, title: string): Locator => page.locator(`section[aria-label="${title}"]`)
const card = (page: Page, title: string, of = 'body'): Locator => page.locator(`${of} .card`, { hasText: title })
const faces = (page: Page): Promise<string[]> => page.locator('.looking .hidden').allTextContents()
const at = (page: Page, text: string): Promise<void> =>
  page.locator('.status', { hasText: new RegExp(`^${text}$`) }).waitFor()

/** Cards by their columns, as the page shows them and as the database orders them. */
const shown = (page: Page): Promise<[string, string[]][]> =>
  page
    .locator('section.column')
    .evaluateAll(sections =>
      sections.map(section => [
        section.getAttribute('aria-label')!,
        [...section.querySelectorAll('.card > span')].map(title => title.textContent!),
      ]),
    )

async function selected(): Promise<[string, string[]][]> {
  const { rows } = await database.query<{ title: string; cards: string[] }>(
    `SELECT c.title, array_remove(array_agg(k.title ORDER BY k.position, k.id), NULL) AS cards
      FROM columns c LEFT JOIN cards k ON k.column_id = c.id GROUP BY c.id ORDER BY c.position`,
  )
  return rows.map(({ title, cards }) => [title, cards])
}

/** What each of them sees is what the database says, and nothing is under way. */
async function settled(...pages: Page[]): Promise<void> {
  for (const page of pages) {
    await page.locator('.moving').waitFor({ state: 'detached' })
    await eventually(async () => expect(await shown(page)).toEqual(await selected()))
  }
}

const columnIn = async (title: string): Promise<string> => {
  const { rows } = await database.query<{ title: string }>(
    'SELECT c.title FROM columns c JOIN cards k ON k.column_id = c.id WHERE k.title = $1',
    [title],
  )
  return rows[0]!.title
}

beforeEach(async () => {
  await Promise.all([at(ofAda, 'live'), at(ofBen, 'live')])
  await settled(ofAda, ofBen)
})

test('[P1] both see the board as the database orders it, and each other', async () => {
  await eventually(async () =>
    expect([await faces(ofAda), await faces(ofBen)].map(names => names.sort())).toEqual([
      ['Ada', 'Ben'],
      ['Ada', 'Ben'],
    ]),
  )
  expect((await shown(ofAda))[0]).toEqual([
    'To do',
    ['Write the release notes', 'Try the update on a copy of the database', 'Tell support what changes'],
  ])
})

test('a card that one drags moves for the other', async () => {
  await card(ofAda, 'Write the release notes').dragTo(card(ofAda, 'Measure start-up'))
  await column(ofBen, 'Doing').getByText('Write the release notes').waitFor()
  await settled(ofAda, ofBen)
  expect(await columnIn('Write the release notes')).toBe('Doing')
})

test('a move is shown at once, and gives way to the rows when its own commit is there, without going back', async () => {
  await ofAda.evaluate(() => {
    const seen = new Set<string>()
    Object.assign(globalThis, { seen })
    const look = (): void => {
      const title = [...document.querySelectorAll('.card')].find(each => each.textContent?.includes('Tell support'))
      seen.add(title?.closest('section')?.getAttribute('aria-label') ?? 'nowhere')
    }
    new MutationObserver(look).observe(document.body, { childList: true, subtree: true, attributes: true })
  })
  const held = Promise.withResolvers<void>()
  await ofAda.route('**/write', async route => {
    await held.promise
    await route.continue()
  })
  await card(ofAda, 'Tell support').dragTo(column(ofAda, 'Done').locator('.cards'))
  await column(ofAda, 'Done').locator('.card.moving', { hasText: 'Tell support' }).waitFor()
  expect(await columnIn('Tell support what changes')).toBe('To do')
  held.resolve()
  await settled(ofAda, ofBen)
  expect(await columnIn('Tell support what changes')).toBe('Done')
  await ofAda.unroute('**/write')
  const seen = await ofAda.evaluate(() => [...(globalThis as unknown as { seen: Set<string> }).seen])
  expect(seen.filter(title => title !== 'To do')).toEqual(['Done'])
  expect(seen.indexOf('To do')).toBeLessThanOrEqual(0)
})

test('a move that the server refuses goes back, and it says why', async () => {
  await ofAda.route('**/write', route => route.fulfill({ status: 400, json: { message: 'not today' } }))
  await card(ofAda, 'Agree on a date').press('ArrowLeft')
  await ofAda.locator('.problem', { hasText: 'not today' }).waitFor()
  await settled(ofAda)
  expect(await columnIn('Agree on a date')).toBe('Done')
  await ofAda.unroute('**/write')
})

test('the keyboard moves a card and stays with it; cards come and go', async () => {
  await card(ofBen, 'Agree on a date').press('ArrowLeft')
  await column(ofBen, 'Doing').locator('.card:focus', { hasText: 'Agree on a date' }).waitFor()
  await settled(ofBen, ofAda)
  const before = (await shown(ofBen))[1]![1]
  await ofBen.keyboard.press('ArrowDown')
  await eventually(async () =>
    expect((await shown(ofBen))[1]![1].indexOf('Agree on a date')).toBe(before.indexOf('Agree on a date') + 1),
  )
  await settled(ofBen, ofAda)
  await ofBen.getByLabel('New card in To do').fill('Order cake')
  await ofBen.keyboard.press('Enter')
  await card(ofAda, 'Order cake').waitFor()
  await settled(ofAda, ofBen)
  expect((await shown(ofAda))[0]![1].at(-1)).toBe('Order cake')
  await card(ofAda, 'Order cake').press('Delete')
  await card(ofBen, 'Order cake').waitFor({ state: 'detached' })
})

test('each sees where the other points', async () => {
  const target = (await card(ofAda, 'Translate the new settings page').boundingBox())!
  await ofAda.mouse.move(target.x + 20, target.y + 20)
  await ofAda.mouse.move(target.x + 60, target.y + 24)
  await ofBen.locator('.cursor', { hasText: 'Ada' }).waitFor()
  await screenshot(ofBen, 'board')
  expect(await ofAda.locator('.cursor', { hasText: 'Ada' }).count()).toBe(0)
})

test('[P3] who is taken off the board sees nothing of it with that commit, and is seen no more', async () => {
  await ofAda.getByRole('button', { name: 'Take Ben off' }).click()
  await ofBen.getByText('Ben, you are not on this board').waitFor()
  expect(await ofBen.locator('.card').count()).toBe(0)
  await eventually(async () => expect(await faces(ofAda)).toEqual(['Ada']))
  await screenshot(ofBen, 'board-none')
  await ofAda.getByRole('button', { name: 'Take Ben in' }).click()
  await eventually(async () => expect((await faces(ofAda)).sort()).toEqual(['Ada', 'Ben']))
  await eventually(async () => expect((await faces(ofBen)).sort()).toEqual(['Ada', 'Ben']))
  await settled(ofAda, ofBen)
  const { rows } = await database.query('SELECT count(*)::int AS count FROM members WHERE user_id = $1', [ben])
  expect(rows).toEqual([{ count: 1 }])
})

test('[P4] a connection that is cut comes back, and what happened meanwhile is there', async () => {
  link.isRefusing = true
  link.cut()
  await at(ofBen, 'offline')
  await database.query(`UPDATE cards SET title = 'Agree on a day' WHERE title = 'Agree on a date'`)
  await database.query(`DELETE FROM cards WHERE title LIKE 'Measure%'`)
  expect(await card(ofBen, 'Agree on a date').count()).toBe(1)
  link.isRefusing = false
  await Promise.all([at(ofAda, '(live|live, over .*)'), at(ofBen, '(live|live, over .*)')])
  await settled(ofAda, ofBen)
  await card(ofBen, 'Agree on a day').waitFor()
  await eventually(async () => expect((await faces(ofAda)).sort()).toEqual(['Ada', 'Ben']))
})

test('[P2] row-level security holds for what is written: a stranger moves, adds and invites nothing', async () => {
  const before = await selected()
  const write = async (name: string, ...values: unknown[]) => {
    const headers = { authorization: `Bearer ${await tokenFor(cleo)}` }
    const response = await fetch(`${origin}/write`, { method: 'POST', headers, body: JSON.stringify({ name, values }) })
    return { status: response.status, ...((await response.json()) as { rows?: number; message?: string }) }
  }
  expect(await write('move', 4, 3, 0)).toMatchObject({ status: 200, rows: 0 })
  expect((await write('add', 1, 1, 'mine', 0)).message).toMatch(/row-level security/)
  expect((await write('invite', 1, cleo, 'Cleo')).message).toMatch(/row-level security/)
  expect((await write('constructor')).status).toBe(400)
  expect(await selected()).toEqual(before)
})

test('it compiles against the published types', { timeout: 60_000 }, async () => {
  await installed.link('@types')
  const strict = ['--noEmit', '--strict', '--target', 'es2024', '--module', 'nodenext', '--jsx', 'react-jsx']
  const lib = ['--lib', 'es2024,dom,dom.iterable,dom.asynciterable,esnext.disposable', '--types', 'node']
  const compiler = join(repository, 'node_modules/typescript/bin/tsc')
  const files = ['board.tsx', 'server.ts', '--allowImportingTsExtensions']
  expect(await installed.succeed(process.execPath, [compiler, ...files, ...strict, ...lib])).toBe('')
  expect(problems).toEqual([])
})
