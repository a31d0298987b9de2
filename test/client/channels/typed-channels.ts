// What compiles and what does not of a channel whose events are named. Compiled by `npm run check`, never run: a line under
// `@ts-expect-error` that compiles is an error.
import { expectTypeOf } from 'vitest'
import { createClient, type Message, type Payload } from '../../../src/client/client.ts'

interface Events {
  typing: { on: boolean }
  text: string
  ice: Uint8Array
}

const tide = createClient('https://tide.example.com', { token: 'token' })
const room = tide.channel<Events, { name: string }>('room:42', { last: 5 })

export async function typed(): Promise<void> {
  room.on('typing', message => {
    expectTypeOf(message).toEqualTypeOf<Message<'typing', { on: boolean }>>()
    expectTypeOf(message.payload.on).toEqualTypeOf<boolean>()
    expectTypeOf(message.binary).toEqualTypeOf<undefined>()
  })
  room.on('ice', ({ payload, binary }) => {
    expectTypeOf(payload).toEqualTypeOf<undefined>()
    expectTypeOf(binary).toEqualTypeOf<Uint8Array>()
  })
  room.on('*', message => {
    expectTypeOf(message.event).toEqualTypeOf<'typing' | 'text' | 'ice'>()
    if (message.event === 'text') expectTypeOf(message.payload).toEqualTypeOf<string>()
  })
  for await (const { payload, dropped } of room.messages('text')) {
    expectTypeOf(payload).toEqualTypeOf<string>()
    expectTypeOf(dropped).toEqualTypeOf<number>()
  }
  for await (const { messages } of room.history({ last: 3 }))
    for (const message of messages) if (message.event === 'typing') expectTypeOf(message.payload.on).toBeBoolean()
  expectTypeOf(await room.send('typing', { on: true }, { to: { user: 'bob' } })).toEqualTypeOf<{
    readonly id: string
    readonly position: string
    readonly duplicate: boolean
  }>()
  room.presence.subscribe(({ here, joined }) => {
    expectTypeOf(here[0]!.meta.name).toEqualTypeOf<string>()
    expectTypeOf(joined[0]!.meta).toEqualTypeOf<{ name: string }>()
  })
  const any = tide.channel('anything')
  await any.send('whatever', [1, { two: null }])
  any.on('whatever', ({ payload, binary }) => {
    expectTypeOf(payload).toEqualTypeOf<Exclude<Payload, Uint8Array | ArrayBuffer> | undefined>()
    expectTypeOf(binary).toEqualTypeOf<Uint8Array | undefined>()
  })

  // @ts-expect-error no such event
  room.on('typping', () => {})
  // @ts-expect-error the payload has another shape
  await room.send('typing', { on: 1 })
  // @ts-expect-error bytes are wanted
  await room.send('ice', 'AAEC')
  // @ts-expect-error no such event
  room.sendNow('cursor', 1)
  // @ts-expect-error to a user or a connection
  await room.send('text', 'x', { to: 'bob' })
  // @ts-expect-error members have a name
  await room.presence.track({ nick: 'bob' })
  // @ts-expect-error no such option
  tide.channel('room:42', { private: true, lsat: 1 })
}
