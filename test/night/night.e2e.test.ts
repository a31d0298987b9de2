// A short night; npm run night is the whole one.
import { afterAll, beforeAll, expect, inject, test } from 'vitest'
import { findRedis, type TestRedis } from '../support/redis.ts'
import { night } from './night.ts'
import { failuresOf } from './verdict.ts'

let redis: TestRedis
beforeAll(async () => {
  redis = await findRedis()
}, 60_000)
afterAll(() => redis?.[Symbol.asyncDispose]())

const silent = { say: () => {} }

test('[P7] nothing is left of commits, clients that came and went, and nodes that were replaced', async () => {
  const load = { commits: 10_000, connects: 200, restarts: 4, seconds: 12 }
  const report = await night({ serverUrl: inject('databaseUrl'), redisUrl: redis.url, ...load, ...silent })
  expect(failuresOf(report, null)).toEqual([])
  expect(report).toMatchObject({ commits: 10_000, connects: 200, restarts: 4 })
}, 300_000)

test('what leaks memory and files is found', async () => {
  const load = { commits: 5000, connects: 50, restarts: 0, seconds: 6, settleMs: 8000 }
  const plant = new URL('leak.ts', import.meta.url).href
  const report = await night({ serverUrl: inject('databaseUrl'), redisUrl: redis.url, ...load, plant, ...silent })
  const failures = failuresOf(report, 1).join('\n')
  expect(failures).toMatch(/^descriptors: \d+ before, \d+ after$/m)
  expect(failures).toMatch(/^memory grows by \d+\.\d\d %/m)
}, 300_000)
