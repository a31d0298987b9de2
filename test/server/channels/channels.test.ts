// The channels of one node over the relay in memory, with policies that the tests decide.
import { expect, test, vi } from 'vitest'
import { TidegateError } from '../../../src/protocol/tidegate-error.ts'
import type { ChannelMessage, Draft } from '../../../src/server/channels/message.ts'
import { defaultRule } from '../../../src/server/channels/rules.ts'
import { bench, caller, enter, epoch, kept, room, said, turns } from './bench.ts'

test('[P5] what one member sends, the others get in order; it itself only if it wants to', async () => {
  const on = bench([])
  const [ann, bob, cid] = [
    await enter(on, caller('ann')),
    await enter(on, caller('bob')),
    await enter(on, caller('cid'), room({ self: true })),
  ]
  for (let n = 1; n <= 3; n++) await ann.member.send(said(n))
  await cid.member.send(said(4))
  await turns()
  expect(ann.outlet.got).toEqual(['said: 4'])
  expect(bob.outlet.got).toEqual(['said: 1', 'said: 2', 'said: 3', 'said: 4'])
  expect(cid.outlet.got).toEqual(['said: 1', 'said: 2', 'said: 3', 'said: 4'])
})

test('a message to a user or a connection comes there alone', async () => {
  const on = bench([])
  const ann = await enter(on, caller('ann'))
  const bob = await enter(on, caller('bob', 'bob-1'))
  const bobToo = await enter(on, caller('bob', 'bob-2'))
  await ann.member.send(said(1, { to: { user: 'bob' } }))
  await ann.member.send(said(2, { to: { connection: 'bob-2' } }))
  await ann.member.send(said(3, { to: { user: 'nobody' } }))
  await turns()
  expect(bob.outlet.got).toEqual(['said: 1'])
  expect(bobToo.outlet.got).toEqual(['said: 1', 'said: 2'])
})

test('[P3] a message that another node published further on waits until the stream has come there', async () => {
  const on = bench([])
  const bob = await enter(on, caller('bob'))
  const draft: Draft = {
    channel: room().channel,
    id: '00000000-0000-4000-8000-000000000000',
    ...said('later'),
    sender: { user: 'ann', connection: 'ann-1' },
    sentAtMs: 0,
    stamp: { epoch, lsn: 200n },
    walIndex: null,
  }
  await on.relay.publish(draft, { history: null, idempotency: null })
  await turns()
  expect(bob.outlet.got).toEqual([])
  on.head.lsn = 200n
  on.head.moved()
  await turns()
  expect(bob.outlet.got).toEqual(['said: "later"'])
})

test('[P3] what is read from a history waits for the stream like what is told', async () => {
  const on = bench([kept])
  const draft: Draft = {
    channel: room().channel,
    id: '00000000-0000-4000-8000-000000000000',
    ...said('later'),
    sender: { user: 'ann', connection: 'ann-1' },
    sentAtMs: 0,
    stamp: { epoch, lsn: 200n },
    walIndex: null,
  }
  // Another node took it, before anybody here entered.
  await on.relay.publish(draft, { history: { length: 5, ageMs: 60_000 }, idempotency: null })
  const [bob, cid] = [
    await enter(on, caller('bob'), room({ last: 5 })),
    await enter(on, caller('cid'), room({ last: 5 })),
  ]
  const asked = on.channels.history(caller('cid', null), room().channel, { before: null, limit: 5 })
  asked.catch(() => {})
  await turns()
  on.policies.deny('cid receive broadcast')
  on.policies.deny('cid receive presence')
  on.head.lsn = 200n
  on.head.moved()
  await turns()
  expect([bob.outlet.got, cid.outlet.got]).toEqual([['said: "later"'], []])
  await expect(asked).rejects.toMatchObject({ code: 'CHANNEL_REFUSED' })
})

test('[P3] who may not receive any more is out with that, and gets nothing that comes after', async () => {
  const on = bench([])
  const ann = await enter(on, caller('ann'))
  const bob = await enter(on, caller('bob'))
  const sending = ann.member.send(said('secret'))
  on.policies.deny('bob receive broadcast')
  await sending
  await turns()
  expect(bob.outlet.got).toEqual([])
  expect(bob.outlet.error).toMatchObject({ code: 'CHANNEL_CLOSED' })
})

test('[P2] [P8] who may not receive is refused, who may not send is told so and stays', async () => {
  const on = bench([])
  on.policies.deny('bob receive broadcast')
  on.policies.deny('bob receive presence')
  on.policies.deny('cid send broadcast')
  await expect(enter(on, caller('bob'))).rejects.toMatchObject({ code: 'CHANNEL_REFUSED' })
  const cid = await enter(on, caller('cid'))
  expect(cid.member.maySend).toBe(false)
  await expect(cid.member.send(said(1))).rejects.toMatchObject({ code: 'SEND_REFUSED' })
  expect(cid.member.hasHistory).toBe(false)
})

test('[P4] with a history one comes back where one was, on another connection', async () => {
  const on = bench([kept])
  const ann = await enter(on, caller('ann'))
  const bob = await enter(on, caller('bob'))
  await ann.member.send(said(1))
  await turns()
  const at = { ...bob.member.position(), tag: bob.member.tag }
  bob.member.close()
  for (const n of [2, 3]) await ann.member.send(said(n))
  const again = await enter(on, caller('bob', 'bob-2'), room({ since: at }))
  await ann.member.send(said(4))
  await turns()
  expect(again.member.resumed).toBe(true)
  expect(again.outlet.got).toEqual(['said: 2', 'said: 3', 'said: 4'])
})

test('[P4] [P8] past the history, or in a channel of another name, it is told to start over', async () => {
  const on = bench([kept])
  const ann = await enter(on, caller('ann'))
  const bob = await enter(on, caller('bob'))
  const at = { ...bob.member.position(), tag: bob.member.tag }
  bob.member.close()
  await ann.member.send(said(0))
  const first = { ...ann.member.position(), tag: ann.member.tag }
  for (let n = 1; n <= 7; n++) await ann.member.send(said(n))
  await turns()
  const again = await enter(on, caller('bob', 'bob-2'), room({ since: first }))
  expect(again.member.resumed).toBe(false)
  expect(again.outlet.got).toEqual(['resync HISTORY_PASSED'])
  const other = await enter(on, caller('bob', 'bob-3'), room({ since: { ...at, tag: 'another', lsn: 1n } }))
  expect(other.outlet.got).toEqual(['resync QUERY_CHANGED'])
})

test('[P4] [P8] who came from a node that was ahead is told when what it has was lost', async () => {
  const on = bench([kept])
  const listen = on.relay.listen.bind(on.relay)
  let hear: (message: ChannelMessage) => void = () => {}
  on.relay.listen = (key, listener) => {
    hear = message => listener.message(message)
    return listen(key, listener)
  }
  const ann = await enter(on, caller('ann'))
  await ann.member.send(said(1))
  await turns()
  const at = { ...ann.member.position(), tag: ann.member.tag }
  const ahead = await enter(on, caller('bob'), room({ since: { ...at, lsn: at.lsn + 3n } }))
  const even = await enter(on, caller('cid'), room({ since: at }))
  expect([ahead.member.resumed, even.member.resumed]).toEqual([true, true])
  // Redis came back with what this node has.
  hear({
    channel: room().channel,
    id: '00000000-0000-4000-8000-000000000000',
    ...said('anew'),
    sender: { user: 'dan', connection: null },
    sentAtMs: 0,
    stamp: { epoch, lsn: 100n },
    walIndex: null,
    epoch: 'bbbbbbbb',
    seq: at.lsn + 1n,
    before: [{ epoch: at.epoch, seq: at.lsn }],
  })
  await turns()
  expect(ahead.outlet.got).toEqual(['resync HISTORY_LOST', 'said: "anew"'])
  expect(even.outlet.got).toEqual(['said: "anew"'])
})

test('the last messages come first for whoever asks for them', async () => {
  const on = bench([kept])
  const ann = await enter(on, caller('ann'))
  for (let n = 1; n <= 7; n++) await ann.member.send(said(n))
  await turns()
  expect((await enter(on, caller('bob'), room({ last: 2 }))).outlet.got).toEqual(['said: 6', 'said: 7'])
  expect((await enter(on, caller('bob'), room({ last: 100 }))).outlet.got).toHaveLength(5)
  await expect(enter(bench([]), caller('bob'), room({ last: 2 }))).rejects.toMatchObject({ code: 'HISTORY_OFF' })
})

test('[P4] [P8] without a history what was missed is told as a gap, and nothing missed is not', async () => {
  const on = bench([])
  const ann = await enter(on, caller('ann'))
  const bob = await enter(on, caller('bob'))
  await ann.member.send(said(1))
  await turns()
  const at = { ...bob.member.position(), tag: bob.member.tag }
  bob.member.close()
  const unharmed = await enter(on, caller('bob', 'bob-2'), room({ since: at }))
  expect([unharmed.member.resumed, unharmed.outlet.got]).toEqual([true, []])
  for (const n of [2, 3]) await ann.member.send(said(n))
  await turns()
  const again = await enter(on, caller('bob', 'bob-3'), room({ since: at }))
  expect([again.member.resumed, again.outlet.got]).toEqual([false, ['gap 2']])
})

test('[P4] without a history, who was at a node that had come further is told nothing again', async () => {
  const on = bench([])
  const ann = await enter(on, caller('ann'))
  const position = ann.member.position()
  const tag = ann.member.tag
  const since = { ...position, tag, lsn: 200n, index: (position.index + 2) >>> 0 }
  const coming = enter(on, caller('bob'), room({ since, presence: true }))
  let hasCome = false
  void coming.then(() => {
    hasCome = true
  })
  await turns()
  expect(hasCome).toBe(false)
  on.head.lsn = 200n
  on.head.moved()
  const bob = await coming
  expect(bob.member.resumed).toBe(true)
  expect(bob.member.position()).toMatchObject({ lsn: 200n, index: since.index })
  await expect.poll(() => bob.outlet.got).toEqual(['presence undefined'])
  for (let n = 1; n <= 3; n++) await ann.member.send(said(n))
  await turns()
  expect(bob.outlet.got.slice(1)).toEqual(['said: 3'])
})

test('[P4] [P8] without a history, who has a number of a counter that was lost is told of a gap', async () => {
  const on = bench([])
  const ann = await enter(on, caller('ann'))
  await ann.member.send(said(1))
  await turns()
  const { index, ...position } = ann.member.position()
  for (const far of [2 ** 31, 2 ** 31 - 10, 1_000_000, 2 ** 32 - 1_000_000]) {
    const since = { ...position, index: (index + far) >>> 0, tag: ann.member.tag }
    const bob = await enter(on, caller('bob', `bob-${far}`), room({ since }))
    expect([bob.member.resumed, bob.outlet.got]).toEqual([false, ['gap null']])
  }
})

test('[P4] what is sent under one idempotency key is sent once; another user has keys of his own', async () => {
  const on = bench([])
  const ann = await enter(on, caller('ann'))
  const bob = await enter(on, caller('bob'))
  const cid = await enter(on, caller('cid'))
  const first = await ann.member.send(said(1, { idempotencyKey: 'k' }))
  const second = await ann.member.send(said(1, { idempotencyKey: 'k' }))
  await bob.member.send(said(2, { idempotencyKey: 'k' }))
  await turns()
  expect([first.isDuplicate, second.isDuplicate, second.id]).toEqual([false, true, first.id])
  expect(cid.outlet.got).toEqual(['said: 1', 'said: 2'])
})

test('[P2] a public channel takes a rule, and is another than the private one of its name', async () => {
  const on = bench([{ pattern: 'news', public: true }])
  const at = (topic: string, isPrivate: boolean) => room({ channel: { topic, isPrivate } })
  await expect(enter(on, caller('ann'), at('room:1', false))).rejects.toMatchObject({ code: 'CHANNEL_REFUSED' })
  const open = await enter(on, caller('ann'), at('news', false))
  const shut = await enter(on, caller('bob'), at('news', true))
  await on.channels.publish(caller('cid', null), { topic: 'news', isPrivate: false }, said(1))
  await turns()
  expect([open.outlet.got, shut.outlet.got]).toEqual([['said: 1'], []])
})

test('[P5] what is said in a public channel waits for no rows, unless it names a transaction', async () => {
  const behind = bench([{ pattern: 'news', public: true }])
  const ahead = bench([{ pattern: 'news', public: true }], behind)
  ahead.head.begin(200n)
  const news = { topic: 'news', isPrivate: false }
  const { outlet } = await enter(behind, caller('ann'), room({ channel: news }))
  await ahead.channels.publish(caller('cid', null), news, said(1))
  await turns()
  expect(outlet.got).toEqual(['said: 1'])
  await ahead.channels.publish(caller('cid', null), news, said(2, { after: 735n }))
  await ahead.channels.publish(caller('cid', null), news, said(3))
  await turns()
  expect(outlet.got).toEqual(['said: 1'])
  behind.head.begin(200n)
  await expect.poll(() => outlet.got).toEqual(['said: 1', 'said: 2', 'said: 3'])
})

test('[P8] a member whose policies Postgres is asked for is told so', async () => {
  const on = bench([])
  expect((await enter(on, caller('ann'))).member).toMatchObject({ exact: undefined, warnings: [] })
  on.policies.isExact = false
  expect((await enter(on, caller('bob'))).member).toMatchObject({ exact: false, warnings: [{ code: 'POLICY_ASKED' }] })
})

test('[P8] a topic is a short text', async () => {
  const on = bench([])
  for (const topic of ['', 'x'.repeat(256), 'a\u0000b', 'a\nb', '\ud800'])
    await expect(enter(on, caller('ann'), room({ channel: { topic, isPrivate: true } }))).rejects.toMatchObject({
      code: 'TOPIC_INVALID',
    })
})

test('members are told who is here, who comes and who goes', async () => {
  const on = bench([{ pattern: '*', presence: { diffMs: 10, graceMs: 30 } }])
  const ann = await enter(on, caller('ann'), room({ presence: true, track: { meta: '{"name":"Ann"}', key: null } }))
  const seen: string[] = []
  ann.outlet.send = ({ event, json }) => {
    if (event === 'presence') seen.push(json)
    return true
  }
  const bob = await enter(on, caller('bob'), room({ track: { meta: '1', key: null } }))
  await expect.poll(() => seen.join()).toContain('"joined":[{"ref"')
  bob.member.close('gone')
  await expect.poll(() => seen.join()).toContain('"left":[{"ref"')
  expect((await on.channels.present(caller('ann'), room().channel, { after: null, limit: 10 })).count).toBe(1)
})

test('[P3] [P8] while nothing comes from the database nobody is told who comes, nor listed; then all at once', async () => {
  const on = bench([{ pattern: '*', presence: { diffMs: 10 } }])
  const ann = await enter(on, caller('ann'), room({ presence: true }))
  const seen: string[] = []
  ann.outlet.send = ({ event, json }) => {
    if (event === 'presence') seen.push(json)
    return true
  }
  const bob = await enter(on, caller('bob'))
  on.head.movedAtMs = Number.NEGATIVE_INFINITY
  await expect(bob.member.track({ meta: '1', key: null })).rejects.toMatchObject({ code: 'UNAVAILABLE' })
  // Entered through another node, whose stream moves.
  const cid = { key: 'cid', user: 'cid', connection: 'cid-1', meta: '2' }
  await on.presence.track('private/room:1', cid, { ...defaultRule.presence, diffMs: 10 })
  await turns()
  expect(seen).toEqual([])
  await expect(on.channels.present(caller('ann'), room().channel, { after: null, limit: 10 })).rejects.toMatchObject({
    code: 'UNAVAILABLE',
  })
  on.head.moved()
  await expect.poll(() => seen.join()).toContain('"here":[{"ref"')
  expect(seen).toHaveLength(1)
}, 20_000)

test('[P4] being there, asked for while that cannot be stored, is not tried again once something else was asked for', async () => {
  const on = bench([{ pattern: '*', presence: { diffMs: 10 } }])
  const track = vi.spyOn(on.presence, 'track')
  track.mockRejectedValueOnce(new TidegateError('UNAVAILABLE', 'Redis is away'))
  const ann = await enter(on, caller('ann'), room({ track: { meta: '"first"', key: null } }))
  await expect.poll(() => track.mock.calls.length).toBe(1)
  await ann.member.track({ meta: '"second"', key: null })
  await expect.poll(() => track.mock.calls.length).toBe(2)
  await new Promise(resolve => setTimeout(resolve, 400))
  const { entries } = await on.channels.present(caller('ann'), room().channel, { after: null, limit: 10 })
  expect(entries.map(({ meta }) => meta)).toEqual(['"second"'])
  await ann.member.untrack()
  expect((await on.channels.present(caller('ann'), room().channel, { after: null, limit: 10 })).count).toBe(0)
})

test('[P3] a kick ends the places that it concerns', async () => {
  const on = bench([])
  const [ann, bob] = [await enter(on, caller('ann')), await enter(on, caller('bob'))]
  on.channels.kick({ sub: 'bob', topic: null, connection: null }, new TidegateError('KICKED', 'an operator said so'))
  await ann.member.send(said(1))
  await turns()
  expect([bob.outlet.error, bob.outlet.got]).toEqual([expect.objectContaining({ code: 'KICKED' }), []])
  expect(ann.outlet.error).toBe(null)
})
