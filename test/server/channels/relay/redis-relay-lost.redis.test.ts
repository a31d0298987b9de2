// What Redis loses of channels when it ends, and how that is told: no number is given twice in an epoch.
import * as fc from 'fast-check'
import { expect, test } from 'vitest'
import { goesOn, type Published } from '../../../../src/server/channels/message.ts'
import type { Standing } from '../../../../src/server/channels/relay/channel-relay.ts'
import { FaultyLink } from '../../../support/faulty-link.ts'
import { startRedis } from '../../../support/redis-process.ts'
import { bare, draftOf, Ear, kept, keyOf, listen, RelayNode, readAll, underKey } from './relay-world.ts'

const key = keyOf('room:1')

/** Tries until Redis is back. */
async function publish(node: RelayNode, payload: string, options = kept): Promise<Published> {
  for (;;)
    try {
      return await node.relay.publish(draftOf('room:1', payload), options)
    } catch (error) {
      expect(error).toMatchObject({ code: 'UNAVAILABLE' })
      await new Promise(resolve => setTimeout(resolve, 20))
    }
}

test('[P4] a Redis that restarts with all it had: numbers and history go on, and who was there knows that nothing is missing', async () => {
  await using redis = await startRedis({ appendonly: true })
  await using node = new RelayNode(redis.url, 'n1')
  const ear = await listen(node.relay, 'room:1')
  for (const payload of ['1', '2', '3']) await publish(node, payload)
  const before = await node.relay.standing(key)
  await redis.kill()
  await redis.start()
  await publish(node, '4')
  const now = await node.relay.standing(key)
  expect(now.seq).toBe(4n)
  expect(now.epoch).not.toBe(before.epoch)
  expect(now.before).toEqual([{ epoch: before.epoch, seq: 3n }])
  for (const seq of [0n, 1n, 2n, 3n]) expect(goesOn({ epoch: before.epoch, seq }, now)).toBe(true)
  expect((await readAll(node.relay, 'room:1')).map(({ payload }) => payload)).toEqual(['1', '2', '3', '4'])
  await expect.poll(() => ear.interruptions).toBe(1)
  const { seq } = await publish(node, '5')
  await expect.poll(() => ear.messages.at(-1)?.seq).toBe(seq)
  // A message itself says from which epochs its numbers go on.
  expect(ear.messages.at(-1)!.before).toEqual(now.before)
  expect(await publish(node, '6', underKey('k'))).toMatchObject({ seq: 6n, isDuplicate: false })
  await redis.kill()
  await redis.start()
  expect(await publish(node, '6', underKey('k'))).toMatchObject({ epoch: now.epoch, seq: 6n, isDuplicate: true })
})

test('[P4] a Redis that restarts empty: numbers begin anew in an epoch that goes on from none', async () => {
  await using redis = await startRedis()
  await using node = new RelayNode(redis.url, 'n1')
  const ear = await listen(node.relay, 'room:1')
  for (const payload of ['1', '2', '3']) await publish(node, payload)
  const before = await node.relay.standing(key)
  await expect.poll(() => ear.payloads).toEqual(['1', '2', '3'])
  await redis.kill()
  await redis.start('empty')
  await expect.poll(() => ear.interruptions).toBe(1)
  const first = await publish(node, '4')
  expect(first.seq).toBe(1n)
  const now = await node.relay.standing(key)
  expect(now.before).toEqual([])
  for (const seq of [0n, 1n, 3n]) expect(goesOn({ epoch: before.epoch, seq }, now)).toBe(false)
  await expect.poll(() => ear.payloads).toEqual(['1', '2', '3', '4'])
  expect((await readAll(node.relay, 'room:1')).map(({ payload }) => payload)).toEqual(['4'])
})

test('[P4] a Redis that comes back without its newest messages gives no number of an epoch again, though nobody who knows them is left', async () => {
  await using redis = await startRedis({ appendonly: true })
  const given = new Map<string, string>()
  const standings: Standing[] = []
  const give = async (node: RelayNode, count: number): Promise<void> => {
    for (let n = 0; n < count; n += 1) {
      const payload = `${given.size}`
      const { epoch, seq } = await publish(node, payload, n % 2 === 0 ? kept : underKey(payload))
      expect(given.get(`${epoch} ${seq}`)).toBeUndefined()
      given.set(`${epoch} ${seq}`, payload)
    }
    standings.push(await node.relay.standing(key))
  }
  // Each time another node, which knows nothing of the one before.
  const during = async (use: (node: RelayNode) => Promise<void>): Promise<void> => {
    await using node = new RelayNode(redis.url, 'n1')
    await use(node)
  }
  await during(node => give(node, 10))
  const copy = await redis.save()
  for (let round = 0; round < 3; round += 1) {
    await during(node => give(node, 5))
    await redis.kill()
    await redis.start(copy)
  }
  await during(async node => {
    const lost = standings.slice(1)
    const first = standings[0]!
    await give(node, 10)
    const now = await node.relay.standing(key)
    expect(now.seq).toBe(20n)
    expect(goesOn(first, now)).toBe(true)
    // They ended past where it came back: what they had is gone, though as many have come since.
    expect(lost.map(({ seq }) => seq)).toEqual([15n, 15n, 15n])
    for (const standing of lost) expect(goesOn(standing, now)).toBe(false)
    expect(goesOn({ epoch: first.epoch, seq: 11n }, now)).toBe(false)
    expect((await readAll(node.relay, 'room:1')).length).toBe(20)
  })
})

test('[P4] who asks before anything is published again is told the new epoch at once', async () => {
  await using redis = await startRedis({ appendonly: true })
  await using node = new RelayNode(redis.url, 'n1')
  await publish(node, '1')
  const copy = await redis.save()
  await publish(node, '2')
  const before = await node.relay.standing(key)
  await redis.kill()
  await redis.start(copy)
  await expect.poll(() => node.relay.standing(key).catch(() => null)).not.toBeNull()
  const [now, page] = await Promise.all([node.relay.standing(key), node.relay.read(key, { after: 0n, limit: 10 })])
  expect(now).toMatchObject({ seq: 1n, before: [{ epoch: before.epoch, seq: 1n }] })
  expect(page).toMatchObject({ ...now, first: 1n })
  expect(goesOn(before, now)).toBe(false)
  expect(await publish(node, '2 again')).toMatchObject({ epoch: now.epoch, seq: 2n })
})

test('[P4] a replica that is promoted without the newest messages begins another epoch, and so does the old master when it is promoted again', async () => {
  await using master = await startRedis()
  await using replica = await startRedis({ replicaOf: master })
  await replica.synced()
  await expect.poll(() => master.isConfirmedBy(1)).toBe(true)
  await using link = await FaultyLink.to(master.url)
  await using node = new RelayNode(link.url, 'n1')
  for (const payload of ['1', '2']) await publish(node, payload)
  await expect.poll(() => master.isConfirmedBy(1)).toBe(true)
  await replica.lag()
  const lost = await publish(node, '3')
  await replica.promote()
  // Nothing is published meanwhile, and the old master has followed: it has forgotten the third message too.
  await master.follow(replica)
  await master.synced()
  await replica.ask('SET', 'any', '1')
  await expect.poll(() => replica.isConfirmedBy(1)).toBe(true)
  await master.promote()
  link.cut()
  const again = await publish(node, '3 again')
  expect(again.seq).toBe(lost.seq)
  expect(again.epoch).not.toBe(lost.epoch)
  expect(goesOn(lost, await node.relay.standing(key))).toBe(false)
})

test('a history that lost its counter, or ends elsewhere, is not read as if it were whole', async () => {
  await using redis = await startRedis()
  await using node = new RelayNode(redis.url, 'n1')
  for (const payload of ['1', '2', '3']) await publish(node, payload)
  await redis.ask('DEL', '{tide/private%2Froom%3A1}:meta')
  expect((await publish(node, '4')).seq).toBe(1n)
  expect((await readAll(node.relay, 'room:1')).map(({ payload }) => payload)).toEqual(['4'])
  await redis.ask('XADD', '{tide/private%2Froom%3A1}:log', '9-0', 't', '1', 'm', '{}\n')
  expect((await publish(node, '5')).seq).toBe(2n)
  expect(await node.relay.read(key, { after: 0n, limit: 9 })).toMatchObject({
    seq: 2n,
    first: 2n,
    messages: [{ payload: '5' }],
  })
})

type Step =
  | { readonly kind: 'publish'; readonly node: number; readonly count: number; readonly hasKey: boolean }
  | { readonly kind: 'cut'; readonly link: number }
  | { readonly kind: 'restart' }

const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({
        kind: fc.constant('publish' as const),
        node: fc.nat(1),
        count: fc.integer({ min: 1, max: 8 }),
        hasKey: fc.boolean(),
      }),
    },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant('cut' as const), link: fc.nat(3) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('restart' as const) }) },
  ),
  { minLength: 5, maxLength: 25 },
)

test('[P4][P5] whoever publishes on whichever of two nodes, tries again under its key, and is cut: each acknowledged message is in the history once, under its number, without a hole', async () => {
  await using redis = await startRedis({ appendonly: true })
  let run = 0
  await fc.assert(
    fc.asyncProperty(steps, async plan => {
      run += 1
      await using commands = await FaultyLink.to(redis.url)
      await using others = await FaultyLink.to(redis.url)
      await using heard = await FaultyLink.to(redis.url)
      await using alsoHeard = await FaultyLink.to(redis.url)
      const links = [commands, others, heard, alsoHeard]
      await using a = new RelayNode(commands.url, 'n1', { name: `t${run}`, subscriberUrl: heard.url })
      await using b = new RelayNode(others.url, 'n2', { name: `t${run}`, subscriberUrl: alsoHeard.url })
      const ears = await Promise.all([a, b].map(({ relay }) => listen(relay, 'room:1')))
      const options = (payload: string, hasKey: boolean) =>
        hasKey ? underKey(payload, { ...kept, history: { length: 10_000, ageMs: 600_000 } }) : kept
      const acknowledged = new Map<string, Published>()
      const unknown = new Set<string>()
      const under: Promise<void>[] = []
      let sent = 0
      const send = async (node: RelayNode, payload: string, hasKey: boolean): Promise<void> => {
        for (let attempt = 0; attempt < 200; attempt += 1)
          try {
            acknowledged.set(payload, await node.relay.publish(draftOf('room:1', payload), options(payload, hasKey)))
            return
          } catch (error) {
            expect(error).toMatchObject({ code: 'UNAVAILABLE' })
            // Without a key it is not known whether it was published.
            if (!hasKey) return void unknown.add(payload)
            await new Promise(resolve => setTimeout(resolve, 20))
          }
        throw new Error('Redis did not come back')
      }
      for (const step of plan) {
        if (step.kind === 'publish')
          for (let n = 0; n < step.count; n += 1) {
            sent += 1
            under.push(send(step.node === 0 ? a : b, `${sent}`, step.hasKey))
          }
        else if (step.kind === 'cut') links[step.link]!.cut()
        else {
          await redis.kill()
          await redis.start()
        }
        await new Promise(resolve => setTimeout(resolve, 2))
      }
      await Promise.all(under)
      const last = await publish(a, 'last')
      const history = await readAll(a.relay, 'room:1', 0n, 100)
      expect(history.map(({ seq }) => seq)).toEqual(history.map((_, n) => BigInt(n + 1)))
      expect(history.at(-1)!.seq).toBe(last.seq)
      const places = new Map(history.map(({ payload, seq }) => [payload, seq]))
      expect(places.size).toBe(history.length)
      for (const [payload, { seq }] of acknowledged) expect(places.get(payload)).toBe(seq)
      for (const payload of places.keys())
        expect(acknowledged.has(payload) || unknown.has(payload) || payload === 'last').toBe(true)
      // What was heard is of the history, under the same numbers, in order, each once; with it all acknowledged messages are whole.
      for (const ear of ears) {
        await expect.poll(() => ear.payloads.includes('last') || ear.interruptions > 0).toBe(true)
        expect(ear.seqs).toEqual([...new Set(ear.seqs)].sort((x, y) => Number(x - y)))
        for (const { payload, seq } of ear.messages) expect(places.get(payload)).toBe(seq)
        if (ear.interruptions === 0) expect(ear.seqs).toEqual(ear.seqs.map((_, n) => ear.seqs[0]! + BigInt(n)))
      }
    }),
    { numRuns: 12, endOnFailure: true },
  )
}, 120_000)

test('messages without a history keep their numbers over a restart with all data, and begin anywhere after one without', async () => {
  await using redis = await startRedis({ appendonly: true })
  await using node = new RelayNode(redis.url, 'n1')
  const ear = new Ear()
  await node.relay.listen(key, ear).ready
  const first = await publish(node, '1', bare)
  await redis.kill()
  await redis.start()
  const second = await publish(node, '2', bare)
  expect(second.seq).toBe(first.seq + 1n)
  expect(goesOn(first, await node.relay.standing(key))).toBe(true)
  await redis.kill()
  await redis.start('empty')
  const third = await publish(node, '3', bare)
  expect(goesOn(second, await node.relay.standing(key))).toBe(false)
  expect(third.seq).not.toBe(first.seq)
  expect(third.seq).not.toBe(second.seq + 1n)
})
