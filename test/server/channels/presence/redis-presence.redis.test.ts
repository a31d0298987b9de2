import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { PresenceMirror } from '../../../../src/server/channels/presence/presence-mirror.ts'
import { type RedisProcess, startRedis, until } from '../../../support/redis-process.ts'
import { expectWithin } from '../../../support/within.ts'
import { PresenceProcess } from './presence-process.ts'
import { connectionsOf, draft, newChannel, promisesOfPresence, rule } from './presence-suite.ts'
import { openEar, startPresenceNode, startRedisWorld } from './redis-presence-world.ts'

let redis: RedisProcess
beforeAll(async () => {
  redis = await startRedis()
})
afterAll(() => redis[Symbol.asyncDispose]())

describe('presence of two nodes, in Redis', () => promisesOfPresence(() => startRedisWorld(redis.url, randomUUID())))

// From here on side by side: they wait for leases and graces to end.
const leaseMs = 1000
const long = { ...rule, graceMs: 60_000 }

test.concurrent('the members of a node that is killed leave once, within lease and grace, told by one of the living', async () => {
  const name = randomUUID()
  using ear = openEar(redis.url, name)
  await using one = await startPresenceNode(redis.url, name)
  await using two = await startPresenceNode(redis.url, name)
  await using victim = await PresenceProcess.start(redis.url, name)
  const rooms = await Promise.all(
    Array.from({ length: 40 }, async () => {
      const channel = newChannel()
      return { channel, heard: await ear.hear(channel) }
    }),
  )
  await Promise.all(
    rooms.flatMap(({ channel }) => [
      victim.track(channel, [draft('v1'), draft('v2', 'ann')], rule),
      one.store.track(channel, draft('o', 'ann'), rule),
      two.store.track(channel, draft('t'), rule),
    ]),
  )
  await victim.kill()
  const killedMs = performance.now()
  for (const { heard } of rooms) await heard.until(({ left }) => left.length === 2, 'the leaves')
  // The lease, the time until the next look, and scheduling.
  expectWithin(performance.now() - killedMs, leaseMs + rule.graceMs + 1000)
  await sleep(2 * leaseMs)
  for (const { channel, heard } of rooms) {
    expect(connectionsOf(heard.left)).toEqual(['v1', 'v2'])
    expect(connectionsOf((await one.store.list(channel)).entries)).toEqual(['o', 't'])
    expect(connectionsOf(heard.here.values())).toEqual(['o', 't'])
  }
})

test.concurrent('the grace goes on when the node that had the entries is killed, and when it closes', async () => {
  const name = randomUUID()
  using ear = openEar(redis.url, name)
  await using living = await startPresenceNode(redis.url, name)
  await using victim = await PresenceProcess.start(redis.url, name)
  await using closing = await startPresenceNode(redis.url, name)
  const [killed, closed] = [newChannel(), newChannel()]
  const [heardKilled, heardClosed] = [await ear.hear(killed), await ear.hear(closed)]
  const grace = { ...rule, graceMs: 4 * leaseMs }
  await victim.track(
    killed,
    [draft('v1', 'ann'), draft('v2', 'bob'), draft('not broken', 'cy'), draft('gone', 'dan')],
    grace,
  )
  await victim.untrack(killed, 'v1', 'broken')
  await victim.untrack(killed, 'v2', 'broken')
  for (const [connection, user] of [
    ['c1', 'ann'],
    ['c2', 'bob'],
  ] as const) {
    await closing.store.track(closed, draft(connection, user), grace)
    await closing.store.untrack(closed, connection, 'broken')
  }
  const brokeMs = performance.now()
  await victim.kill()
  await closing.store.close()
  await sleep(1.5 * leaseMs)
  // Of one that did not break before its node died too, for as long after that was heard last.
  for (const user of ['ann', 'cy']) await living.store.track(killed, draft(`back ${user}`, user), grace)
  await living.store.track(closed, draft('back ann', 'ann'), grace)
  await heardKilled.until(({ left }) => left.length === 2, 'those who did not come back')
  await heardClosed.until(({ left }) => left.length === 1, 'who did not come back')
  expect(performance.now() - brokeMs).toBeGreaterThan(grace.graceMs - 100)
  expectWithin(performance.now() - brokeMs, grace.graceMs + 2 * leaseMs)
  expect(connectionsOf(heardKilled.left)).toEqual(['gone', 'v2'])
  expect(connectionsOf(heardKilled.updated)).toEqual(['back ann', 'back cy'])
  expect(heardKilled.joined).toHaveLength(4)
  expect(connectionsOf(heardClosed.left)).toEqual(['c2'])
  expect(heardClosed.joined).toHaveLength(2)
})

test.concurrent('a node that was counted dead and wakes up enters its members again, and knows who came back elsewhere', async () => {
  const name = randomUUID()
  using ear = openEar(redis.url, name)
  await using living = await startPresenceNode(redis.url, name)
  await using sleeper = await PresenceProcess.start(redis.url, name)
  const channel = newChannel()
  const heard = await ear.hear(channel)
  await sleeper.track(channel, [draft('s1'), draft('s2')], rule)
  await sleeper.track(channel, [draft('moved', 'ann')], long)
  sleeper.pause()
  await heard.until(({ left }) => left.length === 2, 'the leaves')
  await living.store.track(channel, draft('elsewhere', 'ann'), long)
  sleeper.resume()
  await heard.until(({ here }) => here.size === 4, 'all to be back')
  expect(connectionsOf(heard.here.values())).toEqual(['elsewhere', 'moved', 's1', 's2'])
  const refs = (await living.store.list(channel)).entries.map(({ ref }) => ref)
  expect(new Set(refs).size).toBe(4)
  expect(new Set(refs)).toEqual(new Set(heard.here.keys()))
  // Its new life is kept like the first, and what is left of the first is nobody's.
  await sleep(3 * leaseMs)
  expect(heard.left).toHaveLength(2)
  await sleeper.kill()
  await heard.until(({ here }) => here.size === 2, 'the leaves of the dead')
  expect(connectionsOf(heard.here.values())).toEqual(['elsewhere', 'moved'])
  await heard.until(({ left }) => left.length === 4, 'only those without a long grace')
})

test.concurrent('a Redis that comes back empty has all members again within a lease, under their refs; another epoch tells who looks on', async () => {
  await using own = await startRedis()
  const name = randomUUID()
  using ear = openEar(own.url, name)
  await using a = await startPresenceNode(own.url, name, 5000)
  await using b = await startPresenceNode(own.url, name, 5000)
  const channels = Array.from({ length: 50 }, newChannel)
  for (const channel of channels) {
    await Promise.all([
      a.store.track(channel, draft('a1'), { ...long, diffMs: 0 }),
      b.store.track(channel, draft('b1'), { ...long, diffMs: 0 }),
    ])
  }
  const before = await Promise.all(channels.map(channel => a.store.list(channel)))
  const heard = await ear.hear(channels[0]!)
  const changes: string[] = []
  const mirror = new PresenceMirror({
    store: a.store,
    channel: channels[0]!,
    rule,
    onChange: ({ kind }) => changes.push(kind),
  })
  const take = heard.take.bind(heard)
  heard.take = diff => {
    take(diff)
    mirror.take(diff)
  }
  mirror.interrupted()
  await until(async () => mirror.here() !== null, 'the mirror')
  await own.kill()
  await own.start('empty')
  const emptyMs = performance.now()
  await until(
    async () => (await Promise.all(channels.map(channel => b.store.list(channel)))).every(({ count }) => count === 2),
    'all members',
  )
  expectWithin(performance.now() - emptyMs, 5000)
  const after = await Promise.all(channels.map(channel => b.store.list(channel)))
  expect(after.map(({ entries }) => entries)).toEqual(before.map(({ entries }) => entries))
  for (const [place, list] of after.entries()) expect(list.epoch).not.toBe(before[place]!.epoch)
  // The ear may have been connected again too late for the first diffs; the relay says `interrupted` for that.
  mirror.interrupted()
  await until(async () => mirror.here()!.count === 2, 'the mirror')
  expect(new Set(mirror.here()!.entries)).toEqual(new Set(before[0]!.entries))
  await a.store.track(channels[0]!, draft('a2'), rule)
  await until(async () => mirror.here()!.count === 3, 'the mirror to go on')
  expect(changes[0]).toBe('here')
  mirror.close()
})

test.concurrent('a Redis that comes back as it was before is brought in line, under another epoch', async () => {
  await using own = await startRedis({ appendonly: true })
  const name = randomUUID()
  await using a = await startPresenceNode(own.url, name)
  await using b = await startPresenceNode(own.url, name)
  const channel = newChannel()
  await a.store.track(channel, draft('stays'), rule)
  await a.store.track(channel, draft('leaves'), rule)
  await b.store.track(channel, draft('leaves too'), rule)
  const copy = await own.save()
  await a.store.untrack(channel, 'leaves', 'gone')
  await b.store.untrack(channel, 'leaves too', 'gone')
  await a.store.track(channel, draft('comes'), rule)
  await a.store.track(channel, draft('stays', 'stays', '"newer"'), rule)
  const before = await a.store.list(channel)
  await own.kill()
  await own.start(copy)
  await until(async () => {
    const { entries } = await a.store.list(channel)
    return JSON.stringify(entries) === JSON.stringify(before.entries)
  }, 'the true list')
  await sleep(2 * leaseMs)
  const after = await a.store.list(channel)
  expect(after.entries).toEqual(before.entries)
  expect(after.epoch).not.toBe(before.epoch)
})

test.concurrent('while Redis is away track fails, nobody leaves for it, and who was to leave meanwhile has left when it is back', async () => {
  await using own = await startRedis({ appendonly: true })
  const name = randomUUID()
  using ear = openEar(own.url, name)
  await using a = await startPresenceNode(own.url, name)
  await using b = await startPresenceNode(own.url, name)
  const channel = newChannel()
  const heard = await ear.hear(channel)
  await Promise.all(['stays', 'goes', 'breaks', 'updates'].map(one => a.store.track(channel, draft(one), rule)))
  await b.store.track(channel, draft('b'), rule)
  await own.kill()
  const unavailable = { code: 'UNAVAILABLE' }
  await expect(a.store.track(channel, draft('fails'), rule)).rejects.toMatchObject(unavailable)
  await expect(a.store.track(channel, draft('updates', 'updates', '1'), rule)).rejects.toMatchObject(unavailable)
  await expect(a.store.untrack(channel, 'goes', 'gone')).rejects.toMatchObject(unavailable)
  await expect(a.store.untrack(channel, 'breaks', 'broken')).rejects.toMatchObject(unavailable)
  await expect(a.store.list(channel)).rejects.toMatchObject(unavailable)
  await a.store.untrack(channel, 'fails', 'gone')
  // Not awaited, and no unhandled rejection.
  void a.store.track(newChannel(), draft('x'), rule).catch(() => {})
  void a.store.untrack(channel, 'stays', 'broken')
  void a.store.track(channel, draft('stays'), rule).catch(() => {})
  await sleep(2.5 * leaseMs)
  await own.start()
  await until(async () => (await b.store.list(channel)).count === 2, 'those who went to be gone')
  await sleep(2 * leaseMs)
  const { entries } = await b.store.list(channel)
  expect(entries.map(({ connection, meta }) => [connection, meta]).sort()).toEqual([
    ['b', '{}'],
    ['updates', '{}'],
  ])
  expect(connectionsOf(heard.joined)).not.toContain('fails')
  // They live as before.
  await a.store.track(channel, draft('new'), rule)
  expect((await b.store.list(channel)).count).toBe(3)
})

test.concurrent('[P7] calls that a Redis that stood carries out late, after newer ones, are not carried out', async () => {
  await using own = await startRedis()
  const name = randomUUID()
  await using a = await startPresenceNode(own.url, name)
  const channel = newChannel()
  await a.store.track(channel, draft('first'), long)
  for (let round = 0; round < 3; round += 1) {
    own.pause()
    const tracked = a.store.track(channel, draft(`late ${round}`), long)
    await expect(tracked).rejects.toMatchObject({ code: 'UNAVAILABLE' })
    own.resume()
    await until(async () => {
      await a.store.track(channel, draft(`later ${round}`), long)
      return true
    }, 'Redis')
    await a.store.untrack(channel, `later ${round}`, 'gone')
    await until(async () => (await a.store.list(channel)).count === 1, 'what failed to be gone')
  }
  await sleep(leaseMs)
  expect(connectionsOf((await a.store.list(channel)).entries)).toEqual(['first'])
})

test.concurrent('[P7] nothing is left in Redis of channels that everybody left, but the number of the last diff for a while', async () => {
  await using own = await startRedis()
  const name = randomUUID()
  await using a = await startPresenceNode(own.url, name)
  await using b = await startPresenceNode(own.url, name)
  const channels = Array.from({ length: 20 }, newChannel)
  const keysLeft = async (): Promise<string[]> => ((await own.ask('KEYS', '*')) as string[]).sort()
  for (const channel of channels) {
    await a.store.track(channel, draft('a1', 'ann'), rule)
    await a.store.untrack(channel, 'a1', 'broken')
    await b.store.track(channel, draft('b1', 'ann'), rule)
    await b.store.untrack(channel, 'b1', 'gone')
  }
  await until(async () => (await keysLeft()).every(key => /:here:(head|turn:\w+)$|\}:presence$/.test(key)), 'the rest')
  for (const key of await keysLeft())
    if (!key.endsWith(':presence')) expect(Number(await own.ask('PTTL', key))).toBeGreaterThan(0)
  await a.store.close()
  await b.store.close()
  expect(await own.ask('EXISTS', `{${name}}:presence`)).toBe(0)
})

test.concurrent('connections that are made anew before Redis takes writes again take nobody out for good', async () => {
  await using own = await startRedis({ settings: { 'maxmemory-policy': 'noeviction' } })
  await using node = await startPresenceNode(own.url, randomUUID())
  const channel = newChannel()
  await node.store.track(channel, draft('stays'), rule)
  const connection = async (): Promise<string | undefined> =>
    /id=(\d+) .*name=presence/.exec(String(await own.ask('CLIENT', 'LIST')))?.[1]
  const refused = async (): Promise<number> =>
    Number(/errorstat_OOM:count=(\d+)/.exec(String(await own.ask('INFO', 'errorstats')))?.[1] ?? 0)
  await own.ask('CONFIG', 'SET', 'maxmemory', '1')
  // Each time Redis may be another one, and the node cannot begin anew in it yet.
  for (let round = 0; round < 3; round += 1) {
    const before = await connection()
    await own.ask('CLIENT', 'KILL', 'TYPE', 'normal')
    await until(async () => ![undefined, before].includes(await connection()), 'another connection')
    const count = await refused()
    await until(async () => (await refused()) > count + 1, 'its renewal to be refused')
  }
  await own.ask('CONFIG', 'SET', 'maxmemory', '0')
  // What it wrote in its former life is swept when the lease of that is over.
  await sleep(4 * leaseMs)
  expect(connectionsOf((await node.store.list(channel)).entries)).toEqual(['stays'])
})
