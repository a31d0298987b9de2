// The SELECT of a live query, one chunk of it.
import { DummyDriver, Kysely, PostgresAdapter, PostgresIntrospector, PostgresQueryCompiler, sql } from 'kysely'
import { renderPredicate } from '../../predicate/render.ts'
import { castNameOf } from '../../predicate/sql-types.ts'
import type { Query } from '../route/query.ts'

/** Compiles only. */
export const compiler = new Kysely<unknown>({
  dialect: {
    createAdapter: () => new PostgresAdapter(),
    createDriver: () => new DummyDriver(),
    createIntrospector: database => new PostgresIntrospector(database),
    createQueryCompiler: () => new PostgresQueryCompiler(),
  },
})

/** The query's columns as their types print them (never cast to text, which differs for some), in the order of `query.columns`, after a key, by primary key.
 *  @param after values of the primary key of the last row read, as text */
export function snapshotSql(
  query: Query,
  after: readonly (string | null)[] | null,
  limit: number,
): { sql: string; values: readonly unknown[] } {
  const { table } = query
  const ref = (column: number) => sql.id('t', table.columns[column]!.name)
  const columns = sql.join(query.columns.map(ref))
  const key = sql.join(table.primaryKey.map(ref))
  const conditions = [renderPredicate(query.filter, { alias: 't' })]
  if (after !== null) {
    const values = table.primaryKey.map(
      (column, i) => sql`${after[i]}::${sql.raw(castNameOf(table.columns[column]!.type))}`,
    )
    conditions.push(sql<boolean>`(${key}) > (${sql.join(values)})`)
  }
  const where = sql.join(
    conditions.map(condition => sql`(${condition})`),
    sql` AND `,
  )
  const from = sql.id(table.schema, table.name)
  const compiled = sql`SELECT ${columns} FROM ${from} AS t WHERE ${where} ORDER BY ${key} LIMIT ${limit}`.compile(
    compiler,
  )
  return { sql: compiled.sql, values: compiled.parameters }
}
