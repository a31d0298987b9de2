import fc from 'fast-check'
import { Redis } from 'ioredis'
import { pino } from 'pino'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { MemoryStands } from '../../../../src/server/deliver/phoenix/memory-stands.ts'
import { RedisStands } from '../../../../src/server/deliver/phoenix/redis-stands.ts'
import { type StandLimits, standLimits } from '../../../../src/server/deliver/phoenix/stands.ts'
import { createLog } from '../../../../src/server/log/log.ts'
import { closeRedis, openRedis, type RedisClient } from '../../../../src/server/redis/redis.ts'
import { FaultyLink } from '../../../support/faulty-link.ts'
import { findRedis, type TestRedis } from '../../../support/redis.ts'
import { startRedisCluster } from '../../../support/redis-cluster.ts'
import { expectWithin } from '../../../support/within.ts'
import { at, stand, standRules } from './stand-rules.ts'

let server: TestRedis
let redis: Redis
const clients: RedisClient[] = []
let deployments = 0

beforeAll(async () => {
  server = await findRedis()
  redis = new Redis(server.url)
})
afterAll(async () => {
  redis.disconnect()
  for (const client of clients) closeRedis(client)
  await server[Symbol.asyncDispose]()
})

async function connect(url = server.url, commandTimeoutMs = 2000): Promise<RedisClient> {
  const client = openRedis(url, { connectionName: 'test', commandTimeoutMs })
  clients.push(client)
  if (client.status !== 'ready') await new Promise(resolve => client.once('ready', resolve))
  return client
}

const log = createLog('silent')
const newName = (): string => `stands_${++deployments}`

/** Two nodes of a deployment of its own. */
async function twoNodes(limits: StandLimits = standLimits, url = server.url, name = newName()) {
  const nodes = [await connect(url), await connect(url)].map(redis => new RedisStands({ redis, name, log, limits }))
  const [keeping, taking] = nodes as [RedisStands, RedisStands]
  return { keeping, taking, settled: () => keeping.close(), name }
}

standRules('in Redis, of two nodes', twoNodes)

test('in a Cluster all keys of a deployment are in one place', async () => {
  await using cluster = await startRedisCluster()
  const { keeping, taking, settled } = await twoNodes({ ...standLimits, maxOwners: 20 }, cluster.url, 'tidegate')
  for (let number = 1; number <= 30; number += 1) keeping.keep(stand(number, number, { owner: `owner ${number}` }))
  await settled()
  const found: number[] = []
  for (let number = 1; number <= 30; number += 1)
    if ((await taking.take(`owner ${number}`, String(number + 1))) !== null) found.push(number)
  expect(found).toHaveLength(20)
})

test('two nodes, and one that is alone, answer any clients alike', async () => {
  const step = fc.record({
    owner: fc.constantFrom('alice', 'bob'),
    ref: fc.integer({ min: 0, max: 12 }),
    silentMs: fc.constantFrom(0, 10_000, 20_000, 100_000),
    lsn: fc.integer({ min: 1, max: 0xffff }),
    epoch: fc.constantFrom('aaaaaaaa', 'aaaaaaaa', 'bbbbbbbb'),
    keeps: fc.boolean(),
  })
  const { keeping, taking, settled } = await twoNodes()
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 30 }), async steps => {
      const run = `run ${++deployments}`
      const alone = new MemoryStands(() => performance.now())
      for (const { owner: name, ref, silentMs, lsn, epoch, keeps } of steps) {
        const owner = `${name} ${run}`
        if (keeps) {
          const one = stand(ref, lsn, { owner, silentMs, positions: { channel: at(lsn, epoch), [name]: at(lsn) } })
          for (const stands of [keeping, alone]) stands.keep(one)
          await settled()
        } else expect(await taking.take(owner, String(ref))).toEqual(await alone.take(owner, String(ref)))
      }
    }),
    { numRuns: 300 },
  )
})

test('every key begins with the name of the deployment and expires; nothing is left of what was taken', async () => {
  const { keeping, taking, settled, name } = await twoNodes()
  const other = await twoNodes()
  keeping.keep(stand(7, 0x30))
  keeping.keep(stand(9, 0x40))
  await settled()
  expect(await other.taking.take('alice', '10')).toBeNull()
  const keys = await redis.keys(`*${name}*`)
  expect(keys.sort()).toEqual([`{${name}}:stand:alice`, `{${name}}:stands`])
  for (const key of keys) {
    const leftMs = await redis.pttl(key)
    expect(leftMs).toBeGreaterThan(0)
    expect(leftMs).toBeLessThanOrEqual(300_000)
  }
  await taking.take('alice', '10')
  expect(await redis.exists(`{${name}}:stand:alice`)).toBe(1)
  await taking.take('alice', '10')
  expect(await redis.keys(`*${name}*`)).toEqual([])
  expect(await redis.keys(`*${other.name}*`)).toEqual([])
})

test("a stand is kept for its time by Redis's clock", async () => {
  const limits = { ...standLimits, keepMs: 300 }
  const { keeping, taking, settled, name } = await twoNodes(limits)
  keeping.keep(stand(7, 0x30))
  await settled()
  while ((await redis.keys(`*${name}*`)).length > 0) await new Promise(resolve => setTimeout(resolve, 20))
  expect(await taking.take('alice', '8')).toBeNull()
})

test('of stands of one owner each has its own time', async () => {
  const limits = { ...standLimits, keepMs: 1000 }
  const { keeping, taking, settled, name } = await twoNodes(limits)
  keeping.keep(stand(7, 0x30))
  await settled()
  const clockMs = async (): Promise<number> => {
    const [seconds, micros] = await redis.time()
    return Number(seconds) * 1000 + Math.floor(Number(micros) / 1000)
  }
  const keptMs = await clockMs()
  while (Date.now() < keptMs + 500) await new Promise(resolve => setTimeout(resolve, 20))
  keeping.keep(stand(9, 0x40, { silentMs: 100_000 }))
  await settled()
  // Both are under one key, which goes with the later one.
  const leftMs = await redis.pttl(`{${name}}:stand:alice`)
  expect((await clockMs()) + leftMs).toBeGreaterThan(keptMs + 1250)
  while (Date.now() < keptMs + 1000) await new Promise(resolve => setTimeout(resolve, 20))
  expect(await taking.take('alice', '8')).toBeNull()
})

test('[P2] Redis holds digests, counters and positions, and nothing else', async () => {
  const { keeping, settled, name } = await twoNodes()
  keeping.keep(stand(7, 0x30))
  await settled()
  const [one] = JSON.parse((await redis.get(`{${name}}:stand:alice`))!) as [Record<string, unknown>]
  expect(Object.keys(one).sort()).toEqual(['h', 'k', 'n', 'p', 'r'])
  expect(one).toMatchObject({ r: 7, n: 1, p: { channel: at(0x30) } })
})

test('thousands that break at once are all kept', async () => {
  const { keeping, taking, settled } = await twoNodes()
  for (let number = 1; number <= 5000; number += 1) keeping.keep(stand(7, number, { owner: `owner ${number}` }))
  await settled()
  const numbers = Array.from({ length: 5000 }, (_, number) => number + 1)
  const found = await Promise.all(numbers.map(number => taking.take(`owner ${number}`, '8')))
  expect(found.map(positions => positions?.channel)).toEqual(numbers.map(number => at(number)))
})

test('[P8] with Redis away or silent nobody waits, the log says so once, and it goes on when it is back', async () => {
  const told: { level: number }[] = []
  const listening = pino({ level: 'warn' }, { write: line => void told.push(JSON.parse(line)) })
  await using link = await FaultyLink.to(server.url)
  const away = await connect(link.url, 500)
  const stands = new RedisStands({ redis: away, name: newName(), log: listening })
  stands.keep(stand(7, 0x30))
  await stands.close()
  link.isolate()
  let began = performance.now()
  expect(await stands.take('alice', '8')).toBeNull()
  for (let number = 0; number < 500; number += 1) stands.keep(stand(9, 0x40, { owner: `owner ${number}` }))
  expect(await stands.take('owner 499', '10')).toBeNull()
  await stands.close()
  expectWithin(performance.now() - began, 2000)
  link.thaw()
  const back = async (): Promise<unknown> => {
    stands.keep(stand(7, 0x50, { owner: 'bob' }))
    return stands.take('bob', '8')
  }
  await expect.poll(back).toEqual({ channel: at(0x50) })
  const lost = new Promise(resolve => away.once('close', resolve))
  link.cut()
  await lost
  began = performance.now()
  expect(await stands.take('alice', '8')).toBeNull()
  expectWithin(performance.now() - began, 1000)
  await expect.poll(back).toEqual({ channel: at(0x50) })
  // Both times: what is the same within a minute is counted.
  expect(told.map(({ level }) => level)).toEqual([40])
})
