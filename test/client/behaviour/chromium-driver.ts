// Clients in pages of a real browser, bundled as a page loads them.
import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'
import { type Browser, chromium, type Page } from 'playwright-core'
import { rolldown } from 'rolldown'
import { findChromium } from '../../support/chromium.ts'
import type { Driven, Driver } from './driver.ts'
import type { Glance, Seen, WatchOptions } from './watched.ts'

/** What `page.ts` puts there. */
interface InPage {
  /** @returns its number */
  tidegateOpen(options: WatchOptions): number
  readonly clients: readonly { readonly glance: Glance; readonly seen: Seen; close(): void }[]
}

export class ChromiumDriver implements Driver {
  readonly #browser: Browser
  /** Of the page: another origin than that of the service. */
  readonly #server: Server
  /** Those with a name, which several clients share. */
  readonly #places = new Map<string, Promise<Page>>()

  private constructor(browser: Browser, server: Server) {
    this.#browser = browser
    this.#server = server
  }

  static async start(): Promise<ChromiumDriver> {
    const browser = await chromium.launch({
      executablePath: await findChromium(),
      args: ['--no-sandbox', '--disable-background-networking'],
    })
    const input = fileURLToPath(new URL('page.ts', import.meta.url))
    await using build = await rolldown({ input, platform: 'browser', logLevel: 'silent' })
    const { output } = await build.generate({ format: 'iife', codeSplitting: false })
    const server = createServer((request, response) => {
      if (request.url === '/page.js') response.setHeader('content-type', 'text/javascript').end(output[0].code)
      else response.setHeader('content-type', 'text/html').end('<script src="/page.js"></script>')
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    return new ChromiumDriver(browser, server)
  }

  async open(options: WatchOptions, place?: string): Promise<Driven> {
    const page = await (place === undefined ? this.#openPage() : this.#pageAt(place))
    const n = await page.evaluate(each => (globalThis as unknown as InPage).tidegateOpen(each), options)
    return {
      glance: () => page.evaluate(each => (globalThis as unknown as InPage).clients[each]!.glance, n),
      seen: () => page.evaluate(each => (globalThis as unknown as InPage).clients[each]!.seen, n),
      [Symbol.asyncDispose]: async () => {
        await page.evaluate(each => (globalThis as unknown as InPage).clients[each]!.close(), n)
        if (place === undefined) await page.context().close()
      },
    }
  }

  /** In a context of its own, which remembers nothing of others. */
  async #openPage(): Promise<Page> {
    const context = await this.#browser.newContext()
    const page = await context.newPage()
    await page.goto(`http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`)
    return page
  }

  #pageAt(place: string): Promise<Page> {
    const page = this.#places.get(place) ?? this.#openPage()
    this.#places.set(place, page)
    return page
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#browser.close()
    this.#server.close()
  }
}
