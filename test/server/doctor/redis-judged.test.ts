// What a real Redis is not easily brought to say: judged from what it would say.
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { Verdict } from '../../../src/server/doctor/finding.ts'
import { judgeRedis, type RedisNeeds } from '../../../src/server/doctor/redis-findings.ts'
import type { RedisServerLook } from '../../../src/server/doctor/redis-look.ts'
import { neededRedisBytes } from '../../../src/server/doctor/redis-memory.ts'
import { redisUrlTo, wayOf } from '../../../src/server/doctor/redis-words.ts'
import { findingOf } from './remedies.ts'

const MiB = 1024 * 1024
const needs: RedisNeeds = { relayMaxBytes: 128 * MiB, relayDurability: 'none', tidegateName: 'tidegate' }
const plain: RedisServerLook = {
  name: null,
  holdsJournal: true,
  info: new Map([
    ['redis_version', '7.2.4'],
    ['role', 'master'],
    ['maxmemory', '0'],
    ['maxmemory_policy', 'noeviction'],
    ['aof_enabled', '1'],
    ['connected_slaves', '0'],
    ['connected_clients', '1'],
  ]),
  settings: new Map([
    ['appendfsync', 'everysec'],
    ['timeout', '0'],
    ['maxclients', '10000'],
    ['min-replicas-to-write', '0'],
    ['client-output-buffer-limit', 'normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60'],
  ]),
  aheadMs: 0,
  aheadWithinMs: 1,
  roundTripMs: 0.2,
  cluster: null,
}

const judged = (
  changes: Partial<RedisServerLook>,
  info: Record<string, string> = {},
  { more = {}, url = 'redis://127.0.0.1' }: { more?: Partial<RedisNeeds>; url?: string } = {},
) => {
  const server = { ...plain, ...changes, info: new Map([...plain.info, ...Object.entries(info)]) }
  return judgeRedis({ servers: [server], nodes: [] }, { ...needs, ...more }, wayOf(url))
}

test('a Redis as it should be is ok in all', () => {
  expect(judged({}).filter(({ verdict }) => verdict !== 'ok')).toEqual([])
})

test.each<[aheadMs: number | null, withinMs: number, verdict: Verdict]>([
  [0, 1, 'ok'],
  [2000, 0, 'ok'],
  [2001, 0, 'warning'],
  [-60_000, 5, 'warning'],
  // The question took so long that nothing is sure.
  [2500, 600, 'ok'],
  [null, 0, 'unknown'],
])('redis-clock: %s ms ahead, within %s, is %s', (aheadMs, aheadWithinMs, verdict) => {
  expect(findingOf(judged({ aheadMs, aheadWithinMs }), 'redis-clock').verdict).toBe(verdict)
})

test.each<[roundTripMs: number, verdict: Verdict]>([
  [0.1, 'ok'],
  [10, 'ok'],
  [10.5, 'warning'],
])('redis-latency: %s ms is %s', (roundTripMs, verdict) => {
  expect(findingOf(judged({ roundTripMs }), 'redis-latency').verdict).toBe(verdict)
})

test('redis-memory: the formula of docs/operations.md, whatever the sizes, and its maxmemory is enough', () => {
  expect(neededRedisBytes({ relayMaxBytes: 128 * MiB }, 2)).toBe((4 * 128 * 1.25 + 8 * 2 + 64) * MiB)
  fc.assert(
    fc.property(
      fc.integer({ min: 1024, max: 1024 * MiB }),
      fc.integer({ min: 1, max: 4096 }),
      (relayMaxBytes, limit) => {
        const look = (maxmemory: number) =>
          findingOf(judged({}, { maxmemory: String(maxmemory) }, { more: { relayMaxBytes } }), 'redis-memory')
        const found = look(limit * MiB)
        if (found.verdict === 'ok') return
        expect(look(Number(/CONFIG SET maxmemory (\d+)/.exec(found.remedy!.text)![1])).verdict).toBe('ok')
      },
    ),
  )
})

test('redis-memory: where none is set the machine counts, and a full one is told', () => {
  const small = judged({}, { total_system_memory: String(512 * MiB) })
  const found = findingOf(small, 'redis-memory')
  expect(found).toMatchObject({ verdict: 'warning', remedy: { kind: 'setting' } })
  const relayMaxBytes = Number(found.remedy!.text.split('=')[1])
  const mended = judged({}, { total_system_memory: String(512 * MiB) }, { more: { relayMaxBytes } })
  expect(findingOf(mended, 'redis-memory').verdict).toBe('ok')
  const full = judged({}, { maxmemory: String(1024 * MiB), used_memory: String(1000 * MiB) })
  expect(findingOf(full, 'redis-memory').reason).toContain('1000 MiB of maxmemory 1024 MiB')
})

test('redis-kind: a Cluster that lacks slots refuses commands', () => {
  const url = 'redis+cluster://10.0.0.1:7000,10.0.0.2:7000'
  const found = findingOf(judged({ cluster: { state: 'fail', slots: 10_923 } }, {}, { url }), 'redis-kind')
  expect(found).toMatchObject({ verdict: 'failure', remedy: { text: 'redis-cli --cluster fix 10.0.0.1:7000' } })
  expect(findingOf(judged({ cluster: { state: 'ok', slots: 16_384 } }, {}, { url }), 'redis-kind').verdict).toBe('ok')
})

test.each<[info: Record<string, string>, verdict: Verdict]>([
  [{ aof_last_write_status: 'err' }, 'failure'],
  [{ aof_last_bgrewrite_status: 'err' }, 'warning'],
])('redis-persistence: %j is a %s', (info, verdict) => {
  expect(findingOf(judged({}, info), 'redis-persistence').verdict).toBe(verdict)
})

test('redis-durability: an append-only file that is asked for and off, a replica that does not keep up', () => {
  const aof = findingOf(judged({}, { aof_enabled: '0' }, { more: { relayDurability: 'aof' } }), 'redis-durability')
  expect(aof).toMatchObject({ verdict: 'failure', code: 'RELAY_NOT_DURABLE' })
  expect(aof.remedy!.text).toContain('CONFIG SET appendonly yes')
  const behind = { slave0: 'ip=127.0.0.1,port=1,state=online,offset=42,lag=30' }
  const found = findingOf(judged({}, behind, { more: { relayDurability: 'replica' } }), 'redis-durability')
  expect(found.reason).toContain('none of them keeps up')
})

test('a change is written for good only where Redis has a file to write it to', () => {
  const text = (config_file: string) =>
    findingOf(judged({}, { maxmemory_policy: 'allkeys-lru', config_file }), 'redis-eviction').remedy
  expect(text('/etc/redis.conf')).toMatchObject({
    text: 'CONFIG SET maxmemory-policy noeviction\nCONFIG REWRITE',
  })
  expect(text('')).toMatchObject({ text: 'CONFIG SET maxmemory-policy noeviction' })
})

test.each([
  ['redis://127.0.0.1:6379', 'redis://127.0.0.1:6379'],
  ['redis://app:sekret@redis.example.com/3', 'redis://app:$REDIS_PASSWORD@redis.example.com:6379/3'],
  [
    'redis+sentinel://:sekret@a,b:1/main/2?sentinelPassword=sekret',
    'redis+sentinel://:$REDIS_PASSWORD@a:26379,b:1/main/2',
  ],
  ['rediss+cluster://[::1]:7000', 'rediss+cluster://[::1]:7000'],
  ['rediss://h?ssl_cert_reqs=none', 'rediss://h:6379?ssl_cert_reqs=none'],
])('%s is printed as %s', (url, printed) => {
  const way = wayOf(url)
  expect(redisUrlTo(way, way.place)).toBe(printed)
})
