// Options that fit each for itself: which of their mixtures stop a start, which are warned of, and that no secret is told.
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { expect, test } from 'vitest'
import { TidegateError } from '../../../src/protocol/tidegate-error.ts'
import { loadConfig } from '../../../src/server/config/config.ts'
import { secretsIn, verificationOf } from '../../../src/server/config/config-tokens.ts'
import { mixturesOf } from '../../../src/server/config/config-unsafe.ts'

const secret = randomBytes(32).toString('hex')
const other = randomBytes(32).toString('hex')
const operator = randomBytes(24).toString('base64url')
const least = { DATABASE_URL: 'postgres://tidegate:hunter2@db:5432/app', JWT_SECRET: secret }
const { JWT_SECRET: _, ...database } = least
const keys = { ...database, JWT_JWKS_URL: 'https://issuer.example/keys' }
const { publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
const pem = publicKey.export({ type: 'spki', format: 'pem' }).toString()
const jwk = JSON.stringify(publicKey.export({ format: 'jwk' }))

function refusal(env: Record<string, string>): string | null {
  try {
    loadConfig(env)
    return null
  } catch (error) {
    if (error instanceof TidegateError && error.code === 'CONFIG_INVALID') return error.message
    throw error
  }
}

const list = (...items: unknown[]): string => JSON.stringify(items)

test.each<[string, Record<string, string>, RegExp]>([
  // Whoever can read the public key could sign.
  ['a public key as the secret', { ...least, JWT_SECRET: pem }, /public key or a certificate.*JWT_JWKS_URL instead/],
  ['a certificate as the secret', { ...least, JWT_SECRET: pem.replaceAll('PUBLIC KEY', 'CERTIFICATE') }, /public key/],
  ['a JWK as the secret', { ...least, JWT_SECRET: jwk }, /public key/],
  ['a set of keys as the secret', { ...least, JWT_SECRET: `{"keys":[${jwk}]}` }, /public key/],
  ['a key of ssh as the secret', { ...least, JWT_SECRET: `ssh-rsa ${'AAAAB3NzaC1yc2E'.repeat(9)}` }, /public key/],
  ['a public key among the secrets', { ...least, JWT_SECRET: list(secret, pem) }, /number 2 of its list, is a public/],
  ['a secret and keys', { ...least, JWT_JWKS_URL: 'https://issuer.example/keys' }, /both set.*could be forged/],
  ['a secret with RS256', { ...least, JWT_ALGORITHMS: 'RS256' }, /with JWT_SECRET it takes HS256/],
  ['keys with HS256', { ...keys, JWT_ALGORITHMS: 'RS256,HS256' }, /with JWT_JWKS_URL it takes RS256/],
  // Secrets that can be guessed.
  ['a short secret', { ...least, JWT_SECRET: 'x1y2z3' }, /has 6 bytes.*at least 32/],
  ['a short one for HS512', { ...least, JWT_SECRET: secret.slice(0, 60), JWT_ALGORITHMS: 'HS512' }, /at least 64/],
  [
    'a short one among the secrets',
    { ...least, JWT_SECRET: list(secret, 'short') },
    /number 2 of its list, has 5 bytes/,
  ],
  ['an empty one among the secrets', { ...least, JWT_SECRET: list('', secret) }, /number 1 of its list, has 0 bytes/],
  ['a list of none', { ...least, JWT_SECRET: '[]' }, /a list of 0 secrets; it takes 1 to 10/],
  ['too many', { ...least, JWT_SECRET: list(...Array.from({ length: 11 }, () => other)) }, /a list of 11 secrets/],
  ['one character', { ...least, JWT_SECRET: 'a'.repeat(40) }, /the same few characters/],
  ['the same twice', { ...least, JWT_SECRET: list(secret, other, secret) }, /number 3 of its list, stands in it twice/],
  // What is lost with one door opens another.
  ['the secret as the token', { ...least, OPERATOR_TOKEN: secret }, /OPERATOR_TOKEN and JWT_SECRET hold the same/],
  [
    'an old secret as an old token',
    { ...least, JWT_SECRET: list(secret, other), OPERATOR_TOKEN: list(operator, other) },
    /OPERATOR_TOKEN and JWT_SECRET hold the same/,
  ],
  [
    'an API key as the token',
    { ...least, API_KEYS: 'sb_secret_0123456789=anon', OPERATOR_TOKEN: 'sb_secret_0123456789' },
    /OPERATOR_TOKEN and API_KEYS hold the same/,
  ],
  [
    'an API key as the secret',
    { ...least, API_KEYS: `sb_secret_${other}=anon`, JWT_SECRET: `sb_secret_${other}` },
    /JWT_SECRET and API_KEYS hold the same/,
  ],
  [
    'the password of the database as the token',
    { ...least, DATABASE_URL: `postgres://me:${encodeURIComponent('a/pass word@of:20')}@db/app`, OPERATOR_TOKEN: 'a' },
    /does not fit/,
  ],
  [
    'the password of the database as the token',
    {
      ...least,
      DATABASE_URL: `postgres://me:${encodeURIComponent('a/password@of:20!')}@db/app`,
      OPERATOR_TOKEN: 'a/password@of:20!',
    },
    /OPERATOR_TOKEN and DATABASE_URL hold the same/,
  ],
  [
    'the password of the database, named behind the address, as the token',
    { ...least, DATABASE_URL: `postgres://me@db/app?password=${operator}`, OPERATOR_TOKEN: operator },
    /OPERATOR_TOKEN and DATABASE_URL hold the same/,
  ],
  [
    'the password of Redis as the secret',
    { ...least, REDIS_URL: `rediss://:${secret}@redis:6379` },
    /JWT_SECRET and REDIS_URL hold the same/,
  ],
  // The operators' door.
  ['a short token', { ...least, OPERATOR_TOKEN: 'fifteen-letters' }, /OPERATOR_TOKEN is a value that does not fit/],
  ['a token of one character', { ...least, OPERATOR_TOKEN: 'x'.repeat(40) }, /OPERATOR_TOKEN can be guessed/],
  ['a token out of a page', { ...least, OPERATOR_TOKEN: 'change-me-change-me' }, /OPERATOR_TOKEN can be guessed/],
  ['a token that no header holds', { ...least, OPERATOR_TOKEN: 'an öperator of the tests' }, /does not fit/],
  ['no token in the list', { ...least, OPERATOR_TOKEN: '[]' }, /does not fit/],
  ['a short token in the list', { ...least, OPERATOR_TOKEN: list(operator, 'short') }, /does not fit/],
  ['one port for both', { ...least, PORT: '4100', ADMIN_PORT: '4100' }, /ADMIN_PORT is 4100, the port of the clients/],
  ['the port of the default', { ...least, ADMIN_PORT: '4000' }, /ADMIN_PORT is 4000/],
  ['a host without its port', { ...least, ADMIN_HOST: '10.0.0.1', OPERATOR_TOKEN: operator }, /set ADMIN_PORT/],
  // Who may come in.
  ['all origins and some', { ...least, ALLOWED_ORIGINS: '*,https://app.example.com' }, /leave out \* or them/],
  [
    'a key of pages that sees everything',
    { ...least, JWT_ROLES: 'anon,service_role', API_KEYS: 'sb_publishable_0123=service_role' },
    /publishable key.*"service_role".*give it anon/,
  ],
  ['keys over http', { ...database, JWT_JWKS_URL: 'http://issuer.example/keys' }, /is http to issuer\.example.*https/],
  ['keys over http by address', { ...database, JWT_JWKS_URL: 'http://8.8.8.8/keys' }, /is http to 8\.8\.8\.8/],
  ['keys over http, nearly inside', { ...database, JWT_JWKS_URL: 'http://172.32.0.1/keys' }, /is http to 172\.32/],
  ['keys over http, by a name like inside', { ...database, JWT_JWKS_URL: 'http://127.0.0.1.example.com/k' }, /is http/],
  ['keys behind a password', { ...database, JWT_JWKS_URL: 'https://me:hunter2@issuer.example/k' }, /or a password/],
  [
    'a secret of public examples, in production',
    { ...least, JWT_SECRET: 'super-secret-jwt-token-with-at-least-32-characters-long', NODE_ENV: 'production' },
    /stands in public examples/,
  ],
])('refused: %s', (_, env, why) => {
  const message = refusal(env)
  expect(message).toMatch(why)
  for (const value of [secret, other, operator, 'hunter2', 'password@of', 'super-secret', 'MIIB', 'BEGIN'])
    expect(message).not.toContain(value)
})

test.each<[string, Record<string, string>]>([
  ['the least', least],
  ['several secrets', { ...least, JWT_SECRET: list(secret, other) }],
  ['several tokens', { ...least, OPERATOR_TOKEN: list(operator, other) }],
  ['a port of its own', { ...least, OPERATOR_TOKEN: operator, ADMIN_PORT: '9000', ADMIN_HOST: '0.0.0.0' }],
  ['free ports for both', { ...least, OPERATOR_TOKEN: operator, PORT: '0', ADMIN_PORT: '0' }],
  ['a secret that begins like a list', { ...least, JWT_SECRET: `["a", ${secret}` }],
  ['a secret that begins like a key', { ...least, JWT_SECRET: `{${secret}` }],
  ['all origins', { ...least, ALLOWED_ORIGINS: '*' }],
  ['keys over https', keys],
  ...[
    'localhost:1',
    '127.0.0.1',
    '[::1]',
    '10.1.2.3',
    '172.16.0.9',
    'keycloak:8080',
    'a.svc',
    'a.b.svc.cluster.local',
  ].map((host): [string, Record<string, string>] => [
    `keys inside: ${host}`,
    { ...database, JWT_JWKS_URL: `http://${host}/k` },
  ]),
  [
    'a published secret, in development',
    { ...least, JWT_SECRET: 'super-secret-jwt-token-with-at-least-32-characters-long' },
  ],
])('accepted: %s', (_, env) => {
  expect(refusal(env)).toBe(null)
})

test.each<[string, Record<string, string>, string[]]>([
  ['the least', least, []],
  ['keys of an issuer of many', keys, ['jwt-audience']],
  ['keys for one application', { ...keys, JWT_AUDIENCE: 'app' }, []],
  ['a port without a token', { ...least, ADMIN_PORT: '9000' }, ['operator-token-missing']],
  [
    'a published secret',
    { ...least, JWT_SECRET: 'your-super-secret-jwt-token-with-at-least-32-characters-long' },
    ['secret-published'],
  ],
])('warned of: %s', (_, env, checks) => {
  expect(mixturesOf(loadConfig(env)).map(({ check }) => check)).toEqual(checks)
})

test('a secret is what it is, unless it is a JSON list of texts', () => {
  for (const text of [secret, `["${secret}"`, '[1,2]', '["a",1]', '[["a"]]', '{"a":["b"]}', '"text"', `[${secret}]`])
    expect(secretsIn(text)).toEqual([text])
  expect(secretsIn(` [ "a" ,\n"b" ] `)).toEqual(['a', 'b'])
})

test('a refusal says which flag was given', () => {
  expect(() => loadConfig(least, { adminHost: '10.0.0.1' })).toThrow('--admin-host is "10.0.0.1" and ADMIN_PORT')
  expect(() => verificationOf({ jwtSecret: ['a'], jwtJwksUrl: null, jwtAlgorithms: [] }, () => '--jwt-secret')).toThrow(
    '--jwt-secret has 1 bytes',
  )
})
