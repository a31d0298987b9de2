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

interface Told {
  /** Whether it is told a whole snapshot first. */
  readonly whole?: boolean
  /** Whether it is told a part of the next one, or of a delta. */
  readonly part?: 'snapshot' | 'delta'
  /** What is committed then, right before the resync. */
  readonly meanwhile: string
}

async function judgeOf({ whole = false, part, meanwhile }: Told): Promise<Judge> {
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
  const take = (event: string, data: object, position: string | null = null): void =>
    reader.take({ event, position, data: { q: 0, ...data } })
  reader.begin()
  if (whole) take('snapshot', { rows: [mine], done: true }, await positionNow())
  if (part === 'snapshot') take('snapshot', { rows: [mine], done: false })
  if (part === 'delta') take('delta', { changes: [{ op: 'delete', key: { id: 1 } }], done: false })
  await database.query(meanwhile)
  take('resync', { code: 'INPUTS_CHANGED', reason: '' })
  take('snapshot', { rows: [mine], done: true }, await positionNow())
  expect(reader.failure).toBe(null)
  await truth.read()
  return new Judge(reader, { truth, ceiling: () => 2n ** 63n, windowMs: 60_000, spoolBytes: 2 ** 20 }, tally)
}

async function positionNow(): Promise<string> {
  const rows = await database.query<{ lsn: string }>('SELECT pg_current_wal_insert_lsn()::text AS lsn')
  const lsn = parseLsn(rows[0]!.lsn)
  return formatQueryPositions([{ epoch: '0a1b2c3d', lsn, index: WHOLE_COMMIT, tag: 'HVYx69HrYcAj' }])
}

const granted = (user: string): string => `INSERT INTO members VALUES (1, '${user}', 'reader')`

test.each<[string, Omit<Told, 'meanwhile'>]>([
  ['its first snapshot was on its way', {}],
  ['its first snapshot was half told', { part: 'snapshot' }],
  ['a delta was half told', { whole: true, part: 'delta' }],
])('[P4] a reader may start over whose memberships moved while %s', async (_, told) => {
  const judge = await judgeOf({ ...told, meanwhile: granted(ada) })
  expect(() => judge.look()).not.toThrow()
})

test.each<[string, Told]>([
  ['it held a whole state', { whole: true, meanwhile: granted(ada) }],
  ['memberships of others moved', { part: 'snapshot', meanwhile: granted(ben) }],
  ['other rows changed', { part: 'snapshot', meanwhile: `INSERT INTO rooms VALUES (2, 'two')` }],
])('[P4] it may not where %s', async (_, told) => {
  const judge = await judgeOf(told)
  expect(() => judge.look()).toThrow('without a cause')
})
