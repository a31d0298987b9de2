// What compiles and what does not of the hooks. Compiled by `npm run check`, never run: a line under `@ts-expect-error` that compiles is
// an error.
import { expectTypeOf } from 'vitest'
import { createClient, type FeedStatus, type Refusal } from '../../src/client/client.ts'
import { useChanges, useChannel, useLive, usePresence, useStatus } from '../../src/react/react.ts'

interface Database {
  messages: { id: number; room_id: number; body: string; author: string | null }
}
interface Events {
  typing: { on: boolean }
  text: string
}

const tide = createClient<Database>('https://tide.example.com', { token: 'token' })
const room = tide.channel<Events, { name: string }>('room:42')

export function Typed({ id }: { id: number | null }): null {
  const query = id === null ? null : tide.from('messages').where('room_id', '=', id).select(['id', 'body']).live()
  const { rows, status, error } = useLive(query, { enabled: true })
  expectTypeOf(rows).toEqualTypeOf<readonly { id: number; body: string }[]>()
  expectTypeOf(status).toEqualTypeOf<FeedStatus | 'idle'>()
  expectTypeOf(error).toEqualTypeOf<Refusal | null>()
  // @ts-expect-error not selected
  rows[0]?.author
  // @ts-expect-error a query is asked live: useLive(query.live())
  useLive(tide.from('messages'))

  useChanges(tide.from('messages').select(['body']), ({ op, new: row, old }) => {
    expectTypeOf(op).toEqualTypeOf<'insert' | 'update' | 'delete' | 'truncate'>()
    expectTypeOf(row).toEqualTypeOf<{ body: string } | undefined>()
    expectTypeOf(old).toEqualTypeOf<Partial<{ body: string }> | undefined>()
  })
  // @ts-expect-error no such event
  useChanges(tide.from('messages'), () => {}, { event: 'UPSERT' })

  const { send, sendNow } = useChannel(room, {
    typing: ({ payload }) => expectTypeOf(payload).toEqualTypeOf<{ on: boolean }>(),
    '*': ({ event }) => expectTypeOf(event).toEqualTypeOf<'typing' | 'text'>(),
  })
  void send('text', 'hello')
  sendNow('typing', { on: true })
  // @ts-expect-error another payload
  void send('typing', 'on')
  // @ts-expect-error no such event
  useChannel(room, { tipping: () => {} })
  // Of a channel whose events nobody has named, any.
  useChannel(tide.channel('news'), { notice: ({ payload }) => String(payload) })

  const { here, count } = usePresence(room, { name: 'me' })
  expectTypeOf(here[0]!.meta).toEqualTypeOf<{ name: string }>()
  expectTypeOf(count).toEqualTypeOf<number>()
  // @ts-expect-error another meta
  usePresence(room, { nick: 'me' })

  const connection = useStatus(tide)
  // @ts-expect-error only some statuses have it
  connection.retryAt
  return null
}
