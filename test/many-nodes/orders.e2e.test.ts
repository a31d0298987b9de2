// Orders of many nodes: given at one, carried out by all within a second.
import { afterAll, beforeAll, expect, test } from 'vitest'
import {
  doors,
  endOf,
  newerToken,
  nowSeconds,
  olderToken,
  openDoors,
  openSocket,
  shutDoors,
} from '../server/orders/guests.ts'
import { person, prepareDatabase, roomsSchema, SseStream, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { findRedis, type TestRedis } from '../support/redis.ts'

const operatorToken = 'an-operator-of-the-tests'

let database: TestDatabase
let redis: TestRedis
let nodes: [TestNode, TestNode]

beforeAll(async () => {
  database = await TestDatabase.create()
  redis = await findRedis()
  await prepareDatabase(database, roomsSchema, ['rooms', 'members', 'messages'])
  nodes = [await start(), await start()]
})

afterAll(async () => {
  for (const node of nodes ?? []) await node[Symbol.asyncDispose]()
  await redis?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

const start = (): Promise<TestNode> =>
  TestNode.start(database.url, { REDIS_URL: redis.url, OPERATOR_TOKEN: operatorToken })

const order = (at: TestNode, body: object): Promise<Response> =>
  fetch(`${at.url}/v1/orders`, {
    method: 'POST',
    headers: { authorization: `Bearer ${operatorToken}` },
    body: JSON.stringify(body),
  })

const onBoth = (token: string) => Promise.all(nodes.map(node => openSocket(node, token)))

test('a user who is kicked at one node is ended at both within a second', async () => {
  const ada = person()
  const sockets = await onBoth(await olderToken(ada))
  const beganAt = performance.now()
  const ended = Promise.all(sockets.map(endOf))
  expect((await order(nodes[1], { kick: { sub: ada, retryAfterMs: 2000 } })).status).toBe(200)
  for (const end of await ended) expect(end).toMatchObject({ code: 'KICKED', retryAfterMs: 2000 })
  expect(performance.now() - beganAt).toBeLessThan(1000)
})

test('a connection is known by its name at every node', async () => {
  const sockets = await onBoth(await olderToken(person()))
  const { connection } = await sockets[0]!.frame('welcome')
  await order(nodes[1], { kick: { connection } })
  expect((await endOf(sockets[0]!)).code).toBe('KICKED')
  await sockets[1]!.subscribe(1, 'messages')
  sockets[1]!.ws.terminate()
})

test('[P3] a token that is revoked at one node is ended at both within a second, and refused at every door of each, and of one that starts later', async () => {
  const ada = person()
  const token = await olderToken(ada, { jti: ada })
  const sockets = await onBoth(token)
  const stream = await SseStream.open(nodes[0], '/v1/live/messages', token)
  await stream.until(({ event }) => event === 'snapshot')
  const beganAt = performance.now()
  const ended = Promise.all(sockets.map(endOf))
  await order(nodes[1], { revoke: { jti: ada } })
  for (const end of await ended) expect(end.code).toBe('TOKEN_REVOKED')
  expect((await stream.until(({ event }) => event === 'error')).data).toMatchObject({ code: 'TOKEN_REVOKED' })
  expect(performance.now() - beganAt).toBeLessThan(1000)
  await using third = await start()
  for (const node of [...nodes, third]) {
    expect(await doors(node, token)).toEqual(shutDoors('TOKEN_REVOKED'))
    expect(await doors(node, await olderToken(ada))).toEqual(openDoors)
  }
})

test('a refresh closes only those who did not renew, at whichever node they are', async () => {
  const ada = person()
  const token = await olderToken(ada)
  const [renewing, staying] = await onBoth(token)
  await order(nodes[0], { refresh: { sub: ada, withinMs: 1500 } })
  for (const socket of [renewing!, staying!]) await socket.frame('refresh')
  renewing!.send({ type: 'auth', token: await tokenFor(ada, { iat: nowSeconds() }) })
  await renewing!.frame('authenticated')
  expect((await endOf(staying!)).code).toBe('TOKEN_OUTDATED')
  await expect.poll(() => doors(nodes[0], token)).toEqual(shutDoors('TOKEN_OUTDATED'))
  await expect.poll(() => doors(nodes[1], token)).toEqual(shutDoors('TOKEN_OUTDATED'))
  for (const node of nodes) expect(await doors(node, await newerToken(ada))).toEqual(openDoors)
  await renewing!.subscribe(1, 'messages')
  expect(renewing!.of('error')).toEqual([])
  renewing!.ws.terminate()
})
