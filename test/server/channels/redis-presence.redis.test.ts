import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe } from 'vitest'
import { type RedisProcess, startRedis } from '../../support/redis-process.ts'
import { promisesOfPresence } from './presence-suite.ts'
import { startRedisWorld } from './redis-presence-world.ts'

let redis: RedisProcess
beforeAll(async () => {
  redis = await startRedis()
})
afterAll(() => redis[Symbol.asyncDispose]())

describe('presence of two nodes, in Redis', () => promisesOfPresence(() => startRedisWorld(redis.url, randomUUID())))
