// Connections of the pool that are dead without a word: whoever comes next must not wait for one as long as rows may take.
import { expect, test } from 'vitest'
import { FaultyLink } from '../../support/faulty-link.ts'
import { LiveSse, person, prepareDatabase, roomsSchema, TestNode, tokenFor } from '../../support/node.ts'
import { TestDatabase } from '../../support/postgres.ts'
import { expectWithin } from '../../support/within.ts'

test('[P7] a newcomer is served soon though the connections of the pool died silently', {
  timeout: 60_000,
}, async () => {
  await using database = await TestDatabase.create()
  await prepareDatabase(database, roomsSchema, ['rooms', 'members', 'messages'])
  const ada = person()
  await database.query(`INSERT INTO members VALUES (1, '${ada}'); INSERT INTO messages VALUES (1, 1, 'a', 'before')`)
  await using link = await FaultyLink.to(database.url)
  await using node = await TestNode.start(link.url)
  const token = await tokenFor(ada)
  using first = await (await LiveSse.open(node, '/v1/live/messages', token)).exact()
  link.freeze(['up', 'down'], opening => !opening.includes('replication'))
  const beganAt = performance.now()
  for (;;) {
    using next = await LiveSse.open(node, '/v1/live/messages?id=gt.0', token)
    await next.stream.waitFor(() => next.stream.ended || next.rows.list().length === 1, 50_000)
    if (next.rows.list().length === 1) break
    await new Promise(resolve => setTimeout(resolve, 250))
  }
  // A dead one is found after five seconds, those that carry heartbeats after ten; rows may take thirty.
  expectWithin(performance.now() - beganAt, 25_000)
  expect(first.failure).toBe(null)
})
