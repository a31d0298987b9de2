// Kicks from channels: a user's, a connection's, everybody's places, and nothing else of them.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { ChannelClient, channelPolicies } from '../../support/channel-client.ts'
import { person, prepareDatabase, roomsSchema, SseStream, TestNode } from '../../support/node.ts'
import { TestDatabase } from '../../support/postgres.ts'
import { olderToken } from './guests.ts'

let database: TestDatabase
let node: TestNode
const [ada, bob] = [person(), person()]

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, roomsSchema + channelPolicies, ['rooms', 'members', 'messages'])
  await database.query(`INSERT INTO members VALUES (1, '${ada}'), (2, '${ada}'), (1, '${bob}'), (2, '${bob}')`)
  node = await TestNode.start(database.url, {
    CHANNELS: JSON.stringify([{ pattern: 'room:*', public: true, presence: {} }]),
  })
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

const open = async (sub: string): Promise<ChannelClient> => ChannelClient.open(node, await olderToken(sub))
const kick = (names: string): Promise<unknown> => database.query(`SELECT tidegate.kick(${names})`)

test('a user is kicked from a topic: from its private and its public channel, on every connection, and stays elsewhere', async () => {
  using one = await open(ada)
  using two = await open(ada)
  using other = await open(bob)
  const gone = [await one.join('room:1'), await one.join('room:1', { private: false }), await two.join('room:1')]
  const stays = [await one.join('room:2'), await other.join('room:1')]
  const stream = await SseStream.open(node, '/v1/channels/room:1', await olderToken(ada))
  await stream.waitFor(() => stream.events.length > 0)
  await kick(`sub => '${ada}', topic => 'room:1', retry_after => '30 seconds'`)
  for (const channel of gone) {
    await channel.waitFor(() => channel.ended !== null)
    expect(channel.ended).toMatchObject({ code: 'KICKED', retryAfterMs: 30_000 })
  }
  expect((await stream.until(({ event }) => event === 'error')).data).toMatchObject({
    code: 'KICKED',
    retryAfterMs: 30_000,
  })
  for (const channel of stays) await channel.send('said', 'here')
  expect([one.isOpen, two.isOpen]).toEqual([true, true])
  const back = await two.join('room:1')
  await back.send('said', 'back')
})

test('a connection is kicked from a topic, or everybody', async () => {
  using one = await open(ada)
  using two = await open(ada)
  const [first, second] = [await one.join('room:1'), await two.join('room:1')]
  await kick(`connection => '${one.connection}', topic => 'room:1'`)
  await first.waitFor(() => first.ended !== null)
  await second.send('said', 'here')
  using other = await open(bob)
  const third = await other.join('room:1')
  const elsewhere = await other.join('room:2')
  await kick(`topic => 'room:1'`)
  for (const channel of [second, third]) {
    await channel.waitFor(() => channel.ended !== null)
    expect(channel.ended).toMatchObject({ code: 'KICKED' })
  }
  await elsewhere.send('said', 'here')
})

test('who is kicked from the service has left its channels: no grace', async () => {
  using watcher = await open(bob)
  const seen = await watcher.join('room:2', { presence: true })
  const guest = await open(ada)
  await guest.join('room:2', { track: { meta: { name: 'ada' } } })
  const isTold = (what: 'joined' | 'left') =>
    seen.told.some(told => told.kind === 'presence' && told[what]?.some(({ user }) => user === ada))
  await seen.waitFor(() => isTold('joined'))
  const beganAt = performance.now()
  await kick(`sub => '${ada}'`)
  await seen.waitFor(() => isTold('left'))
  expect(performance.now() - beganAt).toBeLessThan(1000)
})
