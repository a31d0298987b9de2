// Every policy of the corpus, explained for rows and readers: what Tidegate says of a row is what Postgres returns.
import type pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { loadGrammar } from '../../src/server/authorize/parse-sql.ts'
import { explainAccess } from '../../src/server/authorize/policies.ts'
import { createCatalog } from '../../src/server/authorize/policy-catalog.ts'
import { settingsList } from '../../src/server/authorize/settings.ts'
import type { PostgresCatalog } from '../../src/server/catalog/catalog.ts'
import type { RowExplanation } from '../../src/server/explain/explanation.ts'
import { explainRow } from '../../src/server/explain/row.ts'
import { createLog } from '../../src/server/log/log.ts'
import { createPool } from '../../src/server/postgres/database.ts'
import { Corpus, claimSettings, corpus, fullName } from '../policies/corpus.ts'
import type { Entry } from '../policies/entry.ts'

/** Of each table, spread over its rows. */
const rowsEach = 3

let installed: Corpus
let pool: pg.Pool
let catalog: PostgresCatalog
const explained: RowExplanation[] = []

beforeAll(async () => {
  await loadGrammar()
  installed = await Corpus.create()
  pool = createPool(installed.database.url, { maxConnections: 1 })
  catalog = createCatalog({ pool, publication: 'tidegate', log: createLog('silent') })
})

afterAll(async () => {
  await pool?.end()
  await installed?.[Symbol.asyncDispose]()
})

async function explainEntry(entry: Entry): Promise<RowExplanation[]> {
  const [schema, name] = fullName(entry.table).split('.')
  const table = await catalog.table(schema!, name!)
  const keys = await installed.database.query<{ id: string }>(
    `SELECT id::text FROM (SELECT id, row_number() OVER (ORDER BY id) AS n, count(*) OVER () AS c FROM ${fullName(entry.table)}) t
     WHERE n % greatest(c / ${rowsEach}, 1) = 0 ORDER BY id LIMIT ${rowsEach}`,
  )
  const rows: RowExplanation[] = []
  for (const { role, claims } of Object.values(installed.readers(entry))) {
    const access = await catalog.compiled(table, role, explainAccess)
    const reader = { role, settings: settingsList({ role, claims }, { claimSettings }) }
    for (const { id } of keys)
      rows.push(await explainRow({ pool, access, reader, key: [id], maxRows: 10_000, timeoutMs: 10_000 }))
  }
  return rows
}

test.each(corpus)('[P1] explained as Postgres answers: $name', async entry => {
  const rows = await explainEntry(entry)
  explained.push(...rows)
  expect(rows.length).toBeGreaterThanOrEqual(rowsEach)
  for (const row of rows) {
    expect(row.agrees, JSON.stringify(row)).not.toBe(false)
    if (row.visible !== null && row.postgres.visible !== null) expect(row.visible).toBe(row.postgres.visible)
  }
})

test('most were judged here, both ways, and by what memberships said', () => {
  const judged = explained.filter(({ agrees, judgedBy }) => agrees === true && judgedBy === 'tidegate')
  expect(judged.length).toBeGreaterThan(explained.length / 2)
  expect(judged.filter(({ visible }) => visible === true).length).toBeGreaterThan(100)
  const looks = judged.flatMap(({ policies }) => policies.flatMap(({ memberships }) => memberships))
  expect(looks.filter(({ rows }) => rows > 0).length).toBeGreaterThan(50)
  expect(looks.filter(({ rows }) => rows === 0).length).toBeGreaterThan(50)
  expect(looks.filter(({ through }) => through.flat().length > 0).length).toBeGreaterThan(50)
})
