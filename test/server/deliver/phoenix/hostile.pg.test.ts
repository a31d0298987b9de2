// Who means harm over Supabase's wire: reads nothing, asks for large answers by small frames, sends what no client would.
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { SendQueue } from '../../../../src/server/deliver/send-queue.ts'
import { channelPolicies } from '../../../support/channel-client.ts'
import { eventually } from '../../../support/eventually.ts'
import { person, prepareDatabase, roomsSchema, TestNode, tokenFor } from '../../../support/node.ts'
import { TestDatabase } from '../../../support/postgres.ts'
import { Peer } from './support/peer.ts'

const stack = new AsyncDisposableStack()
const sub = person()
let database: TestDatabase
let node: TestNode
let token: string

beforeAll(async () => {
  database = stack.use(await TestDatabase.create())
  await prepareDatabase(database, roomsSchema + channelPolicies, ['rooms', 'members', 'messages'])
  await database.query(`INSERT INTO members VALUES (1, '${sub}')`)
  node = stack.use(await TestNode.start(database.url, { MAX_FRAMES_PER_SECOND: '1000', SEND_QUEUE_BYTES: '300000' }))
  token = await tokenFor(sub)
}, 120_000)

afterAll(() => stack.disposeAsync(), 60_000)

/** The largest that any queue was while `run` ran, in bytes. */
async function largest(run: () => Promise<void>): Promise<number> {
  let most = 0
  const { push } = SendQueue.prototype
  SendQueue.prototype.push = function (...args) {
    const hasRoom = push.apply(this, args)
    most = Math.max(most, this.bytes)
    return hasRoom
  }
  try {
    await run()
    return most
  } finally {
    SendQueue.prototype.push = push
  }
}

test('[P7] a client that reads no answers is not read either, and is given them all when it does', async () => {
  await using witness = await Peer.open(node.url, token)
  await using peer = await Peer.open(node.url, token)
  const topic = 't'.repeat(60_000)
  // Far more than the kernel takes.
  const count = 400
  const size = await largest(async () => {
    peer.ws.pause()
    for (let i = 0; i < count; i += 1) peer.ws.send(JSON.stringify([null, `${i}`, topic, 'none', {}]))
    // Until the node, in so many turns, has read nothing more.
    let before = Number.NaN
    while (peer.ws.bufferedAmount !== before) {
      before = peer.ws.bufferedAmount
      await sleep(200)
      for (let i = 0; i < 20; i += 1) expect((await witness.ask('phoenix', 'heartbeat')).status).toBe('ok')
    }
    expect(before).toBeGreaterThan(0)
    peer.ws.resume()
    await eventually(() =>
      expect(peer.said.map(({ ref }) => Number(ref))).toEqual(Array.from({ length: count }, (_, i) => i)),
    )
  })
  expect(size).toBeLessThan(2e6)
})

test('[P7] small frames are not answered by large ones', async () => {
  await using peer = await Peer.open(node.url, token)
  const size = await largest(async () => {
    const long = 'x'.repeat(60_000)
    peer.ws.send(JSON.stringify([long, '1', 'realtime:a', 'phx_join', { config: {} }]))
    for (let i = 0; i < 1000; i += 1) peer.ws.send(JSON.stringify([null, `${i}`, 'realtime:a', 'none', {}]))
    await peer.ask('phoenix', 'heartbeat')
  })
  expect(size).toBeLessThan(1e6)
})

test('[P7] a join of bindings by the thousand is refused by one short answer', async () => {
  await using peer = await Peer.open(node.url, token)
  const size = await largest(async () => {
    const entries = Array.from({ length: 85_000 }, () => 7)
    const { response } = await peer.join('realtime:a', { postgres_changes: entries })
    expect(response.reason).toContain('ChannelRateLimitReached')
    await peer.ask('phoenix', 'heartbeat')
  })
  expect(size).toBeLessThan(1e6)
})

const odd = [
  '',
  '\0',
  '\ud800',
  '__proto__',
  'constructor',
  'toString',
  'a\nb',
  '\u202e',
  'x'.repeat(300),
  '💥'.repeat(300),
  "'; --",
  '%00',
  '{}',
  '*',
]

test('[P8] whatever names hold, nothing is INTERNAL, and the connection stays', async () => {
  await using peer = await Peer.open(node.url, token)
  for (const name of odd) {
    for (const isPrivate of [false, true]) {
      const config = {
        private: isPrivate,
        presence: { key: name, enabled: true },
        broadcast: { ack: true, self: true },
      }
      await peer.join(`realtime:${name}`, config)
      await peer.ask(`realtime:${name}`, 'phx_leave')
    }
    const config = { presence: { key: name, enabled: true }, broadcast: { ack: true, self: true } }
    const bindings = [
      { event: name, schema: name, table: name },
      { event: '*', schema: 'public', table: name },
      { event: '*', schema: 'public', table: 'messages', filter: name },
      { event: '*', schema: 'public', table: 'messages', filter: `${name}=eq.1` },
      { event: '*', schema: 'public', table: 'messages', filter: `body=eq.${name}` },
      { event: '*', schema: 'public', table: 'messages', filter: `body=like.${name}` },
      { event: '*', schema: 'public', table: 'messages', filter: `body=match.${name}` },
      { event: '*', schema: 'public', table: 'messages', filter: `id=in.(${name})` },
      { event: '*', schema: 'public', table: 'messages', select: [name] },
    ]
    expect((await peer.join('realtime:odd', { ...config, postgres_changes: bindings })).status).toBe('ok')
    await peer.ask('realtime:odd', 'broadcast', { type: 'broadcast', event: name, payload: { [name]: name } })
    await peer.ask('realtime:odd', 'broadcast', { type: name, event: 'e', payload: name })
    const meta = JSON.parse(`{"__proto__": {"a": 1}, ${JSON.stringify(name)}: 1}`)
    await peer.ask('realtime:odd', 'presence', { type: 'presence', event: 'track', payload: meta })
    await peer.ask('realtime:odd', name === 'phx_leave' ? 'x' : `x${name}`, { [name]: name })
    peer.push('realtime:odd', 'access_token', { access_token: `${name}x` })
    await peer.until(said => said.event === 'phx_error' || said.event === 'system')
    await peer.ask('realtime:odd', 'phx_leave')
  }
  expect(JSON.stringify(peer.said).match(/.{100}INTERNAL.{200}/)?.[0]).toBe(undefined)
  expect(peer.ws.readyState).toBe(1)
})
