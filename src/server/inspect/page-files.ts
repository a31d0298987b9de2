// The inspector's page: `/inspect` and the files beside it, which hold nothing and ask for the operator's token themselves.
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { extname } from 'node:path'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Exchange } from '../deliver/exchange.ts'
import type { OperatorRoute } from '../operator/route.ts'

const folder = new URL('page/', import.meta.url)

const types: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.svg': 'image/svg+xml',
}

const headers = {
  'Content-Security-Policy': [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "connect-src 'self'",
    "img-src 'self' data:",
    "frame-ancestors 'none'",
    "base-uri 'none'",
    "form-action 'none'",
  ].join('; '),
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'no-referrer',
  // Kept, and asked about each time: another release has other files under the same names.
  'Cache-Control': 'no-cache',
}

/** One for each file there is, so that no name of a request ever becomes a path. They are read once, some 100 kB. */
export const pageRoutes = (): OperatorRoute[] =>
  readdirSync(folder)
    .filter(name => extname(name) in types)
    .map(name => {
      const body = readFileSync(new URL(name, folder))
      const etag = `"${createHash('sha256').update(body).digest('base64url').slice(0, 22)}"`
      const path = name === 'index.html' ? '/inspect' : `/inspect/${name}`
      return {
        method: 'GET',
        path,
        isOpen: true,
        answer: async exchange => answerFile(exchange, { body, etag, type: types[extname(name)]! }),
      }
    })

interface PageFile {
  readonly body: Buffer
  readonly etag: string
  readonly type: string
}

function answerFile({ request, response, path }: Exchange, { body, etag, type }: PageFile): void {
  if (response.headersSent || response.destroyed) return
  const site = request.headers['sec-fetch-site']
  // A page elsewhere may link here, and embed nothing of it.
  if (site === 'cross-site' && request.headers['sec-fetch-mode'] !== 'navigate')
    throw new TidegateError('ORIGIN_REFUSED', `pages of other origins may not load ${path}`)
  if (request.headers['if-none-match'] === etag) {
    response.writeHead(304, { ...headers, ETag: etag }).end()
    return
  }
  response.writeHead(200, { ...headers, ETag: etag, 'Content-Type': type, 'Content-Length': String(body.length) })
  response.end(body)
}
