// Where REDIS_URL leads other than it says: to another kind, or with TLS where there is none.
import { expect, test } from 'vitest'
import type { Finding } from '../../../src/server/doctor/finding.ts'
import { redisFindings } from '../../../src/server/doctor/redis.ts'
import { startRedisCluster } from '../../support/redis-cluster.ts'
import { startRedis } from '../../support/redis-process.ts'
import { startSentinels } from '../../support/redis-sentinels.ts'
import { findingOf, settingsOfRemedy } from './remedies.ts'

const config = { relayMaxBytes: 1024 * 1024, relayDurability: 'none', tidegateName: 'tidegate' } as const
const look = (redisUrl: string): Promise<Finding[]> =>
  redisFindings({ config: { ...config, redisUrl }, timeoutMs: 1500 })

/** The URL of the remedy, which must lead where it should. */
async function mended(found: Finding, env: Record<string, string> = {}): Promise<string> {
  expect(found).toMatchObject({ verdict: 'failure' })
  const { REDIS_URL } = await settingsOfRemedy(found, env)
  const findings = await look(REDIS_URL!)
  expect(findings.filter(({ verdict }) => verdict === 'failure' || verdict === 'unknown')).toEqual([])
  expect(findingOf(findings, 'redis-kind').verdict).toBe('ok')
  return REDIS_URL!
}

test('Sentinels taken for a server, a server taken for Sentinels, and a master by a wrong name', async () => {
  await using sentinels = await startSentinels({ replicas: 1, appendonly: true })
  const [first] = sentinels.sentinels
  const asServer = findingOf(await look(first!.url), 'redis-kind')
  expect(await mended(asServer)).toBe(`redis+sentinel://127.0.0.1:${first!.port}/tidegate`)
  const wrongName = findingOf(await look(`redis+sentinel://127.0.0.1:${first!.port}/mymaster`), 'redis-kind')
  expect(wrongName.reason).toContain('know no master "mymaster", but "tidegate"')
  await mended(wrongName)
  const master = await sentinels.master()
  const asSentinels = findingOf(await look(`redis+sentinel://127.0.0.1:${master.port}/tidegate`), 'redis-kind')
  expect(await mended(asSentinels)).toBe(master.url)
})

test('a Cluster taken for a server, a server for a Cluster, and each master of a Cluster looked at', async () => {
  await using cluster = await startRedisCluster({ appendonly: true })
  const [first] = cluster.servers
  await mended(findingOf(await look(first!.url), 'redis-kind'))
  const findings = await look(cluster.url)
  expect(findings.filter(({ check }) => check === 'redis-eviction')).toHaveLength(3)
  expect(findings.filter(({ check }) => check === 'redis-memory')).toHaveLength(1)
  expect(findings.filter(({ verdict }) => verdict === 'failure')).toEqual([])
  await using server = await startRedis({ appendonly: true })
  const asCluster = findingOf(await look(server.url.replace('redis:', 'redis+cluster:')), 'redis-kind')
  expect(await mended(asCluster)).toBe(server.url)
})

test('TLS where there is none, none where there is TLS, and an authority that nobody knows', async () => {
  await using secure = await startRedis({ tls: true, password: 'sekret', appendonly: true })
  const env = { REDIS_PASSWORD: 'sekret', REDIS_CA: secure.certificate!.authorityFile }
  const unknown = findingOf(await look(secure.url), 'redis-reachable')
  expect(unknown.reason).toMatch(/certificate/)
  await mended(unknown, env)
  const without = findingOf(await look(secure.url.replace('rediss:', 'redis:')), 'redis-reachable')
  expect(without.reason).toContain('answers with TLS only')
  expect((await settingsOfRemedy(without, env)).REDIS_URL).toBe(secure.url)
  await using open = await startRedis({ appendonly: true })
  const withTls = findingOf(await look(open.url.replace('redis:', 'rediss:')), 'redis-reachable')
  expect(await mended(withTls)).toBe(open.url)
  expect(JSON.stringify([unknown, without])).not.toContain('sekret')
})
