import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test, vi } from 'vitest'
import { connectionFor, isRedisAway } from '../../src/server/redis/redis.ts'
import { defineScript } from '../../src/server/redis/redis-script.ts'
import { eventually } from '../support/eventually.ts'
import { type OpenedRedis, open } from '../support/redis-clients.ts'
import { startRedisCluster } from '../support/redis-cluster.ts'
import type { ReplicatedRedis } from '../support/redis-failover.ts'
import { startSentinels } from '../support/redis-sentinels.ts'
import { expectWithin } from '../support/within.ts'

const key = '{tidegate}:k'
const commandTimeoutMs = 500

const kinds: [string, () => Promise<ReplicatedRedis>][] = [
  ['behind Sentinels', () => startSentinels({ password: 'p@ss', sentinelPassword: 'own' })],
  ['in a Cluster', () => startRedisCluster({ password: 'p@ss' })],
]

/** Asks all the time, each time when the last one was answered. */
class Asking {
  longestMs = 0
  readonly unexpected: unknown[] = []
  answeredAtMs = 0
  #isDone = false
  readonly #done: Promise<void>

  constructor(ask: () => Promise<unknown>) {
    this.#done = this.#run(ask)
  }

  async end(): Promise<void> {
    this.#isDone = true
    await this.#done
  }

  async #run(ask: () => Promise<unknown>): Promise<void> {
    while (!this.#isDone) {
      const askedMs = performance.now()
      try {
        await ask()
        this.answeredAtMs = performance.now()
      } catch (error) {
        if (!isRedisAway(error)) this.unexpected.push(error)
      }
      this.longestMs = Math.max(this.longestMs, performance.now() - askedMs)
      await sleep(5)
    }
  }
}

const read = ({ client }: OpenedRedis): Promise<unknown> =>
  client.xread('BLOCK', 300, 'STREAMS', '{tidegate}:stream', '$')

// Both kinds at once: they wait for the most part.
test.concurrent.each(kinds)(
  '%s the same clients go on within a second of a new master, whether the old one was killed or fell silent',
  async (_, start) => {
    await using redis = await start()
    using writer = await open(redis.url, commandTimeoutMs).works()
    using reader = await open(redis.url, commandTimeoutMs).works()
    const run = defineScript(writer.client, `return redis.call('INCR', KEYS[1])`)
    for (const old of ['killed', 'paused'] as const) {
      let confirmed = 0
      let lost = 0
      const writing = new Asking(async () => {
        const count = Number(await run([key], []))
        lost += Math.max(0, confirmed + 1 - count)
        confirmed = count
      })
      const reading = new Asking(() => read(reader))
      const losing = (): Promise<unknown> => {
        const least = confirmed + 3
        return eventually(() => expect(confirmed).toBeGreaterThan(least))
      }
      await redis.failover(old === 'killed' ? { old, losing } : { old })
      const thereMs = performance.now()
      for (const asking of [writing, reading]) {
        await vi.waitFor(() => expect(asking.answeredAtMs).toBeGreaterThan(thereMs), { timeout: 20_000, interval: 10 })
        expectWithin(performance.now() - thereMs, 1500)
      }
      await Promise.all([writing.end(), reading.end()])
      expect([...writing.unexpected, ...reading.unexpected]).toEqual([])
      // One that swallows what is sent costs the timeout, no other attempt costs anything.
      expectWithin(writing.longestMs, commandTimeoutMs + 500)
      expectWithin(reading.longestMs, 1500)
      // Nothing tells that a replica lagged: what was confirmed is gone.
      if (old === 'killed') expect(lost).toBeGreaterThanOrEqual(3)
      await redis.repair()
    }
  },
)

test.each(kinds)(
  '%s what was sent when a connection broke is not sent again, and replicas confirm to whoever wrote',
  async (_, start) => {
    await using redis = await start()
    using opened = await open(redis.url, 2000).works()
    const broken = opened.client.incr(key)
    // The kernel has it.
    await new Promise(setImmediate)
    connectionFor(opened.client, key)!.stream.destroy()
    await expect(broken).rejects.toSatisfy(isRedisAway)
    expect((await opened.answered(client => client.get(key))).reply).toBe('1')
    const master = await redis.master()
    const confirmed = async (): Promise<unknown> => {
      await opened.client.set(key, 'v')
      return connectionFor(opened.client, key)!.call('WAIT', '1', '100')
    }
    expect(await confirmed()).toBeGreaterThan(0)
    for (const server of redis.servers)
      if ((await server.replication()).get('master_port') === String(master.port)) await server.lag()
    expect(await confirmed()).toBe(0)
  },
)

test('behind Sentinels an orderly switch to another master is followed too, and a Sentinel that swallows packets holds up nobody', async () => {
  await using redis = await startSentinels({ replicas: 1 })
  using opened = await open(redis.url, commandTimeoutMs).works()
  const { master } = await redis.switchover()
  // Until the old one is told, it takes what is written to it.
  await expect
    .poll(
      async () => {
        await opened.answered(client => client.set(key, 'new'))
        return master.ask('GET', key)
      },
      { timeout: 20_000 },
    )
    .toBe('new')
  redis.sentinels[0]!.pause()
  await master.ask('CLIENT', 'KILL', 'TYPE', 'normal')
  const { afterMs } = await opened.answered(client => client.get(key))
  expectWithin(afterMs, 500)
})
