// Tokens: good ones broken without the key, and signed ones whose claims are odd. Nothing unsigned ever comes in, and no
// signed one shows a row that is not its own.
import { createHmac } from 'node:crypto'
import type { Random } from '../checker/random.ts'
import { jwtSecret } from '../support/node.ts'
import { mutateText, nasty } from './mutate.ts'
import type { Actor, Run } from './run.ts'
import { FuzzSocket } from './socket.ts'
import { secret } from './world.ts'

const base64 = (text: string): string => Buffer.from(text).toString('base64url')

function sign(header: string, payload: string, key = jwtSecret, hash = 'sha256'): string {
  const text = `${base64(header)}.${base64(payload)}`
  return `${text}.${createHmac(hash, key).update(text).digest('base64url')}`
}

const headers = [
  '{"alg":"none"}',
  '{"alg":"NONE"}',
  '{"alg":"HS512"}',
  '{"alg":"RS256"}',
  '{"alg":"HS256","crit":["x"],"x":1}',
  '{"alg":"HS256","b64":false,"crit":["b64"]}',
  '{"alg":"HS256","zip":"DEF"}',
  '{"alg":"HS256","kid":"../../etc/passwd"}',
  '{"alg":["HS256"]}',
  '{"alg":{"toString":1}}',
  '{"__proto__":{"alg":"HS256"}}',
  '{}',
  '[]',
  'null',
  '',
]

/** Tokens that the key did not sign. */
function forged(random: Random, { token }: Run): string {
  const [head, body, tail] = token.split('.') as [string, string, string]
  const claims = Buffer.from(body, 'base64url').toString()
  switch (random.below(5)) {
    case 0:
      return `${base64(random.pick(headers))}.${body}.${random.pick(['', tail, 'x'])}`
    case 1:
      return `${head}.${base64(mutateText(random, claims))}.${tail}`
    case 2:
      return sign('{"alg":"HS256"}', claims, random.pick(['', 'x', `${jwtSecret} `, jwtSecret.toUpperCase()]))
    case 3:
      return sign(random.pick(headers.slice(0, 4)), claims, jwtSecret, 'sha512')
    default:
      return random.once(6) ? random.pick(nasty) : mutateText(random, token)
  }
}

const nested = (depth: number, open: string, close: string): string => `${open.repeat(depth)}1${close.repeat(depth)}`

const oddValues: readonly string[] = [
  'null',
  '0',
  '-1',
  '1e309',
  '-0',
  '1e-400',
  '9007199254740993',
  '1700000000.5',
  '"never"',
  '""',
  '"x"',
  '"\\u0000"',
  '"\\ud800"',
  '"\\\\u0000"',
  '{}',
  '[]',
  '["authenticated"]',
  '{"toString":1}',
  '{"__proto__":{"role":"postgres"}}',
  '"postgres"',
  '"authenticated; RESET ROLE"',
  '"anon"',
  nested(400, '[', ']'),
  nested(5000, '[', ']'),
  nested(1500, '{"a":', '}'),
  JSON.stringify('y'.repeat(5000)),
  JSON.stringify('y'.repeat(11_000)),
]

/** Tokens with the right signature and claims of every kind. */
function odd(random: Random, { ada }: Run): string {
  const claims: [string, string][] = [
    ['role', '"authenticated"'],
    ['sub', JSON.stringify(ada)],
    ['exp', String(Math.floor(Date.now() / 1000) + 3600)],
  ]
  for (let times = 1 + random.below(2); times > 0; times--) {
    const name = random.pick([
      'role',
      'sub',
      'sub',
      'exp',
      'nbf',
      'iat',
      'aud',
      'iss',
      'jti',
      'x',
      '__proto__',
      'a.b',
      ...nasty,
    ])
    const at = claims.findIndex(([known]) => known === name)
    if (at >= 0 && random.once(2)) claims.splice(at, 1)
    claims.push([name, random.pick(oddValues)])
  }
  const payload = `{${claims.map(([name, value]) => `${JSON.stringify(name)}:${value}`).join(',')}}`
  return sign('{"alg":"HS256","typ":"JWT"}', payload)
}

export const tokens: Actor = async (run, random) => {
  while (!run.isOver()) {
    run.oracle.count('tokens')
    const isForged = random.once(2)
    const token = isForged ? forged(random, run) : odd(random, run)
    if (random.once(2)) await byHeader(run, random, token, isForged)
    else await byFrame(run, token, isForged)
  }
}

async function byHeader(run: Run, random: Random, token: string, isForged: boolean): Promise<void> {
  // What no client can put into a header is left out.
  const value = Buffer.from(`Bearer ${token}`)
    .toString('latin1')
    .replace(/[^\t\x20-\x7e\x80-\xff]/g, '')
  const table = random.pick(['things', 'notes', 'rooms', 'members'])
  const response = await fetch(`${run.url}/v1/live/${table}`, {
    headers: { authorization: value, accept: 'application/json' },
  })
  const text = await response.text()
  judge(run, token, isForged, text, response.status === 200)
  if (response.status === 200) return
  // Node's own parser has refused it: there may be no body.
  run.oracle.refusal(text === '' ? null : JSON.parse(text), response.status, token)
}

async function byFrame(run: Run, token: string, isForged: boolean): Promise<void> {
  const socket = await FuzzSocket.open(run, null)
  const answer = socket.next(({ type }) => type === 'welcome' || type === 'error')
  socket.send(JSON.stringify({ type: 'auth', token }))
  const frame = await answer
  judge(run, token, isForged, JSON.stringify(frame), frame?.type === 'welcome')
  if (frame?.type === 'welcome') {
    socket.send(JSON.stringify({ type: 'subscribe', id: 1, kind: 'live', table: 'things' }))
    await socket.next(({ type, done }) => type === 'error' || (type === 'snapshot' && done === true))
    await socket.settled()
  }
  socket.terminate()
}

function judge(run: Run, token: string, isForged: boolean, text: string, isTaken: boolean): void {
  if (text.includes(secret)) run.oracle.fail('a token shows what it may not', token)
  // The last characters of a signature hold bits that mean nothing, and a decoder may pass over white space.
  if (isForged && isTaken && !isSame(token, run.token))
    run.oracle.fail('a token that the key did not sign is taken', token)
}

const isSame = (a: string, b: string): boolean => {
  const bytes = (token: string): string =>
    token
      .trim()
      .split('.')
      .map(part => Buffer.from(part, 'base64url').toString('hex'))
      .join('.')
  return bytes(a) === bytes(b)
}
