import pg from 'pg'
import { type Browser, chromium, type Locator, type Page } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { findChromium } from '../support/chromium.ts'
import { eventually } from '../support/eventually.ts'
import { DevProcess } from './dev-process.ts'

const ben = '00000000-0000-4000-8000-000000000b0b'

let dev: DevProcess
let database: pg.Client
let browser: Browser
let page: Page
const problems: string[] = []

beforeAll(async () => {
  dev = await DevProcess.start()
  database = new pg.Client({ connectionString: dev.fact('Database') })
  database.on('error', () => {})
  await database.connect()
  const args = ['--no-sandbox', '--disable-background-networking']
  browser = await chromium.launch({ executablePath: await findChromium(), args })
  page = await browser.newPage({ viewport: { width: 1100, height: 900 } })
  page.on('console', message => {
    if (message.type() === 'error' || message.type() === 'warning') problems.push(message.text())
  })
  page.on('pageerror', error => problems.push(error.message))
  page.on('request', request => {
    if (!request.url().startsWith(dev.page) && !request.url().startsWith('data:')) problems.push(request.url())
  })
  await page.goto(dev.page)
}, 300_000)

afterAll(async () => {
  await browser?.close()
  await database?.end()
  await dev?.[Symbol.asyncDispose]()
}, 60_000)

const person = (name: string): Locator => page.locator(`[data-person="${name}"]`)
// One that fades out is gone, and may be back beside itself.
const room = (name: string, of: string): Locator => person(of).locator(`[data-room="${name}"]:not(.leaving)`)

async function post(from: string, to: string, body: string): Promise<void> {
  await person(from).getByLabel(`Room for ${from}'s message`).selectOption({ label: to })
  await person(from).getByLabel(`Message from ${from}`).fill(body)
  await page.keyboard.press('Enter')
}

const shown = (locator: Locator): Promise<void> => locator.waitFor({ state: 'visible' })
const gone = (locator: Locator): Promise<void> => locator.waitFor({ state: 'detached' })

test('[P1] each person sees the rooms they are in, and both are told that it is live', async () => {
  await shown(person('Ada').getByText('Only members of the Workshop read this.'))
  await shown(person('Ben').getByText('The tomatoes are in.'))
  expect(await person('Ada').locator('h3').allTextContents()).toEqual(['Lobby', 'Workshop'])
  expect(await person('Ben').locator('h3').allTextContents()).toEqual(['Lobby', 'Garden'])
  await shown(person('Ada').getByText('live', { exact: true }))
  await shown(person('Ben').getByText('live', { exact: true }))
})

test('[P2] a row arrives for the one who may see it, and not for the other', async () => {
  await post('Ada', 'Workshop', 'For the Workshop only')
  await shown(room('Workshop', 'Ada').getByText('For the Workshop only'))
  // Commits arrive in order: when Ben has the second, the first has passed him by.
  await post('Ada', 'Lobby', 'For everybody')
  await shown(room('Lobby', 'Ben').getByText('For everybody'))
  await shown(room('Lobby', 'Ada').getByText('For everybody'))
  expect(await person('Ben').getByText('For the Workshop only').count()).toBe(0)
})

test('[P1] a row that psql inserts, changes and deletes does so on the page', async () => {
  await database.query(`INSERT INTO messages (room_id, author, body) VALUES (1, $1, 'Hello from psql')`, [ben])
  await shown(room('Lobby', 'Ada').getByText('Hello from psql'))
  await database.query(`UPDATE messages SET body = 'Changed by psql' WHERE body = 'Hello from psql'`)
  await shown(room('Lobby', 'Ada').getByText('Changed by psql'))
  await database.query(`DELETE FROM messages WHERE body = 'Changed by psql'`)
  await gone(room('Lobby', 'Ada').getByText('Changed by psql'))
  await gone(room('Lobby', 'Ben').getByText('Changed by psql'))
})

test('[P3] the rows vanish with the membership, for the one who lost it only; the switch follows', async () => {
  await database.query('DELETE FROM members WHERE room_id = 1 AND user_id = $1', [ben])
  await gone(room('Lobby', 'Ben'))
  await gone(person('Ben').getByText('For everybody'))
  await shown(room('Lobby', 'Ada').getByText('For everybody'))
  await eventually(async () => expect(await page.getByLabel('Ben is in Lobby').isChecked()).toBe(false))
  await post('Ada', 'Lobby', 'Ben is gone')
  await shown(room('Lobby', 'Ada').getByText('Ben is gone'))
  expect(await person('Ben').getByText('Ben is gone').count()).toBe(0)
})

test('[P1] a membership given back by the keyboard brings the rows back, those written meanwhile too', async () => {
  await page.getByLabel('Ben is in Lobby').focus()
  await page.keyboard.press('Space')
  await shown(room('Lobby', 'Ben').getByText('Ben is gone'))
  expect(await page.getByLabel('Ben is in Lobby').isChecked()).toBe(true)
})

test('without any room a person sees nothing and cannot write', async () => {
  for (const name of ['Lobby', 'Garden']) await page.getByLabel(`Ben is in ${name}`).uncheck()
  await shown(person('Ben').getByText('Ben is in no room, and sees nothing.'))
  await eventually(async () => expect(await person('Ben').getByLabel('Message from Ben').isDisabled()).toBe(true))
  for (const name of ['Lobby', 'Garden']) await page.getByLabel(`Ben is in ${name}`).check()
  await shown(room('Garden', 'Ben').getByText('The tomatoes are in.'))
})

test('it is readable in the light, in the dark and on a telephone, and loads nothing from elsewhere', async () => {
  const background = (): Promise<string> => page.evaluate(() => getComputedStyle(document.body).backgroundColor)
  await page.emulateMedia({ colorScheme: 'light' })
  const light = await background()
  await page.emulateMedia({ colorScheme: 'dark' })
  expect(await background()).not.toBe(light)
  await page.setViewportSize({ width: 360, height: 800 })
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth)
  expect(overflow).toBeLessThanOrEqual(0)
  expect((await page.screenshot({ fullPage: true })).byteLength).toBeGreaterThan(10_000)
  expect(problems).toEqual([])
})
