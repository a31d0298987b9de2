import { describe, expect, test } from 'vitest'
import { MemoryPresence } from '../../../../src/server/channels/presence/memory-presence.ts'
import { draft, Heard, newChannel, type PresenceWorld, promisesOfPresence, rule } from './presence-suite.ts'

async function start(): Promise<PresenceWorld> {
  const heard = new Map<string, Heard>()
  const store = new MemoryPresence({ tell: (channel, diff) => heard.get(channel)?.take(diff) })
  return {
    a: store,
    b: store,
    hear: async channel => {
      const all = new Heard()
      heard.set(channel, all)
      return all
    },
    [Symbol.asyncDispose]: () => store.close(),
  }
}

describe('presence of one node, in memory', () => promisesOfPresence(start))

test('[P7] channels that were looked at and are empty are forgotten past a bound, those with entries not', async () => {
  await using world = await start()
  const channel = newChannel()
  await world.a.track(channel, draft('c1'), rule)
  const [before, empty] = [await world.a.list(channel), await world.a.list('private/empty')]
  for (let n = 0; n < 10_000; n += 1) await world.a.list(`private/${n}`)
  expect(await world.a.list(channel)).toEqual(before)
  expect((await world.a.list('private/empty')).epoch).not.toBe(empty.epoch)
  expect((await world.a.list('private/9999')).epoch).toBe((await world.a.list('private/9999')).epoch)
})
