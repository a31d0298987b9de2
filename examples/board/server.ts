// The example's own server: its page, a login that believes whoever you say you are, and the writes, run by Postgres as the user.
import { readFile } from 'node:fs/promises'
import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { jwtVerify, SignJWT } from 'jose'
import pg from 'pg'
import { build } from 'rolldown'

const { DATABASE_URL, JWT_SECRET, TIDEGATE_URL = 'http://localhost:4000', PORT = '3000' } = process.env
if (!DATABASE_URL || !JWT_SECRET) throw new Error('set DATABASE_URL and JWT_SECRET to those that tidegate has')

const people = [
  { id: '00000000-0000-4000-8000-000000000ada', name: 'Ada' },
  { id: '00000000-0000-4000-8000-000000000b0b', name: 'Ben' },
  { id: '00000000-0000-4000-8000-000000000c1e', name: 'Cleo' },
]
const statements: Record<string, string> = {
  add: 'INSERT INTO cards (board_id, column_id, title, position) VALUES ($1, $2, $3, $4)',
  move: 'UPDATE cards SET column_id = $2, position = $3 WHERE id = $1',
  remove: 'DELETE FROM cards WHERE id = $1',
  invite: 'INSERT INTO members (board_id, user_id, name) VALUES ($1, $2, $3)',
  dismiss: 'DELETE FROM members WHERE board_id = $1 AND user_id = $2',
}

const pool = new pg.Pool({ connectionString: DATABASE_URL })
const secret = new TextEncoder().encode(JWT_SECRET)
const here = (name: string) => new URL(name, import.meta.url)
const page = await readFile(here('index.html'))
const { output } = await build({
  input: here('board.tsx').pathname,
  write: false,
  logLevel: 'silent',
  output: { minify: true, codeSplitting: false },
  transform: { define: { 'process.env.NODE_ENV': '"production"' } },
})

/** Row-level security holds for what the page writes as it does for what it reads.
 *  @returns the transaction, for `tide.waitFor` */
async function runAs(claims: object, text: string, values: unknown[]): Promise<{ txid: string; rows: number | null }> {
  const client = await pool.connect()
  try {
    await client.query('BEGIN')
    await client.query(`SELECT set_config('role', 'authenticated', true), set_config('request.jwt.claims', $1, true)`, [
      JSON.stringify(claims),
    ])
    const { rowCount } = await client.query(text, values)
    const transaction = await client.query<{ txid: string }>('SELECT pg_current_xact_id()::text AS txid')
    await client.query('COMMIT')
    return { txid: transaction.rows[0]!.txid, rows: rowCount }
  } catch (error) {
    await client.query('ROLLBACK')
    throw error
  } finally {
    client.release()
  }
}

/** In an application of your own this is its login. */
async function session(name: string | null) {
  const person = people.find(each => each.name === name) ?? people[0]!
  const token = new SignJWT({ role: 'authenticated' }).setSubject(person.id).setProtectedHeader({ alg: 'HS256' })
  return { person, people, url: TIDEGATE_URL, token: await token.setExpirationTime('1h').sign(secret) }
}

async function write(request: IncomingMessage) {
  const { payload } = await jwtVerify(request.headers.authorization?.slice('Bearer '.length) ?? '', secret)
  let body = ''
  for await (const chunk of request) {
    body += chunk
    if (body.length > 4096) throw new Error('the body is too large')
  }
  const { name, values } = JSON.parse(body) as { name: string; values: unknown[] }
  if (!Object.hasOwn(statements, name)) throw new Error(`there is no ${name}`)
  return runAs(payload, statements[name]!, values)
}

const server = createServer(async (request, response) => {
  const { pathname, searchParams } = new URL(request.url!, 'http://localhost')
  const json = (value: unknown) => response.setHeader('content-type', 'application/json').end(JSON.stringify(value))
  try {
    if (pathname === '/') response.setHeader('content-type', 'text/html; charset=utf-8').end(page)
    else if (pathname === '/board.js') response.setHeader('content-type', 'text/javascript').end(output[0].code)
    else if (pathname === '/session') json(await session(searchParams.get('as')))
    else if (pathname === '/write' && request.method === 'POST') json(await write(request))
    else response.writeHead(404).end()
  } catch (error) {
    response.statusCode = 400
    json({ message: (error as Error).message })
  }
})
server.listen(Number(PORT), 'localhost', () => {
  console.log(`The board is at http://localhost:${(server.address() as AddressInfo).port}`)
})
