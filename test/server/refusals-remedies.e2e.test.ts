// A refusal of what an administrator can mend holds the very statement that mends it: run, and the same question is
// answered. And positions that are well formed, yet not of this query or not of this stream.

import pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { asSet, LiveSse, person, SseStream, selectAs, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { transports } from '../support/readers.ts'
import { prepareRefusals } from '../support/refusals-schema.ts'
import { type Ask, ask, LoggedNode, misfitOf } from '../support/refused.ts'
import { runCli } from '../support/run-cli.ts'

let database: TestDatabase
let node: LoggedNode
let token: string
const ada = person()

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareRefusals(database)
  node = await LoggedNode.start(database.url, { RESUME_WAIT_MS: '200' })
  token = await tokenFor(ada)
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

/** Asks until it is answered: the catalog is looked at every second. */
async function becomesAnswered(question: Ask): Promise<void> {
  for (const transport of transports) {
    const deadline = Date.now() + 5000
    for (;;) {
      const { code, message } = await ask(transport, node.url, token, question)
      if (code === null) break
      if (Date.now() > deadline) throw new Error(`${transport} still answers ${code}: ${message}`)
    }
  }
}

const identities: readonly (readonly [Ask, missing: string])[] = [
  [{ table: 'by_identity' }, 'owner'],
  [{ table: 'by_nothing' }, 'id'],
  [{ table: 'by_filter', filter: 'body=eq.x' }, 'body'],
]

test.each(identities)('IDENTITY_INSUFFICIENT of %j holds the statement that mends it', async (question, missing) => {
  let message = ''
  for (const transport of transports) {
    const answer = await ask(transport, node.url, token, question)
    expect(misfitOf(answer, 'IDENTITY_INSUFFICIENT'), transport).toBe(null)
    message = answer.message
  }
  expect(message).toContain(missing)
  const statement = /run: (ALTER TABLE .*)$/.exec(message)![1]!
  await database.query(statement)
  await becomesAnswered(question)
})

test('a filter that the default replica identity suffices for is answered', async () => {
  await database.query('CREATE TABLE plain (id int PRIMARY KEY, body text); GRANT SELECT ON plain TO authenticated')
  await database.query('ALTER PUBLICATION tidegate ADD TABLE plain')
  await becomesAnswered({ table: 'plain', filter: 'id=gt.5' })
  expect((await ask('sse', node.url, token, { table: 'plain', filter: 'body=eq.x' })).code).toBe(
    'IDENTITY_INSUFFICIENT',
  )
})

test.each([
  ['TABLE_UNKNOWN', { table: 'untracked' }],
  ['POLICY_UNSUPPORTED', { table: 'by_untracked' }],
] as const)('%s names the command that tracks the table', async (code, question) => {
  const answer = await ask('websocket', node.url, token, question)
  // The first of the two may have mended the second already.
  if (answer.code !== null) {
    expect(misfitOf(answer, code)).toBe(null)
    const [, ...args] = /tidegate (track public\.untracked)/.exec(answer.message)!
    const { code: exit, err } = await runCli(args[0]!.split(' '), {
      ADMIN_DATABASE_URL: database.url,
      DATABASE_URL: database.url,
    })
    expect([exit, err]).toEqual([0, ''])
  }
  await becomesAnswered(question)
})

test('a temporary table of another session is refused by name', async () => {
  const other = new pg.Client({ connectionString: database.url })
  await other.connect()
  try {
    await other.query('CREATE TEMPORARY TABLE fleeting (id int PRIMARY KEY)')
    const { rows } = await other.query<{ schema: string }>(
      `SELECT relnamespace::regnamespace::text AS schema FROM pg_class WHERE relname = 'fleeting'`,
    )
    for (const transport of transports) {
      const answer = await ask(transport, node.url, token, { table: `${rows[0]!.schema}.fleeting` })
      expect(answer.code, transport).toBe('TABLE_UNSUPPORTED')
      expect(answer.message).toContain('temporary')
    }
  } finally {
    await other.end()
  }
})

test('a position of another epoch or query starts over; one of the future is to be tried later', async () => {
  using stream = await SseStream.open(node, '/v1/live/rooms', token)
  await stream.until(({ event }) => event === 'snapshot')
  const [position, tag] = stream.lastEventId.split('.') as [string, string]
  const [epoch, lsn] = position.split('-') as [string, string]
  const foreign = epoch === '00000000' ? '11111111' : '00000000'
  const future = (BigInt(`0x${lsn}`) + 2n ** 40n).toString(16)
  for (const transport of transports) {
    const resyncOf = async (since: string, filter = 'id=gt.0') =>
      (await ask(transport, node.url, token, { table: 'rooms', since, filter })).resync
    expect(await resyncOf(`${foreign}-${lsn}.${tag}`), transport).toBe('EPOCH_CHANGED')
    expect(await resyncOf(`${position}.${tag}`), transport).toBe('QUERY_CHANGED')
    expect(await resyncOf(`${position}.tagtagtagtag`), transport).toBe('QUERY_CHANGED')
    expect(await resyncOf(`${epoch}-0.${tag}`), transport).toBe(null)
    const question: Ask = { table: 'rooms', since: `${epoch}-${future}.${tag}`, isRefusedLate: true }
    const late = await ask(transport, node.url, token, question)
    expect(misfitOf(late, 'UNAVAILABLE'), transport).toBe(null)
  }
})

test("another reader's position tells nothing: its tag is of another query", async () => {
  await database.query(`INSERT INTO members VALUES (1, '${ada}'); INSERT INTO messages VALUES (1, 1, 'a', 'hers')`)
  using hers = await (await LiveSse.open(node, '/v1/live/messages', token)).exact()
  const ben = await tokenFor(person())
  for (const transport of transports) {
    const answer = await ask(transport, node.url, ben, { table: 'messages', since: hers.stream.lastEventId })
    expect([answer.code, answer.resync], transport).toEqual([null, 'QUERY_CHANGED'])
  }
  expect(asSet(hers.rows.list())).toEqual(asSet(await selectAs(database, ada, 'SELECT * FROM messages')))
})
