// Those who write while things break: a steady number of small commits a second, whatever becomes of the server.
import pg from 'pg'
import { firstEventId, firstLargeEventId, firstLargeRowId } from './readers.ts'

export const commitsPerSecond = 300
/** Connections; the ids that one of them inserts ascend, and are its number modulo this. */
export const writers = 3
/** Rows that are changed again and again. */
export const stateRows = 150
const largeRows = 3

export class Load {
  readonly #url: string
  readonly #running: Promise<void>[] = []
  #next = Array.from({ length: writers }, (_, writer) => firstEventId - (firstEventId % writers) + writers + writer)
  #large = 0
  #stopped = false
  #pause: { readonly over: Promise<void>; readonly end: () => void } | null = null
  #busy = 0
  /** Commits that Postgres has confirmed. */
  commits = 0

  constructor(url: string) {
    this.#url = url
  }

  start(): void {
    for (let i = 0; i < writers; i++) this.#running.push(this.#write(i))
  }

  /** No insert so far has this id or a greater one. */
  get nextId(): number {
    return Math.max(...this.#next)
  }

  get nextLargeId(): number {
    return firstLargeEventId + this.#large
  }

  /** Resolves when nothing is being written. */
  async pause(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#pause ??= { over: promise, end: resolve }
    while (this.#busy > 0) await sleep(5)
  }

  goOn(): void {
    this.#pause?.end()
    this.#pause = null
  }

  async stop(): Promise<void> {
    this.#stopped = true
    this.goOn()
    await Promise.all(this.#running)
  }

  /** One commit more, of an event and a row with a large value. */
  async large(bytes: number): Promise<void> {
    const client = await connected(this.#url)
    const n = this.#large++
    const row = firstLargeRowId + (n % largeRows)
    await client.query(
      `INSERT INTO messages VALUES (${firstLargeEventId + n}, 1, 'large', repeat('x', ${bytes}));
       INSERT INTO messages VALUES (${row}, 1, 'large', repeat('y', ${bytes})) ON CONFLICT (id) DO UPDATE SET body = repeat('z', ${bytes - n})`,
    )
    await client.end()
  }

  async #write(writer: number): Promise<void> {
    let client: pg.Client | null = null
    const everyMs = (1000 * writers) / commitsPerSecond
    for (let dueAt = performance.now(); !this.#stopped; dueAt += everyMs) {
      await this.#pause?.over
      const early = dueAt - performance.now()
      if (early > 1) await sleep(early)
      // What could not be written while the server was away is not made up for.
      else if (early < -200) dueAt = performance.now()
      if (this.#pause !== null) continue
      this.#busy += 1
      try {
        client ??= await connected(this.#url)
        await client.query(this.#statements(writer))
        this.commits += 1
      } catch {
        // Whether it committed is for the database to say.
        client?.end().catch(() => {})
        client = null
        await sleep(20)
      } finally {
        this.#busy -= 1
      }
    }
    await client?.end().catch(() => {})
  }

  /** One commit: an event, and a row that changes, comes into sight, goes, or is another of the same key. */
  #statements(writer: number): string {
    const id = this.#next[writer]!
    this.#next[writer] = id + writers
    const now = Date.now()
    const row = 1 + (id % stateRows)
    const room = id % 7 === 0 ? 2 : 1
    const state =
      id % 11 === 0
        ? `DELETE FROM messages WHERE id = ${row}; INSERT INTO messages VALUES (${row}, ${room}, 'again', '${now}') ON CONFLICT DO NOTHING`
        : `UPDATE messages SET room_id = ${room}, body = '${now}' WHERE id = ${row}`
    return `INSERT INTO messages VALUES (${id}, ${1 + (id % 2)}, '${writer}', '${now}'); ${state}`
  }
}

async function connected(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 20_000 })
  client.on('error', () => {})
  await client.connect()
  return client
}

const sleep = (ms: number): Promise<void> => new Promise(resolve => setTimeout(resolve, ms))
