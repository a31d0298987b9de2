// The command as somebody types it: broken on purpose, mended by what it prints, and well.

import { expect, test } from 'vitest'
import { z } from 'zod'
import { release } from '../../src/server/nodes/release.ts'
import { settingsOfRemedy } from '../server/doctor/remedies.ts'
import { prepareDatabase, roomsSchema } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { lastingPort, startRedis } from '../support/redis-process.ts'
import { type CliResult, runCli } from '../support/run-cli.ts'

const secret = 'kept to itself: 0123456789abcdef0123456789'

const diagnosisShape = z.strictObject({
  release: z.literal(release),
  at: z.iso.datetime(),
  verdict: z.enum(['ok', 'warning', 'failure', 'unknown']),
  findings: z
    .array(
      z.strictObject({
        check: z.string().regex(/^[a-z]+(-[a-z]+)*$/),
        area: z.enum(['postgres', 'policies', 'redis', 'configuration', 'machine']),
        about: z.string().nullable(),
        verdict: z.enum(['ok', 'warning', 'failure', 'unknown']),
        reason: z.string().min(5),
        remedy: z
          .strictObject({
            kind: z.enum(['sql', 'shell', 'setting', 'redis']),
            text: z.string().min(1),
            // biome-ignore lint/suspicious/noThenProperty: a text, which nothing takes for a promise.
            then: z.string().nullable(),
          })
          .nullable(),
        code: z.string().nullable(),
      }),
    )
    .min(20),
})

test('doctor finds what is broken, and what it prints mends it', async () => {
  await using database = await TestDatabase.create()
  await prepareDatabase(database, roomsSchema, ['rooms', 'members', 'messages'])
  await using redis = await startRedis({ appendonly: true, settings: { appendfsync: 'everysec' } })
  await redis.ask('CONFIG', 'SET', 'maxmemory-policy', 'allkeys-lru')
  const env = {
    DATABASE_URL: database.url,
    REDIS_URL: redis.url,
    JWT_SECRET: secret,
    TIDEGATE_NAME: 'tidegate',
    MAX_CONNECTIONS: '100',
    HEARTBEAT_MS: '1',
  }
  const doctor = (more: Record<string, string>, ...args: string[]): Promise<CliResult> =>
    runCli(['doctor', ...args], { ...env, ...more })

  const broken = await doctor({}, '--json')
  expect([broken.code, broken.err]).toEqual([1, ''])
  const { findings, verdict } = diagnosisShape.parse(JSON.parse(broken.out))
  expect(verdict).toBe('failure')
  const option = findings.find(({ check }) => check === 'option')!
  expect(option).toMatchObject({ about: 'HEARTBEAT_MS', verdict: 'failure', code: 'CONFIG_INVALID' })
  // The rest is looked at all the same.
  expect(findings.find(({ check }) => check === 'postgres-reachable')).toMatchObject({ verdict: 'ok' })
  expect(findings.find(({ check }) => check === 'redis-eviction')).toMatchObject({ verdict: 'warning' })
  const mended = await settingsOfRemedy(option)

  const told = await doctor(mended)
  const printed = /With redis-cli, run:\n((?: {13}.*\n)+)/.exec(told.out)![1]!
  expect(printed).toContain('CONFIG SET maxmemory-policy noeviction')
  for (const line of printed.trim().split('\n')) await redis.ask(...(line.trim().split(' ') as [string, ...string[]]))
  const well = diagnosisShape.parse(JSON.parse((await doctor(mended, '--json')).out)).findings
  for (const check of ['option', 'redis-eviction', 'heartbeat'])
    expect(well.find(finding => finding.check === check)).toMatchObject({ verdict: 'ok' })
  for (const text of [broken.out, told.out]) {
    expect(text).not.toContain(secret)
    expect(text).not.toContain('\u001b[')
  }
})

test('a database that does not answer keeps nothing back of Redis, and fails', async () => {
  await using redis = await startRedis({ appendonly: true, password: 'sekret' })
  const { code, out } = await runCli(['doctor'], {
    DATABASE_URL: `postgres://app:hidden@127.0.0.1:${await lastingPort()}/app`,
    REDIS_URL: redis.url,
    JWT_SECRET: secret,
  })
  expect(code).toBe(1)
  expect(out).toMatch(/failure .*ECONNREFUSED.*\[postgres-reachable, DATABASE_UNREACHABLE\]/)
  expect(out).toMatch(/ok {7}Redis is \d/)
  expect(out).not.toMatch(/sekret|hidden/)
})

test('its help says what it takes and how it exits', async () => {
  const { code, out } = await runCli(['doctor', '--help'])
  expect(code).toBe(0)
  expect(out).toContain('--strict')
  expect(out).toContain('--redis-url <value>')
  expect(out).toContain('Exit code: 0 if nothing failed, 1 if something did, 2 if something could not be looked at.')
})
