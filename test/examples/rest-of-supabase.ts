// What of Supabase stays beside Realtime, as far as examples/supabase asks for it: signing in (Auth), and the rows of its one table
// (PostgREST), read and written as the user.
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { json } from 'node:stream/consumers'
import { decodeJwt } from 'jose'
import pg from 'pg'
import { tokenFor } from '../support/node.ts'

export interface Person {
  readonly id: string
  readonly email: string
  readonly password: string
}

export class RestOfSupabase implements AsyncDisposable {
  readonly url: string
  readonly #close: () => Promise<void>

  private constructor(url: string, close: () => Promise<void>) {
    this.url = url
    this.#close = close
  }

  static async start(databaseUrl: string, people: readonly Person[]): Promise<RestOfSupabase> {
    const pool = new pg.Pool({ connectionString: databaseUrl, max: 4 })
    const server = createServer((request, response) => {
      answer({ pool, people }, request, response).catch((error: Error) =>
        send(response, error instanceof pg.DatabaseError ? 403 : 400, { message: error.message }),
      )
    })
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
    return new RestOfSupabase(`http://127.0.0.1:${(server.address() as AddressInfo).port}`, async () => {
      server.closeAllConnections()
      await new Promise<void>(resolve => server.close(() => resolve()))
      await pool.end()
    })
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#close()
  }
}

interface Given {
  readonly pool: pg.Pool
  readonly people: readonly Person[]
}

async function answer({ pool, people }: Given, request: IncomingMessage, response: ServerResponse): Promise<void> {
  response.setHeader('access-control-allow-origin', '*')
  response.setHeader('access-control-allow-methods', 'GET, POST, DELETE')
  response.setHeader('access-control-allow-headers', request.headers['access-control-request-headers'] ?? '*')
  if (request.method === 'OPTIONS') return send(response, 204, null)
  const url = new URL(request.url ?? '/', 'http://any')
  const bearer = request.headers.authorization?.replace(/^Bearer /, '') ?? ''
  switch (`${request.method} ${url.pathname}`) {
    case 'POST /auth/v1/token': {
      const { email, password } = (await json(request)) as { email?: string; password?: string }
      const person = people.find(each => each.email === email && each.password === password)
      if (person === undefined) return send(response, 400, { msg: 'Invalid login credentials' })
      return send(response, 200, await sessionOf(person))
    }
    case 'POST /auth/v1/logout':
      return send(response, 204, null)
    case 'GET /rest/v1/messages': {
      const room = url.searchParams.get('room')?.replace(/^eq\./, '')
      return send(
        response,
        200,
        await as(
          pool,
          bearer,
          'SELECT id::int, room, user_id, name, body, sent_at FROM messages WHERE room = $1 ORDER BY id',
          [room],
        ),
      )
    }
    case 'POST /rest/v1/messages': {
      const { room, name, body } = (await json(request)) as Record<string, string>
      await as(pool, bearer, 'INSERT INTO messages (room, name, body) VALUES ($1, $2, $3)', [room, name, body])
      return send(response, 201, null)
    }
    case 'DELETE /rest/v1/messages':
      await as(pool, bearer, 'DELETE FROM messages WHERE id = $1', [url.searchParams.get('id')?.replace(/^eq\./, '')])
      return send(response, 204, null)
    default:
      return send(response, 404, { message: `${request.method} ${url.pathname}` })
  }
}

async function sessionOf({ id, email }: Person): Promise<object> {
  const accessToken = await tokenFor(id, { email, aud: 'authenticated' })
  return {
    ...{ access_token: accessToken, token_type: 'bearer', expires_in: 3600, refresh_token: 'none' },
    expires_at: Math.floor(Date.now() / 1000) + 3600,
    user: {
      id,
      email,
      aud: 'authenticated',
      role: 'authenticated',
      app_metadata: {},
      user_metadata: {},
      created_at: '',
    },
  }
}

/** Runs one statement under the role and the claims of a token, which whoever wrote it has signed. */
async function as(pool: pg.Pool, token: string, sql: string, values: readonly unknown[]): Promise<unknown[]> {
  const claims = decodeJwt(token)
  const client = await pool.connect()
  try {
    await client.query('BEGIN')
    await client.query(`SELECT set_config('request.jwt.claims', $1, true), set_config('role', $2, true)`, [
      JSON.stringify(claims),
      claims.role,
    ])
    const { rows } = await client.query<Record<string, unknown>>(sql, [...values])
    await client.query('COMMIT')
    return rows
  } catch (error) {
    await client.query('ROLLBACK')
    throw error
  } finally {
    client.release()
  }
}

function send(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(body === null ? '' : JSON.stringify(body))
}
