// What Postgres shows each reader after each commit: a SELECT under the reader's own role and claims. Within a history one
// transaction follows the other, so that what stands after one is known exactly.
import type pg from 'pg'
import type { JsonRow } from '../../src/protocol/messages.ts'
import { type History, type Statement, type Subscriber, statementsIn, type Table, targetOf } from './history.ts'

/** The state after a commit. */
export interface Moment {
  readonly xid: string
  /** The commit's position; 0 before the first, and until the node has served it. */
  lsn: bigint
  /** For each query its rows as JSON, one a line: sorted, or in its own order where it has one. */
  readonly rows: readonly string[]
  /** Of tables with changes subscriptions: what wrote each row last, by the key as JSON. */
  readonly writers: ReadonlyMap<string, ReadonlyMap<string, string>>
  readonly truncated: ReadonlySet<string>
  readonly statements: readonly Statement[]
}

export interface Query {
  readonly table: Table
  readonly user: number
  readonly sql: string
}

type Results = readonly pg.QueryResult<Record<string, string | null>>[]

export class Truth {
  readonly #history: History
  readonly #client: pg.Client
  readonly queries: readonly Query[]
  /** Of each subscriber. */
  readonly #queryOf: ReadonlyMap<Subscriber, number>
  readonly #watched: readonly Table[]
  readonly moments: Moment[] = []

  /** @param client its search_path is the history's schema */
  constructor(history: History, client: pg.Client) {
    this.#history = history
    this.#client = client
    const queries: Query[] = []
    const queryOf = new Map<Subscriber, number>()
    for (const subscriber of history.subscribers) {
      const table = history.tables.find(({ name }) => name === subscriber.table)!
      const { user } = subscriber
      const { window } = subscriber
      const rows = `SELECT ${columnsShown(table, subscriber.select).join(', ')} FROM ${table.name} WHERE ${subscriber.where}`
      const sql = window === undefined ? rows : `${rows} ORDER BY ${window.sql} LIMIT ${window.limit}`
      let place = queries.findIndex(query => query.user === user && query.sql === sql)
      if (place < 0) place = queries.push({ table, user, sql }) - 1
      queryOf.set(subscriber, place)
    }
    this.queries = queries
    this.#queryOf = queryOf
    const changing = history.subscribers.filter(({ kind }) => kind === 'changes').map(({ table }) => table)
    this.#watched = history.tables.filter(({ name }) => changing.includes(name))
  }

  get pace(): History['pace'] {
    return this.#history.pace
  }

  queryOf(subscriber: Subscriber): number {
    return this.#queryOf.get(subscriber)!
  }

  /** Looks at what stands before the first transaction. */
  async begin(): Promise<void> {
    const prepared = this.#history.users.flatMap((_, user) => {
      const mine = this.queries.flatMap((query, i) => (query.user === user ? [`(${linesOf(query.sql)}) AS q${i}`] : []))
      return mine.length === 0 ? [] : [`PREPARE u${user} AS SELECT ${mine.join(', ')}`]
    })
    const writers = this.#watched.map(
      ({ name, key }) =>
        `(SELECT string_agg(json_build_array(${key.join(', ')})::text || '=' || xmin, E'\\n') FROM ${name}) AS ${name}`,
    )
    if (writers.length > 0) prepared.push(`PREPARE writers AS SELECT ${writers.join(', ')}`)
    await this.#client.query(['SET TimeZone = UTC', ...prepared].join(';\n'))
    const results = await this.#query(this.#look())
    this.moments.push({ xid: '', lsn: 0n, ...this.#seen(results), truncated: new Set(), statements: [] })
  }

  /** Runs a transaction and looks at what stands after it.
   *  @returns what it did; null when it changed nothing, or Postgres refused it */
  async commit(transaction: readonly Statement[]): Promise<{ moment: Moment; done: Statement[] } | null> {
    const texts = transaction.map(([, sql]) => sql)
    const xid = 'SELECT pg_current_xact_id_if_assigned()::text AS xid'
    let results: Results
    try {
      results = await this.#query(['BEGIN', ...texts, xid, 'COMMIT', ...this.#look()])
    } catch (error) {
      await this.#client.query('ROLLBACK')
      const { code } = error as { code?: string }
      // A constraint that two statements violate together, or a truncation that met a question asked of its tables.
      if (code?.startsWith('23') || code === '40P01') return null
      throw error
    }
    let place = 1
    const done: Statement[] = []
    for (const statement of transaction) {
      const mine = results.slice(place, place + statementsIn(statement[1]))
      place += mine.length
      if (statement[0] === 'truncate' || mine.some(({ rowCount }) => (rowCount ?? 0) > 0)) done.push(statement)
    }
    if (done.every(([kind]) => kind === 'savepoint rolled back')) return null
    const moment = {
      xid: results[place]!.rows[0]!.xid!,
      lsn: 0n,
      ...this.#seen(results.slice(place + 2)),
      truncated: this.#truncatedBy(transaction),
      statements: transaction,
    }
    this.moments.push(moment)
    return { moment, done }
  }

  /** The number of the moment that stands at the position. */
  at(lsn: bigint): number {
    let found = 0
    for (let i = 1; i < this.moments.length; i++) if (this.moments[i]!.lsn <= lsn) found = i
    return found
  }

  /** Whether a statement leaves all other tables as they are. */
  writesOnly({ name }: Table, sql: string): boolean {
    return targetOf(sql) === name && !this.#history.tables.some(({ columns }) => refersTo(columns, [name]))
  }

  async #query(statements: readonly string[]): Promise<Results> {
    return (await this.#client.query(statements.join(';\n'))) as unknown as Results
  }

  #look(): string[] {
    const statements = ['BEGIN', ...(this.#watched.length > 0 ? ['EXECUTE writers'] : [])]
    for (const [user, claims] of this.#history.users.entries()) {
      if (!this.queries.some(query => query.user === user)) continue
      const text = JSON.stringify(claims).replaceAll(`'`, `''`)
      statements.push(
        `SELECT set_config('role', '${claims.role}', true), set_config('request.jwt.claims', '${text}', true)`,
        `EXECUTE u${user}`,
      )
    }
    return [...statements, 'ROLLBACK']
  }

  #seen(results: Results): Pick<Moment, 'rows' | 'writers'> {
    const rows: string[] = []
    const writers = new Map<string, ReadonlyMap<string, string>>()
    for (const { rows: found } of results) {
      for (const [name, text] of Object.entries(found[0] ?? {})) {
        const place = /^q(\d+)$/.exec(name)
        if (place !== null) rows[Number(place[1])] = text ?? ''
        else if (this.#watched.some(table => table.name === name)) writers.set(name, writersOf(text))
      }
    }
    return { rows, writers }
  }

  #truncatedBy(transaction: readonly Statement[]): Set<string> {
    const truncated = new Set(transaction.filter(([kind]) => kind === 'truncate').map(([, sql]) => targetOf(sql)))
    for (const { name, columns } of [...this.#history.tables, ...this.#history.tables, ...this.#history.tables])
      if (refersTo(columns, [...truncated])) truncated.add(name)
    return truncated
  }
}

const refersTo = (columns: readonly string[], tables: readonly string[]): boolean =>
  columns.some(column => tables.includes(/ REFERENCES (\w+)/.exec(column)?.[1] ?? ''))

/** As the wire has them: the key and those asked for, in table order. */
export function columnsShown(table: Table, select: readonly string[] | null): string[] {
  const names = table.columns.filter(text => !text.startsWith('PRIMARY')).map(text => text.split(' ')[0]!)
  return select === null ? names : names.filter(name => table.key.includes(name) || select.includes(name))
}

export const keyOf = (table: Table, row: JsonRow): string => JSON.stringify(table.key.map(column => row[column]))

/** What a query showed, by key. */
export function byKey(table: Table, rows: string): Map<string, string> {
  if (rows === '') return new Map()
  return new Map(rows.split('\n').map(text => [keyOf(table, JSON.parse(text) as JsonRow), text]))
}

const linesOf = (sql: string): string =>
  sql.includes(' LIMIT ')
    ? `SELECT string_agg(line, E'\\n' ORDER BY place)
        FROM (SELECT row_to_json(r)::text AS line, row_number() OVER () AS place FROM (${sql}) r) l`
    : `SELECT string_agg(row_to_json(r)::text, E'\\n' ORDER BY row_to_json(r)::text COLLATE "C") FROM (${sql}) r`

function writersOf(text: string | null): Map<string, string> {
  const pairs = (text ?? '').split('\n').filter(line => line !== '')
  return new Map(
    pairs.map(line => {
      const [key, xid] = line.split('=') as [string, string]
      return [JSON.stringify(JSON.parse(key)), xid]
    }),
  )
}
