// Sixty clients on one node, then two nodes more, behind a balancer that throws dice.
import { expect, test } from 'vitest'
import { rebalance } from '../../src/cli/commands/rebalance.ts'
import { firstEventId, LoyalReader } from '../faults/readers.ts'
import { Balancer } from '../support/balancer.ts'
import { eventually } from '../support/eventually.ts'
import { asSet, person, prepareDatabase, roomsSchema, selectAs, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { findRedis } from '../support/redis.ts'

const clients = 60
const goldenRatio = (Math.sqrt(5) - 1) / 2
const never = new AbortController().signal

test('[P4] new nodes are given their share under load: each client moves at most once, none misses or repeats an event', {
  timeout: 180_000,
}, async () => {
  await using database = await TestDatabase.create()
  await using redis = await findRedis()
  await prepareDatabase(database, roomsSchema, ['rooms', 'members', 'messages'])
  const ada = person()
  const token = await tokenFor(ada)
  await database.query(`INSERT INTO members (room_id, user_id) VALUES (1, '${ada}')`)
  await database.query(`INSERT INTO messages SELECT i, 1, 'a', '0' FROM generate_series(1, 50) i`)
  // Of any throws that follow each other, as many fall to each node, give or take two: however many were thrown before.
  let throws = 0
  await using balancer = await Balancer.start({ random: () => (++throws * goldenRatio) % 1 })
  const start = (): Promise<TestNode> => TestNode.start(database.url, { REDIS_URL: redis.url, HEARTBEAT_MS: '1000' })
  await using first = await start()
  balancer.add('first', first.url)

  const readers = Array.from({ length: clients }, (_, place) => {
    const transport = place % 2 === 0 ? 'websocket' : 'sse'
    const kind = place % 4 < 2 ? 'live' : 'changes'
    return new LoyalReader({ transport, kind, rows: 'all', url: balancer.url, token }).start()
  })
  await eventually(() => expect(readers.filter(({ isThere }) => !isThere)).toHaveLength(0))
  expect(first.server.connections()).toBe(clients)

  let written = firstEventId
  let isWriting = true
  const writing = (async () => {
    for (; isWriting; written++) {
      await database.query(`INSERT INTO messages VALUES (${written}, 1, 'a', '0')`)
      await database.query(`UPDATE messages SET author = 'w${written}' WHERE id = ${1 + (written % 50)}`)
      await new Promise(resolve => setTimeout(resolve, 5))
    }
  })()
  await using second = await start()
  await using third = await start()
  balancer.add('second', second.url)
  balancer.add('third', third.url)
  const nodes = [first, second, third]

  const printed: string[] = []
  const noted: string[] = []
  const options = { redisUrl: redis.url, name: 'tidegate', overMs: 6000, dryRun: false }
  const lines = { print: (line: string) => printed.push(line), note: (line: string) => noted.push(line) }
  // Nodes that were not seen yet would get no share.
  await eventually(async () => {
    const shown: string[] = []
    await rebalance({ ...options, dryRun: true }, { ...lines, print: line => shown.push(line) }, never)
    expect(shown).toHaveLength(5)
    expect(shown.filter(line => line.includes('40 past its share'))).toHaveLength(1)
  })
  expect(readers.filter(({ ends }) => ends.length > 0)).toEqual([])
  // Two operators at once: it does not add up.
  expect(await Promise.all([rebalance(options, lines, never), rebalance(options, lines, never)])).toEqual([true, true])

  isWriting = false
  await writing
  const counts = nodes.map(({ server }) => server.connections())
  console.log(
    `connections after: ${counts}; written ${written - firstEventId}; sent away ${readers.flatMap(({ ends }) => ends).length}`,
  )
  expect(noted.filter(line => line.includes('a rebalancing is under way'))).toHaveLength(1)
  expect(printed.filter(line => /^Done: \d+ connections were sent away/.test(line))).toHaveLength(2)
  expect(counts.reduce((sum, count) => sum + count)).toBe(clients)
  for (const count of counts) expect(Math.abs(count - clients / 3)).toBeLessThanOrEqual(6)
  for (const reader of readers) {
    expect(
      reader.ends.filter(code => code !== 'REBALANCED'),
      reader.story,
    ).toEqual([])
    expect(reader.ends.length, reader.story).toBeLessThanOrEqual(1)
  }
  const ids = Array.from({ length: written - firstEventId }, (_, place) => firstEventId + place)
  const rows = asSet(await selectAs(database, ada, `SELECT * FROM messages WHERE id < ${firstEventId}`)).join()
  for (const reader of readers) {
    if (reader.kind === 'changes')
      await eventually(() => expect(reader.inserted.length).toBeGreaterThanOrEqual(ids.length))
    else await eventually(() => expect(asSet(reader.rows.list()).join()).toBe(rows))
    expect(reader.failure).toBe(null)
    expect(reader.resyncs, reader.story).toEqual([])
    if (reader.kind === 'changes') expect(reader.inserted, reader.story).toEqual(ids)
    reader.stop()
  }
})
