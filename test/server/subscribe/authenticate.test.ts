import { createHmac } from 'node:crypto'
import { createServer, type Server } from 'node:http'
import { type CryptoKey, exportJWK, exportSPKI, generateKeyPair, type JWTPayload, SignJWT } from 'jose'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { type AuthenticatorOptions, createAuthenticator } from '../../../src/server/subscribe/authenticate.ts'

const secret = 'a secret of at least thirty-two bytes'
const nowMs = Date.UTC(2026, 0, 1)
const seconds = nowMs / 1000
const base = { roleClaim: 'role', defaultRole: 'anon', now: () => nowMs }
const bySecret = (extra: Partial<AuthenticatorOptions> = {}) =>
  createAuthenticator({ ...base, secrets: [secret], algorithms: ['HS256'], ...extra })
const byKeys = (algorithms: string[], extra: Partial<AuthenticatorOptions> = {}) =>
  createAuthenticator({ ...base, jwksUrl: `${keysUrl}/keys`, algorithms, ...extra })

let keyServer: Server
let keysUrl: string
let fetches = 0
const keys = new Map<string, { publicKey: CryptoKey; privateKey: CryptoKey }>()

beforeAll(async () => {
  for (const algorithm of ['RS256', 'PS256', 'ES256', 'EdDSA'])
    keys.set(algorithm, await generateKeyPair(algorithm, { extractable: true }))
  const jwks = await Promise.all(
    [...keys].map(async ([algorithm, { publicKey }]) => ({
      ...(await exportJWK(publicKey)),
      kid: algorithm,
      alg: algorithm,
    })),
  )
  keyServer = createServer((request, response) => {
    fetches++
    if (request.url !== '/keys') response.writeHead(500)
    response.end(JSON.stringify({ keys: jwks }))
  })
  await new Promise<void>(resolve => keyServer.listen(0, '127.0.0.1', resolve))
  const address = keyServer.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  keysUrl = `http://127.0.0.1:${address.port}`
})

afterAll(() => new Promise(resolve => keyServer.close(resolve)))

const bySecretToken = (claims: JWTPayload, algorithm = 'HS256', key = secret) =>
  new SignJWT(claims).setProtectedHeader({ alg: algorithm }).sign(new TextEncoder().encode(key))
const byKeyToken = (algorithm: string, claims: JWTPayload = { sub: 'ada' }, kid = algorithm) =>
  new SignJWT(claims).setProtectedHeader({ alg: algorithm, kid }).sign(keys.get(algorithm)!.privateKey)
const unsigned = (header: object, claims: object, signature = '') =>
  `${[header, claims].map(part => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.')}.${signature}`

const refusal = async (promise: Promise<unknown>): Promise<string> => {
  try {
    return `accepted: ${JSON.stringify(await promise)}`
  } catch (error) {
    return error instanceof Error && 'code' in error ? `${error.code}: ${error.message}` : String(error)
  }
}

test('a token says who asks: role, claims, and until when', async () => {
  const claims = { sub: 'ada', role: 'authenticated', exp: seconds + 60, app_metadata: { a: [1] } }
  expect(await bySecret().authenticate(await bySecretToken(claims))).toEqual({
    role: 'authenticated',
    claims,
    expiresAt: nowMs + 60_000,
  })
})

test('the role comes from the configured claim, or is the default one', async () => {
  const token = await bySecretToken({ sub: 'ada', db_role: 'staff' })
  expect(await bySecret({ roleClaim: 'db_role' }).authenticate(token)).toMatchObject({ role: 'staff', expiresAt: null })
  expect(await bySecret().authenticate(token)).toMatchObject({ role: 'anon' })
  for (const role of [7, '', ['a'], { a: 1 }])
    expect(await refusal(bySecret().authenticate(await bySecretToken({ role })))).toContain('TOKEN_INVALID')
})

test.each(['HS256', 'HS384', 'HS512'])('a shared secret: %s', async algorithm => {
  const key = secret.repeat(2)
  const authenticator = bySecret({ secrets: [key], algorithms: [algorithm] })
  expect(await authenticator.authenticate(await bySecretToken({ sub: 'ada' }, algorithm, key))).toMatchObject({
    claims: { sub: 'ada' },
  })
  const other = algorithm === 'HS256' ? 'HS512' : 'HS256'
  expect(await refusal(authenticator.authenticate(await bySecretToken({}, other, key)))).toContain(
    'not one of JWT_ALGORITHMS',
  )
})

test.each(['RS256', 'PS256', 'ES256', 'EdDSA'])('public keys: %s', async algorithm => {
  expect(await byKeys([algorithm]).authenticate(await byKeyToken(algorithm))).toMatchObject({ claims: { sub: 'ada' } })
  const other = algorithm === 'ES256' ? 'EdDSA' : 'ES256'
  expect(await refusal(byKeys([other]).authenticate(await byKeyToken(algorithm)))).toContain('TOKEN_INVALID')
})

test('alg none is refused, however it is written', async () => {
  for (const alg of ['none', 'None', 'NONE', ''])
    for (const authenticator of [bySecret(), byKeys(['RS256'])])
      expect(await refusal(authenticator.authenticate(unsigned({ alg }, { sub: 'ada' })))).toContain('TOKEN_INVALID')
})

test('an RSA public key taken as an HMAC secret signs nothing', async () => {
  const pem = await exportSPKI(keys.get('RS256')!.publicKey)
  const body = unsigned({ alg: 'HS256', kid: 'RS256' }, { role: 'service_role' }).slice(0, -1)
  const token = `${body}.${createHmac('sha256', pem).update(body).digest('base64url')}`
  expect(await refusal(byKeys(['RS256', 'ES256']).authenticate(token))).toContain('not one of JWT_ALGORITHMS')
})

test('options that would accept forged tokens are refused at start', () => {
  const jwksUrl = 'http://127.0.0.1/keys'
  for (const options of [
    { secrets: [secret], algorithms: ['none'] },
    { secrets: [secret], algorithms: [] },
    { secrets: [secret], algorithms: ['HS256', 'RS256'] },
    { jwksUrl, algorithms: ['RS256', 'HS256'] },
    { secrets: [], algorithms: ['HS256'] },
    { secrets: [secret], jwksUrl, algorithms: ['HS256'] },
    { algorithms: ['HS256'] },
  ])
    expect(() => createAuthenticator({ ...base, ...options })).toThrow(TypeError)
})

test('another key, a changed claim and a cut signature are refused', async () => {
  const token = await bySecretToken({ sub: 'ada', role: 'anon' })
  const [header, , signature] = token.split('.')
  const forged = `${header}.${Buffer.from('{"sub":"ada","role":"staff"}').toString('base64url')}.${signature}`
  for (const bad of [forged, token.slice(0, -4), await bySecretToken({ sub: 'ada' }, 'HS256', `${secret}!`)])
    expect(await refusal(bySecret().authenticate(bad))).toMatch(/^TOKEN_INVALID: the token is not accepted/)
  expect(await refusal(byKeys(['RS256']).authenticate(await byKeyToken('RS256', {}, 'unknown')))).toContain(
    'JWT_JWKS_URL does not have',
  )
  const stranger = await generateKeyPair('RS256')
  const strange = await new SignJWT({}).setProtectedHeader({ alg: 'RS256', kid: 'RS256' }).sign(stranger.privateKey)
  expect(await refusal(byKeys(['RS256']).authenticate(strange))).toContain('its signature does not verify')
})

test('what is no token at all is refused', async () => {
  for (const text of [
    '',
    'a',
    'a.b.c',
    '..',
    `${'x'.repeat(20_000)}`,
    unsigned({ alg: 'HS256' }, {}),
    '\u0000.\u0000.\u0000',
    'ä.ö.ü',
  ])
    expect(await refusal(bySecret().authenticate(text))).toContain('TOKEN_INVALID')
})

test('expired and not yet valid, with the tolerance of clocks', async () => {
  const expired = await bySecretToken({ exp: seconds - 5 })
  expect(await refusal(bySecret().authenticate(expired))).toBe('TOKEN_EXPIRED: the token has expired; renew it')
  expect(await bySecret({ clockToleranceMs: 10_000 }).authenticate(expired)).toMatchObject({ expiresAt: nowMs + 5_000 })
  const early = await bySecretToken({ nbf: seconds + 5 })
  expect(await refusal(bySecret().authenticate(early))).toContain(
    'TOKEN_INVALID: the token is not accepted: it is not valid yet',
  )
  expect(await bySecret({ clockToleranceMs: 10_000 }).authenticate(early)).toMatchObject({ expiresAt: null })
})

test('issuer and audience are checked where they are configured', async () => {
  const token = await bySecretToken({ iss: 'us', aud: ['app', 'other'] })
  expect(await bySecret({ issuer: 'us', audience: 'app' }).authenticate(token)).toMatchObject({ role: 'anon' })
  expect(await refusal(bySecret({ issuer: 'them' }).authenticate(token))).toContain('its claim iss')
  expect(await refusal(bySecret({ audience: 'them' }).authenticate(token))).toContain('its claim aud')
  expect(await refusal(bySecret({ audience: 'app' }).authenticate(await bySecretToken({})))).toContain('its claim aud')
})

test('claims that Postgres cannot take as text are refused', async () => {
  for (const sub of ['a\u0000b', '\ud800'])
    expect(await refusal(bySecret().authenticate(unsignedLike({ sub })))).toContain('half a character')
  function unsignedLike(claims: object): string {
    const body = unsigned({ alg: 'HS256' }, claims).slice(0, -1)
    return `${body}.${createHmac('sha256', secret).update(body).digest('base64url')}`
  }
})

test('made-up key IDs do not turn into requests to the issuer', async () => {
  const authenticator = byKeys(['RS256'])
  await authenticator.authenticate(await byKeyToken('RS256'))
  const before = fetches
  for (let i = 0; i < 20; i++) await refusal(authenticator.authenticate(await byKeyToken('RS256', {}, `made-up-${i}`)))
  expect(fetches).toBe(before)
})

test('keys that cannot be fetched are the server’s trouble, not the token’s', async () => {
  const token = await byKeyToken('RS256')
  for (const jwksUrl of [`${keysUrl}/broken`, 'http://127.0.0.1:1/keys'])
    expect(await refusal(byKeys(['RS256'], { jwksUrl }).authenticate(token))).toContain('UNAVAILABLE')
})

test('no message repeats anything of the token', async () => {
  const token = await bySecretToken({ sub: 'private-claim', iss: 'private-issuer' }, 'HS256', `${secret}!`)
  expect(await refusal(bySecret().authenticate(token))).not.toContain('private')
})

test('[P7] claims nested without end are refused, however they were signed, and no word of them is told', async () => {
  const nested = (depth: number): unknown => JSON.parse(`${'['.repeat(depth)}{"a":"hush"}${']'.repeat(depth)}`)
  const { authenticate } = bySecret()
  for (const depth of [70, 3000]) {
    const text = await refusal(authenticate(await bySecretToken({ sub: 'ada', deep: nested(depth) })))
    expect(text).toBe('TOKEN_INVALID: the token is not accepted: its claims are nested deeper than 64')
  }
  expect((await authenticate(await bySecretToken({ sub: 'ada', deep: nested(60) }))).claims.sub).toBe('ada')
})

test('several secrets: each verifies, whichever stands first, and one that was taken out does not', async () => {
  const [newest, older, gone] = ['newest', 'older', 'gone'].map(name => `a secret of thirty-two bytes: ${name}`)
  for (const algorithm of ['HS256', 'HS384', 'HS512']) {
    const keys = [newest!, older!].map(text => text.padEnd(64, '.'))
    const authenticator = bySecret({ secrets: keys, algorithms: [algorithm] })
    for (const key of keys)
      expect(await authenticator.authenticate(await bySecretToken({ sub: key }, algorithm, key))).toMatchObject({
        claims: { sub: key },
      })
    const late = await bySecretToken({ sub: 'ada' }, algorithm, gone!.padEnd(64, '.'))
    expect(await refusal(authenticator.authenticate(late))).toContain('its signature does not verify')
    const [header, payload] = late.split('.')
    for (const signature of ['', 'AA', 'A'.repeat(600), '????'])
      expect(await refusal(authenticator.authenticate(`${header}.${payload}.${signature}`))).toContain('TOKEN_INVALID')
    for (const alg of ['none', 'HS1', 'RS256', 'HS256 '])
      expect(await refusal(authenticator.authenticate(unsigned({ alg }, { sub: 'ada' })))).toContain('TOKEN_INVALID')
  }
})

test('every secret is tried on every token: the first takes no less time than the last', async () => {
  const secrets = Array.from({ length: 10 }, (_, place) => `a secret of thirty-two bytes, number ${place}`)
  const authenticator = bySecret({ secrets })
  const { Hmac } = await import('node:crypto')
  const update = vi.spyOn(Hmac.prototype, 'update')
  for (const key of [secrets[0]!, secrets[9]!, 'a secret that is none of those ten here']) {
    const token = await bySecretToken({ sub: 'ada' }, 'HS256', key)
    update.mockClear()
    await refusal(authenticator.authenticate(token))
    expect(update).toHaveBeenCalledTimes(10)
  }
  update.mockRestore()
})
