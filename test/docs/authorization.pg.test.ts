import { readFileSync } from 'node:fs'
import type pg from 'pg'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { peerCodes, resyncCodes, warningCodes } from '../../src/protocol/codes.ts'
import { operatorCodes } from '../../src/protocol/operator-codes.ts'
import { createCatalog } from '../../src/server/authorize/policy-catalog.ts'
import type { PostgresCatalog } from '../../src/server/catalog/catalog.ts'
import type { TableAccess } from '../../src/server/catalog/table.ts'
import { options } from '../../src/server/config/config.ts'
import { createLog } from '../../src/server/log/log.ts'
import { createPool } from '../../src/server/postgres/database.ts'
import { prepare } from '../../src/server/subscribe/prepare.ts'
import { isAskable } from '../../src/server/subscribe/prepare-asked.ts'
import { prepareDatabase } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'

const page = readFileSync(new URL('../../docs/authorization.md', import.meta.url), 'utf8')
const blocks = [...page.matchAll(/^```sql (\w+) ?(.*)\n([\s\S]*?)^```$/gm)].map(match => ({
  kind: match[1]!,
  says: match[2]!,
  sql: match[3]!,
}))
const of = (kind: string) => blocks.filter(block => block.kind === kind)

/** `USING (...)`, each beginning a line; lines that go on are indented. */
const compiled = of('compiled')
  .filter(({ says }) => says === '')
  .flatMap(({ sql }) => sql.split(/^(?=USING )/m))
  .map(using => using.trim())
const policies = of('compiled').filter(({ says }) => says === 'policies')
/** Rows of the table: `USING` and how it is named. */
const refused = [...page.matchAll(/^\| `(.+)` \| `(.+)` \|$/gm)]
  .map(match => ({ using: match[1]!, construct: match[2]! }))
  .filter(({ using }) => !(using in warningCodes))
const refusedBlocks = of('refused').map(({ says, sql }) => {
  const [code = '', ...message] = says.split(' ')
  return { code, message: message.join(' '), sql }
})

const tables = ['members', 'bans', 'sessions', 'profiles', 'messages']

class Example {
  readonly database: TestDatabase
  readonly #pool: pg.Pool
  readonly #catalog: PostgresCatalog

  private constructor(database: TestDatabase, pool: pg.Pool) {
    this.database = database
    this.#pool = pool
    this.#catalog = createCatalog({ pool, publication: 'tidegate', roles: ['authenticated'], log: createLog('silent') })
  }

  static async create(): Promise<Example> {
    const database = await TestDatabase.create()
    await prepareDatabase(
      database,
      of('setup')
        .map(({ sql }) => sql)
        .join(''),
      tables,
    )
    return new Example(database, createPool(database.url, { maxConnections: 1 }))
  }

  async access(): Promise<TableAccess> {
    this.#catalog.invalidate()
    return this.#catalog.access(await this.#catalog.table('public', 'messages'), 'authenticated')
  }

  /** As a subscription is: with replica identity and readability. */
  async subscribe(): Promise<unknown> {
    this.#catalog.invalidate()
    const claims = { sub: '00000000-0000-4000-8000-00000000000a', role: 'authenticated' }
    return prepare(
      {
        catalog: this.#catalog,
        admit: async () => {},
        settingsOf: () => [['request.jwt.claims', JSON.stringify(claims)]],
        maxLimit: 1000,
        filterLimits: { maxLength: 1000, maxDepth: 8, maxTerms: 100 },
      },
      { role: 'authenticated', claims, expiresAt: null },
      { kind: 'live', schema: 'public', table: 'messages', filters: [], select: null, events: null, since: null },
    )
  }

  /** Runs it with one policy on messages, which is gone afterwards. */
  async with<T>(using: string, use: () => Promise<T>): Promise<T> {
    await this.database.query(`CREATE POLICY p ON messages ${using}`)
    try {
      return await use()
    } finally {
      await this.database.query('DROP POLICY p ON messages')
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pool.end()
    await this.database[Symbol.asyncDispose]()
  }
}

let example: Example

beforeAll(async () => {
  example = await Example.create()
  for (const { sql } of of('run')) await example.database.query(sql)
})

afterAll(() => example[Symbol.asyncDispose]())

interface Refusal {
  readonly text: string
  /** Whether Postgres is asked instead. */
  readonly isAsked: boolean
}

const refusalOf = (use: () => Promise<unknown>): Promise<Refusal> =>
  use().then(
    () => ({ text: 'accepted', isAsked: false }),
    (error: Error & { code?: string }) => ({ text: `${error.code}: ${error.message}`, isAsked: isAskable(error) }),
  )

test('the page has examples of every kind, and every block of SQL is one', () => {
  expect(of('setup')).toHaveLength(1)
  expect([compiled.length > 30, refused.length > 15, refusedBlocks.length > 3]).toEqual([true, true, true])
  expect(compiled.filter(using => !/^USING \([\s\S]+\)$/.test(using))).toEqual([])
  expect(page.match(/^```sql/gm)).toHaveLength(blocks.length)
  const kinds = ['setup', 'run', 'compiled', 'refused']
  expect(blocks.filter(({ kind }) => !kinds.includes(kind))).toEqual([])
})

describe('compiles', () => {
  test.each(compiled)('%s', async using => {
    const access = await example.with(using, async () => {
      await example.subscribe()
      return example.access()
    })
    expect(access.policy.kind).not.toBe('false')
    expect(access.warnings).toEqual([])
  })

  test.each(policies)('the policies of $sql', async ({ sql }) => {
    await using own = await Example.create()
    await own.database.query(sql)
    await own.subscribe()
    expect((await own.access()).policy.kind).toBe('and')
  })
})

describe('asked of Postgres or refused, by name', () => {
  test.each(refused)('$using', async ({ using, construct }) => {
    const { text, isAsked } = await example.with(`USING (${using})`, () => refusalOf(() => example.access()))
    expect(text).toMatch(/^POLICY_UNSUPPORTED: policy "p" on public\.messages /)
    expect(text).toContain(construct)
    expect(isAsked).toBe(true)
  })

  test.each(refusedBlocks)('$code: $message', async ({ code, message, sql }) => {
    await using own = await Example.create()
    expect((await refusalOf(() => own.subscribe())).text).toBe('accepted')
    await own.database.query(sql)
    const { text, isAsked } = await refusalOf(() => own.subscribe())
    expect(text.slice(0, text.indexOf(':'))).toBe(code)
    expect(text).toContain(message)
    expect(isAsked).toBe(false)
  })
})

test('the warnings that it names come when it says', async () => {
  expect((await example.access()).warnings.map(({ code }) => code)).toEqual(['NO_POLICY'])
  await example.database.query('ALTER TABLE messages DISABLE ROW LEVEL SECURITY')
  expect((await example.access()).warnings.map(({ code }) => code)).toEqual(['NO_ROW_SECURITY'])
  await example.database.query('ALTER TABLE messages ENABLE ROW LEVEL SECURITY')
})

test('its codes and options exist', () => {
  const known = { ...options, ...peerCodes, ...resyncCodes, ...warningCodes, ...operatorCodes }
  const named = [...page.matchAll(/`([A-Z]+(?:_[A-Z]+)+)[=`]/g)].map(match => match[1]!)
  expect(named.length).toBeGreaterThan(15)
  expect(named.filter(name => !(name in known))).toEqual([])
})
