// Each thing that a Redis may lack, broken on purpose, found, and mended by the remedy as it is printed.
import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { CheckName } from '../../../src/server/doctor/checks.ts'
import type { Finding, Verdict } from '../../../src/server/doctor/finding.ts'
import { type RedisFindingsOptions, redisFindings } from '../../../src/server/doctor/redis.ts'
import { disguised } from '../../support/redis-disguise.ts'
import { lastingPort, type RedisProcess, startRedis, until } from '../../support/redis-process.ts'
import { findingOf, runRedisRemedy, settingsOfRemedy } from './remedies.ts'

const MiB = 1024 * 1024
type Config = RedisFindingsOptions['config']
const plain: Config = {
  redisUrl: null,
  relayMaxBytes: 128 * MiB,
  relayDurability: 'none',
  tidegateName: 'tidegate',
}
const look = (redisUrl: string, more: Partial<Config> = {}, timeoutMs = 5000): Promise<Finding[]> =>
  redisFindings({ config: { ...plain, redisUrl, ...more }, timeoutMs })
/** At what does not answer. */
const glance = (redisUrl: string): Promise<Finding[]> => look(redisUrl, {}, 1000)

let redis: RedisProcess

beforeAll(async () => {
  redis = await startRedis({ appendonly: true, settings: { appendfsync: 'everysec' } })
})
afterAll(() => redis[Symbol.asyncDispose]())

test('of a Redis as it should be nothing is said but ok, and nothing of the doctor is left in it', async () => {
  const findings = await look(redis.url)
  expect(findings.filter(({ verdict }) => verdict !== 'ok')).toEqual([])
  expect(findings.length).toBeGreaterThan(12)
  expect(await redis.ask('KEYS', '*')).toEqual([])
  await until(async () => !String(await redis.ask('CLIENT', 'LIST')).includes('doctor'), 'its connections to be closed')
})

interface Case {
  readonly check: CheckName
  readonly verdict: Verdict
  /** With redis-cli. */
  readonly broken: readonly (readonly string[])[]
  readonly reason: string
  readonly config?: Partial<Config>
}

const cases: readonly Case[] = [
  {
    check: 'redis-eviction',
    verdict: 'warning',
    broken: [['maxmemory-policy', 'allkeys-lru']],
    reason: 'maxmemory-policy is allkeys-lru',
  },
  { check: 'redis-memory', verdict: 'failure', broken: [['maxmemory', '100mb']], reason: 'maxmemory is 100 MiB' },
  { check: 'redis-memory', verdict: 'warning', broken: [['maxmemory', '400mb']], reason: 'take 712 MiB' },
  { check: 'redis-persistence', verdict: 'warning', broken: [['appendonly', 'no']], reason: 'appendonly is no' },
  { check: 'redis-persistence', verdict: 'warning', broken: [['appendfsync', 'no']], reason: 'appendfsync is no' },
  {
    check: 'redis-output-buffers',
    verdict: 'warning',
    broken: [['client-output-buffer-limit', 'normal 1048576 0 0']],
    reason: 'normal 1048576 0 0',
  },
  {
    check: 'redis-output-buffers',
    verdict: 'warning',
    broken: [['client-output-buffer-limit', 'pubsub 33554432 1048576 60']],
    reason: 'pubsub 33554432 1048576 60',
  },
  { check: 'redis-timeout', verdict: 'warning', broken: [['timeout', '5']], reason: 'timeout is 5 s' },
  { check: 'redis-clients', verdict: 'warning', broken: [['maxclients', '20']], reason: 'maxclients 20' },
]

test.each(cases)(
  '$check: $reason is a $verdict, and the remedy mends it',
  async ({ check, verdict, broken, reason }) => {
    for (const change of broken) await redis.ask('CONFIG', 'SET', ...change)
    const found = findingOf(await look(redis.url), check)
    expect(found).toMatchObject({ verdict, area: 'redis', reason: expect.stringContaining(reason) })
    await runRedisRemedy(redis, found)
    expect(findingOf(await look(redis.url), check).verdict).toBe('ok')
    await redis.ask('CONFIG', 'SET', 'maxmemory', '0')
  },
)

test('redis-persistence: a snapshot that fails stops all writes, and the remedy lets them through', async () => {
  const dump = join(redis.folder, 'dump.rdb')
  await mkdir(join(dump, 'in the way'), { recursive: true })
  await redis.ask('CONFIG', 'SET', 'save', '3600 1')
  await redis.ask('BGSAVE')
  await until(
    async () => String(await redis.ask('INFO', 'persistence')).includes('rdb_last_bgsave_status:err'),
    'the snapshot to fail',
  )
  const found = findingOf(await look(redis.url), 'redis-persistence')
  expect(found).toMatchObject({ verdict: 'failure', reason: expect.stringContaining('refuses writes') })
  await expect(redis.ask('SET', 'k', 'v')).rejects.toThrow('MISCONF')
  await runRedisRemedy(redis, found)
  expect(findingOf(await look(redis.url), 'redis-persistence').verdict).toBe('ok')
  await redis.ask('SET', 'k', 'v')
  await redis.ask('DEL', 'k')
  await rm(dump, { recursive: true })
  await redis.ask('CONFIG', 'SET', 'save', '')
})

test('redis-durability: what RELAY_DURABILITY asks for and Redis has not is a failure', async () => {
  const config = { relayDurability: 'replica' } as const
  const found = findingOf(await look(redis.url, config), 'redis-durability')
  expect(found).toMatchObject({ verdict: 'failure', code: 'RELAY_NOT_DURABLE' })
  const { RELAY_DURABILITY } = await settingsOfRemedy(found)
  const mended = await look(redis.url, { relayDurability: RELAY_DURABILITY as 'none' })
  expect(findingOf(mended, 'redis-durability').verdict).toBe('ok')
  await using replica = await startRedis({ replicaOf: redis })
  await replica.synced()
  await until(async () => findingOf(await look(redis.url, config), 'redis-durability').verdict === 'ok', 'the replica')
})

test('redis-version: one that is too old is refused by its code, and asked all the same', async () => {
  using old = await disguised(redis, '6.0.9')
  const findings = await look(old.url)
  expect(findingOf(findings, 'redis-version')).toMatchObject({ verdict: 'failure', code: 'REDIS_VERSION' })
  expect(findingOf(findings, 'redis-eviction').verdict).toBe('ok')
  const found = findingOf(await look(redis.url, { relayDurability: 'aof' }), 'redis-version')
  expect(found.reason).toContain('7.2')
  expect(await settingsOfRemedy(found)).toEqual({ RELAY_DURABILITY: 'none' })
})

describe('a login with fewer rights', () => {
  const asUser = (): string => redis.url.replace('redis://', 'redis://app:sekret@')

  test.each([
    [['-xadd', '-ssubscribe', '-eval'], ['~*'], ['&*'], 'eval'],
    [['-@write'], ['~*'], ['&*'], 'hset'],
    [[], ['~{tidegate}:*'], ['&*'], '~{tidegate/*'],
    [[], ['~{tidegate/*'], ['&*'], '~{tidegate}:*'],
    [[], ['~*'], ['&other'], '&{tidegate/*'],
  ])('%j %j %j: what it may not is named, and granted by the remedy', async (commands, keys, channels, named) => {
    await redis.ask('ACL', 'SETUSER', 'app', 'reset', 'on', '>sekret', ...keys, ...channels, '+@all', ...commands)
    // What scripts run shows only when scripts may run.
    for (let round = 0; round < 2; round += 1) {
      const found = findingOf(await look(asUser()), 'redis-rights')
      if (round === 0) expect(found).toMatchObject({ verdict: 'failure', reason: expect.stringContaining(named) })
      expect(JSON.stringify(found)).not.toContain('sekret')
      if (found.verdict !== 'ok') await runRedisRemedy(redis, found)
    }
    expect(findingOf(await look(asUser()), 'redis-rights').verdict).toBe('ok')
  })

  test('one that may not read settings is told what could not be looked at', async () => {
    await redis.ask('ACL', 'SETUSER', 'app', 'reset', 'on', '>sekret', '~*', '&*', '+@all', '-config')
    const found = findingOf(await look(asUser()), 'redis-timeout')
    expect(found).toMatchObject({ verdict: 'unknown', remedy: { text: 'CONFIG GET timeout' } })
  })
})

test('redis-role: a replica is named with its master, to which the remedy leads', async () => {
  await using replica = await startRedis({ replicaOf: redis, appendonly: true })
  await replica.synced()
  const found = findingOf(await look(replica.url), 'redis-role')
  expect(found.verdict).toBe('failure')
  const { REDIS_URL } = await settingsOfRemedy(found)
  expect(REDIS_URL).toBe(redis.url)
  const master = await look(REDIS_URL!)
  expect(findingOf(master, 'redis-role').verdict).toBe('ok')

  const alone = findingOf(master, 'redis-replicas')
  expect(alone).toMatchObject({ verdict: 'warning', reason: expect.stringContaining('min-replicas-to-write is 0') })
  await runRedisRemedy(redis, alone)
  await until(async () => findingOf(await look(redis.url), 'redis-replicas').verdict === 'ok', 'the replica to count')
  await replica.kill()
  await until(
    async () => String(await redis.ask('INFO', 'replication')).includes('min_slaves_good_slaves:0'),
    'the replica to be missed',
  )
  const refusing = findingOf(await look(redis.url), 'redis-replicas')
  expect(refusing).toMatchObject({ verdict: 'failure', reason: expect.stringContaining('NOREPLICAS') })
  await runRedisRemedy(redis, refusing)
  expect(findingOf(await look(redis.url), 'redis-replicas').verdict).toBe('ok')
})

test('redis-reachable: nobody there, a wrong password, a server that stands still', async () => {
  const port = await lastingPort()
  const gone = findingOf(await glance(`redis://:sekret@127.0.0.1:${port}`), 'redis-reachable')
  expect(gone).toMatchObject({
    verdict: 'failure',
    code: 'RELAY_UNREACHABLE',
    reason: expect.stringContaining('ECONNREFUSED'),
  })
  expect(gone.remedy).toMatchObject({ kind: 'shell', text: `redis-cli -h 127.0.0.1 -p ${port} PING` })

  await redis.ask('ACL', 'SETUSER', 'app', 'reset', 'on', '>sekret', '~*', '&*', '+@all')
  const wrong = findingOf(await glance(redis.url.replace('://', '://app:wrong@')), 'redis-reachable')
  expect(wrong).toMatchObject({ verdict: 'failure', reason: expect.stringContaining('WRONGPASS') })
  const { REDIS_URL } = await settingsOfRemedy(wrong, { REDIS_PASSWORD: 'sekret' })
  expect(findingOf(await look(REDIS_URL!), 'redis-reachable').verdict).toBe('ok')
  expect(JSON.stringify([gone, wrong])).not.toMatch(/sekret|app:wrong/)

  redis.pause()
  try {
    expect(findingOf(await glance(redis.url), 'redis-reachable').verdict).toBe('failure')
  } finally {
    redis.resume()
  }
})

test('nodes of two releases under one name are told, and two that lead are a failure', async () => {
  const [seconds] = (await redis.ask('TIME')) as string[]
  const node = (id: string, release: string, leads: boolean): Promise<unknown> => {
    const state = { address: `${id}:4000`, release, leads, connections: 0, lagMs: 0, moving: null }
    return redis.ask('HSET', '{two}:nodes', id, `${seconds}000 ${JSON.stringify(state)}`)
  }
  const found = async (): Promise<Finding> => findingOf(await look(redis.url, { tidegateName: 'two' }), 'nodes')
  await node('a', '0.1.0', true)
  expect((await found()).verdict).toBe('ok')
  await node('b', '0.2.0', false)
  expect(await found()).toMatchObject({ verdict: 'warning', reason: expect.stringContaining('a:4000 (0.1.0), b:4000') })
  await node('b', '0.1.0', true)
  expect(await found()).toMatchObject({ verdict: 'failure', reason: expect.stringContaining('2 nodes lead') })
  await node('a', '0.1.0', false)
  await node('b', '0.1.0', false)
  expect(await found()).toMatchObject({
    verdict: 'warning',
    reason: expect.stringContaining('none of the nodes leads'),
  })
  await redis.ask('DEL', '{two}:nodes')
})

test('without REDIS_URL there is nothing to look at, but RELAY_DURABILITY promises nothing then', async () => {
  expect(await redisFindings({ config: plain })).toMatchObject([{ check: 'redis-reachable', verdict: 'ok' }])
  const findings = await redisFindings({ config: { ...plain, relayDurability: 'aof' } })
  expect(await settingsOfRemedy(findingOf(findings, 'redis-durability'))).toEqual({ RELAY_DURABILITY: 'none' })
})
