// Supabase's clients as they are published come back after every kind of break, and miss nothing.
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Balancer } from '../support/balancer.ts'
import { channelPolicies } from '../support/channel-client.ts'
import { FaultProxy } from '../support/fault-proxy.ts'
import { person, prepareDatabase, roomsSchema, TestNode } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { findRedis, type TestRedis } from '../support/redis.ts'
import { ComingBack, expectWhole, versions } from './coming-back.ts'

let redis: TestRedis
let database: TestDatabase
const ada = person()

beforeAll(async () => {
  redis = await findRedis()
  database = await TestDatabase.create()
  await prepareDatabase(database, roomsSchema + channelPolicies, ['rooms', 'members', 'messages'])
  await database.query(`INSERT INTO members (room_id, user_id) VALUES (1, '${ada}')`)
})
afterAll(async () => {
  await database[Symbol.asyncDispose]()
  await redis[Symbol.asyncDispose]()
})

const settings = {
  HEARTBEAT_MS: '2000',
  CHANNELS: '[{"pattern": "room:*", "history": {"length": 10000, "age": "1h"}}]',
}

/** Each id is a row, and a message in the channel, of one transaction. */
async function writes(use: () => Promise<void>): Promise<number> {
  await database.query('DELETE FROM messages')
  let isOver = false
  let id = 0
  const writer = (async () => {
    while (!isOver) {
      id += 1
      await database.query(
        `WITH said AS (SELECT realtime.send('{"n": ${id}}'::jsonb, 'said', 'room:1', true))
         INSERT INTO messages SELECT ${id}, 1, 'a', 'b' FROM said`,
      )
      await sleep(20)
    }
  })()
  try {
    await use()
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

describe.each(versions)('supabase-js %s', version => {
  test('[P4] what is committed while a client is cut off comes when it is back', async () => {
    await using node = await TestNode.start(database.url, settings)
    await using proxy = await FaultProxy.before(node.url)
    await using client = await ComingBack.join({ version, url: proxy.url, sub: ada })
    const cuts: number[] = []
    const lastId = await writes(async () => {
      for (let round = 1; round <= 4; round += 1) {
        await sleep(400 * round)
        cuts.push(performance.now())
        proxy.link.isRefusing = true
        proxy.link.cut()
        await sleep(500)
        proxy.link.isRefusing = false
        await client.joined(round + 1)
      }
      await sleep(200)
    })
    await expectAll(client, lastId, cuts)
    expect(client.statuses).toEqual(['SUBSCRIBED', ...cuts.flatMap(() => ['CHANNEL_ERROR', 'SUBSCRIBED'])])
  })
})
