// The gateways of docs/guide/supabase.md between the real client and a node.
import { createServer, get, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { json } from 'node:stream/consumers'
import { createClient, type RealtimeChannel, type SupabaseClient } from '@supabase/supabase-js'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { eventually } from '../support/eventually.ts'
import { person, prepareDatabase, roomsSchema, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import {
  type Behind,
  blockOf,
  type Gateway,
  kongServices,
  startCaddyGateway,
  startLikeKong,
  startNginxGateway,
} from './supabase-gateways.ts'

const ana = person()
const publishable = 'sb_publishable_of_the_gateways'
const stack = new AsyncDisposableStack()
const asked: string[] = []
let database: TestDatabase
let behind: Behind
let anonKey: string

const policies = `
  CREATE POLICY hear ON realtime.messages FOR SELECT TO authenticated USING ((SELECT realtime.topic()) LIKE 'room:%');
  CREATE POLICY speak ON realtime.messages FOR INSERT TO authenticated WITH CHECK ((SELECT realtime.topic()) LIKE 'room:%');
  INSERT INTO public.members VALUES (1, '${ana}');
`

beforeAll(async () => {
  database = stack.use(await TestDatabase.create())
  await prepareDatabase(database, roomsSchema + policies, ['public.members', 'public.messages'])
  const node = stack.use(await TestNode.start(database.url, { API_KEYS: `${publishable}=anon` }))
  const rest = createServer((request, response) => {
    asked.push(request.url ?? '')
    response.end('[]')
  })
  await new Promise<void>(resolve => rest.listen(0, '127.0.0.1', resolve))
  stack.defer(() => new Promise<void>(resolve => rest.close(() => resolve())))
  stack.defer(() => rest.closeAllConnections())
  behind = { tidegateUrl: node.url, restUrl: `http://127.0.0.1:${(rest.address() as AddressInfo).port}` }
  anonKey = await tokenFor(person(), { role: 'anon' })
}, 300_000)

afterAll(() => stack.disposeAsync(), 60_000)

/** What an upgrade is answered instead. */
async function refusal(url: string): Promise<Record<string, unknown>> {
  const headers = {
    ...{ connection: 'Upgrade', upgrade: 'websocket', 'sec-websocket-version': '13' },
    'sec-websocket-key': Buffer.from('0123456789abcdef').toString('base64'),
  }
  const response = await new Promise<IncomingMessage>((resolve, reject) =>
    get(url, { headers }, resolve).once('error', reject),
  )
  return { status: response.statusCode, ...((await json(response)) as object) }
}

const gateways: Readonly<Record<string, () => Promise<Gateway>>> = {
  nginx: () => startNginxGateway(behind),
  Caddy: () => startCaddyGateway(behind),
  "Kong's routes": () => startLikeKong(behind, null),
}

describe.each(Object.keys(gateways))('through %s', name => {
  let gateway: Gateway
  const clients: SupabaseClient[] = []

  beforeAll(async () => {
    gateway = stack.use(await gateways[name]!())
  }, 300_000)

  afterAll(async () => {
    for (const client of clients) await client.removeAllChannels()
  })

  /** @param sub null: whoever has the key */
  const clientOf = async (sub: string | null, key = anonKey): Promise<SupabaseClient> => {
    const user = sub === null ? {} : { accessToken: () => tokenFor(sub) }
    const client = createClient(gateway.url, key, user)
    clients.push(client)
    if (sub !== null) await client.realtime.setAuth()
    return client
  }

  const subscribed = (channel: RealtimeChannel): Promise<void> =>
    new Promise((resolve, reject) => {
      channel.subscribe((status, error) => {
        if (status === 'SUBSCRIBED') resolve()
        else if (status !== 'CLOSED') reject(error ?? new Error(status))
      })
    })

  test('clients talk, are present, and are told of rows', { timeout: 60_000 }, async () => {
    const told: string[] = []
    const [first, second] = [await clientOf(ana), await clientOf(ana)]
    const config = { private: true }
    const hears = first
      .channel(`room:${name}`, { config })
      .on('broadcast', { event: 'said' }, ({ payload }) => told.push(`said ${payload.text}`))
      .on('presence', { event: 'join' }, ({ newPresences }) => told.push(`here ${newPresences[0]!.name}`))
      .on('postgres_changes', { event: 'INSERT', schema: 'public', table: 'messages' }, change =>
        told.push(`row ${change.new.body}`),
      )
    await subscribed(hears)
    const says = second.channel(`room:${name}`, { config: { ...config, broadcast: { ack: true } } })
    await subscribed(says)
    expect(await says.send({ type: 'broadcast', event: 'said', payload: { text: 'hello' } })).toBe('ok')
    expect(await says.track({ name: 'Ana' })).toBe('ok')
    const id = Object.keys(gateways).indexOf(name) * 2
    await database.query(`INSERT INTO messages VALUES (${id}, 1, 'ana', 'a row'), (${id + 1}, 2, 'eve', 'another')`)
    await eventually(() => expect(told.toSorted()).toEqual(['here Ana', 'row a row', 'said hello']))
  })

  test('HTTP broadcasts reach whom they are for, whatever stands in the path', { timeout: 60_000 }, async () => {
    const topic = 'room:å b/c?d%2Fe&f'
    const told: unknown[] = []
    const client = await clientOf(ana)
    const hears = client.channel(topic, { config: { private: true } })
    hears.on('broadcast', { event: '*' }, ({ event, payload }) => told.push([event, payload]))
    await subscribed(hears)
    const sender = await clientOf(ana)
    const says = sender.channel(topic, { config: { private: true } })
    await says.httpSend('by itself', { n: 1 })
    const headers = {
      apikey: anonKey,
      authorization: `Bearer ${await tokenFor(ana)}`,
      'content-type': 'application/json',
    }
    const messages = [{ topic, event: 'in a batch', payload: { n: 2 }, private: true }]
    const response = await fetch(`${gateway.url}/realtime/v1/api/broadcast?apikey=x`, {
      ...{ method: 'POST', headers, body: JSON.stringify({ messages }) },
    })
    expect(response.status).toBe(202)
    await eventually(() =>
      expect(told).toEqual([
        ['by itself', { n: 1 }],
        ['in a batch', { n: 2 }],
      ]),
    )
  })

  test('a browser of another origin may ask before it sends', async () => {
    const response = await fetch(`${gateway.url}/realtime/v1/api/broadcast`, {
      method: 'OPTIONS',
      headers: {
        origin: 'https://app.example.com',
        'access-control-request-method': 'POST',
        'access-control-request-headers': 'authorization,apikey,content-type',
      },
    })
    const [origin, headers] = ['origin', 'headers'].map(each => response.headers.get(`access-control-allow-${each}`))
    expect([response.ok, origin]).toEqual([true, 'https://app.example.com'])
    expect(headers).toMatch(/apikey/)
  })

  test('[P8] who is refused hears why', async () => {
    const answer = await refusal(`${gateway.url}/realtime/v1/websocket?apikey=not-a-token&vsn=2.0.0`)
    expect(answer).toEqual({ status: 401, error: expect.any(String), code: 'TOKEN_INVALID' })
    const client = await clientOf(null, 'not-a-token')
    await expect(subscribed(client.channel('any'))).rejects.toThrow()
  })

  test('what is not Realtime goes where it went', async () => {
    await fetch(`${gateway.url}/rest/v1/messages?select=*`)
    expect(asked).toContain('/rest/v1/messages?select=*')
    expect(asked.filter(url => url.startsWith('/realtime/'))).toEqual([])
  })

  test('a key of the new kind is let in', { timeout: 60_000 }, async () => {
    const client = await clientOf(null, publishable)
    await subscribed(client.channel('open to all'))
  })

  test('no log has the key', async () => {
    expect((await gateway.log?.()) ?? '').not.toContain(anonKey.slice(0, 40))
    if (name === 'nginx') expect(await gateway.log!()).toContain('/rest/v1/messages')
  })
})

test("Kong's plugins put a JWT in the place of a key that is none", { timeout: 60_000 }, async () => {
  await using gateway = await startLikeKong(behind, await tokenFor(ana))
  const client = createClient(gateway.url, 'sb_publishable_that_only_kong_knows')
  const status = new Promise(resolve => client.channel('room:1', { config: { private: true } }).subscribe(resolve))
  expect(await status).toBe('SUBSCRIBED')
  await client.removeAllChannels()
})

test("Kong's snippet is of the services that Supabase's has, with another host alone", async () => {
  expect(kongServices(await blockOf('yaml'))).toEqual([
    { name: 'realtime-v1-ws', url: 'http://tidegate:4000/socket', path: '/realtime/v1/' },
    { name: 'realtime-v1-rest', url: 'http://tidegate:4000/api', path: '/realtime/v1/api' },
  ])
})
