import { createServer } from 'node:http'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { migrate } from '../../../src/cli/commands/migrate.ts'
import { Example, people } from '../../../src/cli/dev/example.ts'
import { devRoutes } from '../../../src/cli/dev/routes.ts'
import { TestDatabase } from '../../support/postgres.ts'

let database: TestDatabase
let example: Example
let base: string
const [ada, ben] = people
const server = createServer()

beforeAll(async () => {
  database = await TestDatabase.create()
  await migrate({ databaseUrl: database.url, adminUrl: null, name: database.name }, { write: () => {} })
  example = new Example(database.url)
  await example.load()
  const commands = [['purpose', '<command> & $&']] as const
  const mint = async (person: string): Promise<string> => `token of ${person}`
  const routes = devRoutes({ example, mint, commands, inspector: () => '/inspect?a&b' })
  server.on('request', async (request, response) => {
    if (await routes(request, response)) return
    response.writeHead(404)
    response.end('not ours')
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  base = `http://127.0.0.1:${address !== null && typeof address === 'object' ? address.port : 0}`
})

afterAll(async () => {
  server.closeAllConnections()
  server.close()
  await example?.close()
  await database?.[Symbol.asyncDispose]()
})

const act = (body: unknown, headers: Record<string, string> = {}): Promise<Response> =>
  fetch(`${base}/dev/actions`, { method: 'POST', body: JSON.stringify(body), headers })

/** Every module that the page loads, by following its imports. */
async function modulesFrom(path: string, found = new Map<string, string>()): Promise<Map<string, string>> {
  if (found.has(path)) return found
  const response = await fetch(`${base}${path}`)
  expect([path, response.status, response.headers.get('content-type')]).toEqual([
    path,
    200,
    'text/javascript; charset=utf-8',
  ])
  const text = await response.text()
  found.set(path, text)
  for (const [, target, later] of text.matchAll(/^(?:import|export) .*?from '(.+?)'|\bimport\('(.+?)'\)/gms))
    await modulesFrom(new URL((target ?? later)!, `${base}${path}`).pathname, found)
  return found
}

test('the page and every module it needs are served, without types and without a build', async () => {
  const html = await (await fetch(base)).text()
  expect(html).toContain('<a href="/inspect?a&amp;b">the inspector</a>')
  const script = /src="(\/modules\/[^"]+)"/.exec(html)?.[1] ?? ''
  const modules = await modulesFrom(script)
  expect([...modules.keys()]).toEqual(
    expect.arrayContaining([
      '/modules/client/client.ts',
      '/modules/protocol/codes.ts',
      '/modules/client/transports/long-poll.ts',
    ]),
  )
  for (const text of modules.values()) expect(text).not.toMatch(/^import type|^interface /m)
  expect(html).not.toMatch(/https?:\/\/(?!www\.w3\.org)/)
})

test.each([
  '/modules/server/config/config.ts',
  '/modules/cli/main.ts',
  '/modules/client/../server/config/config.ts',
  '/modules/client/..%2fserver%2fconfig.ts',
  '/modules/../package.json',
  '/modules/client/nothing.ts',
  '/elsewhere',
])('%s is not ours to serve', async path => {
  expect((await fetch(`${base}${path}`)).status).toBe(404)
})

test('a message needs a membership; joining and leaving are one row each', async () => {
  const post = { do: 'post', person: ben.id, room: 2, body: 'hello' }
  expect(await (await act(post)).json()).toEqual({ changed: false })
  expect(await (await act({ do: 'join', person: ben.id, room: 2 })).json()).toEqual({ changed: true })
  expect(await (await act(post)).json()).toEqual({ changed: true })
  expect(await database.query('SELECT author, body FROM messages WHERE room_id = 2 ORDER BY id DESC LIMIT 1')).toEqual([
    { author: ben.id, body: 'hello' },
  ])
  expect(await (await act({ do: 'leave', person: ben.id, room: 2 })).json()).toEqual({ changed: true })
  expect(await (await act({ do: 'leave', person: ben.id, room: 2 })).json()).toEqual({ changed: false })
})

test.each([
  { do: 'drop', table: 'messages' },
  { do: 'post', person: ada.id, room: 1, body: '' },
  { do: 'post', person: ada.id, room: '1; DROP TABLE rooms', body: 'x' },
  { do: 'post', person: 'ada', room: 1, body: 'x' },
  null,
])('%o is no action of the page', async body => {
  const response = await act(body)
  expect([response.status, await response.json()]).toEqual([400, expect.objectContaining({ code: 'BAD_FRAME' })])
})

test('a body past the bound is refused', async () => {
  expect((await act({ do: 'post', person: ada.id, room: 1, body: 'x'.repeat(5000) })).status).toBe(413)
})

test.each([{ origin: 'https://evil.example' }, { 'sec-fetch-site': 'cross-site' }])(
  'tokens and buttons are refused to another page: %o',
  async headers => {
    for (const path of ['/dev/example', `/dev/token?person=${ada.id}`]) {
      const response = await fetch(`${base}${path}`, { headers })
      expect([response.status, await response.json()]).toEqual([
        403,
        expect.objectContaining({ code: 'ORIGIN_REFUSED' }),
      ])
    }
    expect((await act({ do: 'leave', person: ada.id, room: 1 }, headers)).status).toBe(403)
    expect(await database.query('SELECT FROM members WHERE room_id = 1 AND user_id = $1', [ada.id])).toHaveLength(1)
  },
)

test('a token is minted for the people of the example only', async () => {
  const token = await fetch(`${base}/dev/token?person=${ada.id}`)
  expect(await token.json()).toEqual({ token: `token of ${ada.id}` })
  expect((await fetch(`${base}/dev/token?person=00000000-0000-4000-8000-000000000000`)).status).toBe(404)
})

test('[P2] the policies of the example let each person read what is theirs, by Postgres itself', async () => {
  const names = async (person: string): Promise<unknown[]> => {
    await database.query('BEGIN')
    await database.query('SET LOCAL ROLE authenticated')
    await database.query(`SELECT set_config('request.jwt.claims', $1, true)`, [JSON.stringify({ sub: person })])
    const rows = await database.query('SELECT name FROM rooms ORDER BY id')
    await database.query('COMMIT')
    return rows.map(row => row.name)
  }
  expect(await names(ada.id)).toEqual(['Lobby', 'Workshop'])
  expect(await names(ben.id)).toEqual(['Lobby', 'Garden'])
})
