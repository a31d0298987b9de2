import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { prepareDatabase, roomsSchema, TestNode } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { disguised } from '../support/redis-disguise.ts'
import { RedisProcess, startRedis } from '../support/redis-process.ts'

test('[P8] a node does not start with a Redis that it cannot use, and says which it needs', async () => {
  await using database = await TestDatabase.create()
  await prepareDatabase(database, roomsSchema, ['rooms', 'members', 'messages'])
  await using redis = await startRedis()
  using old = await disguised(redis, '6.0.9')
  await expect(TestNode.start(database.url, { REDIS_URL: old.url })).rejects.toMatchObject({ code: 'REDIS_VERSION' })
  using noAof = await disguised(redis, '7.0.1')
  const durable = { REDIS_URL: noAof.url, RELAY_DURABILITY: 'aof' }
  await expect(TestNode.start(database.url, durable)).rejects.toMatchObject({ code: 'REDIS_VERSION' })
})

test('a node that starts while Redis is away is ready when it comes', async () => {
  await using database = await TestDatabase.create()
  await prepareDatabase(database, roomsSchema, ['rooms', 'members', 'messages'])
  await using redis = await RedisProcess.prepare({})
  const starting = TestNode.start(database.url, { REDIS_URL: redis.url })
  // Past the time in which it is waited for.
  await sleep(3500)
  await redis.start()
  await using node = await starting
  expect((await fetch(`${node.url}/health`)).status).toBe(200)
})
