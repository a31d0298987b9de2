// What is told of subscriptions, channels and nodes, from what a node lists.
import { expect, test } from 'vitest'
import type { Table } from '../../../src/server/catalog/table.ts'
import { type ChannelListed, channelsPage } from '../../../src/server/inspect/channels-page.ts'
import { nodesPage } from '../../../src/server/inspect/nodes-page.ts'
import { queriesPage } from '../../../src/server/inspect/queries-page.ts'
import type { Query } from '../../../src/server/route/query.ts'
import type { SubscriptionListed } from '../../../src/server/subscribe/listing.ts'
import type { SubscribeRequest } from '../../../src/server/subscribe/subscription.ts'

const table = { schema: 'public', name: 'messages', columns: [{ name: 'id' }, { name: 'hidden' }, { name: 'body' }] }

const query = (number: number, kind: Query['kind'] = 'live'): Query =>
  ({ number, kind, table: table as unknown as Table, columns: [0, 2] }) as unknown as Query

const request: SubscribeRequest = {
  kind: 'live',
  schema: 'public',
  table: 'messages',
  filters: [],
  select: null,
  events: null,
  since: null,
}

const listed = (of: Query, audience: object, more: Partial<SubscriptionListed> = {}): SubscriptionListed => ({
  query: of,
  audience,
  role: 'authenticated',
  request,
  isAsked: false,
  isHeld: false,
  isBehind: false,
  ...more,
})

test('subscriptions are counted by query and audience, the largest first', async () => {
  const [ada, ben, all] = [{}, {}, {}]
  const ordered = {
    ...request,
    filters: [
      ['room_id', 'eq.42'],
      ['or', '(a.is.null,b.gt.1)'],
    ] as const,
    order: [
      { column: 'at', direction: 'desc', nulls: 'first' },
      { column: 'id', direction: 'asc', nulls: 'first' },
    ] as const,
    limit: 20,
  }
  const page = await queriesPage(() => [
    listed(query(1), ada, { request: ordered }),
    listed(query(1), ben, { isHeld: true, isBehind: true }),
    listed(query(1), ben, { isHeld: true }),
    listed(query(2), all, { isAsked: true, role: 'anon' }),
    listed(query(3, 'channel'), {}),
  ])
  expect(page).toEqual({
    queries: [
      {
        number: 1,
        kind: 'live',
        table: 'public.messages',
        columns: ['id', 'body'],
        filter: 'room_id=eq.42&or=(a.is.null,b.gt.1)',
        order: 'at.desc,id.nullsfirst',
        limit: 20,
        subscribers: 3,
        audiences: [
          { role: 'authenticated', isAsked: false, isHeld: true, subscribers: 2, behind: 1 },
          { role: 'authenticated', isAsked: false, isHeld: false, subscribers: 1, behind: 0 },
        ],
        moreAudiences: 0,
      },
      expect.objectContaining({
        number: 2,
        filter: null,
        order: null,
        limit: null,
        audiences: [{ role: 'anon', isAsked: true, isHeld: false, subscribers: 1, behind: 0 }],
      }),
    ],
    more: 0,
  })
})

test('an audience that two roles share is counted for each', async () => {
  const shared = {}
  const of = (role: string) => listed(query(1), shared, { role })
  const { queries } = await queriesPage(() => [of('anon'), of('authenticated'), of('anon')])
  expect(queries[0]!.audiences.map(({ role, subscribers }) => [role, subscribers])).toEqual([
    ['anon', 2],
    ['authenticated', 1],
  ])
})

test('[P7] of 100,000 subscriptions 200 queries and 50 audiences of each are told, and the others get their turn', async () => {
  function* many(): Generator<SubscriptionListed> {
    for (let place = 0; place < 100_000; place += 1) yield listed(query(place % 1000), { place })
  }
  let turns = 0
  const timer = setInterval(() => {
    turns += 1
  }, 1)
  const page = await queriesPage(many)
  clearInterval(timer)
  expect([page.queries.length, page.more]).toEqual([200, 800])
  expect(page.queries.every(({ audiences, moreAudiences }) => audiences.length === 50 && moreAudiences === 50)).toBe(
    true,
  )
  expect(turns).toBeGreaterThan(2)
})

const channel = (topic: string, members: number, more: Partial<ChannelListed> = {}): ChannelListed => ({
  name: { topic, isPrivate: true },
  members: { size: members },
  rule: { history: null },
  here: null,
  ...more,
})

test('channels are told with who is present, by key', async () => {
  const entries = [{ key: 'ada' }, { key: 'ben' }, { key: 'ben' }]
  const page = await channelsPage([
    channel('quiet', 1),
    channel('room:1', 3, { here: { entries }, rule: { history: { length: 100, ageMs: 3_600_000 } } }),
    channel('crowd', 2, { here: { entries: null } }),
  ])
  expect(page).toEqual({
    channels: [
      {
        topic: 'room:1',
        isPrivate: true,
        members: 3,
        present: [
          { key: 'ben', connections: 2 },
          { key: 'ada', connections: 1 },
        ],
        morePresent: 0,
        history: '100 messages, 3600 s',
      },
      { topic: 'crowd', isPrivate: true, members: 2, present: null, morePresent: 0, history: null },
      { topic: 'quiet', isPrivate: true, members: 1, present: null, morePresent: 0, history: null },
    ],
    more: 0,
  })
})

test('[P7] 200 channels are told, and 50 keys of each', async () => {
  const entries = Array.from({ length: 80 }, (_, place) => ({ key: `user ${place}` }))
  const page = await channelsPage(
    Array.from({ length: 300 }, (_, place) => channel(`t${place}`, place, { here: { entries } })),
  )
  expect([page.channels.length, page.more, page.channels[0]!.topic]).toEqual([200, 100, 't299'])
  expect([page.channels[0]!.present!.length, page.channels[0]!.morePresent]).toEqual([50, 30])
})

test('this node is told as it is, the others as they said', () => {
  const node = (id: string, address: string) => ({
    id,
    address,
    release: '1',
    leads: true,
    connections: 9,
    lagMs: 5,
    moving: null,
  })
  const options = {
    nodeId: 'a',
    release: '2',
    address: () => 'host:1',
    gauges: () => ({ leads: false, connections: 3, lagMs: 7 }),
  }
  expect(nodesPage({ ...options, nodes: () => null }).nodes).toEqual([
    { id: 'a', address: 'host:1', release: '2', leads: false, connections: 3, lagMs: 7, isThis: true },
  ])
  const living = [node('c', 'host:3'), node('a', 'host:1'), node('b', 'host:2')]
  const { nodes } = nodesPage({ ...options, nodes: () => living })
  expect(nodes.map(({ id, isThis, connections }) => [id, isThis, connections])).toEqual([
    ['a', true, 3],
    ['b', false, 9],
    ['c', false, 9],
  ])
})
