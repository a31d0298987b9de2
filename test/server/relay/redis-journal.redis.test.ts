import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { TidegateError } from '../../../src/protocol/tidegate-error.ts'
import { encodeParts } from '../../../src/server/relay/block.ts'
import { formatId } from '../../../src/server/relay/redis-log.ts'
import { type RedisProcess, startRedis, until } from '../../support/redis-process.ts'
import { feedAll, JournalNode, lsnOf, name, seesBelow, upTo, Wal } from './journal-world.ts'

let redis: RedisProcess
let direct: Redis
let wal: Wal
let ada: JournalNode
let ben: JournalNode

beforeAll(async () => {
  redis = await startRedis({ appendonly: true })
})

beforeEach(async () => {
  if (!redis.isRunning) await redis.start('empty')
  direct = new Redis(redis.url)
  direct.on('error', () => {})
  await direct.flushall()
  await direct.config('SET', 'maxmemory', '0')
  wal = new Wal()
  ada = new JournalNode('ada', redis.url)
  ben = new JournalNode('ben', redis.url)
})

afterEach(async () => {
  await ada[Symbol.asyncDispose]()
  await ben[Symbol.asyncDispose]()
  direct.disconnect()
})

afterAll(async () => {
  await redis[Symbol.asyncDispose]()
})

const log = `{${name}}:log:0a1b2c3d`

test('[P4] a follower has what the leader appends, in order, each once, and large commits whole', async () => {
  const inlet = await ada.lead(50n)
  for (let i = 0; i < 200; i++) wal.write(i % 50 === 49 ? 10_000 : 1 + (i % 3))
  await feedAll(inlet, wal.since(50n))
  await ben.has(200)
  expect(ben.window.told).toEqual(['begins after 49', ...upTo(200)])
  expect(upTo(200).map(n => ben.window.rows.get(n))).toEqual(wal.rows)
  expect(ada.window.told).toEqual(ben.window.told)
  await inlet.close()
})

test('[P4] a node that comes later fills its window from the Stream', async () => {
  const inlet = await ada.lead(50n)
  for (let i = 0; i < 30; i++) wal.write(i === 20 ? 10_000 : 1)
  await feedAll(inlet, wal.since(50n))
  await ada.has(30)
  await using late = new JournalNode('late', redis.url)
  await late.has(30)
  expect(late.window.commits).toEqual(upTo(30))
  expect(late.window.isSettled).toBe(true)
  await inlet.close()
})

test('[P4] the next leader goes on where the Stream ends, though the slot begins before it', async () => {
  const first = await ada.lead(50n)
  for (let i = 0; i < 10; i++) wal.write()
  await feedAll(first, wal.since(50n))
  await ben.has(10)
  await first.close()
  for (let i = 0; i < 5; i++) wal.write()
  const second = await ben.lead(lsnOf(3) + 50n)
  await feedAll(second, wal.since(lsnOf(3) + 50n))
  await ada.has(15)
  expect(ada.window.told).toEqual(['begins after 49', ...upTo(15)])
  expect(ben.window.commits).toEqual(upTo(15))
  expect(await direct.xlen(log)).toBeLessThan(15)
  await second.close()
})

test('[P4] a leader that slept while another took over can store nothing more', async () => {
  const asleep = await ada.lead(50n)
  for (let i = 0; i < 3; i++) wal.write()
  await feedAll(asleep, wal.since(50n))
  await ben.has(3)
  const awake = await ben.lead(50n)
  for (let i = 0; i < 4; i++) wal.write()
  await feedAll(awake, wal.since(50n))
  await ben.has(7)
  const length = await direct.xlen(log)
  await feedAll(asleep, wal.since(50n).slice(0, 5)).catch(() => {})
  await asleep.failed
  await expect(asleep.room()).rejects.toMatchObject({ code: 'RELAY_MOVED' })
  expect(await direct.xlen(log)).toBe(length)
  await asleep.close()
  wal.write()
  await feedAll(awake, wal.since(lsnOf(7) + 50n))
  await ada.has(8)
  expect(ada.window.commits).toEqual(upTo(8))
  await awake.close()
})

test('[P4] parts of a commit that a dead leader left unfinished are no commit, and its successor adds it whole', async () => {
  const first = await ada.lead(50n)
  wal.write()
  wal.write()
  await feedAll(first, wal.since(50n))
  await ben.has(2)
  await first.close()
  wal.write(30_000)
  const [parts] = [[...encodeParts({ epoch: '0a1b2c3d', prevLsn: lsnOf(2) }, wal.since(lsnOf(2) + 50n)[0]!, 4096)]]
  for (const [part, block] of parts.slice(0, 5).entries())
    await direct.call('XADD', log, formatId({ lsn: lsnOf(3), attempt: 0, part }), 'b', block)
  wal.write()
  const second = await ben.lead(lsnOf(1) + 50n)
  await feedAll(second, wal.since(lsnOf(1) + 50n))
  await ada.has(4)
  expect(ada.window.told).toEqual(['begins after 49', 1, 2, 3, 4])
  expect(ada.window.rows.get(3)).toBe(30_000)
  const last = (await direct.xrevrange(log, '+', '-', 'COUNT', 2)).map(([id]) => id)
  expect(Number(last[1]!.split('-')[1])).toBeGreaterThan(2 ** 32)
  await using late = new JournalNode('late', redis.url)
  await late.has(4)
  expect(late.window.commits).toEqual([1, 2, 3, 4])
  await second.close()
})

test('[P4] Redis comes back empty: it is refilled from the slot, and who had read so far misses nothing', async () => {
  const before = await ada.lead(50n)
  for (let i = 0; i < 20; i++) wal.write()
  await feedAll(before, wal.since(50n))
  await ben.has(20)
  await direct.flushall()
  wal.write()
  await feedAll(before, wal.since(lsnOf(20) + 50n)).catch(() => {})
  await before.failed
  await expect(before.room()).rejects.toMatchObject({ code: 'RELAY_MOVED' })
  await before.close()
  const after = await ada.lead(lsnOf(12) + 50n)
  await feedAll(after, wal.since(lsnOf(12) + 50n))
  await ben.has(21)
  expect(ben.window.told).toEqual(['begins after 49', ...upTo(21)])
  expect(ada.window.told).toEqual(ben.window.told)
  await using late = new JournalNode('late', redis.url)
  await late.has(21)
  expect(late.window.told).toEqual(['begins after 1249', ...upTo(21, 13)])
  await after.close()
})

test('[P4] Redis comes back as it was a while ago: the lost end is appended again', async () => {
  const before = await ada.lead(50n)
  for (let i = 0; i < 10; i++) wal.write()
  await feedAll(before, wal.since(50n))
  await ben.has(10)
  const older = await redis.save()
  for (let i = 0; i < 10; i++) wal.write()
  await feedAll(before, wal.since(lsnOf(10) + 50n))
  await ben.has(20)
  await redis.kill()
  await redis.start(older)
  wal.write()
  await feedAll(before, wal.since(lsnOf(20) + 50n)).catch(() => {})
  await before.failed
  await before.close()
  const after = await ben.lead(lsnOf(8) + 50n)
  await feedAll(after, wal.since(lsnOf(8) + 50n))
  await ada.has(21)
  expect(ada.window.told).toEqual(['begins after 49', ...upTo(21)])
  expect(ben.window.told).toEqual(ada.window.told)
  await using late = new JournalNode('late', redis.url)
  await late.has(21)
  expect(late.window.commits).toEqual(upTo(21))
  await after.close()
})

test('[P4] a leader that had stored some parts of a large commit, and lost them with its lead, reads that commit whole', async () => {
  const before = await ada.lead(50n)
  for (let i = 0; i < 3; i++) wal.write()
  await feedAll(before, wal.since(50n))
  await ben.has(3)
  const older = await redis.save()
  const length = await direct.xlen(log)
  wal.write(60_000)
  const used = /used_memory:(\d+)/.exec(await direct.info('memory'))![1]!
  await direct.config('SET', 'maxmemory', String(Number(used) + 1_500_000))
  await feedAll(before, wal.since(lsnOf(3) + 50n))
  await until(async () => (await direct.xlen(log)) > length, 'some parts to be stored')
  await redis.kill()
  await redis.start(older)
  await before.failed
  await before.close()
  wal.write()
  const after = await ben.lead(lsnOf(1) + 50n)
  await feedAll(after, wal.since(lsnOf(1) + 50n))
  await ada.has(5)
  expect(ada.window.told).toEqual(['begins after 49', ...upTo(5)])
  expect(ada.window.rows.get(4)).toBe(60_000)
  await after.close()
})

test('[P4] more was lost than the slot still has: only a node that was behind begins anew', async () => {
  const before = await ada.lead(50n)
  for (let i = 0; i < 10; i++) wal.write()
  await feedAll(before, wal.since(50n))
  await ben.has(10)
  const older = await redis.save()
  await ben[Symbol.asyncDispose]()
  for (let i = 0; i < 10; i++) wal.write()
  await feedAll(before, wal.since(lsnOf(10) + 50n))
  await ada.has(20)
  await redis.kill()
  await redis.start(older)
  ben = new JournalNode('ben', redis.url)
  await ben.has(10)
  await before.close()
  wal.write()
  const after = await ada.lead(lsnOf(18) + 50n)
  await feedAll(after, wal.since(lsnOf(18) + 50n))
  await ben.has(21)
  expect(ada.window.told).toEqual(['begins after 49', ...upTo(21)])
  expect(ben.window.told).toEqual(['begins after 49', ...upTo(10), 'begins after 1849', 19, 20, 21])
  await after.close()
})

test('[P4] the connection breaks while appends are on their way: nothing is missing, nothing twice', async () => {
  const inlet = await ada.lead(50n)
  let isCutting = true
  const cutting = (async () => {
    for (let i = 0; i < 10; i++) {
      await sleep(30)
      const head = ada.window.headLsn
      await direct.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
      // On a busy machine ten cuts in a row could take so long that the slot is let go.
      await ada.until(() => ada.window.headLsn > head, 20_000)
    }
  })().finally(() => (isCutting = false))
  while (isCutting) {
    const from = wal.rows.length
    for (let i = 0; i < 20; i++) wal.write(i === 7 ? 3000 : 1)
    await feedAll(inlet, wal.since(lsnOf(from) + 50n))
    await sleep(10)
  }
  await cutting
  const count = wal.rows.length
  await ben.has(count)
  await ada.has(count)
  expect(ben.window.told).toEqual(['begins after 49', ...upTo(count)])
  expect(ada.window.told).toEqual(ben.window.told)
  await inlet.close()
})

test('[P8] what is stored and then cannot be taken into the window fails the inlet, and is taken from the slot again', async () => {
  const inlet = await ada.lead(50n)
  for (let i = 0; i < 3; i++) wal.write()
  await feedAll(inlet, wal.since(50n).slice(0, 1))
  await ada.has(1)
  const full = new TidegateError('SPOOL_FAILED', 'the disk is full')
  const take = ada.window.append
  ada.window.append = commit => {
    commit.release()
    throw full
  }
  await feedAll(inlet, wal.since(lsnOf(1) + 50n)).catch(() => {})
  await inlet.failed
  await expect(inlet.room()).rejects.toBe(full)
  await inlet.close()
  ada.window.append = take
  const again = await ada.lead(50n)
  await feedAll(again, wal.since(50n))
  await ben.has(3)
  await ada.has(3)
  expect(ada.window.told).toEqual(['begins after 49', 1, 2, 3])
  expect(ben.window.told).toEqual(ada.window.told)
  await again.close()
})

test('[P4] [P6] the slot is acknowledged up to what is stored and visible, never past it', async () => {
  const inlet = await ada.lead(50n)
  for (let i = 0; i < 10; i++) wal.write()
  const commits = wal.since(50n)
  for (const commit of commits.slice(0, 6)) inlet.append(commit)
  inlet.sampled(seesBelow(4))
  expect(await inlet.acknowledgeable()).toBe(null)
  inlet.flush()
  await ada.has(6)
  await inlet.acknowledgeable()
  inlet.sampled(seesBelow(4))
  expect(await inlet.acknowledgeable()).toBe(null)
  inlet.sampled(seesBelow(100))
  expect(await inlet.acknowledgeable()).toBe(lsnOf(6) + 50n)
  await inlet.close()
})

test('[P4] while Redis is away, and when it comes back without what it had stored, nothing more is acknowledged', async () => {
  const inlet = await ada.lead(50n)
  for (let i = 0; i < 5; i++) wal.write()
  await feedAll(inlet, wal.since(50n))
  await ada.has(5)
  inlet.sampled(seesBelow(100))
  await inlet.acknowledgeable()
  const older = await redis.save()
  for (let i = 0; i < 5; i++) wal.write()
  await feedAll(inlet, wal.since(lsnOf(5) + 50n))
  await ada.has(10)
  // Held back for no time at all here: they could be acknowledged.
  const acknowledgeable = async (): Promise<bigint | null> => {
    await inlet.acknowledgeable()
    inlet.sampled(seesBelow(100))
    return inlet.acknowledgeable()
  }
  await redis.kill()
  expect(await acknowledgeable()).toBe(null)
  await redis.start(older)
  await ada.until(() => ada.journal.leaderSilentMs() !== null)
  await until(async () => (await direct.ping()) === 'PONG', 'Redis to answer')
  expect(await acknowledgeable()).toBe(null)
  await inlet.close()
})

test('[P4] another slot is another epoch, for followers too', async () => {
  const first = await ada.lead(50n)
  for (let i = 0; i < 5; i++) wal.write()
  await feedAll(first, wal.since(50n))
  await ben.has(5)
  await first.close()
  const second = await ada.lead(lsnOf(2), { epoch: 'ffffffff', slotName: `${name}_ffffffff` })
  await feedAll(second, wal.since(lsnOf(2)))
  await ben.until(() => ben.window.epoch === 'ffffffff' && ben.window.headLsn === lsnOf(5))
  expect(ben.window.told).toEqual(['begins after 49', ...upTo(5), 'begins after 199', 2, 3, 4, 5])
  expect(await direct.exists(log)).toBe(0)
  await second.close()
})

test('[P4] Redis comes back as it was in an epoch that is over: nobody goes back into it', async () => {
  const first = await ada.lead(50n)
  for (let i = 0; i < 5; i++) wal.write()
  await feedAll(first, wal.since(50n))
  await ben.has(5)
  await first.close()
  const older = await redis.save()
  const second = { epoch: 'ffffffff', slotName: `${name}_ffffffff` }
  await (await ada.lead(lsnOf(2), second)).close()
  await ben.until(() => ben.journal.leaderSilentMs() !== null)
  for (const node of [ada, ben]) node.gone.add(`${name}_01234567`)
  const inlet = await ada.lead(lsnOf(2), second)
  await feedAll(inlet, wal.since(lsnOf(2)))
  await ben.until(() => ben.window.epoch === 'ffffffff')
  await inlet.close()
  await redis.kill()
  await redis.start(older)
  let looks = 0
  await using late = new JournalNode('late', redis.url, {
    hasSlot: async slotName => {
      looks += 1
      return slotName !== `${name}_01234567`
    },
  })
  await expect.poll(() => ben.journal.epochNow().catch(String)).toContain('does not know')
  wal.write()
  await late.until(() => looks > 4)
  expect(late.window.told).toEqual([])
  const third = await ada.lead(lsnOf(2), second)
  await feedAll(third, wal.since(lsnOf(2)))
  await ben.has(6)
  await late.has(6)
  expect(await ben.journal.epochNow()).toBe('ffffffff')
  expect(ben.window.told).toEqual(['begins after 49', ...upTo(5), 'begins after 199', 2, 3, 4, 5, 6])
  expect(late.window.epoch).toBe('ffffffff')
  await third.close()
})

test('[P6] a Stream past its bound is trimmed, not of what may be invisible, and a later node begins where it begins', async () => {
  await ada[Symbol.asyncDispose]()
  ada = new JournalNode('ada', redis.url, { maxBytes: 1024, maxAgeMs: 1 })
  const inlet = await ada.lead(50n)
  for (let i = 0; i < 40; i++) wal.write(100)
  const commits = wal.since(50n)
  let given = 0
  const give = async (): Promise<void> => {
    inlet.append(commits[given++]!)
    inlet.flush()
    await ada.has(given)
  }
  // Four times the bound is held in any case; past it all goes but the newest.
  while (given < 10) await give()
  await sleep(1100)
  inlet.sampled(seesBelow(5))
  await give()
  await give()
  const length = await direct.xlen(log)
  expect(length).toBeLessThan(5)
  await using late = new JournalNode('late', redis.url)
  await late.has(given)
  expect(late.window.told[0]).not.toBe('begins after 49')
  expect(late.window.commits).toEqual(upTo(given, given - length + 1))
  // The leader knows commits up to 4 to be visible, and the window of the later node begins after that.
  expect(late.window.isSettled).toBe(false)
  inlet.sampled(seesBelow(100))
  await late.until(() => late.window.isSettled)
  await inlet.close()
})

test('[P6] a leader shows that it lives; when it is gone, others know since when', async () => {
  const inlet = await ada.lead(50n)
  await ben.until(() => (ben.journal.leaderSilentMs() ?? Number.POSITIVE_INFINITY) < 1500)
  await inlet.close()
  await ben.until(() => (ben.journal.leaderSilentMs() ?? 0) > 1500)
})
