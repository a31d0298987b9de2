// The inspector's page in Chromium, against a real node with real subscribers: every view, by mouse and by keyboard alone.
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { ChannelClient, channelPolicies } from '../../support/channel-client.ts'
import { eventually } from '../../support/eventually.ts'
import { LiveSse, prepareDatabase, roomsSchema, TestNode, tokenFor } from '../../support/node.ts'
import { TestDatabase } from '../../support/postgres.ts'
import { gone, launchChromium, openInspector, readabilities, rowOf, shown, signIn } from './browser.ts'
import { operatorToken } from './support.ts'

const ada = '00000000-0000-4000-8000-000000000ada'
const ben = '00000000-0000-4000-8000-000000000b0b'
const hostile = '<img src=x onerror=alert(1)>'
const stack = new AsyncDisposableStack()
let database: TestDatabase
let node: TestNode
let browser: Browser
let page: Page
const problems: string[] = []

const hostileSchema = `
  CREATE TABLE public."${hostile}" (id int PRIMARY KEY, "${hostile}" text);
  GRANT SELECT ON public."${hostile}" TO authenticated;
  INSERT INTO public."${hostile}" VALUES (1, '${hostile}');
`
const hostilePath = `/v1/live/${encodeURIComponent(hostile)}`

beforeAll(async () => {
  database = stack.use(await TestDatabase.create())
  const tables = ['public.rooms', 'public.members', 'public.messages', `public.${hostile}`]
  await prepareDatabase(database, roomsSchema + channelPolicies + hostileSchema, tables)
  await database.query(`
    INSERT INTO rooms VALUES (1, 'Lobby'), (2, 'Workshop');
    INSERT INTO members VALUES (1, '${ada}'), (2, '${ada}'), (1, '${ben}');
    INSERT INTO messages VALUES (1, 1, 'Ada', 'in the Lobby'), (2, 2, 'Ada', 'in the Workshop')`)
  node = await TestNode.start(database.url, {
    OPERATOR_TOKEN: operatorToken,
    CHANNELS: JSON.stringify([{ pattern: '*', public: true, presence: { boundToSubject: false } }]),
  })
  stack.defer(() => node.server.stop())
  browser = await launchChromium()
  stack.defer(() => browser.close())
  for (const [path, sub] of [
    ['/v1/live/messages', ada],
    ['/v1/live/messages', ada],
    ['/v1/live/messages?room_id=eq.1', ben],
    [`${hostilePath}?${encodeURIComponent(hostile)}=neq.${encodeURIComponent(hostile)}`, ben],
  ] as const) {
    const live = stack.use(await LiveSse.open(node, path, await tokenFor(sub)))
    await live.exact()
  }
  const client = await ChannelClient.open(node, await tokenFor(ben))
  stack.defer(() => client.close())
  await client.join('room:1', { presence: true, track: { meta: null, key: ben } })
  await client.join(hostile, { private: false, presence: true, track: { meta: null, key: hostile } })
  page = await openInspector(browser, node.url, problems)
}, 300_000)

afterAll(async () => {
  await stack.disposeAsync()
  expect(problems).toEqual([])
}, 60_000)

const tab = (name: string) => page.getByRole('tab', { name })
const say = (id: number, room: number, body: string): Promise<unknown> =>
  database.query('INSERT INTO messages VALUES ($1, $2, $3, $4)', [id, room, 'Ada', body])
const linked = () => page.locator('#link').getByText('live')
const watchForm = (name: string) => page.locator('.watch-form').getByLabel(name)

async function watch(fields: Readonly<Record<string, string>>): Promise<void> {
  await tab('Watch').click()
  for (const [name, value] of Object.entries(fields)) await watchForm(name).fill(value)
  await page.getByRole('button', { name: 'Watch' }).click()
}

test('a wrong token is told, and kept nowhere; the right one stays in this tab, and in no address', async () => {
  await signIn(page, 'not-the-token-of-the-operator')
  await shown(page.getByText('Not signed in'))
  expect(await page.evaluate(() => JSON.stringify([localStorage, sessionStorage, document.cookie]))).not.toContain(
    'not-the',
  )
  await signIn(page)
  await shown(tab('Stream'))
  await gone(page.getByText('Not signed in'))
  expect(page.url()).not.toContain(operatorToken)
  expect(await page.evaluate(() => JSON.stringify([localStorage, document.cookie]))).not.toContain(operatorToken)
  await page.reload()
  await shown(linked())
})

test('the header says which node it is and how it stands', async () => {
  const facts = page.locator('#facts')
  await shown(facts.getByText('leader'))
  await eventually(async () => expect(await facts.textContent()).toMatch(/Connections\s*5/))
  expect(await facts.textContent()).toMatch(/Lag\s*[\d.,]+ (µs|ms|s)/)
  expect(await page.locator('#banner').isVisible()).toBe(false)
})

test('a commit passes the stages, stands in the table, and shows its way when it is chosen', async () => {
  await say(10, 1, 'seen by the inspector')
  const row = rowOf(page, 'stream', 'public.messages').first()
  await shown(row)
  // Ada's audience and Ben's; two connections of Ada, one of Ben.
  expect(await row.locator('td').allTextContents()).toEqual(expect.arrayContaining(['public.messages', '1', '2', '3']))
  expect(await row.locator('.bars').getAttribute('aria-label')).toMatch(
    /wal .+, relay .+, decode .+, authorize .+, route .+, deliver .+/,
  )
  await row.click()
  const detail = page.getByRole('complementary', { name: 'Chosen commit' })
  await shown(detail.getByText('3 deliveries'))
  expect(await detail.locator('.spans li').count()).toBe(6)
  expect(await page.locator('.stages h3').allTextContents()).toHaveLength(6)
  await detail.getByRole('button', { name: 'Close' }).click()
  await gone(detail)
})

test('the table stands still while it is paused, and says how much passed', async () => {
  await page.getByRole('button', { name: 'Pause' }).click()
  const before = await page.locator('#view-stream tbody tr').count()
  await database.query('BEGIN; INSERT INTO rooms VALUES (3, $$Garden$$); COMMIT')
  await shown(page.getByText(/paused: [1-9]\d* commits? since/))
  expect(await page.locator('#view-stream tbody tr').count()).toBe(before)
  expect(await rowOf(page, 'stream', 'public.rooms').count()).toBe(0)
  await page.getByRole('button', { name: 'Go on' }).click()
  await database.query('INSERT INTO rooms VALUES (4, $$Attic$$)')
  await shown(rowOf(page, 'stream', 'public.rooms').first())
})

test('queries are found, sorted and opened', async () => {
  await tab('Queries').click()
  const all = page.locator('#view-queries tr[data-row]')
  await eventually(async () => expect(await all.count()).toBe(3))
  const shared = rowOf(page, 'queries', 'every row')
  expect(await shared.locator('td').allTextContents()).toEqual([
    'public.messages',
    'live',
    'every row',
    '2',
    '1',
    'compiled',
    '0',
    '0',
  ])
  await shared.click()
  await shown(page.getByText('columns id, room_id, author, body'))
  await page.getByPlaceholder('Find a table, filter or role').fill('ROOM_ID')
  await eventually(async () => expect(await all.count()).toBe(1))
  expect(page.url()).toContain('#/queries?find=ROOM_ID')
  await page.keyboard.press('Escape')
  await page.keyboard.press('Escape')
  await eventually(async () => expect(await all.count()).toBe(3))
  await page.getByRole('button', { name: 'Table' }).click()
  expect(await page.getByRole('columnheader', { name: 'Table' }).getAttribute('aria-sort')).toBe('ascending')
  const names = await all.locator('td:first-child').allTextContents()
  expect(names).toEqual([...names].sort())
})

test('channels show their members, and who is present', async () => {
  await tab('Channels').click()
  const row = rowOf(page, 'channels', 'room:1')
  await eventually(async () =>
    expect(await row.locator('td').allTextContents()).toEqual(['room:1', 'private', '1', '1', 'none']),
  )
  await row.click()
  await shown(page.getByRole('list', { name: 'Present' }).getByText(ben))
})

test('nodes show the leader', async () => {
  await tab('Nodes').click()
  await shown(rowOf(page, 'nodes', '(this one)').getByText('leader'))
})

test('names that are markup are text', async () => {
  await tab('Channels').click()
  const channel = rowOf(page, 'channels', hostile)
  await channel.click()
  await shown(page.getByRole('list', { name: 'Present' }).getByText(hostile))
  await tab('Queries').click()
  await shown(rowOf(page, 'queries', `public.${hostile}`))
  await watch({ Table: `public.${hostile}`, Filter: '' })
  await shown(page.getByRole('cell', { name: hostile }))
  await database.query(`UPDATE public."${hostile}" SET "${hostile}" = '<b>bold</b>'`)
  await shown(page.getByRole('cell', { name: '<b>bold</b>' }))
  await tab('Stream').click()
  await shown(rowOf(page, 'stream', hostile).first())
  expect(await page.locator('main img, main b, main script').count()).toBe(0)
})

test('[P3] a watched table shows what its user sees: rows come, change, and go with a revocation', async () => {
  await watch({ Table: 'public.messages', Role: 'authenticated', 'Claims (JSON)': `{"sub":"${ben}"}` })
  await shown(rowOf(page, 'watch', 'in the Lobby'))
  expect(await rowOf(page, 'watch', 'in the Workshop').count()).toBe(0)
  await say(20, 1, 'something new')
  await shown(page.locator('tr[data-light="appeared"]').filter({ hasText: 'something new' }))
  await database.query(`UPDATE messages SET body = 'something else' WHERE id = 20`)
  await shown(page.locator('tr[data-light="changed"]').filter({ hasText: 'something else' }))
  await database.query(`DELETE FROM members WHERE user_id = '${ben}'`)
  await eventually(async () => expect(await page.locator('#view-watch tr[data-row]').count()).toBe(0))
  await shown(page.getByText('Such a user sees no row.'))
  await page.getByRole('button', { name: 'Why did 20 go?' }).click()
  await shown(page.getByText('public.messages id=20 is hidden from this user.'))
  await shown(page.getByText(`It looks in public.members where room_id = 1 and user_id = ${ben} and finds none.`))
  await database.query(`INSERT INTO members VALUES (1, '${ben}')`)
  await shown(rowOf(page, 'watch', 'something else'))
})

test('a row that is missing is explained, and so is one that nobody has', async () => {
  const explain = async (id: string): Promise<void> => {
    await page.getByLabel('id', { exact: true }).fill(id)
    await page.getByRole('button', { name: 'Explain', exact: true }).click()
  }
  await explain('2')
  await shown(page.getByText('public.messages id=2 is hidden from this user.'))
  await shown(page.getByText('The permissive policy "by_membership" does not let it through.'))
  await shown(page.getByText('Postgres agrees: a SELECT as this user returns no row.'))
  await explain('777')
  await shown(page.getByText('There is no row public.messages id=777, for anybody.'))
  await rowOf(page, 'watch', 'something else').click()
  await shown(page.getByText('public.messages id=20 is visible to this user.'))
})

test('what the node refuses to watch is told, with its code', async () => {
  await watch({ Table: 'public.messages', 'Claims (JSON)': 'not JSON' })
  await shown(page.getByText('The claims are not JSON.'))
  await watch({ 'Claims (JSON)': '{}', Filter: 'nothing=eq.1' })
  await shown(page.getByText('COLUMN_UNKNOWN'))
  await watch({ Filter: '', Role: 'postgres' })
  await shown(page.getByText('ROLE_REFUSED'))
})

test('by keyboard alone: the views, a commit, a query, the keys themselves', async () => {
  const { keyboard } = page
  const focused = (): Promise<string> => page.evaluate(() => document.activeElement?.textContent?.trim() ?? '')
  const tabToRow = async (): Promise<void> => {
    for (let tabs = 0; tabs < 12 && (await page.evaluate(() => document.activeElement?.tagName)) !== 'TR'; tabs++)
      await keyboard.press('Tab')
  }
  await page.goto('about:blank')
  await page.goto(`${node.url}/inspect`)
  await shown(linked())
  await keyboard.press('Tab')
  expect(await focused()).toBe('Skip to the content')
  await keyboard.press('Enter')
  expect(await page.evaluate(() => document.activeElement?.id)).toBe('main')
  for (const [key, view] of [
    ['2', 'queries'],
    ['3', 'channels'],
    ['4', 'watch'],
    ['5', 'nodes'],
    ['1', 'stream'],
  ] as const) {
    await keyboard.press(key)
    await shown(page.locator(`#view-${view}`))
  }
  // From the tab with the focus to the one beside it, around the end.
  await keyboard.press('ArrowLeft')
  expect(await focused()).toBe('Nodes')
  await keyboard.press('Home')
  expect(await focused()).toBe('Stream')
  let id = 100
  await eventually(async () => {
    // Of commits that come at once only some are traced.
    await say(id++, 1, 'another')
    expect(await rowOf(page, 'stream', 'public.messages').count()).toBeGreaterThan(1)
  })
  await tabToRow()
  await keyboard.press('End')
  await keyboard.press('Home')
  await keyboard.press('ArrowDown')
  await keyboard.press('Enter')
  const detail = page.getByRole('complementary', { name: 'Chosen commit' })
  await shown(detail)
  await keyboard.press('Escape')
  await gone(detail)
  await keyboard.press('2')
  await shown(rowOf(page, 'queries', 'every row'))
  await keyboard.press('/')
  await keyboard.type('every')
  await eventually(async () => expect(await page.locator('#view-queries tr[data-row]').count()).toBe(1))
  await tabToRow()
  await keyboard.press('Enter')
  await shown(page.getByText('columns id, room_id, author, body'))
  expect(await page.locator('tr[aria-expanded="true"]').evaluate(row => getComputedStyle(row).outlineStyle)).not.toBe(
    'none',
  )
  await keyboard.press('?')
  await shown(page.getByRole('dialog', { name: 'Keys' }))
  await keyboard.press('Escape')
  await gone(page.getByRole('dialog', { name: 'Keys' }))
  await shown(page.getByText('columns id, room_id, author, body'))
})

const views = [
  'stream',
  'queries?find=messages',
  'channels',
  'nodes',
  `watch?table=messages&role=authenticated&claims={"sub":"${ada}"}`,
]

test.each(['light', 'dark'] as const)('every text is readable, %s: at least 4.5 to 1', async colorScheme => {
  await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' })
  for (const view of views) {
    await page.goto(`${node.url}/inspect#/${view}`)
    await shown(page.locator(`#view-${view.replace(/\?.*/, '')} tr[data-row]`).first())
    const texts = await readabilities(page)
    expect(texts.length).toBeGreaterThan(20)
    expect(texts.filter(({ ratio }) => ratio < 4.5)).toEqual([])
  }
  expect(await page.evaluate(() => getComputedStyle(document.body).backgroundColor)).toBe(
    colorScheme === 'light' ? 'rgb(243, 246, 248)' : 'rgb(11, 18, 22)',
  )
})

test('the switch keeps a theme whatever the system has', async () => {
  const paper = (): Promise<string> => page.evaluate(() => getComputedStyle(document.body).backgroundColor)
  await page.emulateMedia({ colorScheme: 'dark' })
  await page.keyboard.press('t')
  expect(await paper()).toBe('rgb(243, 246, 248)')
  await page.reload()
  await shown(linked())
  expect(await paper()).toBe('rgb(243, 246, 248)')
  await page.getByRole('button', { name: 'Colours: Light. Change' }).click()
  await page.getByRole('button', { name: 'Colours: Dark. Change' }).click()
  expect(await page.evaluate(() => document.documentElement.dataset.theme)).toBeUndefined()
})

test('380 pixels are enough: nothing stands out of the page, and the tabs are within reach', async () => {
  await page.setViewportSize({ width: 380, height: 800 })
  for (const view of views) {
    await page.goto(`${node.url}/inspect#/${view}`)
    await shown(page.locator(`#view-${view.replace(/\?.*/, '')} tr[data-row]`).first())
    expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(380)
    for (const each of await page.getByRole('tab').all()) {
      const box = (await each.boundingBox())!
      expect(box.x + box.width).toBeLessThanOrEqual(380)
    }
  }
  await page.setViewportSize({ width: 1280, height: 900 })
})

test('[P8] a node that goes is told, and the page finds it again when it is back', async () => {
  await page.goto(`${node.url}/inspect#/watch?table=messages&role=authenticated&claims={"sub":"${ada}"}`)
  await shown(rowOf(page, 'watch', 'in the Workshop'))
  const { port } = node.server
  await node.server.stop()
  await shown(page.getByText('What is shown is from before.'))
  await shown(page.getByText('connection lost'))
  await say(40, 2, 'while it was away')
  node = await TestNode.start(database.url, { OPERATOR_TOKEN: operatorToken, PORT: String(port) })
  await shown(linked())
  await gone(page.locator('#banner'))
  await shown(rowOf(page, 'watch', 'while it was away'))
})

test('signing out forgets the token, and all that was shown', async () => {
  await page.getByRole('button', { name: 'Sign out' }).click()
  await shown(page.getByLabel("Operator's token"))
  expect(await page.evaluate(() => sessionStorage.length)).toBe(0)
  expect(await page.content()).not.toContain('in the Workshop')
})
