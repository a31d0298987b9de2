// What an inspector of one node is told of a deployment of two.
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { ChannelsPage, NodesPage, Overview } from '../../src/server/inspect/wire.ts'
import { dataOf, inspected, inspecting, operatorToken } from '../server/inspect/support.ts'
import { LiveSse, TestNode, tokenFor } from '../support/node.ts'
import { ChannelNodes } from './channel-nodes.ts'

const ada = '00000000-0000-4000-8000-00000000000a'
const ben = '00000000-0000-4000-8000-00000000000b'

let both: ChannelNodes<TestNode>

beforeAll(async () => {
  both = await ChannelNodes.start(
    (databaseUrl, redisUrl) => TestNode.start(databaseUrl, { REDIS_URL: redisUrl, OPERATOR_TOKEN: operatorToken }),
    node => node.server.stop(),
  )
})

afterAll(async () => {
  await both?.[Symbol.asyncDispose]()
})

const nodesSeenBy = async (node: TestNode): Promise<NodesPage['nodes']> =>
  (await inspected<NodesPage>(node, 'nodes')).nodes

test('each node tells of both, of which one leads, and says which it is itself', async () => {
  using live = await LiveSse.open(both.b, '/v1/live/messages', await tokenFor(ada))
  await live.exact()
  for (const [node, other] of [
    [both.a, both.b],
    [both.b, both.a],
  ] as const) {
    const portsOf = (nodes: NodesPage['nodes']) => nodes.map(({ address }) => Number(address.split(':').at(-1)))
    await expect.poll(async () => portsOf(await nodesSeenBy(node))).toEqual([node.server.port, other.server.port])
    const nodes = await nodesSeenBy(node)
    expect(nodes.map(({ isThis }) => isThis)).toEqual([true, false])
    // Of the other it knows what that said a second ago.
    await expect.poll(async () => (await nodesSeenBy(node)).filter(({ leads }) => leads).length).toBe(1)
    expect(new Set(nodes.map(({ id }) => id)).size).toBe(2)
  }
  await expect.poll(async () => (await nodesSeenBy(both.a)).map(({ connections }) => connections)).toEqual([0, 1])
})

test('present in a channel are those of both nodes; its members are those here', async () => {
  const topic = await both.roomOf([ada, ben])
  const [a, b] = [await both.open(both.a, ada), await both.open(both.b, ben)]
  await a.join(topic, { presence: true, track: { meta: {} } })
  await b.join(topic, { presence: true, track: { meta: {} } })
  for (const node of [both.a, both.b]) {
    const channel = async () =>
      (await inspected<ChannelsPage>(node, 'channels')).channels.find(each => each.topic === topic)
    await expect.poll(async () => (await channel())?.present?.map(({ key }) => key).sort()).toEqual([ada, ben])
    expect((await channel())!.members).toBe(1)
  }
})

test('one who follows shows the commits too, and says that it does not lead', async () => {
  const nodes = await nodesSeenBy(both.a)
  const follower = nodes[0]!.leads ? both.b : both.a
  using stream = await inspecting(follower, 'stream')
  await stream.until(({ event }) => event === 'overview')
  await both.database.query(`INSERT INTO messages VALUES (1, 1, 'ada', 'hello')`)
  await stream.until(({ event, data }) => event === 'commits' && JSON.stringify(data).includes('public.messages'))
  expect(dataOf<Overview>(stream, 'overview')[0]).toMatchObject({ leads: false, stale: false })
})
