// The example's people, its tables, and the fixed statements that the page's buttons run.
import { readFile } from 'node:fs/promises'
import type pg from 'pg'
import { z } from 'zod'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { createPool } from '../../server/postgres/database.ts'

export const people = [
  { id: '00000000-0000-4000-8000-000000000ada', name: 'Ada' },
  { id: '00000000-0000-4000-8000-000000000b0b', name: 'Ben' },
] as const

export const exampleTables = ['rooms', 'members', 'messages'] as const

/** What the page may ask for. Values only: the statements are below, and there are no others. */
const action = z.discriminatedUnion('do', [
  z.object({ do: z.literal('post'), person: z.uuid(), room: z.int(), body: z.string().trim().min(1).max(500) }),
  z.object({ do: z.literal('join'), person: z.uuid(), room: z.int() }),
  z.object({ do: z.literal('leave'), person: z.uuid(), room: z.int() }),
])

export class Example {
  readonly #pool: pg.Pool

  /** @param ownerUrl the application's own connection: the owner of the tables */
  constructor(ownerUrl: string) {
    this.#pool = createPool(ownerUrl, { maxConnections: 2, applicationName: 'tidegate example' })
  }

  async isLoaded(): Promise<boolean> {
    return (await this.#tablesThere()).length === exampleTables.length
  }

  /** Does nothing when it is there. @throws CONFIG_INVALID when other tables have its names */
  async load(): Promise<void> {
    const there = await this.#tablesThere()
    if (there.length === exampleTables.length) return
    if (there.length > 0) {
      throw new TidegateError(
        'CONFIG_INVALID',
        `the database has a table "${there.join('", "')}" of its own; load the example into an empty database`,
      )
    }
    const sql = await readFile(new URL('example.sql', import.meta.url), 'utf8')
    // Several statements in one simple query are one transaction.
    await this.#pool.query(sql)
  }

  async rooms(): Promise<{ id: number; name: string }[]> {
    const { rows } = await this.#pool.query<{ id: number; name: string }>(
      'SELECT id::int AS id, name FROM public.rooms ORDER BY id LIMIT 20',
    )
    return rows
  }

  /** @param request a parsed body of the page; @returns whether a row changed
   *  @throws BAD_FRAME when it is no action of the page */
  async run(request: unknown): Promise<boolean> {
    const parsed = action.safeParse(request)
    if (!parsed.success) throw new TidegateError('BAD_FRAME', 'the body is no action of the example')
    const { data } = parsed
    const values = data.do === 'post' ? [data.room, data.person, data.body] : [data.room, data.person]
    const { rowCount } = await this.#pool.query(statements[data.do], values)
    return (rowCount ?? 0) > 0
  }

  async close(): Promise<void> {
    await this.#pool.end()
  }

  async #tablesThere(): Promise<string[]> {
    const { rows } = await this.#pool.query<{ name: string }>(
      'SELECT name FROM unnest($1::text[]) AS name WHERE to_regclass(format($$public.%I$$, name)) IS NOT NULL',
      [exampleTables],
    )
    return rows.map(row => row.name)
  }
}

const statements = {
  post: `INSERT INTO public.messages (room_id, author, body) SELECT $1::bigint, $2::uuid, $3::text
    WHERE EXISTS (SELECT FROM public.members WHERE room_id = $1::bigint AND user_id = $2::uuid)`,
  join: 'INSERT INTO public.members (room_id, user_id) VALUES ($1::bigint, $2::uuid) ON CONFLICT DO NOTHING',
  leave: 'DELETE FROM public.members WHERE room_id = $1::bigint AND user_id = $2::uuid',
} as const
