// What a leader does when Redis takes nothing for longer than it waits: five seconds, which these wait side by side.
import { Redis } from 'ioredis'
import { expect, test } from 'vitest'
import { startRedis, until } from '../../support/redis-process.ts'
import { feedAll, JournalNode, lsnOf, Wal } from './journal-world.ts'

test.concurrent('[P6] Redis is away for longer than five seconds: the slot is let go', async () => {
  await using redis = await startRedis({ appendonly: true })
  await using ada = new JournalNode('ada', redis.url)
  await using ben = new JournalNode('ben', redis.url)
  const wal = new Wal()
  const inlet = await ada.lead(50n)
  wal.write()
  await feedAll(inlet, wal.since(50n))
  await ben.has(1)
  await redis.kill()
  wal.write()
  await feedAll(inlet, wal.since(lsnOf(1) + 50n)).catch(() => {})
  const beganAt = performance.now()
  await inlet.failed
  expect(performance.now() - beganAt).toBeGreaterThan(4000)
  await expect(inlet.room()).rejects.toMatchObject({ code: 'RELAY_UNREACHABLE' })
  expect(await ada.journal.mayLead()).toBe(false)
  await inlet.close()
})

test.concurrent('[P8] Redis is full: said so, and nothing stands behind the hole', async () => {
  await using redis = await startRedis({ appendonly: true })
  await using ada = new JournalNode('ada', redis.url)
  await using ben = new JournalNode('ben', redis.url)
  const direct = new Redis(redis.url)
  const refused = async (): Promise<number> =>
    Number(/errorstat_OOM:count=(\d+)/.exec(await direct.info('errorstats'))?.[1] ?? 0)
  try {
    const wal = new Wal()
    const inlet = await ada.lead(50n)
    wal.write()
    await feedAll(inlet, wal.since(50n))
    await ben.has(1)
    await direct.config('SET', 'maxmemory', '1')
    wal.write()
    await feedAll(inlet, wal.since(lsnOf(1) + 50n)).catch(() => {})
    wal.write()
    await until(async () => (await refused()) > 0, 'an append to be refused')
    await direct.config('SET', 'maxmemory', '0')
    await feedAll(inlet, wal.since(lsnOf(2) + 50n))
    await ben.has(3)
    await direct.config('SET', 'maxmemory', '1')
    wal.write()
    await feedAll(inlet, wal.since(lsnOf(3) + 50n)).catch(() => {})
    await inlet.failed
    await expect(inlet.room()).rejects.toMatchObject({ code: 'RELAY_FULL' })
    expect(ben.window.commits).toEqual([1, 2, 3])
    await inlet.close()
  } finally {
    direct.disconnect()
  }
})
