// A whole Tidegate node in this process, over a test database with rooms, members and messages, and strict clients.
import { randomUUID } from 'node:crypto'
import { SignJWT } from 'jose'
import { migrate } from '../../src/cli/commands/migrate.ts'
import { track } from '../../src/cli/commands/track.ts'
import type { ChangeEvent, DeltaEvent, JsonRow, SnapshotEvent } from '../../src/protocol/messages.ts'
import { loadConfig } from '../../src/server/config/config.ts'
import { createLog, type Log } from '../../src/server/log/log.ts'
import { startServer, type TidegateServer } from '../../src/server/server.ts'
import { poolerSettings } from './pgbouncer.ts'
import type { TestDatabase } from './postgres.ts'
import { relaySettings } from './relay.ts'

export const jwtSecret = 'a secret of the tests, at least 32 bytes long'

/** Rooms whose messages their members may read. Everything has row-level security. */
export const roomsSchema = `
  CREATE TABLE public.rooms (id int PRIMARY KEY, name text NOT NULL);
  CREATE TABLE public.members (room_id int NOT NULL, user_id uuid NOT NULL, role text NOT NULL DEFAULT 'member',
    PRIMARY KEY (room_id, user_id));
  CREATE TABLE public.messages (id bigint PRIMARY KEY, room_id int NOT NULL, author text, body text);
  ALTER TABLE public.rooms ENABLE ROW LEVEL SECURITY;
  ALTER TABLE public.members ENABLE ROW LEVEL SECURITY;
  ALTER TABLE public.messages ENABLE ROW LEVEL SECURITY;
  CREATE POLICY own ON public.members FOR SELECT TO authenticated USING (user_id = (SELECT auth.uid()));
  CREATE POLICY by_membership ON public.messages FOR SELECT TO authenticated USING (
    EXISTS (SELECT 1 FROM public.members m WHERE m.room_id = messages.room_id AND m.user_id = (SELECT auth.uid())));
  CREATE POLICY by_membership ON public.rooms FOR SELECT TO authenticated USING (
    id IN (SELECT m.room_id FROM public.members m WHERE m.user_id = auth.uid()));
  GRANT SELECT ON public.rooms, public.members, public.messages TO authenticated;
  GRANT USAGE ON SCHEMA public TO authenticated, anon;
`

const silent = { write: () => true }

/** Migrates, runs the schema, tracks the tables. */
export async function prepareDatabase(
  database: TestDatabase,
  schema: string,
  tables: readonly string[],
): Promise<void> {
  const options = { databaseUrl: database.url, adminUrl: database.url, name: 'tidegate' }
  await migrate({ ...options, conventions: true, print: false, dryRun: false }, silent)
  await database.query(schema)
  await track({ ...options, tables: [...tables], print: false, dryRun: false }, silent)
}

/** As `tidegate track` does, on a database that was prepared. */
export async function trackTables(database: TestDatabase, tables: readonly string[]): Promise<void> {
  const options = { databaseUrl: database.url, adminUrl: database.url, name: 'tidegate' }
  await track({ ...options, tables: [...tables], print: false, dryRun: false }, silent)
}

export class TestNode {
  readonly server: TidegateServer
  readonly url: string

  constructor(server: TidegateServer) {
    this.server = server
    this.url = `http://127.0.0.1:${server.port}`
  }

  /** @param log left out: as LOG_LEVEL says */
  static async start(databaseUrl: string, settings: Record<string, string> = {}, log?: Log): Promise<TestNode> {
    const config = loadConfig({
      DATABASE_URL: databaseUrl,
      JWT_SECRET: jwtSecret,
      PORT: '0',
      LOG_LEVEL: process.env.TEST_LOG_LEVEL ?? 'silent',
      BEACON_MS: '1000',
      DRAIN_DELAY_MS: '0',
      ...(await relaySettings(databaseUrl)),
      ...(await poolerSettings(databaseUrl)),
      ...settings,
    })
    const server = await startServer(config, { log: log ?? createLog(config.logLevel) })
    await server.ready()
    return new TestNode(server)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server.stop()
  }
}

export function tokenFor(sub: string, claims: Record<string, unknown> = {}): Promise<string> {
  return new SignJWT({ role: 'authenticated', sub, ...claims })
    .setProtectedHeader({ alg: 'HS256' })
    .setExpirationTime('1h')
    .sign(new TextEncoder().encode(jwtSecret))
}

export interface SseEvent {
  readonly event: string
  readonly id: string
  readonly data: unknown
}

export interface SseEventRead extends SseEvent {
  /** The text of `data`. */
  readonly json: string
}

/** One event stream, read as a browser would. */
export class SseStream {
  readonly events: SseEventRead[] = []
  lastEventId = ''
  ended = false
  status = 0
  errorBody: { code?: string; message?: string } = {}
  readonly #abort = new AbortController()
  #wake: () => void = () => {}
  #closed = false
  onEvent: (event: SseEventRead) => void = () => {}
  onEnd: () => void = () => {}

  /** @param token null where the path has a ticket */
  static async open(
    node: { url: string },
    path: string,
    token: string | null,
    lastEventId?: string,
    signal?: AbortSignal,
  ): Promise<SseStream> {
    const stream = new SseStream()
    signal?.addEventListener('abort', () => stream.#abort.abort(), { once: true })
    const headers: Record<string, string> = { accept: 'text/event-stream' }
    if (token !== null) headers.authorization = `Bearer ${token}`
    if (lastEventId !== undefined) headers['last-event-id'] = lastEventId
    const response = await fetch(`${node.url}${path}`, { headers, signal: stream.#abort.signal })
    stream.status = response.status
    if (response.status !== 200) {
      stream.errorBody = (await response.json()) as { code?: string }
      stream.ended = true
      return stream
    }
    if (lastEventId !== undefined) stream.lastEventId = lastEventId
    void stream.#read(response.body!)
    return stream
  }

  /** Resolves with the first event, from `from` on, that satisfies the condition. */
  async until(condition: (event: SseEvent) => boolean, timeoutMs = 20_000): Promise<SseEventRead> {
    const deadline = Date.now() + timeoutMs
    for (;;) {
      const found = this.events.find(condition)
      if (found !== undefined) return found
      await this.#next(deadline)
    }
  }

  async waitFor(condition: () => boolean, timeoutMs = 20_000): Promise<void> {
    const deadline = Date.now() + timeoutMs
    while (!condition()) await this.#next(deadline)
  }

  /** Nothing that comes after it counts, also what is on its way. */
  close(): void {
    this.#closed = true
    this.#abort.abort()
  }

  [Symbol.dispose](): void {
    this.close()
  }

  async #next(deadline: number): Promise<void> {
    const left = deadline - Date.now()
    if (left <= 0)
      throw new Error(
        `timed out; the last events:\n${this.events
          .slice(-8)
          .map(event => JSON.stringify(event).slice(0, 400))
          .join('\n')}`,
      )
    let timer: NodeJS.Timeout | undefined
    await Promise.race([
      new Promise<void>(resolve => {
        this.#wake = resolve
      }),
      new Promise<void>(resolve => {
        timer = setTimeout(resolve, left)
      }),
    ])
    clearTimeout(timer)
  }

  async #read(body: ReadableStream<Uint8Array>): Promise<void> {
    let text = ''
    const decoder = new TextDecoder()
    try {
      for await (const chunk of body) {
        text += decoder.decode(chunk, { stream: true })
        for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
          this.#take(text.slice(0, end))
          text = text.slice(end + 2)
        }
      }
    } catch {
      // Cut: whoever waits sees `ended`.
    }
    this.ended = true
    this.onEnd()
    this.#wake()
  }

  #take(block: string): void {
    if (this.#closed) return
    let event = 'message'
    let data = ''
    for (const line of block.split('\n')) {
      if (line.startsWith('id:')) this.lastEventId = line.slice(3).trim()
      else if (line.startsWith('event:')) event = line.slice(6).trim()
      else if (line.startsWith('data:')) data += line.slice(5).trim()
    }
    if (data === '') return
    const taken = { event, id: this.lastEventId, data: JSON.parse(data) as unknown, json: data }
    this.events.push(taken)
    this.onEvent(taken)
    this.#wake()
  }
}

/** The rows of a live query as its events tell them. Strict: an insert of a known key, a delete or update of an unknown
 *  one, is an error, because an upsert would hide a repeated or lost change. */
export class StrictRows {
  readonly rows = new Map<string, JsonRow>()
  #key: readonly string[]
  exact = false
  resyncs: string[] = []
  /** Every event in short, over all connections: for the message of a test that fails. */
  readonly history: string[] = []
  #parts: DeltaEvent['changes'] = []

  constructor(key: readonly string[] = ['id']) {
    this.#key = key
  }

  /** A connection ended: what came of an event whose last part did not is void. */
  interrupt(): void {
    this.#parts = []
    if (!this.exact) this.rows.clear()
  }

  take({ event, data }: { event: string; data: unknown }): void {
    if (event === 'subscribed') this.#key = (data as { key?: string[] }).key ?? this.#key
    else if (event === 'resync') {
      this.resyncs.push((data as { code: string }).code)
      this.rows.clear()
      this.#parts = []
      this.exact = false
    } else if (event === 'snapshot') {
      const part = data as SnapshotEvent
      if (this.exact) throw new Error('a snapshot nobody asked for')
      for (const key of part.gone ?? []) this.rows.delete(this.#nameOf(key))
      for (const row of part.rows) this.rows.set(this.#nameOf(row), row)
      this.exact = part.done
    } else if (event === 'delta') {
      const delta = data as DeltaEvent
      this.#parts.push(...delta.changes)
      if (!delta.done) return
      const changes = this.#parts
      this.#parts = []
      for (const change of changes) this.#apply(change)
    }
  }

  /** Sorted, as `SELECT to_jsonb(...)` gives them when sorted too. */
  list(): JsonRow[] {
    return [...this.rows.entries()].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, row]) => row)
  }

  #apply(change: DeltaEvent['changes'][number]): void {
    if (change.op === 'truncate') {
      this.rows.clear()
      return
    }
    const name = this.#nameOf(change.key)
    if (change.op === 'insert') {
      if (this.rows.has(name)) throw new Error(`insert of the known key ${name}`)
      this.rows.set(name, change.row)
      return
    }
    const row = this.rows.get(name)
    if (row === undefined) throw new Error(`${change.op} of the unknown key ${name}`)
    if (change.op === 'delete') this.rows.delete(name)
    else this.rows.set(name, { ...row, ...change.set })
  }

  #nameOf(row: JsonRow): string {
    return JSON.stringify(this.#key.map(column => row[column]))
  }
}

/** A live query over SSE whose rows are kept strictly. */
export class LiveSse {
  readonly stream: SseStream
  readonly rows: StrictRows
  failure: unknown = null

  private constructor(stream: SseStream, rows: StrictRows) {
    this.stream = stream
    this.rows = rows
  }

  static async open(node: { url: string }, path: string, token: string, resume?: LiveSse): Promise<LiveSse> {
    const stream = await SseStream.open(node, path, token, resume?.stream.lastEventId)
    const live = new LiveSse(stream, resume?.rows ?? new StrictRows())
    const take = (event: SseEvent): void => {
      live.rows.history.push(`${event.id} ${event.event} ${JSON.stringify(event.data)}`.slice(0, 600))
      try {
        live.rows.take(event)
      } catch (error) {
        if (live.failure === null) live.rows.history.push(`FAILED ${String(error)}`)
        live.failure ??= error
      }
    }
    for (const event of stream.events) take(event)
    stream.onEvent = take
    return live
  }

  async exact(): Promise<this> {
    await this.stream.waitFor(() => this.rows.exact || this.stream.ended)
    return this
  }

  [Symbol.dispose](): void {
    this.stream.close()
  }
}

/** What the reader's SELECT returns now, as JSON rows. */
export async function selectAs(database: TestDatabase, sub: string, sql: string): Promise<JsonRow[]> {
  await database.query('BEGIN')
  try {
    await database.query(
      `SELECT set_config('request.jwt.claims', $1, true), set_config('role', 'authenticated', true)`,
      [JSON.stringify({ role: 'authenticated', sub })],
    )
    const rows = await database.query<{ row: JsonRow }>(`SELECT to_jsonb(q) AS row FROM (${sql}) q`)
    return rows.map(({ row }) => row)
  } finally {
    await database.query('ROLLBACK')
  }
}

/** Rows as a set, whatever the order of rows and columns. */
export const asSet = (rows: readonly JsonRow[]): string[] =>
  rows.map(row => JSON.stringify(Object.entries(row).sort(([a], [b]) => (a < b ? -1 : 1)))).sort()

export const person = (): string => randomUUID()

export type { ChangeEvent }
