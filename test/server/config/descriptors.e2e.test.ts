// A node that may open few files: it holds as many clients as it said, and wants for nothing itself.
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { WebSocket } from 'ws'
import { freePort } from '../../../src/cli/local-postgres.ts'
import { jwtSecret, LiveSse, person, prepareDatabase, roomsSchema, tokenFor } from '../../support/node.ts'
import { TestDatabase } from '../../support/postgres.ts'
import { RunningProcess } from '../../support/run-cli.ts'

const main = fileURLToPath(new URL('../../../src/cli/main.ts', import.meta.url))

/** Becomes the process that follows, with so many files. */
const within = (files: number, ...args: string[]): string[] => [
  '--no-warnings',
  '-e',
  `process.execve('/bin/sh', ['sh', '-c', 'ulimit -n ${files}; exec "$0" "$@"', process.execPath, ...process.argv.slice(1)], process.env)`,
  ...args,
]

type Outcome = { readonly ws: WebSocket; readonly status: number; readonly code: string | null }

function connect(url: string, token: string): Promise<Outcome> {
  const ws = new WebSocket(`${url.replace('http', 'ws')}/v1/socket`, { headers: { Authorization: `Bearer ${token}` } })
  return new Promise((resolve, reject) => {
    ws.on('open', () => resolve({ ws, status: 101, code: null }))
    ws.on('error', reject)
    ws.on('unexpected-response', (_request, response) => {
      let text = ''
      response.on('data', part => (text += part))
      response.on('end', () => resolve({ ws, status: response.statusCode!, code: JSON.parse(text).code }))
    })
  })
}

test('[P7] [P8] a node under ulimit -n 300 holds what it promises, refuses the rest by a code, and none of its own files fails', async () => {
  await using database = await TestDatabase.create()
  await prepareDatabase(database, roomsSchema, ['rooms', 'members', 'messages'])
  const ada = person()
  await database.query(`INSERT INTO members VALUES (1, '${ada}')`)
  const token = await tokenFor(ada)
  const port = await freePort()
  const env = {
    DATABASE_URL: database.url,
    JWT_SECRET: jwtSecret,
    PORT: String(port),
    BEACON_MS: '500',
    SPOOL_BYTES: '65536',
    LOG_LEVEL: 'debug',
  }
  await using node = new RunningProcess(within(300, main, 'start'), env)
  await node.until(({ out }) => out.includes('tidegate is ready'))
  const url = `http://127.0.0.1:${port}`
  const told = node.err.split('\n').filter(line => line.includes('"code":"DESCRIPTORS_SHORT"'))
  expect(told).toHaveLength(1)
  const { maxConnections } = JSON.parse(told[0]!) as { maxConnections: number }
  expect(maxConnections).toBe(180)

  using live = await (await LiveSse.open({ url }, '/v1/live/messages', token)).exact()
  const outcomes: Outcome[] = []
  // A few at a time: what waits to be heard is bounded, too.
  while (outcomes.length < 230)
    outcomes.push(...(await Promise.all(Array.from({ length: 10 }, () => connect(url, token)))))
  expect(outcomes.filter(({ status }) => status === 101)).toHaveLength(maxConnections - 1)
  const refused = outcomes.filter(({ status }) => status !== 101)
  expect(new Set(refused.map(({ status, code }) => `${status} ${code}`))).toEqual(new Set(['503 TOO_MANY_CONNECTIONS']))

  // Full as it is: a transaction goes through a file, a snapshot is read, and it answers who asks for its health.
  await database.query(`INSERT INTO messages SELECT i, 1, 'a', repeat('x', 1000) FROM generate_series(1, 2000) AS i`)
  await live.stream.waitFor(() => live.rows.list().length === 2000)
  const [first] = outcomes
  const frames: { type: string; done?: boolean }[] = []
  first!.ws.on('message', text => frames.push(JSON.parse(String(text))))
  const answered = new Promise<void>(resolve =>
    first!.ws.on('message', () => frames.some(({ type }) => type === 'snapshot') && resolve()),
  )
  first!.ws.send(JSON.stringify({ type: 'subscribe', id: 1, kind: 'live', table: 'messages', filter: 'id=lt.10' }))
  await answered
  expect((await fetch(`${url}/ready?scope=node`)).status).toBe(200)
  expect(node.err).not.toMatch(/EMFILE|too many open files/i)
  expect(live.failure).toBe(null)

  // A place that is left can be had again.
  outcomes.find(({ status, ws }) => status === 101 && ws !== first!.ws)!.ws.close()
  let again = await connect(url, token)
  while (again.status !== 101) again = await connect(url, token)
  for (const { ws } of [...outcomes, again]) ws.terminate()
})
