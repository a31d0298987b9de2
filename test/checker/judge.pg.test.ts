// What the judge of a reader takes for the cause of a resync.
import { afterEach, beforeEach, expect, test } from 'vitest'
import { formatQueryPositions, WHOLE_COMMIT } from '../../src/protocol/position.ts'
import { parseLsn } from '../../src/server/wal/lsn.ts'
import { prepareDatabase } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { Judge } from './judge.ts'
import { Random } from './random.ts'
import { Subscriber } from './subscriber.ts'
import { newTally, wireCounts } from './tally.ts'
import { Truth } from './truth.ts'
import { queries, schema, tableNames } from './world.ts'

const ada = '00000000-0000-4000-8000-000000000001'
const ben = '00000000-0000-4000-8000-000000000002'
const notes = queries.find(({ table, filter }) => table === 'notes' && filter === '')!
const mine = { id: 1, room_id: 1, author: ada, body: 'mine' }

let database: TestDatabase
let truth: Truth

beforeEach(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, schema, tableNames)
  truth = await Truth.begin(database.url)
  await database.query(`INSERT INTO rooms VALUES (1, 'one'); INSERT INTO notes VALUES (1, 1, '${ada}', 'mine')`)
})

afterEach(async () => {
  await truth.end()
  await database[Symbol.asyncDispose]()
})

/** @param meanwhile what is committed between a part of a snapshot, or nothing, and its resync */
async function told({ part, meanwhile }: { part: boolean; meanwhile: string }): Promise<Judge> {
  const tally = newTally()
  const reader = new Subscriber({
    name: 'reader',
    transport: 'websocket',
    kind: 'live',
    query: notes,
    user: ada,
    random: Random.of(1, 'reader'),
    counts: wireCounts(tally, 'websocket', 'live'),
    floor: () => 0n,
    told: () => 0,
  })
  reader.begin()
  if (part) reader.take({ event: 'snapshot', position: null, data: { q: 0, rows: [mine], done: false } })
  await database.query(meanwhile)
  reader.take({ event: 'resync', position: null, data: { q: 0, code: 'INPUTS_CHANGED', reason: '' } })
  const rows = await database.query<{ lsn: string }>('SELECT pg_current_wal_insert_lsn()::text AS lsn')
  const lsn = parseLsn(rows[0]!.lsn)
  const position = formatQueryPositions([{ epoch: '0a1b2c3d', lsn, index: WHOLE_COMMIT, tag: 'HVYx69HrYcAj' }])
  reader.take({ event: 'snapshot', position, data: { q: 0, rows: [mine], done: true } })
  expect(reader.failure).toBe(null)
  await truth.read()
  return new Judge(reader, { truth, ceiling: () => lsn, windowMs: 60_000, spoolBytes: 2 ** 20 }, tally)
}

const granted = (user: string): string => `INSERT INTO members VALUES (1, '${user}', 'reader')`

test('[P4] a snapshot may be begun anew when it was half told and its reader’s memberships moved meanwhile', async () => {
  const judge = await told({ part: true, meanwhile: granted(ada) })
  expect(() => judge.look()).not.toThrow()
})

test.each([
  ['nothing of it had been told', false, granted(ada)],
  ['memberships of others moved', true, granted(ben)],
  ['other rows changed', true, `UPDATE notes SET body = 'other' WHERE false; INSERT INTO rooms VALUES (2, 'two')`],
])('[P4] it may not where %s', async (_, part, meanwhile) => {
  const judge = await told({ part, meanwhile })
  expect(() => judge.look()).toThrow('without a cause')
})
