// How a client leaves, as others in a channel see it. The grace is so long that nobody is gone by it.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { openEventStream } from '../../../src/client/transports/event-stream.ts'
import type { OpenTransport } from '../../../src/client/transports/transport.ts'
import { openWebSocket } from '../../../src/client/transports/websocket.ts'
import { channelPolicies } from '../../support/channel-client.ts'
import { eventually } from '../../support/eventually.ts'
import { person, prepareDatabase, roomsSchema, TestNode, tokenFor } from '../../support/node.ts'
import { TestDatabase } from '../../support/postgres.ts'
import { Hearing } from './hearing.ts'

const ann = person()
let database: TestDatabase
let node: TestNode

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, roomsSchema + channelPolicies, ['rooms', 'members', 'messages'])
  await database.query(`INSERT INTO members VALUES (1, '${ann}')`)
  node = await TestNode.start(database.url, {
    CHANNELS: JSON.stringify([{ pattern: 'room:1', presence: { grace: '1m' } }]),
  })
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

async function member(open: OpenTransport, name: string): Promise<Hearing> {
  const hearing = new Hearing(open, node.url, await tokenFor(ann))
  hearing.entries = [{ type: 'join', id: 1, topic: 'room:1', presence: true, track: { meta: name } }]
  await hearing.frame('joined')
  return hearing
}

const told = ({ frames }: Hearing, what: 'here' | 'joined' | 'left'): unknown[] =>
  frames.flatMap(frame => (frame.type === 'presence' ? (frame[what] ?? []).map(({ meta }) => meta) : []))

test.each([
  ['websocket', openWebSocket],
  ['sse', openEventStream],
] as const)('who goes for good over %s is gone at once, who comes back is not', async (_name, open) => {
  using watching = await member(openWebSocket, 'watching')
  const back = await member(open, 'comes back')
  const gone = await member(open, 'goes')
  await eventually(() =>
    expect([...told(watching, 'here'), ...told(watching, 'joined')]).toEqual(
      expect.arrayContaining(['comes back', 'goes']),
    ),
  )
  back.transport.close(true)
  gone.transport.close()
  await eventually(() => expect(told(watching, 'left')).toContain('goes'))
  expect(told(watching, 'left')).not.toContain('comes back')
})
