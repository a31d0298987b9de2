// What compiles and what does not, over an interface as Kysely's users have it. Compiled by types.test.ts, never run.
import type { ColumnType, JSONColumnType, Kysely, Generated as KyselysGenerated } from 'kysely'
import { expectTypeOf } from 'vitest'
import { type Client, createClient, type JsonValueOfTests, type LiveUpdate } from './typed-client.ts'

// As kysely-codegen writes them.
type Generated<T> =
  T extends ColumnType<infer S, infer I, infer U> ? ColumnType<S, I | undefined, U> : ColumnType<T, T | undefined, T>
type Int8 = ColumnType<string, bigint | number | string, bigint | number | string>
type Numeric = ColumnType<string, number | string, number | string>
type Timestamp = ColumnType<Date, Date | string, Date | string>
type Json = JsonValueOfTests

interface Messages {
  id: Generated<number>
  room_id: number
  author: string | null
  body: string
  mood: 'glad' | 'sad' | null
  pinned: Generated<boolean>
  views: Generated<Int8>
  price: Numeric | null
  created_at: Generated<Timestamp>
  edited_at: Timestamp | null
  born: Date
  big: bigint
  tags: string[]
  times: Date[] | null
  hash: Buffer
  meta: JSONColumnType<{ likes: number; by: string[] }>
  extra: ColumnType<Json, string, string>
}

interface Database {
  messages: Messages
  'app.users': { id: KyselysGenerated<string>; name: string }
}

export function typed(url: string, kysely: Kysely<Database>): void {
  const tide = createClient<Database>(url, { token: 't' })
  const messages = tide.from('messages')

  // The same interface serves both.
  kysely.selectFrom('messages').select('id')
  kysely.selectFrom('app.users').select('name')

  // Rows as they come over the wire.
  expectTypeOf(messages.live().current.rows).toEqualTypeOf<
    readonly {
      id: number
      room_id: number
      author: string | null
      body: string
      mood: 'glad' | 'sad' | null
      pinned: boolean
      views: string | number
      price: string | number | null
      created_at: string
      edited_at: string | null
      born: string
      big: number | string
      tags: string[]
      times: string[] | null
      hash: string
      meta: { likes: number; by: string[] }
      extra: Json
    }[]
  >()
  messages
    .select(['id', 'mood'])
    .live()
    .subscribe(update => {
      expectTypeOf(update).toEqualTypeOf<LiveUpdate<{ id: number; mood: 'glad' | 'sad' | null }>>()
      // @ts-expect-error body was not selected
      update.rows[0]?.body
    })
  expectTypeOf(tide.from('app.users').select(['name']).live().once()).resolves.toEqualTypeOf<
    readonly { name: string }[]
  >()
  messages.select(['body']).changes({ event: 'INSERT' }, change => {
    expectTypeOf(change.new).toEqualTypeOf<{ body: string } | undefined>()
    expectTypeOf(change.old).toEqualTypeOf<Partial<{ body: string }> | undefined>()
  })
  void (async () => {
    for await (const change of messages.select(['id']).changes({ buffer: 10 }))
      expectTypeOf(change.new).toEqualTypeOf<{ id: number } | undefined>()
    for await (const { rows } of messages.select(['id']).live())
      expectTypeOf(rows).toEqualTypeOf<readonly { id: number }[]>()
  })

  // Values of a column's own type, and what comes over the wire for it.
  messages
    .where('id', '=', 1)
    .where('views', '>', 1n)
    .where('views', '>', 1)
    .where('views', '>', '9007199254740993')
    .where('price', '<=', 1.5)
    .where('big', 'in', [1n, 2, '3'])
    .where('created_at', '>=', new Date())
    .where('edited_at', '<', '2026-01-01')
    .where('mood', 'in', ['glad', 'sad'])
    .where('mood', 'is', null)
    .where('mood', 'is', 'not null')
    .where('pinned', 'is', 'unknown')
    .where('pinned', 'is not', true)
    .where('pinned', '=', false)
    .where('body', 'not ilike', '%x%')
    .where('author', 'is distinct from', 'x')
    .where('tags', '=', ['a', 'b'])
    .where('times', 'in', [[new Date(), null]])
    .where('hash', '=', new Uint8Array([1]))
    .where(c => c.any([c('id', '=', 1), c.all([c('mood', '=', 'sad'), c.not(c('author', 'is', null))])]))
    .orderBy('created_at', 'desc', { nulls: 'last' })
    .orderBy('id')
    .limit(10)
    .live()

  // @ts-expect-error no such table
  tide.from('mesages')
  // @ts-expect-error the schema belongs to it
  tide.from('users')
  // @ts-expect-error no such column
  messages.where('bodyy', '=', 'x')
  // @ts-expect-error no such operator
  messages.where('body', '~', 'x')
  // @ts-expect-error a number is no text
  messages.where('body', '=', 1)
  // @ts-expect-error a text is no number
  messages.where('id', '=', '1')
  // @ts-expect-error not of the enum
  messages.where('mood', '=', 'angry')
  // @ts-expect-error not of the enum, in a list
  messages.where('mood', 'in', ['glad', 'angry'])
  // @ts-expect-error in takes a list
  messages.where('id', 'in', 1)
  // @ts-expect-error = NULL is never true
  messages.where('author', '=', null)
  // @ts-expect-error a list with NULL
  messages.where('mood', 'in', ['glad', null])
  // @ts-expect-error is takes no number
  messages.where('id', 'is', 1)
  // @ts-expect-error is true needs a boolean column
  messages.where('id', 'is', true)
  // @ts-expect-error a pattern is text
  messages.where('body', 'like', 1)
  // @ts-expect-error a number is no time
  messages.where('created_at', '>', 1)
  // @ts-expect-error a boolean is no bigint
  messages.where('views', '=', true)
  // @ts-expect-error elements of another type
  messages.where('tags', '=', [1])
  // @ts-expect-error an object has no order here
  messages.where('meta', '=', { likes: 1, by: [] })
  // @ts-expect-error no such column in a nested condition
  messages.where(c => c.any([c('bodyy', '=', 'x')]))
  // @ts-expect-error wrong value in a nested condition
  messages.where(c => c.not(c('id', '=', 'x')))
  // @ts-expect-error no such column
  messages.select(['id', 'nope'])
  // @ts-expect-error no such column
  messages.orderBy('nope')
  // @ts-expect-error no such direction
  messages.orderBy('id', 'down')
  // @ts-expect-error no such place of NULL
  messages.orderBy('id', 'asc', { nulls: 'middle' })
  // @ts-expect-error a limit is a number
  messages.limit('10')
  // @ts-expect-error an event that does not exist
  messages.changes({ event: 'UPSERT' }, () => {})
}

/** Without an interface every table and column is taken. */
export function untyped(tide: Client): void {
  tide
    .from('anything')
    .where('a', '=', 1)
    .where('b', 'in', ['x'])
    .where('c', 'is', true)
    .orderBy('d')
    .live()
    .subscribe(({ rows }) => {
      expectTypeOf(rows[0]!.a).toExtend<Json | undefined>()
    })
}
