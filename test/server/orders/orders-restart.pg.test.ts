// Orders over a restart of the only node: which are in force, and which are over.
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { person, prepareDatabase, roomsSchema, TestNode } from '../../support/node.ts'
import { TestDatabase } from '../../support/postgres.ts'
import { codeOf, doors, olderToken, openDoors, openSocket, poll, shutDoors } from './guests.ts'

let database: TestDatabase

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, roomsSchema, ['rooms', 'members', 'messages'])
})

afterAll(async () => {
  await database?.[Symbol.asyncDispose]()
})

test('what is in force holds over a restart, what was deleted does not, and a kick that was carried out is not repeated', async () => {
  const [revoked, refreshed, pardoned, kicked, away] = Array.from({ length: 5 }, () => person()) as [
    string,
    string,
    string,
    string,
    string,
  ]
  {
    await using _node = await TestNode.start(database.url)
    await database.query(`SELECT tidegate.revoke('${revoked}'), tidegate.refresh('${refreshed}', '1 second'),
      tidegate.revoke('${pardoned}'), tidegate.kick('${kicked}')`)
    await sleep(2100)
  }
  await database.query(`DELETE FROM tidegate.orders WHERE sub = '${pardoned}'`)
  await database.query(`SELECT tidegate.revoke('${away}')`)
  await using node = await TestNode.start(database.url)
  expect(await doors(node, await olderToken(revoked))).toEqual(shutDoors('TOKEN_REVOKED'))
  expect(await poll(node, await olderToken(away)).then(codeOf)).toBe('TOKEN_REVOKED')
  expect(await doors(node, await olderToken(refreshed))).toEqual(shutDoors('TOKEN_OUTDATED'))
  expect(await doors(node, await olderToken(pardoned))).toEqual(openDoors)
  const socket = await openSocket(node, await olderToken(kicked))
  await socket.subscribe(1, 'messages')
  socket.ws.terminate()
})

test('an order that is over refuses nobody, and its row is deleted', async () => {
  const [gone, ending] = [person(), person()]
  await database.query(`SELECT tidegate.revoke('${gone}', until => now() - interval '1 second'),
    tidegate.revoke('${ending}', until => clock_timestamp() + interval '4 seconds')`)
  await using node = await TestNode.start(database.url)
  expect(await poll(node, await olderToken(gone)).then(codeOf)).toBe('200')
  expect(await poll(node, await olderToken(ending)).then(codeOf)).toBe('TOKEN_REVOKED')
  await expect
    .poll(
      () =>
        olderToken(ending)
          .then(token => poll(node, token))
          .then(codeOf),
      { timeout: 8000 },
    )
    .toBe('200')
  const left = () => database.query(`SELECT id FROM tidegate.orders WHERE sub IN ('${gone}', '${ending}')`)
  await expect.poll(left, { timeout: 15_000 }).toEqual([])
}, 30_000)

test('[P4] a node that starts misses none, however an order comes: in the rows it reads, in the stream, or committing between the two', async () => {
  const writers = await Promise.all(
    [0, 1, 2].map(async () => {
      const client = new pg.Client({ connectionString: database.url })
      client.on('error', () => {})
      await client.connect()
      return client
    }),
  )
  for (let round = 0; round < 3; round++) {
    const revoked: string[] = []
    const pardoned: string[] = []
    let isWriting = true
    const write = async (client: pg.Client, holdMs: number): Promise<void> => {
      while (isWriting) {
        const sub = person()
        const withdrawn = pardoned.length < revoked.length / 3 ? revoked.shift() : undefined
        await client.query('BEGIN')
        await client.query('SELECT tidegate.revoke(sub => $1)', [sub])
        if (withdrawn !== undefined) await client.query('DELETE FROM tidegate.orders WHERE sub = $1', [withdrawn])
        await sleep(holdMs)
        await client.query('COMMIT')
        revoked.push(sub)
        if (withdrawn !== undefined) pardoned.push(withdrawn)
      }
    }
    const writing = Promise.all(writers.map((client, i) => write(client, [0, 20, 150][i]!)))
    await using node = await TestNode.start(database.url)
    const seen = revoked.length
    await sleep(300)
    isWriting = false
    await writing
    expect(seen).toBeGreaterThan(2)
    expect(revoked.length).toBeGreaterThan(seen)
    const last = await olderToken(revoked.at(-1)!)
    await expect.poll(() => poll(node, last).then(codeOf)).toBe('TOKEN_REVOKED')
    const verdicts = async (users: string[]): Promise<string[]> => {
      const codes = new Set<string>()
      for (const sub of users) codes.add(await poll(node, await olderToken(sub), 'wait=0').then(codeOf))
      return [...codes]
    }
    expect(await verdicts(revoked.slice(0, 150))).toEqual(['TOKEN_REVOKED'])
    expect(await verdicts(revoked.slice(-150))).toEqual(['TOKEN_REVOKED'])
    expect(await verdicts(pardoned.slice(-100))).toEqual(['200'])
  }
  for (const client of writers) await client.end()
}, 60_000)
