// Every policy of the corpus, compiled and judged on every row for every reader, against Postgres's own SELECT.
import type pg from 'pg'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Row } from '../../src/predicate/algebra.ts'
import { bind } from '../../src/predicate/bind.ts'
import { evaluate } from '../../src/predicate/evaluate.ts'
import { TidegateError } from '../../src/protocol/tidegate-error.ts'
import { createCatalog } from '../../src/server/authorize/policy-catalog.ts'
import { settingsOf } from '../../src/server/authorize/settings.ts'
import type { PostgresCatalog } from '../../src/server/catalog/catalog.ts'
import type { TableAccess } from '../../src/server/catalog/table.ts'
import { createLog } from '../../src/server/log/log.ts'
import { createPool, queryText } from '../../src/server/postgres/database.ts'
import type { Principal } from '../../src/server/subscribe/subscription.ts'
import { plainMemberships, rowOf } from '../support/plain-memberships.ts'
import { asked } from './asked.ts'
import { Corpus, claimSettings, corpus, fullName } from './corpus.ts'
import type { Entry } from './entry.ts'

let installed: Corpus
let pool: pg.Pool
let catalog: PostgresCatalog
const rowsOf = new Map<string, Promise<Row[]>>()
/** Of the transaction that all of this is compared at: nothing in the data flips while the test runs. */
let nowMicros: bigint

beforeAll(async () => {
  installed = await Corpus.create()
  pool = createPool(installed.database.url, { maxConnections: 2 })
  catalog = createCatalog({ pool, publication: 'tidegate', roles: installed.roles, log: createLog('silent') })
  const [now] = await queryText(pool, 'SELECT floor(extract(epoch FROM now()) * 1000000)::bigint')
  nowMicros = BigInt(now![0]!)
})

afterAll(async () => {
  await pool?.end()
  await installed?.[Symbol.asyncDispose]()
})

function rows(schema: string, name: string, columns: readonly { readonly name: string }[]): Promise<Row[]> {
  const table = `"${schema}"."${name}"`
  let found = rowsOf.get(table)
  if (found === undefined) {
    const list = columns.map(column => `"${column.name}"`).join(', ')
    found = queryText(pool, `SELECT ${list} FROM ${table} ORDER BY 1`).then(texts => texts.map(text => rowOf(text)))
    rowsOf.set(table, found)
  }
  return found
}

async function accessOf({ table }: Entry, reader: Principal): Promise<TableAccess> {
  const [schema, name] = fullName(table).split('.')
  return catalog.access(await catalog.table(schema!, name!), reader.role)
}

/** Keys that the compiled policy shows to the reader. */
async function compiled(entry: Entry, reader: Principal): Promise<string[] | string> {
  const { table, policy, memberships } = await accessOf(entry, reader)
  try {
    const bound = bind(policy, settingsOf(reader, { claimSettings }))
    const inner = new Map<number, readonly Row[]>()
    for (const each of memberships) inner.set(each.oid, await rows(each.schema, each.name, each.columns))
    const index = plainMemberships(inner, nowMicros)
    const all = await rows(table.schema, table.name, table.columns)
    return all.filter(row => evaluate(bound, row, index) === true).map(row => row.text(0)!)
  } catch (error) {
    if (error instanceof TidegateError && error.code === 'CLAIM_INVALID') return 'raises'
    throw error
  }
}

/** The same from Postgres. */
const selected = (entry: Entry, reader: Principal): Promise<string[] | string> =>
  installed.asReader(reader, async query => {
    try {
      const found = await query<{ key: string }>(`SELECT id::text AS key FROM ${fullName(entry.table)} ORDER BY id`)
      return found.map(({ key }) => key)
    } catch {
      return 'raises'
    }
  })

async function refusalOf(entry: Entry): Promise<string | null> {
  try {
    for (const reader of Object.values(installed.readers(entry))) await accessOf(entry, reader)
    return null
  } catch (error) {
    if (error instanceof TidegateError && error.code === 'POLICY_UNSUPPORTED') return error.message
    throw error
  }
}

const isAsked = ({ name }: Entry): boolean => name in asked

describe('[P1] a compiled policy shows each reader what SELECT shows', () => {
  test.each(corpus.filter(entry => !isAsked(entry)))('$name', async entry => {
    const shown = new Map<string, string[] | string>()
    for (const [name, reader] of Object.entries(installed.readers(entry))) {
      const ofPostgres = await selected(entry, reader)
      expect({ [name]: await compiled(entry, reader) }).toEqual({ [name]: ofPostgres })
      shown.set(name, ofPostgres)
    }
    // Otherwise it would hold for a compiler that lets nothing through, or everything.
    expect([...shown.values()].some(keys => keys.length > 0 && keys !== 'raises')).toBe(true)
    const answers = new Set([...shown.values()].map(keys => JSON.stringify(keys)))
    if (entry.uniform !== true) expect(answers.size).toBeGreaterThan(1)
  })
})

describe('[P8] asked of Postgres, and said why', () => {
  test.each(corpus.filter(({ name }) => name in asked))('$name', async entry => {
    expect((await refusalOf(entry)) ?? 'it compiles').toContain(asked[entry.name])
  })
})

test('the corpus is as large as it says, and nearly all of it compiles', () => {
  expect(new Set(corpus.map(({ name }) => name)).size).toBe(corpus.length)
  expect(corpus.length).toBeGreaterThanOrEqual(66)
  expect(corpus.filter(({ sql }) => /current_setting\('app\./.test(sql)).length).toBeGreaterThanOrEqual(10)
  const names = corpus.map(({ name }) => name)
  expect(Object.keys(asked).filter(name => !names.includes(name))).toEqual([])
  expect(corpus.slice(0, 60).filter(entry => !isAsked(entry)).length).toBeGreaterThanOrEqual(50)
})
