// Makes the pictures of docs/operations/inspector.md: a node with a lively load, its inspector in Chromium, light and dark.
// Run: npm run screenshots. With --stay it takes none, prints where the page is, and goes on until it is interrupted.
import { mkdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { chromium, type Page } from 'playwright-core'
import { findChromium } from '../test/support/chromium.ts'
import { type Demo, startDemo } from './inspector-demo.ts'

const folder = process.env.SCREENSHOTS ?? fileURLToPath(new URL('../docs/operations/images/', import.meta.url))
const maxBytes = 200_000

await using demo = await startDemo()
if (process.argv.includes('--stay')) {
  console.log(`${demo.url}/inspect\ntoken: ${demo.operatorToken}\na person: ${demo.person}`)
  await new Promise(resolve => process.once('SIGINT', resolve))
} else await take(demo)

async function take({ url, operatorToken, person, database, pace }: Demo): Promise<void> {
  await mkdir(folder, { recursive: true })
  const args = ['--no-sandbox', '--disable-background-networking']
  const browser = await chromium.launch({ executablePath: await findChromium(), args })
  try {
    const page = await browser.newPage({ viewport: { width: 1200, height: 780 } })
    await page.goto(`${url}/inspect`)
    await page.getByLabel("Operator's token").fill(operatorToken)
    await page.keyboard.press('Enter')
    await page.getByRole('tab', { name: 'Stream' }).waitFor()
    page.setDefaultTimeout(10_000)
    pace(28)
    // The lines need some seconds of history to be lines.
    await page.waitForTimeout(Number(process.env.HISTORY_MS ?? 45_000))
    await page.locator('#view-stream tr[data-row]:has-text("public.messages")').first().click()
    await picture(page, 'stream')

    await page.goto(`${url}/inspect#/queries`)
    await page.locator('#view-queries tr[data-row]').first().click()
    await picture(page, 'queries')

    pace(3)
    const claims = JSON.stringify({ sub: person })
    const watch = new URLSearchParams({
      table: 'public.messages',
      role: 'authenticated',
      claims,
      order: 'id.desc',
      limit: '14',
    })
    await page.goto(`${url}/inspect#/watch?${watch}`)
    await page.locator('#view-watch tr[data-row]').nth(8).waitFor()
    const { rows } = await database.query<{ id: string }>(
      'SELECT id FROM messages WHERE room_id = 5 ORDER BY id DESC LIMIT 1',
    )
    await page.getByLabel('id', { exact: true }).fill(rows[0]!.id)
    await page.getByRole('button', { name: 'Explain' }).click()
    await page.locator('.verdict').waitFor()
    await page.locator('tr[data-light]').first().waitFor()
    await picture(page, 'watch')
  } finally {
    await browser.close()
  }
}

/** @throws when one is larger than a page should load */
async function picture(page: Page, name: string): Promise<void> {
  for (const colorScheme of ['light', 'dark'] as const) {
    await page.emulateMedia({ colorScheme })
    const path = join(folder, `inspector-${name}-${colorScheme}.png`)
    await page.screenshot({ path })
    const { size } = await stat(path)
    console.log(`${path}: ${Math.round(size / 1000)} kB`)
    if (size > maxBytes) throw new Error(`${path} has ${size} bytes, more than ${maxBytes}`)
  }
}
