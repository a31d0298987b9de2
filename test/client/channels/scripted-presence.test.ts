// Who is there, on the wire: what a client says of itself, and what it is told of others.
import { expect, test } from 'vitest'
import { eventually } from '../../support/eventually.ts'
import { at, type Peer } from '../scripted-server.ts'
import { letIn, message, person, start, welcomed } from './scripted-room.ts'

test('who is there is told by the join after a reconnect, and again by `track` where that changed meanwhile', async () => {
  await using run = await start()
  const { presence } = run.tide.channel('room:1')
  const tracked = presence.track({ n: 1 })
  const first = await welcomed(run)
  expect(await letIn(first)).not.toHaveProperty('track')
  const { ref } = await first.next('track')
  first.send({ type: 'tracked', id: 1, ref: ref! })
  await tracked
  first.cut()
  const second = await welcomed(run)
  expect(await letIn(second)).toMatchObject({ track: { meta: { n: 1 } } })
  second.cut()
  const third = run.server.peer()
  const changed = presence.update({ n: 2 })
  await (await third).welcome()
  // What the server knows may be out of date, and is told in its turn.
  await letIn(await third)
  const update = await (await third).next('track')
  expect(update.meta).toEqual({ n: 2 })
  ;(await third).send({ type: 'tracked', id: 1, ref: update.ref! })
  await changed
  const gone = presence.untrack()
  const untrack = await (await third).next('untrack')
  ;(await third).send({ type: 'tracked', id: 1, ref: untrack.ref! })
  await gone
  await (await third).next('unsubscribe')
})

test('who is to be there no more, said while away, comes back as what it was and goes at once; where that is refused it has gone', async () => {
  await using run = await start()
  const room = run.tide.channel('room:1')
  room.on('*', () => {})
  const there = async (peer: Peer): Promise<void> => {
    const tracked = room.presence.track({ n: 1 })
    const { ref, id } = (await peer.next('track')) as { ref: number; id: number }
    peer.send({ type: 'tracked', id, ref })
    await tracked
  }
  const first = await welcomed(run)
  await letIn(first)
  await there(first)
  first.cut()
  await eventually(() => expect(room.status).toBe('offline'))
  const gone = room.presence.untrack()
  const second = await welcomed(run)
  expect(await letIn(second)).toMatchObject({ track: { meta: { n: 1 } } })
  const untrack = await second.next('untrack')
  second.send({ type: 'tracked', id: untrack.id, ref: untrack.ref! })
  await gone
  await there(second)
  second.cut()
  await eventually(() => expect(room.status).toBe('offline'))
  const goneToo = room.presence.untrack()
  const third = await welcomed(run)
  const { id } = await third.next('join')
  third.send({ type: 'error', id, code: 'SEND_REFUSED', message: 'not as that', retry: false })
  await goneToo
  expect(await letIn(third)).not.toHaveProperty('track')
  await eventually(() => expect(room.status).toBe('live'))
})

test('of several who are there the one that spoke last counts, and the one before when it goes', async () => {
  await using run = await start()
  const [one, two] = [run.tide.channel('room:1').presence, run.tide.channel('room:1').presence]
  const done = [one.track(1), two.track(2)]
  const peer = await welcomed(run)
  await letIn(peer)
  const answer = async (): Promise<unknown> => {
    const { meta, ref } = await peer.next('track')
    peer.send({ type: 'tracked', id: 1, ref: ref! })
    return meta
  }
  expect(await answer()).toBe(2)
  await Promise.all(done)
  const back = two.untrack()
  expect(await answer()).toBe(1)
  await back
})

test('[P3] what one may be there as no more ends that alone, not the place in the channel', async () => {
  await using run = await start()
  const room = run.tide.channel('room:1')
  const heard: unknown[] = []
  room.on('say', ({ payload }) => heard.push(payload))
  const tracked = room.presence.track(1)
  const first = await welcomed(run)
  await letIn(first)
  first.send({ type: 'tracked', id: 1, ref: (await first.next('track')).ref! })
  await tracked
  first.cut()
  const second = await welcomed(run)
  expect(await letIn(second, { resumed: true })).toHaveProperty('track')
  second.send({ type: 'error', id: 1, code: 'SEND_REFUSED', message: 'not any more', retry: false })
  expect(await letIn(second, { resumed: true })).not.toHaveProperty('track')
  second.send(message(5, 5))
  await eventually(() => expect(heard).toEqual([5]))
  expect(run.errors).toMatchObject([{ code: 'SEND_REFUSED' }])
})

test('[P8] over a transport that brings it with the next join, what may not be told of oneself is rejected, and the place taken again', async () => {
  await using run = await start()
  const room = run.tide.channel('room:1')
  room.join()
  const tracked = expect(room.presence.track(1)).rejects.toMatchObject({ code: 'PRESENCE_OFF' })
  const peer = await welcomed(run)
  await letIn(peer)
  await peer.next('track')
  peer.send({ type: 'error', id: 1, code: 'PRESENCE_OFF', message: 'the rule allows none', retry: false })
  await tracked
  expect(await letIn(peer)).toEqual({ type: 'join', id: 2, topic: 'room:1', since: `${at(1)}.tag` })
  await eventually(() => expect(room.status).toBe('live'))
  expect(run.errors).toEqual([])
})

test('a leave of somebody who was not there starts the channel over, without a loss', async () => {
  await using run = await start()
  const room = run.tide.channel('room:1')
  const told: string[][] = []
  room.presence.subscribe(({ here }) => told.push(here.map(({ key }) => key)))
  const peer = await welcomed(run)
  await letIn(peer)
  peer.send({ type: 'presence', channel: 12, here: [person('ann')], count: 1, position: at(4) })
  await eventually(() => expect(told).toEqual([['ann']]))
  peer.send({ type: 'presence', channel: 12, left: [person('bob')], count: 1 })
  await peer.next('unsubscribe')
  expect(await letIn(peer, { resumed: true })).toMatchObject({ presence: true, since: `${at(4)}.tag` })
  expect(room.presence.state).toMatchObject({ isCurrent: false, count: 1 })
  peer.send({ type: 'presence', channel: 12, here: [person('ann'), person('bob')], count: 2 })
  await eventually(() => expect(room.presence.count).toBe(2))
  expect(String(run.errors)).toContain('bob left, and was not there')
  // Who comes later is told at once.
  const late: number[] = []
  room.presence.subscribe(({ count }) => late.push(count))
  expect(late).toEqual([2])
})
