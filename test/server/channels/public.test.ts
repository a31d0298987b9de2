// Public channels of a wire on which they are open, as Supabase's is: a namespace of their own, for whoever comes by that wire.
import { expect, test } from 'vitest'
import type { Caller, ChannelRequest } from '../../../src/server/channels/door.ts'
import { bench, caller, enter, kept, room, said, turns } from './bench.ts'

const keptInPublic = { ...kept, public: true }

const open = (sub: string): Caller => ({ ...caller(sub), isPublicOpen: true })
const anon = (connection: string): Caller => ({
  principal: { role: 'anon', claims: { role: 'anon' }, expiresAt: null },
  connection,
  isPublicOpen: true,
})
const publicRoom = (more: Partial<ChannelRequest> = {}): ChannelRequest =>
  room({ channel: { topic: 'room:1', isPrivate: false }, ...more })
const page = { after: null, limit: 10 }

test('[P2] whom no rule lets in, the wire does: anybody with a token, to any topic', async () => {
  const on = bench([])
  const eve = await enter(on, anon('e'), publicRoom())
  const bob = await enter(on, open('bob'), publicRoom())
  await bob.member.send(said('hello'))
  await on.channels.publish({ ...open('ann'), connection: null }, publicRoom().channel, said('by POST'))
  await turns()
  expect(eve.outlet.got).toEqual(['said: "hello"', 'said: "by POST"'])
})

test('[P2] on other wires a rule still decides', async () => {
  const on = bench([{ pattern: 'news', public: true }])
  const { channel } = publicRoom()
  const refused = { code: 'CHANNEL_REFUSED' }
  await expect(enter(on, caller('bob'), publicRoom())).rejects.toMatchObject(refused)
  await expect(on.channels.publish(caller('bob'), channel, said(1))).rejects.toMatchObject(refused)
  await expect(on.channels.present(caller('bob'), channel, page)).rejects.toMatchObject(refused)
  await enter(on, caller('bob'), room({ channel: { topic: 'news', isPrivate: false } }))
})

test('[P2] [P8] where only private channels are allowed, no rule opens one either, and that is said', async () => {
  const on = bench([{ pattern: '*', public: true, history: { length: 5, ageMs: 60_000 } }])
  const shut: Caller = { ...caller('bob'), isPublicOpen: false }
  const { channel } = publicRoom()
  const refused = { code: 'PRIVATE_ONLY', message: expect.stringContaining('"room:1"') }
  await expect(enter(on, shut, publicRoom())).rejects.toMatchObject(refused)
  await expect(on.channels.publish(shut, channel, said(1))).rejects.toMatchObject(refused)
  await expect(on.channels.history(shut, channel, { before: null, limit: 1 })).rejects.toMatchObject(refused)
  await expect(on.channels.present(shut, channel, page)).rejects.toMatchObject(refused)
  await enter(on, shut, room())
})

test.each([
  ['without a history', []],
  ['with one', [keptInPublic]],
  ['with one of the private alone', [kept]],
])('[P2] a public and a private channel of one topic hear nothing of each other, %s', async (_, rules) => {
  const on = bench(rules)
  const ann = await enter(on, open('ann'), room({ self: true }))
  const eve = await enter(on, anon('e'), publicRoom({ self: true }))
  await ann.member.send(said('in private'))
  await on.channels.publish(caller('ann', null), room().channel, said('in private, by POST'))
  await eve.member.send(said('in public'))
  await on.channels.publish({ ...open('ann'), connection: null }, publicRoom().channel, said('in public, by POST'))
  await turns()
  expect(ann.outlet.got).toEqual(['said: "in private"', 'said: "in private, by POST"'])
  expect(eve.outlet.got).toEqual(['said: "in public"', 'said: "in public, by POST"'])
})

test('[P2] nor does a history, for who asks for it and for who joins with the last', async () => {
  const on = bench([keptInPublic])
  await on.channels.publish(caller('ann', null), room().channel, said('in private'))
  await on.channels.publish(open('ann'), publicRoom().channel, said('in public'))
  const range = { before: null, limit: 10 }
  const told = async (who: Caller, { channel }: ChannelRequest) =>
    (await on.channels.history(who, channel, range)).messages.map(({ payload }) => payload)
  expect(await told(caller('ann'), room())).toEqual(['"in private"'])
  expect(await told(anon('e'), publicRoom())).toEqual(['"in public"'])
  const eve = await enter(on, anon('e'), publicRoom({ last: 10 }))
  await turns()
  expect(eve.outlet.got).toEqual(['said: "in public"'])
})

test('[P7] what anybody may say under any topic is not kept, unless a rule says so', async () => {
  const on = bench([kept])
  const { channel } = publicRoom()
  await on.channels.publish(anon('e'), channel, said('in public'))
  const history = on.channels.history(anon('e'), channel, { before: null, limit: 1 })
  await expect(history).rejects.toMatchObject({ code: 'HISTORY_OFF' })
  await expect(enter(on, anon('e'), publicRoom({ last: 1 }))).rejects.toMatchObject({ code: 'HISTORY_OFF' })
  const { messages } = await on.relay.read('public/room:1', { before: null, limit: 10 })
  expect(messages).toEqual([])
})

test('[P2] nor is who is in one seen in the other', async () => {
  const on = bench([{ pattern: '*', presence: { diffMs: 10 } }])
  const ann = await enter(on, open('ann'), room({ presence: true, track: { meta: '"private"', key: null } }))
  const eve = await enter(on, anon('e'), publicRoom({ presence: true, track: { meta: '"public"', key: null } }))
  const metas = async (who: Caller, { channel }: ChannelRequest) =>
    (await on.channels.present(who, channel, page)).entries.map(({ meta }) => meta)
  await expect.poll(() => metas(open('ann'), room())).toEqual(['"private"'])
  await expect.poll(() => metas(anon('e'), publicRoom())).toEqual(['"public"'])
  await ann.member.track({ meta: '"private still"', key: null })
  await expect.poll(() => metas(open('ann'), room())).toEqual(['"private still"'])
  expect(await metas(anon('e'), publicRoom())).toEqual(['"public"'])
  await expect.poll(() => eve.outlet.got.length).toBeGreaterThan(0)
})

const presence = { diffMs: 10 }
test.each<[string, Caller, boolean, boolean, string | null, string | null]>([
  // Who, where, bound to the subject, the key asked for, and the one that is shown; null: refused.
  ['the subject', caller('ann'), true, true, 'ann', 'ann'],
  ['no key', caller('ann'), true, true, null, 'ann'],
  ['the name of its connection', caller('ann'), true, true, 'ann-1', 'ann-1'],
  ["another's", caller('ann'), true, true, 'bob', null],
  ["another's, by the open wire", open('ann'), true, true, 'bob', null],
  ["another connection's", open('ann'), true, true, 'bob-1', null],
  ["another's, in public by a rule", caller('ann'), false, true, 'bob', null],
  ['any, where it is not bound', caller('ann'), true, false, 'bob', 'bob'],
  ['any, in public by the open wire', open('ann'), false, true, 'bob', 'bob'],
  ['none, in public by the open wire', anon('e'), false, true, null, 'e'],
])('[P2] the key of a presence: %s', async (_, who, isPrivate, boundToSubject, key, shown) => {
  const on = bench([{ pattern: '*', public: true, presence: { ...presence, boundToSubject } }])
  const channel = { topic: 'room:1', isPrivate }
  const { member } = await enter(on, who, room({ channel, presence: true }))
  const tracked = member.track({ meta: '{}', key })
  if (shown === null) await expect(tracked).rejects.toMatchObject({ code: 'SEND_REFUSED' })
  else await tracked
  const keys = (await on.channels.present(who, channel, page)).entries.map(entry => entry.key)
  expect(keys).toEqual(shown === null ? [] : [shown])
})
