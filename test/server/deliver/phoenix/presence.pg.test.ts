// Presence of a whole node, as Supabase's clients hold it, over sockets that break.
import { createClient } from '@supabase/supabase-js'
import { createClient as createOldClient } from 'supabase-js-2025'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { channelPolicies } from '../../../support/channel-client.ts'
import { eventually } from '../../../support/eventually.ts'
import { FaultProxy } from '../../../support/fault-proxy.ts'
import { person, prepareDatabase, roomsSchema, TestNode, tokenFor } from '../../../support/node.ts'
import { TestDatabase } from '../../../support/postgres.ts'

let database: TestDatabase
let node: TestNode

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, roomsSchema + channelPolicies, ['rooms', 'members', 'messages'])
  const small = { pattern: 'small*', public: true, presence: { listUpTo: 1 } }
  node = await TestNode.start(database.url, { CHANNELS: JSON.stringify([small]) })
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

describe.each([
  ['of today', createClient as unknown as typeof createOldClient],
  ['of a year ago', createOldClient],
])('the client %s', (year, create) => {
  async function join(topic: string, key: string, url = node.url) {
    const token = await tokenFor(person())
    const client = create(url, token, { auth: { persistSession: false } })
    await client.realtime.setAuth(token)
    const channel = client.channel(topic, { config: { presence: { key } } })
    const [told, systems]: [string[], string[]] = [[], []]
    channel
      .on('presence', { event: 'join' }, ({ key }) => told.push(`join ${key}`))
      .on('presence', { event: 'leave' }, ({ key }) => told.push(`leave ${key}`))
      .on('presence', { event: 'sync' }, () => told.push('sync'))
      .on('system', {}, (message: { message: string }) => systems.push(message.message))
    let joins = 0
    channel.subscribe(status => {
      if (status === 'SUBSCRIBED') joins += 1
    })
    await eventually(() => expect(joins).toBe(1))
    return {
      channel,
      told,
      systems,
      /** Without what the server adds. */
      get listed() {
        const entries = Object.entries(channel.presenceState())
        return Object.fromEntries(
          entries.map(([key, list]) => [key, list.map(({ presence_ref: _, ...meta }) => meta as object)]),
        )
      },
      get joins() {
        return joins
      },
      [Symbol.dispose]: () => void client.realtime.disconnect(),
    }
  }

  test('is told of an update as a join, and sees nobody leave', async () => {
    const topic = `lobby:update:${year}`
    using ann = await join(topic, 'ann')
    using bob = await join(topic, 'bob')
    expect(await ann.channel.track({ n: 1 })).toBe('ok')
    await eventually(() => expect(bob.listed).toEqual({ ann: [{ n: 1 }] }))
    bob.told.length = 0
    await ann.channel.track({ n: 2 })
    await eventually(() => expect(bob.listed).toEqual({ ann: [{ n: 2 }] }))
    expect(bob.told).toEqual(['join ann', 'sync'])
    expect(await ann.channel.untrack()).toBe('ok')
    await eventually(() => expect(bob.listed).toEqual({}))
    expect(bob.told.slice(2)).toEqual(['leave ann', 'sync'])
  })

  test('holds after it was away what the others told of themselves meanwhile', async () => {
    const topic = `lobby:away:${year}`
    using ann = await join(topic, 'ann')
    await using proxy = await FaultProxy.before(node.url)
    using bob = await join(topic, 'bob', proxy.url)
    using cleo = await join(topic, 'cleo')
    await ann.channel.track({ n: 1 })
    await cleo.channel.track({ n: 1 })
    await eventually(() => expect(bob.listed).toEqual({ ann: [{ n: 1 }], cleo: [{ n: 1 }] }))
    proxy.link.isRefusing = true
    proxy.link.cut()
    await ann.channel.track({ n: 2 })
    await cleo.channel.untrack()
    proxy.link.isRefusing = false
    await eventually(() => expect(bob.joins).toBe(2))
    await eventually(() => expect(bob.listed).toEqual({ ann: [{ n: 2 }] }))
  })

  test.each([
    ['over the same socket', true],
    ['over another', false],
  ])('that leaves a channel and joins it again %s is told once of each who is there', async (_, isSocketKept) => {
    const topic = `lobby:again:${isSocketKept}:${year}`
    using ann = await join(topic, 'ann')
    await ann.channel.track({ n: 1 })
    const token = await tokenFor(person())
    const client = create(node.url, token, { auth: { persistSession: false } })
    await client.realtime.setAuth(token)
    // The last channel that goes takes the socket with it, in the client.
    if (isSocketKept) client.channel(`${topic}:other`).subscribe()
    for (let round = 0; round < 2; round++) {
      const told: string[] = []
      let isMarked = false
      const channel = client
        .channel(topic)
        .on('presence', { event: 'join' }, ({ key }) => told.push(key))
        .on('broadcast', { event: 'mark' }, () => {
          isMarked = true
        })
      channel.subscribe()
      await eventually(() => expect(told.length).toBeGreaterThan(0))
      await ann.channel.send({ type: 'broadcast', event: 'mark', payload: {} })
      await eventually(() => expect(isMarked).toBe(true))
      expect(told).toEqual(['ann'])
      await client.removeChannel(channel)
      await eventually(() => expect(client.realtime.isDisconnecting()).toBe(false))
    }
    await client.realtime.disconnect()
  })

  test('is told of nobody, and why, while more are there than the rule lists, and of all once they are fewer', async () => {
    const topic = `small:${year}`
    using ann = await join(topic, 'ann')
    using bob = await join(topic, 'bob')
    await ann.channel.track({})
    await eventually(() => expect(bob.listed).toEqual({ ann: [{}] }))
    await bob.channel.track({})
    await eventually(() => expect(bob.systems).toContainEqual(expect.stringMatching(/^PresenceNotListed: 2 are here/)))
    expect(bob.listed).toEqual({})
    await ann.channel.untrack()
    await eventually(() => expect(bob.listed).toEqual({ bob: [{}] }))
  })
})
