// Tokens that are not accepted, roles that are not admitted, and claims that do not fit: refused at the door of every wire,
// without a word of what they held.
import { createHmac, generateKeyPairSync, sign } from 'node:crypto'
import { SignJWT } from 'jose'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type PeerCode, peerCodes, retryOfClose } from '../../../src/protocol/codes.ts'
import { jwtSecret, person, tokenFor } from '../../support/node.ts'
import { TestDatabase } from '../../support/postgres.ts'
import { wires } from '../../support/readers.ts'
import { prepareRefusals, secretWord } from '../../support/refusals-schema.ts'
import { ask, askHandshake, Bench, LoggedNode, misfitOf } from '../../support/refused.ts'

describe('tokens', () => {
  let database: TestDatabase
  let bench: Bench
  const ada = person()
  const roles = ['chief', 'seer', 'stranger', 'reader'].map(name => `${name}_${process.pid}`)
  const [superuser, bypass, stranger, login] = roles as [string, string, string, string]

  beforeAll(async () => {
    database = await TestDatabase.create()
    await prepareRefusals(database)
    await database.query(`
    CREATE ROLE ${superuser} SUPERUSER; CREATE ROLE ${bypass} BYPASSRLS; CREATE ROLE ${stranger};
    CREATE ROLE ${login} LOGIN REPLICATION BYPASSRLS PASSWORD 'p'; GRANT anon, authenticated TO ${login};
    GRANT SELECT ON ALL TABLES IN SCHEMA public TO ${login};
    GRANT USAGE ON SCHEMA tidegate TO ${login}; GRANT SELECT, DELETE ON tidegate.orders TO ${login}; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA tidegate TO ${login};
    INSERT INTO members VALUES (1, '${ada}')`)
    const node = await LoggedNode.start(database.urlFor(login, 'p'), {
      JWT_AUDIENCE: 'tidegate',
      JWT_ROLES: `anon,authenticated,${stranger},nobody_of_that_name`,
    })
    bench = await Bench.open(node, database, await tokenFor(ada, { aud: 'tidegate' }))
  })

  afterAll(async () => {
    await bench?.[Symbol.asyncDispose]()
    await database?.query(roles.map(role => `DROP OWNED BY ${role}; DROP ROLE ${role};`).join(''))
    await database?.[Symbol.asyncDispose]()
  })

  const base64 = (value: object | string): string =>
    Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url')

  const inAnHour = Math.floor(Date.now() / 1000) + 3600
  const claims = { role: 'authenticated', sub: ada, aud: 'tidegate', exp: inAnHour, note: secretWord }
  const keys = generateKeyPairSync('rsa', { modulusLength: 2048 })

  function signed(header: object, payload: object | string, key: string = jwtSecret, hash = 'sha256'): string {
    const text = `${base64(header)}.${base64(payload)}`
    return `${text}.${createHmac(hash, key).update(text).digest('base64url')}`
  }

  const hs256 = { alg: 'HS256' }
  const rsaText = `${base64({ alg: 'RS256' })}.${base64(claims)}`
  const good = signed(hs256, claims)
  const [head, body, tail] = good.split('.') as [string, string, string]

  const nested = (depth: number): unknown => JSON.parse(`${'['.repeat(depth)}${']'.repeat(depth)}`)

  const tokens: readonly (readonly [name: string, token: string, code: PeerCode])[] = [
    ['of alg none', `${base64({ alg: 'none' })}.${base64(claims)}.`, 'TOKEN_INVALID'],
    ['of alg none with a signature', `${base64({ alg: 'none' })}.${base64(claims)}.${tail}`, 'TOKEN_INVALID'],
    ['of alg NoNe', `${base64({ alg: 'NoNe' })}.${base64(claims)}.`, 'TOKEN_INVALID'],
    ['without an algorithm', signed({}, claims), 'TOKEN_INVALID'],
    ['signed with another key', signed(hs256, claims, 'another secret, also of 32 bytes or more'), 'TOKEN_INVALID'],
    ['signed with an empty key', signed(hs256, claims, ''), 'TOKEN_INVALID'],
    ['of HS512, which is not listed', signed({ alg: 'HS512' }, claims, jwtSecret, 'sha512'), 'TOKEN_INVALID'],
    [
      'of RS256',
      `${rsaText}.${sign('sha256', Buffer.from(rsaText), keys.privateKey).toString('base64url')}`,
      'TOKEN_INVALID',
    ],
    [
      'with a key of its own',
      signed({ ...hs256, jwk: { kty: 'oct', k: base64('x'.repeat(32)) } }, claims, 'x'.repeat(32)),
      'TOKEN_INVALID',
    ],
    ['with a critical header nobody knows', signed({ ...hs256, crit: ['exp2'], exp2: 1 }, claims), 'TOKEN_INVALID'],
    ['without its signature', `${head}.${body}.`, 'TOKEN_INVALID'],
    ['cut short', good.slice(0, -3), 'TOKEN_INVALID'],
    ['with another body', `${head}.${base64({ ...claims, sub: person() })}.${tail}`, 'TOKEN_INVALID'],
    ['in two parts', `${head}.${body}`, 'TOKEN_INVALID'],
    ['in five parts, as if encrypted', `${head}.${body}.${tail}.${tail}.${tail}`, 'TOKEN_INVALID'],
    ['of garbage', 'hunter2', 'TOKEN_INVALID'],
    ['of dots', '...', 'TOKEN_INVALID'],
    ['whose body is no JSON', signed(hs256, 'not json'), 'TOKEN_INVALID'],
    ['whose body is a list', signed(hs256, [1, 2]), 'TOKEN_INVALID'],
    ['whose claims hold a NUL', signed(hs256, { ...claims, note: `${secretWord}\u0000` }), 'TOKEN_INVALID'],
    ['that expired an hour ago', signed(hs256, { ...claims, exp: inAnHour - 7200 }), 'TOKEN_EXPIRED'],
    ['that is not valid yet', signed(hs256, { ...claims, nbf: inAnHour }), 'TOKEN_INVALID'],
    ['for another audience', signed(hs256, { ...claims, aud: 'others' }), 'TOKEN_INVALID'],
    ['for no audience', signed(hs256, { ...claims, aud: undefined }), 'TOKEN_INVALID'],
    ['whose audience is an object', signed(hs256, { ...claims, aud: { tidegate: 1 } }), 'TOKEN_INVALID'],
    ['whose nbf is text', signed(hs256, { ...claims, nbf: 'now' }), 'TOKEN_INVALID'],
    ['that expired at the beginning of time', signed(hs256, { ...claims, exp: 0 }), 'TOKEN_EXPIRED'],
    ['whose claims are nested', signed(hs256, { ...claims, a: nested(100) }), 'TOKEN_INVALID'],
    ['whose claims are nested without end', signed(hs256, { ...claims, a: nested(2000) }), 'TOKEN_INVALID'],
    ['whose algorithm is a list', signed({ alg: ['HS256'] }, claims), 'TOKEN_INVALID'],
    ['whose header is null', `${base64('null')}.${base64(claims)}.${tail}`, 'TOKEN_INVALID'],
    ['whose role is __proto__', signed(hs256, { ...claims, role: '__proto__' }), 'ROLE_REFUSED'],
    ['whose role holds a line break', signed(hs256, { ...claims, role: 'a\r\nb' }), 'ROLE_REFUSED'],
    ['whose role is without end', signed(hs256, { ...claims, role: 'r'.repeat(5000) }), 'ROLE_REFUSED'],
    ['whose exp is text', signed(hs256, { ...claims, exp: 'never' }), 'TOKEN_INVALID'],
    ['whose role is a number', signed(hs256, { ...claims, role: 1 }), 'TOKEN_INVALID'],
    ['whose role is empty', signed(hs256, { ...claims, role: '' }), 'TOKEN_INVALID'],
    ['whose role is a list', signed(hs256, { ...claims, role: ['authenticated'] }), 'TOKEN_INVALID'],
    ['naming an unlisted role', signed(hs256, { ...claims, role: 'postgres' }), 'ROLE_REFUSED'],
    ['naming a role that does not exist', signed(hs256, { ...claims, role: 'nobody_of_that_name' }), 'ROLE_REFUSED'],
    ['naming a superuser', signed(hs256, { ...claims, role: superuser }), 'ROLE_REFUSED'],
    ['naming a role with BYPASSRLS', signed(hs256, { ...claims, role: bypass }), 'ROLE_REFUSED'],
    [
      "naming a role that the server's login is no member of",
      signed(hs256, { ...claims, role: stranger }),
      'ROLE_REFUSED',
    ],
    ["naming the server's login", signed(hs256, { ...claims, role: login }), 'ROLE_REFUSED'],
    ['naming a role with SQL in it', signed(hs256, { ...claims, role: 'authenticated; RESET ROLE' }), 'ROLE_REFUSED'],
    ['naming a role in quotes', signed(hs256, { ...claims, role: '"authenticated"' }), 'ROLE_REFUSED'],
    ['naming none', signed(hs256, { ...claims, role: 'none' }), 'ROLE_REFUSED'],
  ]

  async function isRefused(token: string, table: string, code: PeerCode, input: unknown = token): Promise<void> {
    for (const transport of wires) {
      const answer = await ask(transport, bench.node.url, token, { table })
      expect(misfitOf(answer, code), transport).toBe(null)
      expect(answer.message).not.toContain(ada)
      if (answer.closeCode !== null) expect(retryOfClose(answer.closeCode)).toBe(peerCodes[code].retry)
    }
    await bench.wasRefused(input, code)
  }

  test.each(tokens)('a token %s', async (_, token, code) => {
    await isRefused(token, 'messages', code)
    const handshake = await askHandshake(bench.node.url, token)
    expect(misfitOf(handshake, code)).toBe(null)
    expect(handshake.message).not.toContain(secretWord)
  })

  test('no token at all', async () => {
    for (const transport of ['sse', 'long-poll'] as const) {
      const headers = { accept: transport === 'sse' ? 'text/event-stream' : 'application/json' }
      const response = await fetch(`${bench.node.url}/v1/live/messages`, { headers })
      expect([response.status, ((await response.json()) as { code: string }).code]).toEqual([401, 'TOKEN_MISSING'])
    }
    expect(misfitOf(await ask('websocket', bench.node.url, null, { table: 'messages' }), 'TOKEN_MISSING')).toBe(null)
    await bench.wasRefused('no token', 'TOKEN_MISSING')
  })

  const subs: readonly unknown[] = ['me', '', `${ada}x`, `${ada}' OR true --`, 7, { a: secretWord }, [ada], secretWord]

  test.each(subs.map(sub => [JSON.stringify(sub).replace(ada, '<uuid>'), sub] as const))(
    '[P7] a sub that is no UUID, %s, concerns its own reader only',
    async (_, sub) => {
      await isRefused(signed(hs256, { ...claims, sub }), 'by_owner', 'CLAIM_INVALID', ['by_owner', sub])
      await isRefused(signed(hs256, { ...claims, sub }), 'messages', 'CLAIM_INVALID', ['messages', sub])
    },
  )

  test('a good token is taken by every wire', async () => {
    const fine = await new SignJWT({ role: 'authenticated', sub: ada, aud: ['other', 'tidegate'] })
      .setProtectedHeader({ alg: 'HS256', typ: 'JWT' })
      .sign(new TextEncoder().encode(jwtSecret))
    for (const transport of wires)
      expect((await ask(transport, bench.node.url, fine, { table: 'messages' })).code).toBe(null)
    expect((await askHandshake(bench.node.url, fine)).code).toBe(null)
  })
})
