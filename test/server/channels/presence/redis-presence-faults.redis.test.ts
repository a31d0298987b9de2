import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import type { PresenceStore } from '../../../../src/server/channels/presence/presence.ts'
import { startRedis, until } from '../../../support/redis-process.ts'
import { PresenceProcess } from './presence-process.ts'
import { draft, newChannel, rule } from './presence-suite.ts'
import { openEar, startPresenceNode } from './redis-presence-world.ts'

const leaseMs = 1000

/** mulberry32 */
function dice(seed: number): (sides: number) => number {
  let state = seed
  return sides => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) % sides
  }
}

// Side by side: they wait for the most part.
test.concurrent.each([1, 2, 3])(
  'whatever happens to Redis, what it has in the end is what the connections were told, seed %d',
  async seed => {
    await using redis = await startRedis({ appendonly: true })
    const name = randomUUID()
    await using a = await startPresenceNode(redis.url, name)
    await using b = await startPresenceNode(redis.url, name)
    const channels = [newChannel(), newChannel(), newChannel()]
    const roll = dice(seed)
    const ending = new AbortController()
    /** By channel and connection: what it was told is stored. */
    const wished = new Map<string, string>()
    let failures = 0
    const live = async (store: PresenceStore, connection: string): Promise<void> => {
      for (let round = 0; !ending.signal.aborted; round += 1) {
        const channel = channels[roll(channels.length)]!
        const place = `${channel} ${connection}`
        const what = roll(5)
        try {
          if (what < 3) {
            // Several at once: the last counts.
            const metas = Array.from({ length: 1 + roll(2) }, (_, n) => `"${round} ${n}"`)
            await Promise.all(metas.map(meta => store.track(channel, draft(connection, connection, meta), rule)))
            wished.set(place, metas.at(-1)!)
          } else {
            wished.delete(place)
            await store.untrack(channel, connection, what === 3 ? 'gone' : 'broken')
          }
        } catch (error) {
          expect(error).toMatchObject({ code: 'UNAVAILABLE' })
          failures += 1
        }
        await sleep(roll(60))
      }
    }
    const lives = Array.from({ length: 12 }, (_, n) => live(n % 2 === 0 ? a.store : b.store, `c${n}`))
    const older = await redis.save()
    const faults = [
      async () => {
        redis.pause()
        await sleep(roll(1500))
        redis.resume()
      },
      async () => {
        await redis.kill()
        await sleep(roll(1500))
        await redis.start()
      },
      async () => {
        await redis.kill()
        await redis.start('empty')
      },
      async () => {
        await redis.kill()
        await redis.start(older)
      },
      async () => void (await redis.ask('CLIENT', 'KILL', 'TYPE', 'normal')),
    ]
    for (let n = 0; n < 6; n += 1) {
      await sleep(roll(700))
      await faults[(seed + n) % faults.length]!()
    }
    await sleep(500)
    ending.abort()
    await Promise.all(lives)
    expect(failures).toBeGreaterThan(0)
    const expected = [...wished].map(([place, meta]) => `${place} ${meta}`).sort()
    const found = async (store: PresenceStore): Promise<string[]> => {
      const lists = await Promise.all(
        channels.map(async channel =>
          (await store.list(channel)).entries.map(({ connection, meta }) => `${channel} ${connection} ${meta}`),
        ),
      )
      return lists.flat().sort()
    }
    const isTrue = async (): Promise<boolean> => JSON.stringify(await found(b.store)) === JSON.stringify(expected)
    await until(isTrue, 'the true lists').catch(async () => expect(await found(b.store)).toEqual(expected))
    // And stays so: nothing is left that would be taken out for a live one, or come back.
    await sleep(3 * leaseMs)
    expect(await found(a.store)).toEqual(expected)
    for (const channel of channels) {
      const { count, entries } = await a.store.list(channel)
      expect(entries).toHaveLength(count)
      expect(new Set(entries.map(({ ref }) => ref)).size).toBe(count)
    }
  },
)

/** PRESENCE_STORM=10000 for ten thousand; by hundreds. */
const stormSize = Number(process.env.PRESENCE_STORM ?? 4000)

test('[P7] thousands who join one channel cost each as much as the first, and are told in a diff of a node each tenth of a second', async () => {
  await using redis = await startRedis()
  const name = randomUUID()
  using ear = openEar(redis.url, name)
  const channel = newChannel()
  const heard = await ear.hear(channel)
  await using one = await PresenceProcess.start(redis.url, name, 5000)
  await using two = await PresenceProcess.start(redis.url, name, 5000)
  const storm = { ...rule, diffMs: 100 }
  const redisCpuMs = async (): Promise<number> => {
    const info = String(await redis.ask('INFO', 'cpu'))
    return (
      1000 *
      ['sys', 'user'].reduce((sum, kind) => sum + Number(new RegExp(`used_cpu_${kind}:([\\d.]+)`).exec(info)![1]), 0)
    )
  }
  const halves: number[] = []
  const beganMs = performance.now()
  for (let half = 0; half < 2; half += 1) {
    const before = await redisCpuMs()
    const tracked: Promise<void>[] = []
    for (let tick = 0; tick < stormSize / 200; tick += 1) {
      for (const node of [one, two]) {
        const names = Array.from({ length: 50 }, (_, n) => `${node === one ? 1 : 2} ${half} ${tick} ${n}`)
        tracked.push(
          node.track(
            channel,
            names.map(each => draft(each)),
            storm,
          ),
        )
      }
      await sleep(20)
    }
    await Promise.all(tracked)
    halves.push((await redisCpuMs()) - before)
  }
  const tookMs = performance.now() - beganMs
  await heard.until(({ diffs }) => diffs.at(-1)?.count === stormSize, 'all')
  const cpuMs = (await one.cpuMs()) + (await two.cpuMs())
  console.log(
    `storm: ${tookMs.toFixed()} ms; Redis ${halves.map(ms => ms.toFixed())} ms, both nodes with their start ${cpuMs.toFixed()} ms`,
  )
  expect(heard.joined).toHaveLength(stormSize)
  expect(heard.diffs.length).toBeLessThan(2 * (tookMs / storm.diffMs) + 10)
  expect(halves[1]!).toBeLessThan(3 * halves[0]! + 50)
  // In order of ref, by pages, whole.
  await using reader = await startPresenceNode(redis.url, name, 5000)
  let [after, listed] = [null as string | null, 0]
  for (;;) {
    const { entries, count } = await reader.store.list(channel, { after, limit: 1000 })
    expect(count).toBe(stormSize)
    if (entries.length === 0) break
    listed += entries.length
    after = entries.at(-1)!.ref
  }
  expect(listed).toBe(stormSize)
  await one.kill()
  await heard.until(({ diffs }) => diffs.at(-1)?.count === stormSize / 2, 'the members of the killed node to leave')
  expect(heard.left).toHaveLength(stormSize / 2)
})
