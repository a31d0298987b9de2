// Supabase's clients as they are published come back after every kind of break, and miss nothing.
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, inject, test, vi } from 'vitest'
import { Balancer } from '../support/balancer.ts'
import { channelPolicies } from '../support/channel-client.ts'
import { FaultProxy } from '../support/fault-proxy.ts'
import { person, prepareDatabase, roomsSchema, TestNode } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { findRedis } from '../support/redis.ts'
import { ComingBack, expectWhole, versions } from './coming-back.ts'

const ada = person()

const settings = {
  HEARTBEAT_MS: '2000',
  CHANNELS: '[{"pattern": "room:*", "history": {"length": 10000, "age": "1h"}}]',
}

/** Where ada is in room 1. Nobody is connected to it: those of the tests are copies. */
let prepared: TestDatabase

beforeAll(async () => {
  prepared = await TestDatabase.create()
  await prepareDatabase(prepared, roomsSchema + channelPolicies, ['rooms', 'members', 'messages'])
  await prepared.query(`INSERT INTO members (room_id, user_id) VALUES (1, '${ada}')`)
  await prepared.client.end()
})

afterAll(async () => {
  await (await TestDatabase.connect(prepared))[Symbol.asyncDispose]()
})

const roomOfAda = (): Promise<TestDatabase> => TestDatabase.create(inject('databaseUrl'), `TEMPLATE ${prepared.name}`)

/** Each id is a row, and a message in the channel, of one transaction.
 *  @param use is given a function that resolves when so many more are committed */
async function writes(
  database: TestDatabase,
  use: (more: (count: number) => Promise<void>) => Promise<void>,
): Promise<number> {
  let isOver = false
  let id = 0
  const writer = (async () => {
    while (!isOver) {
      await database.query(
        `WITH said AS (SELECT realtime.send('{"n": ${id + 1}}'::jsonb, 'said', 'room:1', true))
         INSERT INTO messages SELECT ${id + 1}, 1, 'a', 'b' FROM said`,
      )
      id += 1
      await sleep(50)
    }
  })()
  const more = async (count: number): Promise<void> => {
    const upTo = id + count
    await Promise.race([writer, vi.waitFor(() => expect(id).toBeGreaterThanOrEqual(upTo), 40_000)])
  }
  try {
    await use(more)
  } finally {
    isOver = true
    await writer
  }
  return id
}

/** Given everything up to the last, in order. */
async function expectAll(client: ComingBack, lastId: number, cuts: readonly number[]): Promise<void> {
  await client.heard(lastId)
  expectWhole(client.changes, lastId, cuts)
  expectWhole(client.messages, lastId, cuts)
}

// Each has a database and nodes of its own, and waits most of the time.
vi.setConfig({ maxConcurrency: 8 })
describe.concurrent.each(versions)('supabase-js %s', version => {
  test('[P4] what is committed while a client is cut off comes when it is back', async () => {
    await using database = await roomOfAda()
    await using node = await TestNode.start(database.url, settings)
    await using proxy = await FaultProxy.before(node.url)
    await using client = await ComingBack.join({ version, url: proxy.url, sub: ada })
    const cuts: number[] = []
    const lastId = await writes(database, async more => {
      for (let round = 1; round <= 2; round += 1) {
        await sleep(800 * round)
        cuts.push(performance.now())
        proxy.link.isRefusing = true
        proxy.link.cut()
        await more(5)
        proxy.link.isRefusing = false
        await client.joined(round + 1)
      }
    })
    await expectAll(client, lastId, cuts)
    expect(client.statuses).toEqual(['SUBSCRIBED', ...cuts.flatMap(() => ['CHANNEL_ERROR', 'SUBSCRIBED'])])
    expect(client.systems).toEqual([])
  })

  test('[P4] one that is cut off again before it has got what it missed misses nothing of that', async () => {
    await using database = await roomOfAda()
    await using node = await TestNode.start(database.url, settings)
    await using proxy = await FaultProxy.before(node.url)
    await using client = await ComingBack.join({ version, url: proxy.url, sub: ada })
    const lastId = await writes(database, async more => {
      await more(5)
      proxy.link.cut()
      for (let round = 2; round <= 4; round += 1) {
        // What it missed comes one byte at a time, behind the answer that it has joined.
        proxy.link.bytesPerSecond = 4000
        await client.joined(round)
        proxy.link.cut()
        proxy.link.bytesPerSecond = null
      }
    })
    await client.heard(lastId)
    for (const seen of [client.changes, client.messages]) {
      const ids = [...new Set(seen.map(({ id }) => id))]
      expect(ids).toEqual(Array.from({ length: lastId }, (_, place) => place + 1))
    }
  })

  test('[P4] one whose old socket nobody has seen break goes on from there', async () => {
    await using database = await roomOfAda()
    await using node = await TestNode.start(database.url, { ...settings, HEARTBEAT_MS: '60000' })
    await using proxy = await FaultProxy.before(node.url)
    await using client = await ComingBack.join({ version, url: proxy.url, sub: ada })
    const cuts: number[] = []
    const lastId = await writes(database, async more => {
      for (let round = 1; round <= 2; round += 1) {
        await sleep(1500)
        cuts.push(performance.now())
        proxy.link.leaveHalfOpen('near')
        await client.joined(round + 1)
      }
      await more(5)
    })
    await expectAll(client, lastId, cuts)
  })

  test('[P4] one that hears nothing for long, and is given up, is given all of it', async () => {
    await using database = await roomOfAda()
    await using node = await TestNode.start(database.url, settings)
    await using proxy = await FaultProxy.before(node.url)
    await using client = await ComingBack.join({ version, url: proxy.url, sub: ada, heartbeatMs: 60_000 })
    let cut = 0
    const lastId = await writes(database, async more => {
      await sleep(1500)
      cut = performance.now()
      proxy.link.freeze()
      await vi.waitFor(() => expect(node.server.connections()).toBe(0), 30_000)
      await more(10)
      proxy.link.cut()
      await client.joined(2)
    })
    await expectAll(client, lastId, [cut])
  })

  test('[P4] tabs of one user that are cut off together miss nothing, each by itself', async () => {
    await using database = await roomOfAda()
    await using node = await TestNode.start(database.url, settings)
    await using proxy = await FaultProxy.before(node.url)
    const join = () => ComingBack.join({ version, url: proxy.url, sub: ada })
    await using first = await join()
    await using second = await join()
    await using third = await join()
    const tabs = [first, second, third]
    const cuts: number[] = []
    const lastId = await writes(database, async () => {
      for (let round = 1; round <= 2; round += 1) {
        await sleep(1300)
        cuts.push(performance.now())
        proxy.link.cut()
        for (const tab of tabs) await tab.joined(round + 1)
      }
    })
    for (const tab of tabs) await expectAll(tab, lastId, cuts)
  })

  test('[P4] with two nodes behind one address it goes on at the other', async () => {
    await using database = await roomOfAda()
    await using redis = await findRedis()
    const nodes = { ...settings, REDIS_URL: redis.url }
    await using a = await TestNode.start(database.url, nodes)
    await using b = await TestNode.start(database.url, nodes)
    let turn = 0
    await using balancer = await Balancer.start({ random: () => (turn++ % 2) / 2 })
    balancer.add('a', a.url)
    balancer.add('b', b.url)
    await using proxy = await FaultProxy.before(balancer.url)
    await using client = await ComingBack.join({ version, url: proxy.url, sub: ada })
    const cuts: number[] = []
    const met: number[][] = []
    const lastId = await writes(database, async () => {
      for (let round = 1; round <= 2; round += 1) {
        await sleep(1300)
        met.push([a.server.connections(), b.server.connections()])
        cuts.push(performance.now())
        proxy.link.cut()
        await client.joined(round + 1)
      }
    })
    await expectAll(client, lastId, cuts)
    expect(new Set(met.map(String))).toEqual(new Set(['1,0', '0,1']))
  })

  test('[P4] a node that stops leaves to the next where its clients stood', async () => {
    await using database = await roomOfAda()
    await using redis = await findRedis()
    const nodes = { ...settings, REDIS_URL: redis.url }
    let node = await TestNode.start(database.url, nodes)
    await using proxy = await FaultProxy.before(node.url)
    await using stopped = { [Symbol.asyncDispose]: () => node.server.stop() }
    await using client = await ComingBack.join({ version, url: proxy.url, sub: ada })
    const cuts: number[] = []
    const lastId = await writes(database, async () => {
      for (let round = 1; round <= 2; round += 1) {
        await sleep(1300)
        cuts.push(performance.now())
        await node.server.stop()
        node = await TestNode.start(database.url, nodes)
        proxy.redirect(node.url)
        await client.joined(round + 1)
      }
    })
    expect(stopped).toBeDefined()
    await expectAll(client, lastId, cuts)
  })

  test('[P4] what cannot be had any more is not passed over in silence, and what can comes all the same', async () => {
    await using database = await roomOfAda()
    await using node = await TestNode.start(database.url, { ...settings, WINDOW_MAX_BYTES: '1024' })
    await using proxy = await FaultProxy.before(node.url)
    await using client = await ComingBack.join({ version, url: proxy.url, sub: ada })
    let cut = 0
    let missed = 0
    const lastId = await writes(database, async more => {
      await sleep(1000)
      cut = performance.now()
      proxy.link.isRefusing = true
      proxy.link.cut()
      await more(30)
      proxy.link.isRefusing = false
      await client.joined(2)
      missed = client.changes.length
      await client.joined(3)
      await more(5)
    })
    await client.heard(lastId)
    expect(client.statuses).toEqual(['SUBSCRIBED', 'CHANNEL_ERROR', 'SUBSCRIBED', 'CHANNEL_ERROR', 'SUBSCRIBED'])
    expect(client.systems.join()).toContain('WINDOW_PASSED')
    expectWhole(client.messages, lastId, [cut])
    const since = client.changes.slice(missed).map(({ id }) => id)
    expect(since.length).toBeGreaterThan(0)
    expect(since).toEqual(Array.from({ length: since.length }, (_, place) => lastId - since.length + 1 + place))
  })
})
