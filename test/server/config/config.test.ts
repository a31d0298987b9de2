import { expect, test } from 'vitest'
import { TidegateError } from '../../../src/protocol/tidegate-error.ts'
import { flagOf, keyOf, loadConfig, loadOptions, optionNames, options } from '../../../src/server/config/config.ts'

const secret = 'a secret of more than thirty-two bytes'
const least = { DATABASE_URL: 'postgres://tidegate:hunter2@db:5432/app', JWT_SECRET: secret }

function refusal(env: Record<string, string>, flags: Record<string, string> = {}): string {
  try {
    loadConfig(env, flags)
  } catch (error) {
    if (error instanceof TidegateError && error.code === 'CONFIG_INVALID') return error.message
    throw error
  }
  throw new Error('it was accepted')
}

test('a database and a secret are enough', () => {
  const config = loadConfig(least)
  expect(config).toMatchObject({ databaseUrl: least.DATABASE_URL, port: 4000, host: '127.0.0.1', jwtSecret: [secret] })
  expect(config).toMatchObject({ jwtAlgorithms: ['HS256'], jwtRoles: ['anon', 'authenticated'] })
  expect(config).toMatchObject({ adminDatabaseUrl: null, track: [], windowMaxBytes: 64 * 1024 * 1024 })
  expect(Object.keys(config).sort()).toEqual(optionNames.map(keyOf).sort())
})

test('every default fits its own type', () => {
  for (const name of optionNames) {
    const text = options[name].default
    if (text !== null && text !== '') expect(() => loadOptions([name], { [name]: text })).not.toThrow()
  }
})

test('a flag wins over the environment', () => {
  expect(loadConfig({ ...least, PORT: '5000' }, { port: '6000' }).port).toBe(6000)
  expect(flagOf('DATABASE_URL')).toBe('--database-url')
})

test('an empty value counts as not set', () => {
  expect(loadConfig({ ...least, PORT: '', JWT_JWKS_URL: ' ' }).port).toBe(4000)
  expect(refusal({ ...least, DATABASE_URL: '' })).toContain('DATABASE_URL is not set')
})

test.each([
  ['PORT', '70000', 'a whole number from 0 to 65535'],
  ['PORT', '4e3', 'a whole number'],
  ['PORT', '-1', 'a whole number'],
  ['HEARTBEAT_MS', '25s', 'a whole number from 100'],
  ['WINDOW_MAX_BYTES', '64MiB', 'a whole number from 1024'],
  ['LOG_LEVEL', 'loud', 'one of debug, info, warn, error, silent'],
  ['TIDEGATE_NAME', 'Tide-Gate', 'lower-case letters'],
  ['TRACK', 'a.b.c', 'messages,sales.orders'],
  ['TRACK', 'messages; DROP TABLE messages', 'messages,sales.orders'],
  ['ALLOWED_ORIGINS', 'https://app.example.com/path', 'origins'],
  ['JWT_ROLES', 'a"b', 'role names'],
  ['JWT_ALGORITHMS', 'none', 'HS256'],
  ['CLAIM_SETTINGS', 'tenant', 'setting=claim'],
  ['CLAIM_SETTINGS', 'request.jwt.claims=sub', 'setting=claim'],
  ['CLAIM_SETTINGS', 'role=sub', 'setting=claim'],
])('%s is refused when it is %s', (name, value, fits) => {
  const message = refusal({ ...least, [name]: value })
  expect(message).toContain(`${name} is ${JSON.stringify(value)}`)
  expect(message).toContain(fits)
})

test('one refusal names every option that does not fit, and the flag where a flag was given', () => {
  const message = refusal({ DATABASE_URL: 'nonsense', LOG_LEVEL: 'loud' }, { port: 'x' })
  expect(message.split('\n')).toHaveLength(3)
  expect(message).toContain('--port is "x"')
})

test('[P8] a secret is never printed', () => {
  expect(refusal({ ...least, DATABASE_URL: 'mysql://me:hunter2@db/app' })).not.toContain('hunter2')
  expect(refusal({ ...least, ADMIN_DATABASE_URL: 'hunter2' })).not.toContain('hunter2')
  expect(refusal({ ...least, JWT_SECRET: 'hunter2' })).not.toContain('hunter2')
})

test('keys of roles, each of a role that tokens may name', () => {
  const keys = 'sb_publishable_4f1c9=anon, sb_secret_0123456=service_role,'
  const given = { ...least, API_KEYS: keys, JWT_ROLES: 'anon,authenticated,service_role' }
  expect(loadConfig(given).apiKeys).toEqual([
    { key: 'sb_publishable_4f1c9', role: 'anon' },
    { key: 'sb_secret_0123456', role: 'service_role' },
  ])
  expect(loadConfig(least)).toMatchObject({ apiKeys: [], supabasePrivateOnly: false })
  expect(refusal({ ...least, API_KEYS: keys })).toBe(
    'API_KEYS has keys for "service_role", which JWT_ROLES does not list; add it there',
  )
})

test.each([
  'sb_publishable_4f1c9',
  'sb_publishable_4f1c9=',
  'sb_publishable_4f1c9=anon=anon',
  'sb_publishable_4f1c9 anon',
  'anon=sb_publishable_4f1c9',
  'sb_publishable_4f1c9=sb_secret_0123456',
  'sb_publishable_4f1c9:anon',
  'sb_too_short=anon',
  'eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl=anon',
  'sb_publishable_4f1c9=anon,sb_publishable_4f1c9=authenticated',
  Array.from({ length: 101 }, (_, n) => `sb_publishable_${1000 + n}=anon`).join(','),
])('[P8] keys that do not fit are refused, and never printed: %#', text => {
  const message = refusal({ ...least, API_KEYS: text })
  expect(message).toContain('API_KEYS is a value that does not fit (not shown); it takes at most 100 key=role pairs')
  for (const part of text.split(/[=,]/)) if (part.length > 12) expect(message).not.toContain(part)
})

test.each([
  ['1', true],
  ['true', true],
  ['0', false],
  ['false', false],
  ['', false],
])('SUPABASE_PRIVATE_ONLY=%s', (text, isOn) => {
  expect(loadConfig({ ...least, SUPABASE_PRIVATE_ONLY: text }).supabasePrivateOnly).toBe(isOn)
})

test('a switch takes no other word', () => {
  expect(refusal({ ...least, SUPABASE_PRIVATE_ONLY: 'yes' })).toBe(
    'SUPABASE_PRIVATE_ONLY is "yes"; it takes one of 1, 0, true, false',
  )
})

test('the spaces of a secret belong to it', () => {
  expect(loadConfig({ ...least, JWT_SECRET: ` ${secret}\n` }).jwtSecret).toEqual([` ${secret}\n`])
})

test('lists and pairs', () => {
  const config = loadConfig({
    ...least,
    TRACK: 'messages, sales.orders,',
    ALLOWED_ORIGINS: 'https://app.example.com,http://localhost:3000',
    CLAIM_SETTINGS: 'app.tenant_id=tenant,app.user_id=sub',
  })
  expect(config.track).toEqual(['messages', 'sales.orders'])
  expect(config.allowedOrigins).toEqual(['https://app.example.com', 'http://localhost:3000'])
  expect(config.claimSettings).toEqual([
    { setting: 'app.tenant_id', claim: 'tenant' },
    { setting: 'app.user_id', claim: 'sub' },
  ])
})

test('[P2] a token is verified one way only, which the configuration chooses', () => {
  const { JWT_SECRET: _, ...database } = least
  const keys = { ...database, JWT_JWKS_URL: 'https://id.example.com/jwks.json' }
  expect(loadConfig(keys).jwtAlgorithms).toEqual(['RS256', 'ES256', 'EdDSA'])
  expect(loadConfig({ ...keys, JWT_ALGORITHMS: 'ES256' }).jwtAlgorithms).toEqual(['ES256'])
  expect(refusal(database)).toContain('JWT_SECRET is not set, nor JWT_JWKS_URL')
  expect(refusal({ ...keys, JWT_SECRET: secret })).toContain('are both set')
  expect(refusal({ ...keys, JWT_ALGORITHMS: 'HS256' })).toContain('JWT_ALGORITHMS is "HS256"')
  expect(refusal({ ...keys, JWT_ALGORITHMS: 'RS256,HS256' })).toContain('with JWT_JWKS_URL it takes')
  expect(refusal({ ...least, JWT_ALGORITHMS: 'RS256' })).toContain('with JWT_SECRET it takes')
  expect(refusal({ ...least, JWT_SECRET: 'short' })).toContain('has 5 bytes')
  expect(refusal({ ...least, JWT_ALGORITHMS: 'HS512' })).toContain('at least 64')
})

test('a command asks for nothing it does not need', () => {
  expect(loadOptions(['PORT'], {})).toEqual({ port: 4000 })
  expect(() => loadOptions(['DATABASE_URL'], {})).toThrow(/DATABASE_URL is not set/)
})
