import type { IncomingMessage } from 'node:http'
import { SignJWT } from 'jose'
import { expect, test } from 'vitest'
import { TidegateError } from '../../../../src/protocol/tidegate-error.ts'
import { ApiKeys } from '../../../../src/server/deliver/phoenix/api-keys.ts'
import { handshakeOf, handshakeRefusal, principalOfToken } from '../../../../src/server/deliver/phoenix/handshake.ts'
import { type Refusal, refusalOf } from '../../../../src/server/deliver/refusal.ts'
import { createLog } from '../../../../src/server/log/log.ts'
import { noOrders } from '../../../../src/server/orders/targets.ts'
import { createAuthenticator } from '../../../../src/server/subscribe/authenticate.ts'

const secret = 'a secret of at least thirty-two bytes'
const nowMs = Date.UTC(2026, 0, 1)
const publishable = 'sb_publishable_4f1c9'
/** Of a role that the login may not take. */
const orphan = 'sb_secret_of-nobody-0'

const refuseRole = (role: string): void => {
  if (role === 'nobody') throw new TidegateError('ROLE_REFUSED', 'there is no database role "nobody"')
}
const services = {
  authenticator: createAuthenticator({
    ...{ secrets: [secret], algorithms: ['HS256'], roleClaim: 'role', defaultRole: 'anon', now: () => nowMs },
  }),
  subscriptions: { admit: async ({ role }: { role: string }) => refuseRole(role) },
  orders: noOrders,
  wallNow: () => nowMs,
  supabase: {
    apiKeys: new ApiKeys([
      { key: publishable, role: 'anon' },
      { key: orphan, role: 'nobody' },
    ]),
    isPrivateOnly: false,
  },
} as unknown as Parameters<typeof handshakeOf>[0]

const tokenOf = (claims: Record<string, unknown>, key = secret): Promise<string> =>
  new SignJWT(claims).setProtectedHeader({ alg: 'HS256' }).sign(new TextEncoder().encode(key))
const inAnHour = nowMs / 1000 + 3600

const knock = (query: string, headers: Record<string, string> = {}) =>
  handshakeOf(services, { headers } as unknown as IncomingMessage, new URLSearchParams(query))

async function answerTo(query: string, headers?: Record<string, string>): Promise<{ status: number; body: Refusal }> {
  const error = await knock(query, headers).then(
    () => expect.unreachable('it was let in'),
    (refused: unknown) => refused,
  )
  const { status, body } = handshakeRefusal(refusalOf(error, createLog('silent'), Math.random))
  return { status, body: JSON.parse(body) }
}

test('a JWT and a key of API_KEYS both let in, each as what it stands for', async () => {
  const token = await tokenOf({ role: 'authenticated', sub: 'ann', exp: inAnHour })
  expect((await knock(`apikey=${token}`)).principal).toMatchObject({
    role: 'authenticated',
    claims: { sub: 'ann' },
    expiresAt: inAnHour * 1000,
  })
  expect((await knock(`apikey=${publishable}`)).principal).toEqual({
    role: 'anon',
    claims: { role: 'anon' },
    expiresAt: null,
  })
})

test('the header wins over the parameter', async () => {
  const ann = await tokenOf({ role: 'authenticated', sub: 'ann', exp: inAnHour })
  expect((await knock(`apikey=${publishable}`, { 'x-api-key': ann })).principal.claims.sub).toBe('ann')
  expect((await knock('', { 'x-api-key': ann })).principal.claims.sub).toBe('ann')
  expect((await knock(`apikey=${publishable}`, { 'x-api-key': '' })).principal.role).toBe('anon')
})

test.each([
  ['', '1.0.0'],
  ['vsn=', '1.0.0'],
  ['vsn=1.0.0', '1.0.0'],
  ['vsn=1.0.3', '1.0.0'],
  ['vsn=2.0.0', '2.0.0'],
  ['vsn=2.0.1&log_level=info&eventsPerSecond=10', '2.0.0'],
])('%j speaks %s', async (query, vsn) => {
  expect((await knock(`apikey=${publishable}&${query}`)).vsn).toBe(vsn)
})

test.each(['3.0.0', '2.1.0', '1', '2.0', '2.0.0.0', 'latest', '1.0.0 '])(
  'the version %j is not spoken: 403',
  async vsn => {
    const { status, body } = await answerTo(`apikey=${publishable}&vsn=${encodeURIComponent(vsn)}`)
    expect([status, body.code]).toEqual([403, 'PARAMETER_INVALID'])
  },
)

test.each<[string, () => Promise<string> | string, number, string]>([
  ['no key', () => '', 401, 'TOKEN_MISSING'],
  ['an empty key', () => 'apikey=', 401, 'TOKEN_MISSING'],
  ['nonsense', () => 'apikey=nonsense', 401, 'TOKEN_INVALID'],
  ['another key', () => 'apikey=sb_publishable_4f1c8', 401, 'TOKEN_INVALID'],
  ['a key whose role the login may not take', () => `apikey=${orphan}`, 403, 'ROLE_REFUSED'],
  [
    'an expired token',
    async () => `apikey=${await tokenOf({ role: 'anon', exp: nowMs / 1000 - 1 })}`,
    401,
    'TOKEN_EXPIRED',
  ],
  [
    'a forged token',
    async () => `apikey=${await tokenOf({ role: 'anon', exp: inAnHour }, secret.toUpperCase())}`,
    401,
    'TOKEN_INVALID',
  ],
])('[P8] %s is refused with a status, an error for people and our code', async (_, query, expected, code) => {
  const { status, body } = await answerTo(await query())
  expect([status, body]).toEqual([expected, { error: expect.stringMatching(/\w+ \w+/), code }])
})

test('[P8] no refusal repeats the key', async () => {
  const forged = await tokenOf({ role: 'anon', exp: inAnHour }, secret.toUpperCase())
  for (const key of ['sb_publishable_4f1c8', orphan, forged, 'nonsense']) {
    const { body } = await answerTo(`apikey=${key}`)
    expect(JSON.stringify(body)).not.toContain(key)
  }
})

test('too many connections are told by 429', () => {
  const refusal: Refusal = { code: 'TOO_MANY_CONNECTIONS', message: 'full', retry: true, retryAfterMs: 1000 }
  expect(handshakeRefusal(refusal)).toEqual({ status: 429, body: '{"error":"full","code":"TOO_MANY_CONNECTIONS"}' })
})

test('a token of a join is either of the two', async () => {
  const ann = await tokenOf({ role: 'authenticated', sub: 'ann', exp: inAnHour })
  expect(await principalOfToken(services, ann)).toMatchObject({ claims: { sub: 'ann' } })
  expect(await principalOfToken(services, publishable)).toMatchObject({ role: 'anon' })
  await expect(principalOfToken(services, 'sb_secret_unknown-0000')).rejects.toMatchObject({ code: 'TOKEN_INVALID' })
})
