// Clients of every wire, as orders meet them.
import { tokenFor } from '../../support/node.ts'
import { TestSocket } from '../deliver/support/gateway.ts'

interface At {
  readonly url: string
}

export const nowSeconds = (): number => Math.floor(Date.now() / 1000)

/** Issued a minute ago. */
export const olderToken = (sub: string, claims: Record<string, unknown> = {}): Promise<string> =>
  tokenFor(sub, { iat: nowSeconds() - 60, ...claims })

/** Issued later than whatever was ordered up to now. */
export const newerToken = (sub: string, claims: Record<string, unknown> = {}): Promise<string> =>
  tokenFor(sub, { iat: nowSeconds() + 5, ...claims })

export async function openSocket(at: At, token: string): Promise<TestSocket> {
  const socket = new TestSocket(`${at.url.replace('http', 'ws')}/v1/socket`, {
    headers: { authorization: `Bearer ${token}` },
  })
  await socket.frame('welcome')
  return socket
}

/** The code of the last error frame, and the code that the socket closed with. */
export async function endOf(
  socket: TestSocket,
): Promise<{ code: string; retryAfterMs: number | undefined; close: number }> {
  const { code: close } = await socket.closed
  const { code, retryAfterMs } = socket.of('error').at(-1) ?? { code: 'none', retryAfterMs: undefined }
  return { code, retryAfterMs, close }
}

export const poll = (at: At, token: string, query = ''): Promise<Response> =>
  fetch(`${at.url}/v1/live/messages?${query}`, {
    headers: { authorization: `Bearer ${token}`, accept: 'application/json' },
  })

export const codeOf = async (response: Response): Promise<string> =>
  response.status < 400 ? String(response.status) : ((await response.json()) as { code: string }).code

/** What each door says to a token: a code, or that it is open. */
export async function doors(at: At, token: string): Promise<Record<string, string>> {
  const headers = { authorization: `Bearer ${token}` }
  const post = (path: string, body = '{}') => fetch(`${at.url}${path}`, { method: 'POST', headers, body }).then(codeOf)
  const stream = async (): Promise<string> => {
    const abort = new AbortController()
    const response = await fetch(`${at.url}/v1/changes/messages`, {
      headers: { ...headers, accept: 'text/event-stream' },
      signal: abort.signal,
    })
    const code = await codeOf(response)
    abort.abort()
    return code
  }
  return {
    upgrade: await firstOf(new TestSocket(`${at.url.replace('http', 'ws')}/v1/socket`, { headers })),
    frame: await byFrame(at, token),
    stream: await stream(),
    poll: await poll(at, token).then(codeOf),
    ticket: await post('/v1/tickets'),
    wait: await post('/v1/wait', '{"txid": "1"}'),
  }
}

/** Of a token that is taken. */
export const openDoors = {
  upgrade: 'welcome',
  frame: 'welcome',
  stream: '200',
  poll: '200',
  ticket: '200',
  wait: 'TXID_INVALID',
}

export const shutDoors = (code: string): Record<string, string> =>
  Object.fromEntries(Object.keys(openDoors).map(door => [door, code]))

async function byFrame(at: At, token: string): Promise<string> {
  const socket = new TestSocket(`${at.url.replace('http', 'ws')}/v1/socket`)
  await new Promise(resolve => socket.ws.on('open', resolve))
  socket.send({ type: 'auth', token })
  return firstOf(socket)
}

/** What a socket is told first: `welcome`, or why not, as a frame or as the body of a refused upgrade. */
async function firstOf(socket: TestSocket): Promise<string> {
  const refused = new Promise<string>(resolve =>
    socket.ws.on('unexpected-response', (_, response) => {
      let body = ''
      response.on('data', chunk => {
        body += String(chunk)
      })
      response.on('end', () => resolve((JSON.parse(body) as { code: string }).code))
    }),
  )
  const told = socket.until(() => socket.frames.length > 0, 'a frame').then(() => socket.frames[0]!)
  told.catch(() => {})
  const first = await Promise.race([refused, told])
  socket.ws.terminate()
  if (typeof first === 'string') return first
  return first.type === 'error' ? first.code : first.type
}
