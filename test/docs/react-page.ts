// The React of a page of the guide: all its blocks as one module, bundled and run in Chromium.
import { writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { chromium } from 'playwright-core'
import { rolldown } from 'rolldown'
import { findChromium } from '../support/chromium.ts'

export interface ReactPage extends AsyncDisposable {
  /** The lines that a person sees, and what the browser complained of. */
  lines(): Promise<string[]>
}

/** @param folder where `tidegate` and `react` can be imported */
export async function openReactPage(text: string, folder: string): Promise<ReactPage> {
  await using stack = new AsyncDisposableStack()
  const input = join(folder, 'page.tsx')
  await writeFile(input, text)
  const build = stack.use(
    await rolldown({
      input,
      platform: 'browser',
      transform: { define: { 'process.env.NODE_ENV': '"development"' } },
      logLevel: 'silent',
    }),
  )
  const { output } = await build.generate({ format: 'esm', codeSplitting: false })
  const html = '<!doctype html><title>page</title><div id="root"></div><script type="module" src="/page.js"></script>'
  const server = createServer((request, response) => {
    const isScript = request.url === '/page.js'
    response.setHeader('content-type', isScript ? 'text/javascript' : 'text/html').end(isScript ? output[0].code : html)
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  stack.defer(() => {
    server.closeAllConnections()
    server.close()
  })
  const browser = await chromium.launch({ executablePath: await findChromium(), args: ['--no-sandbox'] })
  stack.defer(() => browser.close())
  const page = await browser.newPage()
  const problems: string[] = []
  page.on('pageerror', error => problems.push(String(error)))
  await page.goto(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`)
  const kept = stack.move()
  return {
    async lines() {
      const seen = await page.innerText('#root')
      return [...problems, ...seen.split('\n')].map(line => line.trim()).filter(line => line !== '')
    },
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  }
}
