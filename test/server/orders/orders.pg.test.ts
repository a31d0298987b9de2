// What operators order, on one node with real clients: by SQL and by HTTP, every kind, every address.
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createClient } from '../../../src/client/client.ts'
import { person, prepareDatabase, roomsSchema, SseStream, TestNode, tokenFor } from '../../support/node.ts'
import { TestDatabase } from '../../support/postgres.ts'
import {
  codeOf,
  doors,
  endOf,
  newerToken,
  nowSeconds,
  olderToken,
  openDoors,
  openSocket,
  poll,
  shutDoors,
} from './guests.ts'

const operatorToken = 'an-operator-of-the-tests'

let database: TestDatabase
let node: TestNode

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, roomsSchema, ['rooms', 'members', 'messages'])
  node = await TestNode.start(database.url, { OPERATOR_TOKEN: operatorToken })
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

/** As SQL calls it: `order("tidegate.kick(sub => 'ada')")`. */
async function order(call: string): Promise<Record<string, unknown>> {
  const [row] = await database.query(`SELECT * FROM ${call}`)
  return row!
}

const operate = (body: unknown, token: string | null = operatorToken, at: TestNode = node): Promise<Response> =>
  fetch(`${at.url}/v1/orders`, {
    method: 'POST',
    headers: token === null ? {} : { authorization: `Bearer ${token}` },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  })

/** A member of a room of its own, so that tests do not meet. */
async function member(): Promise<string> {
  const sub = person()
  await database.query(`INSERT INTO members (room_id, user_id) VALUES (1, '${sub}')`)
  return sub
}

test('a kick of a user ends what it has on every wire with KICKED, and nobody else; it may come back', async () => {
  const [ada, bob] = [await member(), await member()]
  const token = await olderToken(ada)
  const sockets = [await openSocket(node, token), await openSocket(node, token)]
  const stays = await openSocket(node, await olderToken(bob))
  const stream = await SseStream.open(node, '/v1/live/messages', token)
  await stream.until(({ event }) => event === 'snapshot')
  const first = await poll(node, token)
  const after = (await first.json()) as { position: string }
  const polling = poll(node, token, `wait=20&after=${encodeURIComponent(after.position)}`)
  await expect.poll(() => node.server.connections()).toBe(5)

  const ordered = await order(`tidegate.kick(sub => '${ada}', retry_after => '1 minute', reason => 'be kind')`)
  expect(ordered).toMatchObject({ kind: 'kick', sub: ada, topic: null, retry_after_ms: 60_000, reason: 'be kind' })
  for (const socket of sockets) expect(await endOf(socket)).toMatchObject({ code: 'KICKED', retryAfterMs: 60_000 })
  expect((await stream.until(({ event }) => event === 'error')).data).toMatchObject({
    code: 'KICKED',
    retry: true,
    retryAfterMs: 60_000,
    message: expect.stringContaining('be kind'),
  })
  const ended = await polling
  expect([ended.status, ended.headers.get('retry-after'), await codeOf(ended)]).toEqual([403, '60', 'KICKED'])
  await expect.poll(() => node.server.connections()).toBe(1)

  const back = await openSocket(node, token)
  await stays.subscribe(1, 'messages')
  for (const socket of [back, stays]) socket.ws.terminate()
})

test('a kick of a connection, or of a token, ends that alone', async () => {
  const ada = await member()
  const one = await openSocket(node, await olderToken(ada, { jti: `${ada} 1` }))
  const two = await openSocket(node, await olderToken(ada, { jti: `${ada} 2` }))
  const three = await openSocket(node, await olderToken(ada))
  const { connection } = await one.frame('welcome')
  await order(`tidegate.kick(connection => '${connection}')`)
  expect((await endOf(one)).code).toBe('KICKED')
  await order(`tidegate.kick(jti => '${ada} 2')`)
  expect((await endOf(two)).code).toBe('KICKED')
  await three.subscribe(1, 'messages')
  expect(three.of('error')).toEqual([])
  three.ws.terminate()
})

test('a kick that names another user’s connection ends nothing, and one that names nobody is refused', async () => {
  const [ada, bob] = [await member(), await member()]
  const socket = await openSocket(node, await olderToken(ada))
  const { connection } = await socket.frame('welcome')
  await order(`tidegate.kick(connection => '${connection}', sub => '${bob}')`)
  await expect(order('tidegate.kick()')).rejects.toThrow('a kick names a user, a connection, a topic or a token')
  await expect(order(`tidegate.revoke()`)).rejects.toThrow('a revoke names a user or a token, one of them')
  await expect(order(`tidegate.refresh(NULL)`)).rejects.toThrow('a refresh names a user')
  await expect(order(`tidegate.kick(topic => 'a', jti => 'b')`)).rejects.toThrow('a kick from a topic names no token')
  await socket.subscribe(1, 'messages')
  socket.ws.terminate()
})

test('[P3] a revoked user is shut out with the commit, sees nothing of it, and is refused at every door until it has a newer token', async () => {
  const ada = await member()
  const token = await olderToken(ada)
  const socket = await openSocket(node, token)
  await socket.subscribe(1, 'messages')
  await socket.frame('snapshot')
  const stream = await SseStream.open(node, '/v1/live/messages', token)
  await stream.until(({ event }) => event === 'snapshot')
  const issued = await fetch(`${node.url}/v1/tickets`, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}` },
  })
  const { ticket } = (await issued.json()) as { ticket: string }
  const id = Date.now()
  await database.query('BEGIN')
  await database.query(`INSERT INTO messages VALUES (${id}, 1, 'a', 'a secret')`)
  await order(`tidegate.revoke(sub => '${ada}', reason => 'signed out')`)
  await database.query('COMMIT')
  expect(await endOf(socket)).toMatchObject({ code: 'TOKEN_REVOKED', close: expect.any(Number) })
  expect(socket.of('delta')).toEqual([])
  await stream.until(({ event }) => event === 'error')
  expect(stream.events.map(({ event }) => event)).not.toContain('delta')

  expect(await doors(node, token)).toEqual(shutDoors('TOKEN_REVOKED'))
  expect(await doors(node, await tokenFor(ada))).toEqual(shutDoors('TOKEN_REVOKED'))
  expect(await doors(node, await tokenFor(ada, { iat: nowSeconds() - 1 }))).toEqual(shutDoors('TOKEN_REVOKED'))
  expect(await doors(node, await newerToken(ada))).toEqual(openDoors)
  const redeemed = await fetch(`${node.url}/v1/live/messages?ticket=${ticket}`)
  expect(await codeOf(redeemed)).toBe('TOKEN_REVOKED')
})

test('a revoked token is refused, and its user’s others are not; deleting the row takes it back', async () => {
  const ada = await member()
  const [stolen, other] = [await olderToken(ada, { jti: `${ada} s` }), await olderToken(ada, { jti: `${ada} o` })]
  const [thief, owner] = [await openSocket(node, stolen), await openSocket(node, other)]
  const { id } = await order(`tidegate.revoke(jti => '${ada} s')`)
  expect((await endOf(thief)).code).toBe('TOKEN_REVOKED')
  expect(await doors(node, stolen)).toEqual(shutDoors('TOKEN_REVOKED'))
  expect(await doors(node, other)).toEqual(openDoors)
  await owner.subscribe(1, 'messages')
  owner.ws.terminate()
  await database.query(`DELETE FROM tidegate.orders WHERE id = $1`, [id])
  await expect.poll(() => poll(node, stolen).then(codeOf)).toBe('200')
})

test('an order that is rolled back does nothing', async () => {
  const ada = await member()
  const socket = await openSocket(node, await olderToken(ada))
  await database.query('BEGIN')
  for (const call of [`kick(sub => '${ada}')`, `revoke(sub => '${ada}')`, `refresh('${ada}', '1 second')`])
    await order(`tidegate.${call}`)
  await database.query('ROLLBACK')
  await database.query('BEGIN')
  await database.query('SAVEPOINT before')
  await order(`tidegate.revoke(sub => '${ada}')`)
  await database.query('ROLLBACK TO before')
  await database.query('COMMIT')
  const other = await member()
  const witness = await openSocket(node, await olderToken(other))
  await order(`tidegate.kick(sub => '${other}')`)
  await endOf(witness)
  expect(await doors(node, await olderToken(ada))).toEqual(openDoors)
  await socket.subscribe(1, 'messages')
  socket.ws.terminate()
})

test('a token issued while the order’s transaction was open counts as older', async () => {
  const ada = await member()
  await database.query('BEGIN')
  await order(`tidegate.revoke(sub => '${ada}')`)
  const openedAt = nowSeconds()
  while (nowSeconds() < openedAt + 2) await sleep(50)
  const meanwhile = await tokenFor(ada, { iat: openedAt + 1 })
  const socket = await openSocket(node, meanwhile)
  await database.query('COMMIT')
  expect((await endOf(socket)).code).toBe('TOKEN_REVOKED')
  expect(await poll(node, meanwhile).then(codeOf)).toBe('TOKEN_REVOKED')
  const [row] = await database.query<{ later: boolean }>(
    `SELECT ordered_at >= to_timestamp($1) AS later FROM tidegate.orders WHERE sub = $2`,
    [openedAt + 2, ada],
  )
  expect(row).toEqual({ later: true })
})

test('[P8] a refresh ends those who did not renew in time, and from then on older tokens are refused', async () => {
  const ada = await member()
  const token = await olderToken(ada)
  const [renews, forgets] = [await openSocket(node, token), await openSocket(node, token)]
  const current = await openSocket(node, await newerToken(ada))
  await renews.subscribe(1, 'messages')
  const stream = await SseStream.open(node, '/v1/live/messages', token)
  await stream.until(({ event }) => event === 'snapshot')
  const { position } = (await (await poll(node, token)).json()) as { position: string }
  const polling = poll(node, token, `wait=20&after=${encodeURIComponent(position)}`)
  await expect.poll(() => node.server.connections()).toBe(5)

  await order(`tidegate.refresh('${ada}', within => '2 seconds')`)
  const { withinMs } = await renews.frame('refresh')
  expect(withinMs).toBeGreaterThan(1500)
  expect(withinMs).toBeLessThanOrEqual(2000)
  expect((await stream.until(({ event }) => event === 'refresh')).data).toEqual({ withinMs: expect.any(Number) })
  expect(await codeOf(await polling)).toBe('TOKEN_OUTDATED')
  expect(current.of('refresh')).toEqual([])
  // Whoever comes with an older token meanwhile is let in, and told what is left.
  const late = await openSocket(node, token)
  expect((await late.frame('refresh')).withinMs).toBeLessThanOrEqual(withinMs)
  // A token that is no newer is taken, and is not enough.
  forgets.send({ type: 'auth', token: await olderToken(ada, { jti: 'another' }) })
  await forgets.frame('authenticated')
  await forgets.until(() => forgets.of('refresh').length === 2, 'another refresh')
  renews.send({ type: 'auth', token: await tokenFor(ada, { iat: nowSeconds() }) })
  await renews.frame('authenticated')

  expect((await endOf(forgets)).code).toBe('TOKEN_OUTDATED')
  expect((await endOf(late)).code).toBe('TOKEN_OUTDATED')
  expect((await stream.until(({ event }) => event === 'error')).data).toMatchObject({
    code: 'TOKEN_OUTDATED',
    retry: true,
  })
  expect(await doors(node, token)).toEqual(shutDoors('TOKEN_OUTDATED'))
  expect(await doors(node, await newerToken(ada))).toEqual(openDoors)
  await renews.subscribe(2, 'rooms')
  await current.subscribe(2, 'rooms')
  for (const socket of [renews, current]) {
    expect(socket.of('error')).toEqual([])
    socket.ws.terminate()
  }
})

test('[P8] the SDK brings a newer token by itself, and its query goes on', async () => {
  const ada = await member()
  let asked = 0
  const token = (): Promise<string> => tokenFor(ada, { iat: asked++ === 0 ? nowSeconds() - 60 : nowSeconds() })
  const client = createClient(node.url, { token })
  const states: string[] = []
  const stop = client
    .from('messages')
    .where('room_id', '=', 77)
    .live()
    .subscribe(({ status }) => void states.push(status))
  await expect.poll(() => states.at(-1)).toBe('live')
  const before = states.length
  await order(`tidegate.refresh('${ada}', within => '1 second')`)
  const old = await olderToken(ada)
  await expect.poll(() => poll(node, old, 'wait=0').then(codeOf), { timeout: 4000 }).toBe('TOKEN_OUTDATED')
  await sleep(1500)
  expect([asked, states.slice(before)]).toEqual([2, []])
  stop()
  client.close()
})

test('a refresh of a token of the same second: it may have been issued before', async () => {
  const ada = await member()
  const { ordered_at: orderedAt } = await order(`tidegate.refresh('${ada}', within => '1 second')`)
  const second = Math.floor((orderedAt as Date).getTime() / 1000)
  const same = await tokenFor(ada, { iat: second })
  await expect.poll(() => poll(node, same).then(codeOf), { timeout: 5000 }).toBe('TOKEN_OUTDATED')
  expect(await poll(node, await tokenFor(ada, { iat: second + 1 })).then(codeOf)).toBe('200')
})

test('[P8] over HTTP an operator is answered when this node has carried it out', async () => {
  const ada = await member()
  const token = await olderToken(ada)
  const socket = await openSocket(node, token)
  const kicked = await operate({ kick: { sub: ada, retryAfterMs: 5000 } })
  expect(kicked.status).toBe(200)
  expect(await kicked.json()).toEqual({
    order: expect.objectContaining({ kind: 'kick', sub: ada, retry_after_ms: 5000 }),
    position: expect.stringMatching(/./),
  })
  expect(socket.of('error').map(({ code }) => code)).toEqual(['KICKED'])
  const until = new Date(Date.now() + 60_000).toISOString()
  const revoked = (await (await operate({ revoke: { sub: ada, until, reason: 'gone' } })).json()) as {
    order: { until: string }
  }
  expect(Date.parse(revoked.order.until)).toBe(Date.parse(until))
  expect(await poll(node, token).then(codeOf)).toBe('TOKEN_REVOKED')
  expect(await operate({ refresh: { sub: ada, withinMs: 5000 } }).then(response => response.json())).toMatchObject({
    order: { kind: 'refresh', within_ms: 5000 },
  })
})

test.each([
  ['no JSON', '{'],
  ['no order', {}],
  ['two orders', { kick: { sub: 'a' }, revoke: { sub: 'a' } }],
  ['an unknown name', { kick: { user: 'a' } }],
  ['a kick of nobody', { kick: {} }],
  ['a revoke of both', { revoke: { sub: 'a', jti: 'b' } }],
  ['a refresh of nobody', { refresh: {} }],
  ['a time without a zone', { revoke: { sub: 'a', until: '2026-01-01T00:00:00' } }],
  ['a time in no calendar', { revoke: { sub: 'a', until: '2026-02-30T00:00:00Z' } }],
  ['a user whose name Postgres cannot hold', { kick: { sub: 'a\u0000' } }],
])('[P8] over HTTP %s is BAD_FRAME, and nothing is ordered', async (_, body) => {
  const count = () => database.query('SELECT count(*) FROM tidegate.orders')
  const before = await count()
  const response = await operate(body)
  expect([response.status, await codeOf(response)]).toEqual([400, 'BAD_FRAME'])
  expect(await count()).toEqual(before)
})

test('only who has OPERATOR_TOKEN, or EXECUTE, may order', async () => {
  const ada = await member()
  expect(await operate({ kick: { sub: ada } }, null).then(codeOf)).toBe('TOKEN_MISSING')
  expect(await operate({ kick: { sub: ada } }, await tokenFor(ada)).then(codeOf)).toBe('TOKEN_INVALID')
  expect((await fetch(`${node.url}/v1/orders`)).status).toBe(405)
  await database.query('SET ROLE authenticated')
  try {
    for (const call of [`kick('${ada}')`, `revoke('${ada}')`, `refresh('${ada}')`])
      await expect(order(`tidegate.${call}`)).rejects.toThrow(/permission denied/)
    await expect(database.query('SELECT * FROM tidegate.orders')).rejects.toThrow(/permission denied/)
  } finally {
    await database.query('RESET ROLE')
  }
  const role = `${database.name}_moderator`
  await database.query(`CREATE ROLE ${role}; GRANT USAGE ON SCHEMA tidegate TO ${role};
    GRANT EXECUTE ON FUNCTION tidegate.kick TO ${role}`)
  const socket = await openSocket(node, await olderToken(ada))
  await database.query(`SET ROLE ${role}`)
  try {
    await order(`tidegate.kick(sub => '${ada}')`)
  } finally {
    await database.query(`RESET ROLE; DROP OWNED BY ${role}; DROP ROLE ${role}`)
  }
  expect((await endOf(socket)).code).toBe('KICKED')
})

test('nobody who was not granted it reads the orders', async () => {
  const response = await fetch(`${node.url}/v1/live/tidegate.orders`, {
    headers: { authorization: `Bearer ${await tokenFor(person())}`, accept: 'application/json' },
  })
  expect(await codeOf(response)).toBe('TABLE_REFUSED')
})

test('[P7] a thousand users revoked in one transaction, among ten thousand rows, end in its turn', async () => {
  const users = Array.from({ length: 20 }, () => person())
  const sockets = await Promise.all(users.map(async sub => openSocket(node, await olderToken(sub))))
  const others = JSON.stringify([...Array.from({ length: 980 }, () => person()), ...users])
  await database.query('BEGIN')
  await database.query(`INSERT INTO messages SELECT 1e9::bigint + i, 7, 'a', 'b' FROM generate_series(1, 10000) i`)
  await database.query(`SELECT tidegate.revoke(sub => value) FROM jsonb_array_elements_text($1)`, [others])
  await database.query('COMMIT')
  for (const socket of sockets) expect((await endOf(socket)).code).toBe('TOKEN_REVOKED')
})

test('[P7] the table refuses more orders than every node can hold', async () => {
  await expect(
    database.query(`INSERT INTO tidegate.orders (kind, sub, until)
      SELECT 'revoke', 'user ' || i, now() + interval '1 hour' FROM generate_series(1, 100001) i`),
  ).rejects.toMatchObject({ code: '54000', message: expect.stringContaining('100000 rows') })
  expect(await operate({ kick: { sub: 'nobody' } }).then(({ status }) => status)).toBe(200)
})
