// The inspector's page in a real Chromium, as an operator has it before them.
import { type Browser, type BrowserContextOptions, chromium, type Locator, type Page } from 'playwright-core'
import { findChromium } from '../../support/chromium.ts'
import { operatorToken } from './support.ts'

export const launchChromium = async (): Promise<Browser> =>
  chromium.launch({ executablePath: await findChromium(), args: ['--no-sandbox', '--disable-background-networking'] })

/** A window on the page, signed out. What the page must never do is told to `problems`: errors, what its policy forbids, dialogs,
 *  requests to elsewhere or with the token in their address. */
export async function openInspector(
  browser: Browser,
  url: string,
  problems: string[],
  options: BrowserContextOptions = {},
): Promise<Page> {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options })
  const page = await context.newPage()
  page.setDefaultTimeout(20_000)
  page.on('pageerror', error => problems.push(error.message))
  page.on('console', message => {
    // What the node refuses, and a node that is away, stands there too, and is told on the page.
    if (message.type() === 'error' && !message.text().startsWith('Failed to load resource'))
      problems.push(message.text())
  })
  page.on('dialog', dialog => {
    problems.push(`a dialog: ${dialog.message()}`)
    void dialog.dismiss()
  })
  page.on('request', request => {
    const isOurs = request.url().startsWith(url) || request.url().startsWith('data:')
    if (!isOurs || request.url().includes(operatorToken)) problems.push(`asked for ${request.url()}`)
  })
  await page.goto(`${url}/inspect`)
  return page
}

export async function signIn(page: Page, token = operatorToken): Promise<void> {
  await page.getByLabel("Operator's token").fill(token)
  await page.getByRole('button', { name: 'Sign in' }).click()
}

export const shown = (locator: Locator): Promise<void> => locator.waitFor({ state: 'visible' })
export const gone = (locator: Locator): Promise<void> => locator.waitFor({ state: 'hidden' })

/** The row of a view's table that holds this text. */
export const rowOf = (page: Page, view: string, text: string): Locator =>
  page.locator(`#view-${view} tr[data-row]`).filter({ hasText: text })

export interface Readability {
  readonly text: string
  readonly ratio: number
}

/** Every visible text of the page, the least readable first: the contrast of its colour to what it stands on, as WCAG 2 has it. */
export const readabilities = (page: Page): Promise<Readability[]> =>
  page.evaluate(() => {
    const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true })!
    /** Whatever its notation. @returns red, green, blue from 0 to 255, alpha from 0 to 1 */
    const read = (color: string): [number, number, number, number] => {
      canvas.clearRect(0, 0, 1, 1)
      canvas.fillStyle = color
      canvas.fillRect(0, 0, 1, 1)
      const [red = 0, green = 0, blue = 0, alpha = 0] = canvas.getImageData(0, 0, 1, 1).data
      return [red, green, blue, alpha / 255]
    }
    const luminanceOf = (rgb: readonly number[]): number => {
      const [red = 0, green = 0, blue = 0] = rgb.map(value => {
        const share = value / 255
        return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4
      })
      return 0.2126 * red + 0.7152 * green + 0.0722 * blue
    }
    const backgroundOf = (element: Element): number[] => {
      for (let each: Element | null = element; each !== null; each = each.parentElement) {
        const [red, green, blue, alpha] = read(getComputedStyle(each).backgroundColor)
        if (alpha === 1) return [red, green, blue]
      }
      return [255, 255, 255]
    }
    const found: { text: string; ratio: number }[] = []
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
    for (let node = walker.nextNode(); node !== null; node = walker.nextNode()) {
      const element = node.parentElement!
      const text = node.textContent!.trim()
      if (text === '' || !element.checkVisibility() || element.closest('.unseen, [data-left], .skip') !== null) continue
      const [ink, ground] = [
        luminanceOf(read(getComputedStyle(element).color).slice(0, 3)),
        luminanceOf(backgroundOf(element)),
      ]
      found.push({ text: text.slice(0, 40), ratio: (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05) })
    }
    return found.sort((a, b) => a.ratio - b.ratio)
  })
