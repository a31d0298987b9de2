// A node at LOG_LEVEL=debug through whatever goes wrong on it: nothing that it prints holds a token, a password or a value of a row.
import { SignJWT } from 'jose'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { WebSocket } from 'ws'
import { jwtSecret, person, prepareDatabase, roomsSchema, SseStream, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { type RunningProcess, startCli } from '../support/run-cli.ts'

const operatorToken = 'a-token-of-operators-that-none-may-log'
const password = 'the-password-of-a-login-that-none-may-log'
const apiKey = 'sb_publishable_key-that-none-may-log'
const value = 'a-value-of-a-row-that-none-may-log'
const claim = 'a-claim-of-a-reader-that-none-may-log'
const sent = 'a-message-of-a-client-that-none-may-log'

/** Policies that fail on what they read: judged here, asked of Postgres, raised with the row in the message, and too slow. */
const failingSchema = `
  CREATE TABLE public.judged (id int PRIMARY KEY, body text);
  CREATE TABLE public.asked (id int PRIMARY KEY, body text);
  CREATE TABLE public.slow (id int PRIMARY KEY, body text);
  CREATE FUNCTION public.complain(body text) RETURNS boolean LANGUAGE plpgsql STABLE AS
    $$ BEGIN RAISE EXCEPTION 'what is %?', body USING DETAIL = body, HINT = body; END $$;
  CREATE FUNCTION public.linger(body text) RETURNS boolean LANGUAGE plpgsql STABLE AS
    $$ BEGIN PERFORM pg_sleep(5); RETURN body IS NULL; END $$;
  ALTER TABLE public.judged ENABLE ROW LEVEL SECURITY;
  ALTER TABLE public.asked ENABLE ROW LEVEL SECURITY;
  ALTER TABLE public.slow ENABLE ROW LEVEL SECURITY;
  CREATE POLICY p ON public.judged FOR SELECT TO authenticated USING (body::int > 0);
  CREATE POLICY p ON public.asked FOR SELECT TO authenticated USING (public.complain(body));
  CREATE POLICY p ON public.slow FOR SELECT TO authenticated USING (public.linger(body));
  GRANT SELECT ON public.judged, public.asked, public.slow TO authenticated;
`

const tables = ['rooms', 'members', 'messages', 'judged', 'asked', 'slow']
const login = `logs_${Math.random().toString(36).slice(2, 8)}`

let database: TestDatabase
let node: RunningProcess
let url: string
let tokens: Record<'good' | 'forged' | 'expired' | 'unsigned' | 'service', string>

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, roomsSchema + failingSchema, tables)
  await database.query(`CREATE ROLE ${login} LOGIN SUPERUSER PASSWORD '${password}'`)
  const sign = (secret: string, exp: string, role = 'authenticated') =>
    new SignJWT({ role, sub: person(), note: claim })
      .setProtectedHeader({ alg: 'HS256' })
      .setExpirationTime(exp)
      .sign(new TextEncoder().encode(secret))
  tokens = {
    good: await sign(jwtSecret, '1h'),
    forged: await sign(jwtSecret.toUpperCase(), '1h'),
    expired: await sign(jwtSecret, '-1h'),
    service: await sign(jwtSecret, '1h', 'service_role'),
    unsigned: `${(await tokenFor(person())).split('.').slice(0, 2).join('.')}.`,
  }
  node = startCli(['start'], {
    DATABASE_URL: database.urlFor(login, password),
    JWT_SECRET: JSON.stringify([jwtSecret, 'an older secret that none may log, of 32 bytes']),
    OPERATOR_TOKEN: operatorToken,
    API_KEYS: `${apiKey}=anon`,
    PORT: '0',
    LOG_LEVEL: 'debug',
    BEACON_MS: '500',
    DRAIN_DELAY_MS: '0',
    ASKED_TIMEOUT_MS: '200',
  })
  await node.until(({ out }) => out.includes('tidegate is ready'))
  url = /http:\/\/\S+/.exec(node.out)![0]
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.query(`DROP OWNED BY ${login}; DROP ROLE ${login}`)
  await database?.[Symbol.asyncDispose]()
})

const get = (path: string, authorization?: string, init: RequestInit = {}): Promise<number> =>
  fetch(`${url}${path}`, { ...init, ...(authorization === undefined ? {} : { headers: { authorization } }) }).then(
    async response => {
      await response.body?.cancel()
      return response.status
    },
  )

/** Says these on one WebSocket, and waits until it has been answered to all, or closed. */
async function say(path: string, frames: readonly (string | Buffer)[]): Promise<void> {
  const socket = new WebSocket(`${url.replace('http', 'ws')}${path}`)
  const over = new Promise(resolve => socket.on('close', resolve))
  socket.on('error', () => {})
  socket.on('open', () => {
    for (const frame of frames) socket.send(frame)
    socket.close()
  })
  await over
}

async function refuseEverybody(): Promise<void> {
  for (const token of Object.values(tokens))
    for (const header of [`Bearer ${token}`, `Basic ${token}`, token]) {
      await get('/v1/live/messages?wait=0', header)
      await get(`/v1/live/messages?token=${token}&ticket=${token}`)
      await get(`/v1/explain?table=messages&role=${token}`, header)
      await get('/v1/orders', header, { method: 'POST', body: sent })
    }
  expect(await get(`/v1/live/messages?id=eq.${value}`, `Bearer ${tokens.good}`)).toBe(400)
  await get(`/v1/live/judged?body=eq.${value}&select=${value}`, `Bearer ${tokens.good}`)
  for (const claims of [JSON.stringify({ sub: claim }), `{${claim}`])
    await get(
      `/v1/explain?${new URLSearchParams({ table: 'judged', role: 'authenticated', claims, key: 'id=1' })}`,
      `Bearer ${operatorToken}`,
    )
}

async function breakFrames(): Promise<void> {
  const auth = (token: string): string => JSON.stringify({ type: 'auth', token })
  for (const token of Object.values(tokens)) await say('/v1/socket', [auth(token), `{"type": ${sent}`])
  await say('/v1/socket', [Buffer.from(sent), sent, `{"${sent}": 1}`])
  await say(`/v1/socket?ticket=${tokens.good}`, [sent])
  for (const key of [apiKey, ...Object.values(tokens)])
    await say(`/realtime/v1/websocket?apikey=${key}&vsn=1.0.0`, [
      sent,
      JSON.stringify({
        topic: 'realtime:a',
        event: 'phx_join',
        ref: '1',
        payload: { access_token: tokens.forged, config: sent },
      }),
      JSON.stringify({
        topic: 'realtime:a',
        event: 'access_token',
        ref: '2',
        payload: { access_token: `${key}.${sent}` },
      }),
      JSON.stringify({
        topic: 'realtime:a',
        event: 'broadcast',
        ref: '3',
        payload: { event: sent, payload: { sent } },
      }),
      `["1","2","realtime:a","phx_join",{"access_token":"${tokens.good}"`,
    ])
}

async function failPolicies(): Promise<void> {
  const streams = await Promise.all(
    ['judged', 'asked', 'slow'].map(table => SseStream.open({ url }, `/v1/live/${table}`, tokens.good)),
  )
  for (const table of ['judged', 'asked', 'slow'])
    await database.query(`INSERT INTO ${table} VALUES (1, '${value}'); UPDATE ${table} SET body = '${value} again'`)
  await Promise.all(
    ['judged', 'asked', 'slow'].map(table => get(`/v1/live/${table}?wait=0&limit=1`, `Bearer ${tokens.good}`)),
  )
  // What SQL sends is judged and appended too.
  await database.query(`SELECT realtime.send('{"sent": "${sent}"}'::jsonb, '${sent}', 'a', true)`)
  await node.until(({ err }) =>
    ['POLICY_FAILED', 'POLICY_SLOW', 'could not be judged'].every(text => err.includes(text)),
  )
  for (const stream of streams) stream.close()
}

/** Parts of the path lose their connections. */
const cutOff = (): Promise<unknown> =>
  database.query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1`, [login])

test('[P2] no token, password, claim, message or value of a row is in the log, whatever goes wrong', async () => {
  await refuseEverybody()
  await breakFrames()
  await failPolicies()
  await cutOff()
  await node.until(({ err }) => err.includes('changes come again'))
  node.child.kill('SIGTERM')
  const { out, err } = await node.end()
  // It did say what went wrong.
  for (const text of [
    'POLICY_FAILED',
    'POLICY_SLOW',
    'could not be judged',
    'a frame of a Phoenix client cannot be read',
  ])
    expect(err).toContain(text)
  const secrets = [
    operatorToken,
    password,
    apiKey,
    value,
    claim,
    sent,
    jwtSecret,
    'an older secret',
    ...Object.values(tokens),
  ]
  const signatures = Object.values(tokens).map(token => token.split('.')[1]!)
  const told = [...secrets, ...signatures].filter(secret => out.includes(secret) || err.includes(secret))
  const lines = err.split('\n').filter(line => told.some(secret => line.includes(secret)))
  expect({ told, lines: lines.slice(0, 5) }).toEqual({ told: [], lines: [] })
})
