import { decodeJwt, decodeProtectedHeader, jwtVerify } from 'jose'
import { expect, test } from 'vitest'
import { readManifest, requireNode } from '../../src/cli/manifest.ts'
import { flagOf, optionNames } from '../../src/server/config/config.ts'
import { runCli } from '../support/run-cli.ts'

const secret = 'a secret of more than thirty-two bytes'
const sub = '7f1c0b1e-4a5a-4c6e-9d7b-2f2a3c4d5e6f'

test('--help names every command', async () => {
  const { code, out } = await runCli(['--help'])
  expect(code).toBe(0)
  for (const command of [
    'start',
    'dev',
    'migrate',
    'track',
    'untrack',
    'explain',
    'tail',
    'token',
    'remove',
    'rebalance',
    'kick',
    'revoke',
    'refresh',
  ])
    expect(out).toMatch(new RegExp(`^  ${command} `, 'm'))
})

test('--version prints that of the package', async () => {
  expect((await runCli(['--version'])).out).toBe(`${readManifest().version}\n`)
})

test('[P8] a Node that is too old is named, and what to do; npm only warns', () => {
  const manifest = readManifest()
  expect(() => requireNode(manifest, '20.20.2')).toThrow(
    expect.objectContaining({ code: 'NODE_TOO_OLD', message: 'this is Node 20.20.2, and Tidegate needs 24 or later' }),
  )
  expect(() => requireNode(manifest, process.versions.node)).not.toThrow()
})

test('start --help names every option with its flag', async () => {
  const { out } = await runCli(['start', '--help'])
  for (const name of optionNames) {
    expect(out).toContain(`${flagOf(name)} <value>`)
    expect(out.replace(/\s+/g, ' ')).toContain(`[${name}, `)
  }
})

test('[P8] an option that does not fit ends with code, message and remedy, and no stack', async () => {
  const { code, out, err } = await runCli(['start'], {
    DATABASE_URL: 'postgres://db/app',
    JWT_SECRET: secret,
    PORT: 'x',
  })
  expect(code).toBe(1)
  expect(out).toBe('')
  expect(err.split('\n')).toEqual([
    'tidegate: CONFIG_INVALID',
    '  PORT is "x"; it takes a whole number from 0 to 65535',
    '  Remedy: Set it as the message says; every option is in docs/configuration.md.',
    '',
  ])
})

test('--verbose shows the stack', async () => {
  const { err } = await runCli(['start', '--verbose'])
  expect(err).toContain('DATABASE_URL is not set')
  expect(err).toContain('at loadConfig')
})

test('an unknown command or flag is refused', async () => {
  expect((await runCli(['strat'])).code).toBe(1)
  const { code, err } = await runCli(['start', '--prot', '1'])
  expect(code).toBe(1)
  expect(err).toContain("unknown option '--prot'")
})

test('of several secrets token signs with the first', async () => {
  const { out } = await runCli(['token', '--sub', 'ada'], { JWT_SECRET: JSON.stringify([secret, `${secret}!`]) })
  expect((await jwtVerify(out.trim(), new TextEncoder().encode(secret))).payload.sub).toBe('ada')
})

test('token mints what JWT_SECRET verifies, with role, subject, claims and lifetime', async () => {
  const args = ['token', '--role', 'authenticated', '--sub', sub, '--claim', 'tenant=acme', '--claim', 'level=3']
  const { code, out, err } = await runCli([...args, '--expires', '30m'], { JWT_SECRET: secret, JWT_ISSUER: 'me' })
  expect([code, err]).toEqual([0, ''])
  const { payload } = await jwtVerify(out.trim(), new TextEncoder().encode(secret), { issuer: 'me' })
  expect(payload).toMatchObject({ role: 'authenticated', sub, tenant: 'acme', level: 3 })
  expect(payload.exp! - payload.iat!).toBe(1800)
})

test('token follows the configured algorithm, role claim and audience', async () => {
  const env = { JWT_SECRET: secret.repeat(2), JWT_ALGORITHMS: 'HS512', JWT_ROLE_CLAIM: 'db_role', JWT_AUDIENCE: 'app' }
  const { out } = await runCli(['token', '--role', 'anon', '--expires', 'never'], env)
  expect(decodeProtectedHeader(out.trim()).alg).toBe('HS512')
  expect(decodeJwt(out.trim())).toEqual({ db_role: 'anon', aud: 'app', iat: expect.any(Number) })
})

test.each([
  [['token'], {}, 'JWT_SECRET is not set'],
  [['token'], { JWT_SECRET: '[]' }, 'JWT_SECRET is a list of 0 secrets'],
  [['token'], { JWT_JWKS_URL: 'https://id.example.com/keys' }, 'ask your identity provider'],
  [['token', '--expires', 'soon'], { JWT_SECRET: secret }, '--expires is "soon"'],
  [['token', '--claim', 'tenant'], { JWT_SECRET: secret }, '--claim is "tenant"'],
  [['rebalance'], {}, 'REDIS_URL is not set'],
  [['rebalance', '--over', 'soon'], { REDIS_URL: 'redis://127.0.0.1:1' }, '--over is "soon"'],
  [['tail', 'messages', '--filter', 'room'], {}, '--filter is "room"'],
  [['tail', 'messages', '--url', 'localhost:4000'], {}, '--url is "localhost:4000"'],
])('%j with %j is refused by CONFIG_INVALID', async (args, env, message) => {
  const { code, err } = await runCli(args, env as Record<string, string>)
  expect(code).toBe(1)
  expect(err).toContain('CONFIG_INVALID')
  expect(err).toContain(message)
})
