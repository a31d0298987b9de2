// What is asked of Redis: scripts, and whether it is one that Tidegate can use.
import { expect, test } from 'vitest'
import { assertRedisReady } from '../../src/server/redis/redis-ready.ts'
import { defineScript } from '../../src/server/redis/redis-script.ts'
import { open } from '../support/redis-clients.ts'
import { startRedisCluster } from '../support/redis-cluster.ts'
import { disguised } from '../support/redis-disguise.ts'
import { lastingPort, startRedis } from '../support/redis-process.ts'
import { startSentinels } from '../support/redis-sentinels.ts'

const keys = ['{tidegate}:a', '{tidegate}:b']
const bytes = Buffer.from([0, 255, 13, 10, 128])
const lua = `redis.call('SET', KEYS[1], ARGV[1]); redis.call('SET', KEYS[2], ARGV[2])
  return {redis.call('GET', KEYS[1]), redis.call('STRLEN', KEYS[2]), KEYS[2]}`
const answer = [bytes, 2, Buffer.from(keys[1]!)]

test('a script takes and gives bytes, and is sent whole only where Redis does not have it', async () => {
  await using redis = await startRedis({ appendonly: true })
  using opened = await open(redis.url).works()
  const run = defineScript(opened.client, lua)
  const sentWhole = async (): Promise<string> =>
    /cmdstat_eval:calls=(\d+)/.exec(String(await redis.ask('INFO', 'commandstats')))?.[1] ?? '0'
  expect(await run(keys, [bytes, 42])).toEqual(answer)
  expect(await run(keys, [bytes, 42])).toEqual(answer)
  expect(await sentWhole()).toBe('1')
  await redis.ask('SCRIPT', 'FLUSH')
  expect(await run(keys, [bytes, 42])).toEqual(answer)
  expect(await sentWhole()).toBe('2')
  await redis.kill()
  await redis.start()
  expect((await opened.answered(() => run(keys, [bytes, 42]))).reply).toEqual(answer)
  await expect(defineScript(opened.client, 'return nonsense(')(keys, [])).rejects.toThrow('compiling')
})

test('[P8] a Redis that is used as it should be is told by its version, and one that may evict keys with what to run', async () => {
  await using redis = await startRedis()
  using opened = open(redis.url)
  const version = /redis_version:(\S+)/.exec(String(await redis.ask('INFO', 'server')))![1]
  expect(await assertRedisReady(opened.client)).toEqual({ version, warnings: [] })
  await redis.ask('CONFIG', 'SET', 'maxmemory-policy', 'allkeys-lru')
  const { warnings } = await assertRedisReady(opened.client)
  expect(warnings).toEqual([expect.stringContaining('CONFIG SET maxmemory-policy noeviction')])
  await using other = await startRedis()
  await redis.ask('CONFIG', 'SET', 'maxmemory-policy', 'noeviction')
  await redis.follow(other)
  await redis.synced()
  const replica = await opened.answered(client => assertRedisReady(client))
  expect(replica.reply.warnings).toEqual([expect.stringContaining('replica')])
})

test.each([
  ['6.0.9', false, '6.2'],
  ['5.0', false, '6.2'],
  ['7.0.1', true, '7.2'],
])(
  '[P8] Redis %s is refused by a code, durability by the append-only file asked: %s',
  async (version, usesAof, least) => {
    await using redis = await startRedis()
    using old = await disguised(redis, version)
    using opened = open(old.url)
    await expect(assertRedisReady(opened.client, { usesAof })).rejects.toMatchObject({
      code: 'REDIS_VERSION',
      message: expect.stringContaining(`must be ${least}`),
    })
  },
)

test('Redis 6.2 is not refused', async () => {
  await using redis = await startRedis()
  using enough = await disguised(redis, '6.2.0')
  using opened = open(enough.url)
  expect((await assertRedisReady(opened.client)).version.trim()).toBe('6.2.0')
})

test('[P8] a Redis that does not answer is named with the reason, whatever it is', async () => {
  await using redis = await startRedis({ password: 'right' })
  const reason = async (url: string): Promise<unknown> => {
    using opened = open(url)
    return await assertRedisReady(opened.client, { timeoutMs: 1000 }).then(
      () => null,
      (error: unknown) => error,
    )
  }
  const unreachable = (why: string): unknown =>
    expect.objectContaining({ code: 'RELAY_UNREACHABLE', message: expect.stringContaining(why) })
  expect(await reason(redis.url.replace('right', 'wrong'))).toEqual(unreachable('WRONGPASS'))
  const nobody = `127.0.0.1:${await lastingPort()}`
  expect(await reason(`redis://${nobody}`)).toEqual(unreachable('ECONNREFUSED'))
  expect(await reason(`redis+sentinel://${nobody}/main`)).toEqual(unreachable('ECONNREFUSED'))
  expect(await reason(`redis+cluster://${nobody}`)).toEqual(unreachable('ECONNREFUSED'))
})

test('[P8] a URL that leads to a Sentinel or to a member of a Cluster as if it were a server is refused', async () => {
  await using sentinels = await startSentinels({ replicas: 1 })
  await using cluster = await startRedisCluster()
  const refusal = (scheme: string): unknown =>
    expect.objectContaining({ code: 'CONFIG_INVALID', message: expect.stringContaining(scheme) })
  using sentinel = open(sentinels.sentinels[0]!.url)
  await expect(assertRedisReady(sentinel.client)).rejects.toEqual(refusal('redis+sentinel://'))
  using member = open(cluster.servers[0]!.url)
  await expect(assertRedisReady(member.client)).rejects.toEqual(refusal('redis+cluster://'))
  using whole = open(cluster.url)
  expect((await assertRedisReady(whole.client)).warnings).toEqual([])
  // From then on nothing fails for want of a connection, however much is asked at once.
  await Promise.all(Array.from({ length: 50 }, (_, n) => whole.client.set(`k${n}`, 'v')))
})
