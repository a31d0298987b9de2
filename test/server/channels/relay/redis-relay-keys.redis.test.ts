// What channels leave in Redis, and for how long.
import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { channelKey } from '../../../../src/server/channels/message.ts'
import { ChannelNames } from '../../../../src/server/channels/relay/redis-keys.ts'
import { slotOf } from '../../../../src/server/redis/redis.ts'
import { type RedisProcess, startRedis, until } from '../../../support/redis-process.ts'
import { bare, draftOf, Ear, kept, keyOf, listen, RelayNode, underKey } from './relay-world.ts'

let redis: RedisProcess
let node: RelayNode
beforeAll(async () => {
  redis = await startRedis()
  node = new RelayNode(redis.url, 'n1')
  await until(async () => node.relay.isHearing, 'it hears')
})
afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await redis?.[Symbol.asyncDispose]()
})

/** How many milliseconds each key of a topic lives on, by what it is. */
async function livesOf(topic: string): Promise<Record<string, number>> {
  const lives: Record<string, number> = {}
  for (const key of (await redis.ask('KEYS', `*${encodeURIComponent(`/${topic}`)}}*`)) as string[])
    lives[key.slice(key.indexOf('}:') + 2)] = (await redis.ask('PTTL', key)) as number
  return lives
}

const minute = 60_000
const hour = 60 * minute
const day = 24 * hour

const about = (ms: number) => expect.toSatisfy((left: number) => left > ms - minute / 2 && left <= ms, `about ${ms}`)

test('[P7] a topic of one message that nobody hears is forgotten in a minute; where somebody is or was, in a day', async () => {
  const { relay } = node
  await relay.publish(draftOf('once'), bare)
  expect(await livesOf('once')).toEqual({ meta: about(minute) })

  const ear = await listen(relay, 'heard')
  await relay.publish(draftOf('heard'), bare)
  expect(await livesOf('heard')).toEqual({ meta: about(day) })
  expect(ear.payloads).toEqual(['{}'])

  await relay.standing(keyOf('was'), { hasHistory: false })
  await relay.publish(draftOf('was'), bare)
  expect(await livesOf('was')).toEqual({ meta: about(day) })

  // Whoever comes into one that was not heard keeps its numbers.
  await relay.publish(draftOf('later'), bare)
  const before = await relay.standing(keyOf('later'))
  expect(await relay.standing(keyOf('later'), { hasHistory: false })).toEqual(before)
  expect(await livesOf('later')).toEqual({ meta: about(day) })
})

test('[P7] a history lives as long as its messages, and its counter longer; an idempotency key as long as the rule says', async () => {
  await node.relay.publish(draftOf('kept'), underKey('k', kept))
  expect(await livesOf('kept')).toEqual({ meta: about(day), log: about(10 * minute), 'sent:k': about(minute) })
})

test('[P7] topics of one message each take a quarter of a kilobyte, of Redis and of the node nothing more', async () => {
  const count = 20_000
  const used = async (): Promise<number> =>
    Number(/used_memory:(\d+)/.exec(String(await redis.ask('INFO', 'memory')))![1])
  const before = await used()
  for (let from = 0; from < count; from += 1000)
    await Promise.all(Array.from({ length: 1000 }, (_, i) => node.relay.publish(draftOf(`topic:${from + i}`), bare)))
  const each = ((await used()) - before) / count
  console.log(`a topic that was published to once takes ${each.toFixed(0)} bytes of Redis, for a minute`)
  expect(each).toBeLessThan(400)
  expect(node.relay.subscribed).toBe(1)
})

test('[P7] public channels, which anybody may enter under any topic, are remembered for half an hour', async () => {
  const { relay } = node
  const inPublic = { topic: 'square', isPrivate: false }
  const listening = relay.listen(channelKey(inPublic), new Ear())
  await listening.ready
  await relay.standing(channelKey(inPublic), { hasHistory: false })
  expect(await livesOf('square')).toEqual({ meta: about(hour / 2) })
  await relay.publish(draftOf('', '{}', { channel: inPublic }), bare)
  expect(await livesOf('square')).toEqual({ meta: about(hour / 2) })
  listening.close()
  await relay.publish(draftOf('', '{}', { channel: { topic: 'once more', isPrivate: false } }), bare)
  expect(await livesOf('once more')).toEqual({ meta: about(minute) })
})

test('whatever a topic and a key are called, what a channel has in Redis is in one slot, and of no other channel', () => {
  const names = new ChannelNames('tide', node.client)
  const text = fc.string({ unit: fc.constantFrom('{', '}', '*', '/', ':', '%', '😀', 'a', '\ud800'), maxLength: 8 })
  fc.assert(
    fc.property(text, text, text, (topic, other, key) => {
      const channel = keyOf(topic.toWellFormed())
      const parts = ['meta', 'log', `sent:${key}`, 'here:order'] as const
      const all = [...parts.map(part => names.key(channel, part)), names.live(channel), names.probe('n', channel)]
      expect(new Set(all.map(slotOf)).size).toBe(1)
      const another = keyOf(other.toWellFormed())
      if (another !== channel) expect(all.some(name => name.startsWith(names.tag(another)))).toBe(false)
    }),
  )
})
