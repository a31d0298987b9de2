// Away and back: through kill -9 of Tidegate and restarts of Postgres, with default settings, over every transport.
import pg from 'pg'
import { expect, test } from 'vitest'
import { freePort, LocalPostgres } from '../src/cli/local-postgres.ts'
import { asSet, jwtSecret, person, prepareDatabase, roomsSchema, selectAs, tokenFor } from './support/node.ts'
import { TestDatabase } from './support/postgres.ts'
import { Reader, wires } from './support/readers.ts'
import { type RunningProcess, startCli } from './support/run-cli.ts'

const awayMs = Number(process.env.AWAY_MS ?? 60_000)
const commits = 10_000

async function startNode(
  databaseUrl: string,
  settings: Record<string, string> = {},
): Promise<{ node: RunningProcess; url: string }> {
  const port = await freePort()
  const node = startCli(['start'], {
    DATABASE_URL: databaseUrl,
    JWT_SECRET: jwtSecret,
    PORT: String(port),
    LOG_LEVEL: 'warn',
    ...settings,
  })
  await node.until(({ out }) => out.includes('ready'))
  return { node, url: `http://127.0.0.1:${port}` }
}

async function kill(node: RunningProcess): Promise<void> {
  node.child.kill('SIGKILL')
  await node.end()
}

/** A writer that goes on through restarts of the server: every insert is repeated until it is known to be there. */
class PatientWriter {
  readonly #url: string
  #client: pg.Client | null = null

  constructor(url: string) {
    this.#url = url
  }

  async insert(id: number): Promise<void> {
    for (;;) {
      try {
        if (this.#client === null) {
          const client = new pg.Client({ connectionString: this.#url })
          client.on('error', () => {
            if (this.#client === client) this.#client = null
          })
          await client.connect()
          this.#client = client
        }
        await this.#client.query(
          `INSERT INTO messages VALUES ($1::int, 1 + $1::int % 2, 'w', 'row') ON CONFLICT DO NOTHING`,
          [id],
        )
        return
      } catch (error) {
        // The server's own refusals are defects of this test; shutdowns (57) and broken connections are its subject.
        const code = (error as { code?: string }).code ?? ''
        if (/^[0-9A-Z]{5}$/.test(code) && !/^(57|08)/.test(code)) throw error
        this.#client?.end().catch(() => {})
        this.#client = null
        await new Promise(resolve => setTimeout(resolve, 50))
      }
    }
  }

  async end(): Promise<void> {
    await this.#client?.end()
  }
}

test('[P4] away for a minute and 10,000 commits, through kill -9 and restarts: nothing missing, nothing repeated, no resync', {
  timeout: awayMs + 120_000,
}, async () => {
  await using server = await LocalPostgres.create()
  await server.start()
  const database = await TestDatabase.create(server.url)
  await prepareDatabase(database, roomsSchema, ['rooms', 'members', 'messages'])
  const ada = person()
  const token = await tokenFor(ada)
  await database.query(`INSERT INTO members VALUES (1, '${ada}'); INSERT INTO messages VALUES (1, 1, 'w', 'first')`)
  let { node, url } = await startNode(database.url)
  const readers = wires.flatMap(transport => [
    new Reader(transport, 'live', 'messages', token),
    new Reader(transport, 'changes', 'messages', token),
  ])
  for (const reader of readers) await reader.come({ url })
  for (const reader of readers) if (reader.kind === 'live') await reader.until(() => reader.rows.exact)
  await database.query(`INSERT INTO messages VALUES (3, 1, 'w', 'seen')`)
  for (const reader of readers)
    await reader.until(() => (reader.kind === 'live' ? reader.rows.rows.size === 2 : reader.changes.length === 1))
  for (const reader of readers) await reader.leave()
  await database.client.end()

  const leftAt = Date.now()
  const writer = new PatientWriter(database.url)
  for (let i = 0; i < commits; i++) {
    await writer.insert(1000 + i)
    if (i === 3000) await kill(node)
    if (i === 4500) {
      await server.halt('fast')
      await server.start()
    }
    if (i === 5000) ({ node, url } = await startNode(database.url))
    if (i === 7000) {
      await server.halt('immediate')
      await server.start()
    }
    const ahead = (awayMs * i) / commits - (Date.now() - leftAt)
    if (ahead > 20) await new Promise(resolve => setTimeout(resolve, ahead))
  }
  await writer.end()
  for (const reader of readers) await reader.come({ url })
  const expected = Array.from({ length: commits }, (_, i) => 1000 + i).filter(id => id % 2 === 0)
  for (const reader of readers) {
    if (reader.kind === 'live') await reader.until(() => reader.rows.rows.size === expected.length + 2)
    else await reader.until(() => reader.changes.length >= expected.length + 1)
  }
  const after = await TestDatabase.connect(database)
  await after.query(`INSERT INTO messages VALUES (5, 1, 'w', 'last'), (7, 2, 'w', 'unseen')`)
  const select = asSet(await selectAs(after, ada, 'SELECT * FROM messages'))
  for (const reader of readers) {
    if (reader.kind === 'live') {
      await reader.until(() => reader.rows.rows.size === select.length)
      expect(asSet(reader.rows.list())).toEqual(select)
    } else {
      await reader.until(() => reader.changes.at(-1)?.key?.id === 5)
      expect(reader.changes.map(change => change.key?.id)).toEqual([3, ...expected, 5])
    }
    expect(reader.resyncs, `${reader.transport} ${reader.kind}`).toEqual([])
    await reader.leave()
  }
  await after.client.end()
  await kill(node)
})

test.each(wires)('[P4] away longer than the window over %s: exactly one resync', async transport => {
  await using database = await TestDatabase.create()
  await prepareDatabase(database, roomsSchema, ['rooms', 'members', 'messages'])
  const ada = person()
  await database.query(`INSERT INTO members VALUES (1, '${ada}'); INSERT INTO messages VALUES (1, 1, 'w', 'first')`)
  const { node, url } = await startNode(database.url, { WINDOW_MAX_AGE_MS: '500', BEACON_MS: '200' })
  await using _ = node
  const reader = new Reader(transport, 'live', 'messages', await tokenFor(ada))
  await reader.come({ url })
  await reader.until(() => reader.rows.exact)
  await reader.leave()
  await database.query(`UPDATE messages SET body = 'second'`)
  const left = reader.position!
  // Gone from the window when a client at that position is told so.
  for (let told = false; !told; ) {
    const response = await fetch(`${url}/v1/live/messages?after=${encodeURIComponent(left)}&wait=0`, {
      headers: { authorization: `Bearer ${reader.token}`, accept: 'application/json' },
    })
    told = response.status === 200 && (await response.text()).includes('"resync"')
    if (!told) await new Promise(resolve => setTimeout(resolve, 100))
  }
  await reader.come({ url })
  await reader.until(() => reader.rows.exact && reader.rows.rows.get('[1]')?.body === 'second')
  expect(reader.resyncs).toEqual(['WINDOW_PASSED'])
  await reader.leave()
})

test.each(wires)('[P4] the slot lost while away over %s: exactly one resync', async transport => {
  await using database = await TestDatabase.create()
  await prepareDatabase(database, roomsSchema, ['rooms', 'members', 'messages'])
  const ada = person()
  await database.query(`INSERT INTO members VALUES (1, '${ada}'); INSERT INTO messages VALUES (1, 1, 'w', 'first')`)
  const first = await startNode(database.url)
  const reader = new Reader(transport, 'live', 'messages', await tokenFor(ada))
  await reader.come({ url: first.url })
  await reader.until(() => reader.rows.exact)
  await reader.leave()
  await kill(first.node)
  for (let dropped = false; !dropped; ) {
    dropped = await database
      .query(`SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()`)
      .then(
        () => true,
        // Still active: the server has not noticed yet that its client is gone.
        () => false,
      )
  }
  await database.query(`UPDATE messages SET body = 'second'`)
  const second = await startNode(database.url)
  await using _ = second.node
  await reader.come({ url: second.url })
  await reader.until(() => reader.rows.exact && reader.rows.rows.get('[1]')?.body === 'second')
  expect(reader.resyncs).toEqual(['EPOCH_CHANGED'])
  await reader.leave()
})
