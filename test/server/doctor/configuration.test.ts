// Options that do not fit, or not together: found, each alone, and mended by what the remedy sets.
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import fc from 'fast-check'
import { exportJWK, generateKeyPair, type JWK } from 'jose'
import { expect, test } from 'vitest'
import { type Environment, loadConfig, optionNames } from '../../../src/server/config/config.ts'
import type { CheckName } from '../../../src/server/doctor/checks.ts'
import { readConfiguration } from '../../../src/server/doctor/configuration.ts'
import { configurationFindings } from '../../../src/server/doctor/configuration-findings.ts'
import type { Finding, Verdict } from '../../../src/server/doctor/finding.ts'
import { judgeKeys, jwksFindings } from '../../../src/server/doctor/jwks.ts'
import { isLocal } from '../../../src/server/doctor/local-host.ts'
import { findingOf, settingsOfRemedy } from './remedies.ts'

const good = { DATABASE_URL: 'postgres://127.0.0.1/app', JWT_SECRET: 'as good as random: 0123456789abcdef' }

test.each<[refused: Environment, about: string]>([
  [{ DATABASE_URL: '' }, 'DATABASE_URL'],
  [{ DATABASE_URL: 'mysql://root:sekret@host/app' }, 'DATABASE_URL'],
  [{ JWT_SECRET: '' }, 'JWT_SECRET'],
  [{ JWT_SECRET: 'sekret' }, 'JWT_SECRET'],
  [{ JWT_SECRET: 'a'.repeat(40) }, 'JWT_SECRET'],
  [{ JWT_JWKS_URL: 'https://issuer.example.com/keys' }, 'JWT_SECRET'],
  [{ JWT_SECRET: '', JWT_JWKS_URL: 'http://issuer.example.com/keys' }, 'JWT_JWKS_URL'],
  [{ JWT_ALGORITHMS: 'RS256' }, 'JWT_ALGORITHMS'],
  [{ JWT_ALGORITHMS: 'none' }, 'JWT_ALGORITHMS'],
  [{ PORT: '99999999' }, 'PORT'],
  [{ MAX_CONNECTIONS: 'many' }, 'MAX_CONNECTIONS'],
  [{ REDIS_URL: 'http://:sekret@redis' }, 'REDIS_URL'],
  [{ CHANNELS: '{' }, 'CHANNELS'],
  [{ CHANNELS_FILE: '/nowhere/channels.json' }, 'CHANNELS_FILE'],
  [{ API_KEYS: 'sb_secret_0123456789=service_role' }, 'API_KEYS'],
  [{ OPERATOR_TOKEN: 'sekret' }, 'OPERATOR_TOKEN'],
  [
    {
      OPERATOR_TOKEN: 'shared:0123456789abcdef0123456789abcdef',
      JWT_SECRET: 'shared:0123456789abcdef0123456789abcdef',
    },
    'OPERATOR_TOKEN',
  ],
  [{ OPERATOR_TOKEN: '0123456789abcdef', PORT: '4000', ADMIN_PORT: '4000' }, 'ADMIN_PORT'],
  [{ ADMIN_HOST: '127.0.0.1' }, 'ADMIN_HOST'],
  [{ ALLOWED_ORIGINS: '*,https://app.example.com' }, 'ALLOWED_ORIGINS'],
  [{ TRUSTED_PROXIES: 'everybody' }, 'TRUSTED_PROXIES'],
])('%j is a failure of %s, and with what the remedy sets a start takes it', async (changes, about) => {
  const env = { ...good, ...changes }
  expect(() => loadConfig(env)).toThrow()
  const { findings, refused, config } = readConfiguration(env)
  expect(findings).toHaveLength(1)
  expect(findings[0]).toMatchObject({ check: 'option', about, verdict: 'failure', code: 'CONFIG_INVALID' })
  expect(refused.has(about as (typeof optionNames)[number])).toBe(true)
  expect(config.tidegateName).toBe('tidegate')
  expect(JSON.stringify(findings)).not.toContain('sekret')
  const mended = { ...env, ...(await settingsOfRemedy(findings[0]!)) }
  expect(readConfiguration(mended).findings).toEqual([])
  loadConfig(mended)
})

test('an option is not told of twice, and does not keep the others from being told', () => {
  const { findings } = readConfiguration({ PORT: 'x', JWT_SECRET: 'short', API_KEYS: 'sb_secret_0123456789=nobody' })
  expect(findings.map(({ about }) => about).sort()).toEqual(['API_KEYS', 'DATABASE_URL', 'JWT_SECRET', 'PORT'])
})

test('of a flag that does not fit the remedy says that it wins', () => {
  const { findings } = readConfiguration(good, { port: 'x' })
  expect(findings[0]!.reason).toContain('--port is "x"')
  expect(findings[0]!.remedy).toMatchObject({ text: 'PORT=4000' })
  expect(findings[0]!.remedy!.then).toContain('leave out --port')
})

test('whatever options hold, reading them ends, and finds something exactly if a start refuses', () => {
  const text = fc.oneof(fc.string(), fc.constantFrom('*', '0', '-1', 'RS256', '[]', '{}', '4000', 'postgres://a:b@c/d'))
  const env = fc.dictionary(fc.constantFrom(...optionNames), text, { maxKeys: 6 })
  fc.assert(
    fc.property(env, fc.boolean(), (changes, hasRest) => {
      const all = hasRest ? { ...good, ...changes } : changes
      let isRefused = false
      try {
        loadConfig(all)
      } catch {
        isRefused = true
      }
      expect(readConfiguration(all).findings.length > 0).toBe(isRefused)
    }),
  )
})

interface Unsafe {
  readonly check: CheckName
  readonly verdict: Verdict
  readonly broken: Environment
  readonly isProduction?: boolean
}

test.each<Unsafe>([
  {
    check: 'jwt-secret',
    verdict: 'failure',
    broken: { JWT_SECRET: 'development-only-and-at-least-32-bytes', HOST: '0.0.0.0' },
  },
  { check: 'jwt-secret', verdict: 'warning', broken: { JWT_SECRET: 'development-only-and-at-least-32-bytes' } },
  {
    check: 'jwt-secret',
    verdict: 'failure',
    broken: { JWT_SECRET: 'your-super-secret-jwt-token-with-at-least-32-characters', HOST: '0.0.0.0' },
  },
  { check: 'jwt-audience', verdict: 'warning', broken: { JWT_SECRET: '', JWT_JWKS_URL: 'https://a.example/keys' } },
  { check: 'allowed-origins', verdict: 'warning', broken: { ALLOWED_ORIGINS: '*' } },
  { check: 'database-tls', verdict: 'warning', broken: { DATABASE_URL: 'postgres://u:sekret@db.example.com/app' } },
  {
    check: 'database-tls',
    verdict: 'warning',
    broken: { DATABASE_URL: 'postgres://u:sekret@db.example.com/app?sslmode=require' },
  },
  {
    check: 'database-tls',
    verdict: 'warning',
    broken: { DATABASE_URL: 'postgres://u@db.example.com/app?password=sekret&sslpassword=sekret' },
  },
  {
    check: 'database-tls',
    verdict: 'warning',
    broken: { DATABASE_REPLICATION_URL: 'postgres://u:sekret@db.example.com/app?sslmode=prefer' },
  },
  { check: 'redis-tls', verdict: 'warning', broken: { REDIS_URL: 'redis://:sekret@redis.example.com' } },
  { check: 'operator-token', verdict: 'warning', broken: { ADMIN_PORT: '9090' } },
  {
    check: 'relay-window',
    verdict: 'warning',
    broken: { REDIS_URL: 'redis://127.0.0.1', WINDOW_MAX_BYTES: '268435456' },
  },
  { check: 'slot-window', verdict: 'warning', broken: { SLOT_MAX_BYTES: '104857600' } },
  { check: 'drain-time', verdict: 'warning', broken: { DRAIN_SPREAD_MS: '60000' } },
  { check: 'heartbeat', verdict: 'warning', broken: { HEARTBEAT_MS: '90000' } },
])('$check is a $verdict with $broken, and ok with what the remedy sets', async ({ check, verdict, broken }) => {
  const findings = (env: Environment): Finding[] => configurationFindings(loadConfig(env))
  const env = { ...good, ...broken }
  const found = findingOf(findings(env), check)
  expect(found.verdict).toBe(verdict)
  expect(JSON.stringify(found)).not.toContain('sekret')
  const settings = await settingsOfRemedy(found, { PGPASSWORD: 'sekret', REDIS_PASSWORD: 'sekret' })
  expect(findingOf(findings({ ...env, ...settings }), check).verdict).toBe('ok')
  expect(
    findingOf(
      findings(good),
      check === 'relay-window' || check === 'redis-tls'
        ? 'slot-window'
        : check === 'jwt-audience'
          ? 'jwt-secret'
          : check,
    ).verdict,
  ).toBe('ok')
})

test.each([
  ['127.0.0.1', true],
  ['127.8.8.8', true],
  ['localhost', true],
  ['[::1]', true],
  ['/var/run/postgresql', true],
  ['', true],
  ['127.0.0.1.example.com', false],
  ['10.0.0.1', false],
  ['db', false],
])('%s is this machine: %s', (host, expected) => {
  expect(isLocal(host)).toBe(expected)
})

test.each<[verdict: Verdict, keys: readonly JWK[], algorithms: readonly string[], mended: string | null]>([
  ['ok', [{ kty: 'RSA', alg: 'RS256' }], ['RS256'], null],
  ['ok', [{ kty: 'OKP', crv: 'Ed25519', alg: 'Ed25519' }], ['EdDSA'], null],
  ['ok', [{ kty: 'RSA' }, { kty: 'RSA', use: 'enc', alg: 'RSA-OAEP' }], ['PS256'], null],
  ['failure', [{ kty: 'EC', crv: 'P-384' }], ['RS256', 'ES256'], 'RS256,ES256,ES384'],
  [
    'warning',
    [
      { kty: 'RSA', kid: 'new', alg: 'RS512' },
      { kty: 'EC', crv: 'P-256' },
    ],
    ['ES256'],
    'ES256,RS512',
  ],
  ['failure', [{ kty: 'RSA', use: 'enc' }], ['RS256'], null],
])('jwks: %s for %j under %j', (verdict, keys, algorithms, mended) => {
  const { verdict: found, remedy } = judgeKeys(keys, algorithms)
  expect([found, remedy?.text ?? null]).toEqual([verdict, mended === null ? null : `JWT_ALGORITHMS=${mended}`])
  if (mended !== null) expect(judgeKeys(keys, mended.split(',')).verdict).toBe('ok')
})

test('jwks: an issuer that is away, answers nonsense, and then its keys', async () => {
  const { publicKey } = await generateKeyPair('ES256')
  let answer = '<html>'
  const issuer = createServer((_, response) => void response.setHeader('connection', 'close').end(answer))
  await new Promise<void>(resolve => issuer.listen(0, '127.0.0.1', resolve))
  const jwtJwksUrl = `http://127.0.0.1:${(issuer.address() as AddressInfo).port}/keys`
  const look = async (): Promise<Finding> => (await jwksFindings({ jwtJwksUrl, jwtAlgorithms: ['ES256'] }))[0]!
  expect(await look()).toMatchObject({ verdict: 'failure', reason: expect.stringContaining('no JSON') })
  answer = JSON.stringify({ keys: [await exportJWK(publicKey)] })
  expect((await look()).verdict).toBe('ok')
  await new Promise(resolve => issuer.close(resolve))
  expect(await look()).toMatchObject({
    verdict: 'failure',
    reason: expect.stringContaining('ECONNREFUSED'),
    remedy: { kind: 'shell', text: `curl -fsS '${jwtJwksUrl}'` },
  })
  expect(await jwksFindings({ jwtJwksUrl: null, jwtAlgorithms: ['HS256'] })).toEqual([])
})
