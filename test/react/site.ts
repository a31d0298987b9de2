// The application of these tests, bundled with a React of either major version, and served to a browser beside a server's rendering.
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'
import { rolldown } from 'rolldown'

export type ReactMajor = 18 | 19

const pathOf = (name: string): string => fileURLToPath(new URL(name, import.meta.url))

/** One module with all it needs, React's development build. */
export async function bundle(name: string, major: ReactMajor, platform: 'browser' | 'node'): Promise<string> {
  await using build = await rolldown({
    input: pathOf(name),
    platform,
    transform: { define: { 'process.env.NODE_ENV': '"development"' } },
    resolve: major === 19 ? {} : { alias: { react: 'react-18', 'react-dom': 'react-dom-18' } },
    // A directive of a package speaks to frameworks, not to a bundle.
    checks: { pluginTimings: false },
    logLevel: 'silent',
  })
  const { output } = await build.generate({ format: 'esm', codeSplitting: false })
  return output[0].code
}

export interface Site extends AsyncDisposable {
  readonly origin: string
}

/** @param render the HTML that a server rendered, into the page's root */
export async function serveSite(script: string, render: () => string): Promise<Site> {
  const pages = createServer((request, response) => {
    const { pathname } = new URL(request.url!, 'http://localhost')
    if (pathname === '/app.js') return response.setHeader('content-type', 'text/javascript').end(script)
    if (pathname !== '/' && pathname !== '/rendered') return response.writeHead(204).end()
    const html = pathname === '/rendered' ? render() : ''
    response.setHeader('content-type', 'text/html; charset=utf-8')
    response.end(
      `<!doctype html><title>test</title><div id="root">${html}</div><script type="module" src="/app.js"></script>`,
    )
  })
  await new Promise<void>(resolve => pages.listen(0, '127.0.0.1', resolve))
  return {
    origin: `http://127.0.0.1:${(pages.address() as AddressInfo).port}`,
    async [Symbol.asyncDispose]() {
      pages.closeAllConnections()
      await new Promise<void>(resolve => pages.close(() => resolve()))
    },
  }
}
