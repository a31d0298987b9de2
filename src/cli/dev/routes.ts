// The pages of `tidegate dev`, beside the service's own addresses: the example's page, its modules, its buttons.
import { readFile } from 'node:fs/promises'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { peerCodes } from '../../protocol/codes.ts'
import { errorBodyOf, TidegateError } from '../../protocol/tidegate-error.ts'
import { type Example, people } from './example.ts'
import { browserModule, extension } from './modules.ts'

export interface DevPages {
  /** Null: a database of someone's own, without the example. */
  readonly example: Example | null
  /** Mints a short-lived token for one of the example's people. */
  readonly mint: (person: string) => Promise<string>
  /** Lines to try in a terminal, shown on the page: what it does, and the command. */
  readonly commands: readonly (readonly [purpose: string, command: string])[]
  /** Address of the inspector's page. */
  readonly inspector: () => string
}

/** Answers what is ours, and leaves the rest to the server. */
export type Routes = (request: IncomingMessage, response: ServerResponse) => Promise<boolean>

const maxBodyBytes = 4096
const securityHeaders = {
  // Nothing from elsewhere: the page must work without a network, and load nothing that a message could name.
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cache-control': 'no-store',
}

export function devRoutes(pages: DevPages): Routes {
  return async (request, response) => {
    const { pathname, searchParams } = new URL(request.url ?? '/', 'http://localhost')
    const isRead = request.method === 'GET' || request.method === 'HEAD'
    if (pathname === '/' && isRead) {
      await sendPage(response, pages)
      return true
    }
    if (pathname.startsWith('/modules/') && isRead) {
      const text = await browserModule(pathname.slice('/modules/'.length))
      if (text === null) return false
      send(response, 200, 'text/javascript; charset=utf-8', text)
      return true
    }
    if (!pathname.startsWith('/dev/') || pages.example === null) return false
    try {
      requireOwnPage(request)
      if (pathname === '/dev/example' && isRead) {
        sendJson(response, { people, rooms: await pages.example.rooms(), commands: pages.commands })
      } else if (pathname === '/dev/token' && isRead) {
        sendJson(response, { token: await pages.mint(personOf(searchParams.get('person'))) })
      } else if (pathname === '/dev/actions' && request.method === 'POST') {
        sendJson(response, { changed: await pages.example.run(await readJson(request)) })
      } else {
        return false
      }
    } catch (error) {
      const body = errorBodyOf(error)
      send(response, peerCodes[body.code].status, 'application/json; charset=utf-8', JSON.stringify(body))
    }
    return true
  }
}

function personOf(id: string | null): string {
  const person = people.find(each => each.id === id)
  if (person === undefined) throw new TidegateError('NOT_FOUND', `the example knows nobody with the id "${id ?? ''}"`)
  return person.id
}

/** The tokens and buttons are for our own page on this machine: any other page that a browser shows could reach
 *  localhost too, by its address or by a name of its own that points here. */
function requireOwnPage(request: IncomingMessage): void {
  const { host = '', origin } = request.headers
  const site = request.headers['sec-fetch-site']
  const isLocal = URL.canParse(`http://${host}`) && isLoopback(new URL(`http://${host}`).hostname)
  const isOurs = origin === undefined || origin === `http://${host}`
  if (!isLocal || !isOurs || (site !== undefined && site !== 'same-origin')) {
    throw new TidegateError('ORIGIN_REFUSED', `only the page of tidegate dev may ask this, not ${origin ?? host}`)
  }
}

const isLoopback = (name: string): boolean => ['localhost', '127.0.0.1', '[::1]'].includes(name)

async function sendPage(response: ServerResponse, pages: DevPages): Promise<void> {
  const name = pages.example === null ? 'served.html' : 'page.html'
  const html = await readFile(new URL(name, import.meta.url), 'utf8')
  const commands = pages.commands.map(
    ([purpose, line]) => `<dt>${escapeHtml(purpose)}</dt><dd><pre>${escapeHtml(line)}</pre></dd>`,
  )
  // Functions, because a replacement text would read `$&` in a command.
  const text = html
    .replace('{{extension}}', () => extension)
    .replace('{{commands}}', () => commands.join('\n'))
    .replace('{{inspector}}', () => escapeHtml(pages.inspector()))
  send(response, 200, 'text/html; charset=utf-8', text)
}

const entities: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' }
const escapeHtml = (text: string): string => text.replace(/[&<>"]/g, character => entities[character] ?? character)

async function readJson(request: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length
    if (size > maxBodyBytes) throw new TidegateError('FRAME_TOO_LARGE', `the body is larger than ${maxBodyBytes} bytes`)
    chunks.push(chunk)
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString('utf8'))
  } catch {
    throw new TidegateError('BAD_FRAME', 'the body is no JSON')
  }
}

const sendJson = (response: ServerResponse, value: unknown): void =>
  send(response, 200, 'application/json; charset=utf-8', JSON.stringify(value))

function send(response: ServerResponse, status: number, contentType: string, text: string): void {
  response.writeHead(status, { ...securityHeaders, 'content-type': contentType })
  response.end(text)
}
