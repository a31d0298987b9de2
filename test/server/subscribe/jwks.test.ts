// The keys of an issuer, over a real HTTP server that counts: when it is asked, and what holds while it is away.
import { createServer, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { exportJWK, generateKeyPair, type JWK, type JWTHeaderParameters, SignJWT } from 'jose'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { createAuthenticator } from '../../../src/server/subscribe/authenticate.ts'

const pairs = new Map<string, Awaited<ReturnType<typeof generateKeyPair>>>()
const jwks = new Map<string, JWK>()

let server: Server
let url: string
let fetches = 0
/** What the issuer answers. */
let answer: (response: ServerResponse) => void

/** Steady milliseconds, that a test lets pass. */
let nowMs = 1_000_000

const publish = (...keys: readonly (JWK | string)[]): void => {
  const body = JSON.stringify({ keys: keys.map(key => (typeof key === 'string' ? jwks.get(key) : key)) })
  answer = response => void response.end(body)
}
const away = (): void => {
  answer = response => void response.destroy()
}

beforeAll(async () => {
  for (const name of ['one', 'two', 'three', 'other']) {
    const pair = await generateKeyPair('ES256', { extractable: true })
    pairs.set(name, pair)
    jwks.set(name, { ...(await exportJWK(pair.publicKey)), kid: name, alg: 'ES256', use: 'sig' })
  }
  server = createServer((_, response) => {
    fetches++
    answer(response)
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/keys`
})

afterAll(() => {
  server.closeAllConnections()
  server.close()
})

beforeEach(() => {
  fetches = 0
  publish('one')
})

const failures: string[] = []
const open = (jwksUrl = url) =>
  createAuthenticator({
    jwksUrl,
    algorithms: ['ES256'],
    roleClaim: 'role',
    defaultRole: 'anon',
    now: Date.now,
    steadyNow: () => nowMs,
    onKeysFailure: error => failures.push(String((error as Error).message)),
  })

const signed = (by: string, header: Partial<JWTHeaderParameters> = { kid: by }): Promise<string> =>
  new SignJWT({ sub: 'ada' }).setProtectedHeader({ alg: 'ES256', ...header }).sign(pairs.get(by)!.privateKey)

const verdict = async (authenticator: { authenticate(token: string): Promise<unknown> }, token: string) =>
  authenticator.authenticate(token).then(
    () => 'ok',
    (error: { code?: string }) => error.code,
  )

test('keys are fetched once, for however many tokens at once', async () => {
  const authenticator = open()
  const token = await signed('one')
  expect(new Set(await Promise.all(Array.from({ length: 50 }, () => verdict(authenticator, token))))).toEqual(
    new Set(['ok']),
  )
  expect(fetches).toBe(1)
})

test('a key that is new to us is fetched, and at most every 30 seconds: whoever comes too early may come again', async () => {
  const authenticator = open()
  expect(await verdict(authenticator, await signed('one'))).toBe('ok')
  publish('one', 'two')
  nowMs += 1000
  const early = await authenticator.authenticate(await signed('two')).catch((error: unknown) => error)
  expect(early).toMatchObject({ code: 'UNAVAILABLE', retryAfterMs: 29_000 })
  expect(fetches).toBe(1)
  nowMs += 29_000
  expect(await verdict(authenticator, await signed('two'))).toBe('ok')
  expect(fetches).toBe(2)
})

test('[P7] two thousand made-up key IDs over ten minutes are at most twenty-one fetches', async () => {
  const authenticator = open()
  const body = (await signed('one')).split('.').slice(1).join('.')
  for (let count = 0; count < 2000; count++) {
    const header = Buffer.from(JSON.stringify({ alg: 'ES256', kid: `made-up-${count}` })).toString('base64url')
    expect(['TOKEN_INVALID', 'UNAVAILABLE']).toContain(await verdict(authenticator, `${header}.${body}`))
    nowMs += 300
  }
  expect(fetches).toBeGreaterThan(1)
  expect(fetches).toBeLessThanOrEqual(21)
  expect(await verdict(authenticator, await signed('one'))).toBe('ok')
})

test('known keys hold through an outage of any length; an unknown one may come again, and nobody waits', async () => {
  const authenticator = open()
  expect(await verdict(authenticator, await signed('one'))).toBe('ok')
  away()
  for (let hours = 0; hours < 100; hours++) {
    nowMs += 3_600_000
    expect(await verdict(authenticator, await signed('one'))).toBe('ok')
    expect(await verdict(authenticator, await signed('two'))).toBe('UNAVAILABLE')
  }
  expect(failures.length).toBeGreaterThan(50)
  publish('two')
  await expect
    .poll(async () => {
      nowMs += 30_000
      return verdict(authenticator, await signed('two'))
    })
    .toBe('ok')
  expect(await verdict(authenticator, await signed('one'))).not.toBe('ok')
})

test('a key that the issuer has withdrawn is refused when ten minutes are over', async () => {
  const authenticator = open()
  expect(await verdict(authenticator, await signed('one'))).toBe('ok')
  publish('two')
  nowMs += 599_000
  expect(await verdict(authenticator, await signed('one'))).toBe('ok')
  nowMs += 1000
  expect(await verdict(authenticator, await signed('one'))).toBe('TOKEN_INVALID')
})

test('[P8] where the first fetch fails, a token may come again, and the issuer is asked once a second', async () => {
  away()
  const authenticator = open()
  const token = await signed('one')
  const refused = await authenticator.authenticate(token).catch((error: unknown) => error)
  expect(refused).toMatchObject({ code: 'UNAVAILABLE', retryAfterMs: 1000 })
  for (let count = 0; count < 100; count++) expect(await verdict(authenticator, token)).toBe('UNAVAILABLE')
  expect(fetches).toBe(1)
  publish('one')
  nowMs += 1000
  expect(await verdict(authenticator, token)).toBe('ok')
})

test('a token that names no key is verified by whichever signed it', async () => {
  publish('one', 'two', 'three')
  const authenticator = open()
  for (const name of ['one', 'two', 'three']) expect(await verdict(authenticator, await signed(name, {}))).toBe('ok')
  expect(await verdict(authenticator, await signed('other', {}))).toBe('TOKEN_INVALID')
  expect(fetches).toBe(1)
})

test('of two keys with one ID either verifies', async () => {
  publish('one', { ...jwks.get('two')!, kid: 'one' })
  const authenticator = open()
  expect(await verdict(authenticator, await signed('one'))).toBe('ok')
  expect(await verdict(authenticator, await signed('two', { kid: 'one' }))).toBe('ok')
  expect(await verdict(authenticator, await signed('three', { kid: 'one' }))).toBe('TOKEN_INVALID')
})

test('[P7] a token that names none of many keys is tried with ten', async () => {
  const others = Array.from({ length: 40 }, (_, place) => ({ ...jwks.get('other')!, kid: `other ${place}` }))
  publish(...others, 'one')
  const authenticator = open()
  expect(await verdict(authenticator, await signed('one', {}))).toBe('TOKEN_INVALID')
  expect(await verdict(authenticator, await signed('one'))).toBe('ok')
})

test.each(['../../../etc/passwd', 'http://127.0.0.1:1/keys', "' OR 1=1 --", '__proto__', 'constructor', ''])(
  'a key ID is only ever compared: %s',
  async kid => {
    const authenticator = open()
    expect(await verdict(authenticator, await signed('other', { kid }))).toBe('TOKEN_INVALID')
    expect(fetches).toBe(1)
  },
)

test('keys and addresses that a token brings itself are not looked at', async () => {
  const authenticator = open()
  const own = jwks.get('other')!
  for (const header of [{ jwk: own }, { jku: url }, { x5u: url }, { jwk: own, kid: 'one' }, { kid: 'one', jku: url }])
    expect(await verdict(authenticator, await signed('other', header))).toBe('TOKEN_INVALID')
  expect(fetches).toBe(1)
})

const secret: JWK = { kty: 'oct', k: Buffer.from('a secret that stands among public keys').toString('base64url') }

test('secrets and private keys among the published ones are left out', async () => {
  const leaked = { ...(await exportJWK(pairs.get('two')!.privateKey)), kid: 'two', alg: 'ES256' }
  publish({ ...secret, kid: 'secret', alg: 'HS256' }, leaked, 'one')
  const authenticator = open()
  expect(await verdict(authenticator, await signed('one'))).toBe('ok')
  expect(await verdict(authenticator, await signed('two'))).toBe('TOKEN_INVALID')
  for (const alg of ['HS256', 'HS512']) {
    const forged = await new SignJWT({ sub: 'ada' })
      .setProtectedHeader({ alg, kid: 'secret' })
      .sign(Buffer.from(secret.k!, 'base64url'))
    expect(await verdict(authenticator, forged)).toBe('TOKEN_INVALID')
  }
})

test.each([
  [
    'a redirect',
    (response: ServerResponse) => response.writeHead(302, { location: url }).end(),
    /answered 302.*redirects/,
  ],
  ['an error', (response: ServerResponse) => response.writeHead(500).end('{}'), /answered 500/],
  ['no JSON', (response: ServerResponse) => response.end('<html>'), /no JSON/],
  ['no keys', (response: ServerResponse) => response.end('{"keys": {}}'), /no set of keys/],
  ['null', (response: ServerResponse) => response.end('null'), /no set of keys/],
  ['only a secret', (response: ServerResponse) => response.end(JSON.stringify({ keys: [secret] })), /no public key/],
  ['keys that are none', (response: ServerResponse) => response.end('{"keys": [1, null, "a", {}]}'), /no public key/],
  [
    'too many keys',
    (response: ServerResponse) => response.end(JSON.stringify({ keys: Array(101).fill(jwks.get('one')) })),
    /holds 101 keys, more than 100/,
  ],
  [
    'too many bytes, without end',
    (response: ServerResponse) => {
      const more = (): void => {
        if (!response.destroyed) response.write(' '.repeat(65_536), more)
      }
      more()
    },
    /more than 524288 bytes/,
  ],
])('[P7] %s changes nothing: UNAVAILABLE at first, else the known keys', async (_, bad, why) => {
  answer = bad
  failures.length = 0
  expect(await verdict(open(), await signed('one'))).toBe('UNAVAILABLE')
  expect(failures).toEqual([expect.stringMatching(why)])
  publish('one')
  const authenticator = open()
  expect(await verdict(authenticator, await signed('one'))).toBe('ok')
  answer = bad
  nowMs += 601_000
  expect(await verdict(authenticator, await signed('one'))).toBe('ok')
  expect(failures).toHaveLength(2)
})
