// One history: a schema with its policies, readers and what they follow, and the transactions that befall it. Plain data, so that
// it can be written to a file, read by people, made smaller, and run again.

export interface History {
  /** Where it comes from: a seed and a number, or what went wrong once. */
  readonly name: string
  readonly tables: readonly Table[]
  /** CREATE FUNCTION; `SCHEMA.` stands for the schema that the history is given. */
  readonly functions: readonly string[]
  readonly policies: readonly Policy[]
  /** Claims; `role` names the database role. */
  readonly users: readonly Claims[]
  /** INSERT statements, before anybody reads. */
  readonly rows: readonly string[]
  readonly transactions: readonly Transaction[]
  readonly subscribers: readonly Subscriber[]
  /** `each`: a transaction begins when the node has served the one before. `burst`: at once. */
  readonly pace: 'each' | 'burst'
}

export interface Table {
  readonly name: string
  readonly key: readonly string[]
  /** The items of CREATE TABLE. */
  readonly columns: readonly string[]
  readonly rowSecurity: boolean
}

export interface Policy {
  readonly table: string
  readonly restrictive: boolean
  /** `FOR SELECT TO authenticated` */
  readonly clause: string
  readonly using: Condition
  /** What it is an example of, to be counted. */
  readonly shapes: readonly string[]
}

/** SQL whose parts can be taken away. A string is SQL as it stands. */
export type Condition =
  | string
  | { readonly any: readonly Condition[] }
  | { readonly all: readonly Condition[] }
  | { readonly not: Condition }
  /** `EXISTS (SELECT 1 FROM ... WHERE ...)` */
  | { readonly exists: string; readonly where: Condition }
  /** `value IN (SELECT ... FROM ... WHERE ...)`, or `value = ANY (ARRAY(...))` */
  | {
      readonly value: string
      readonly in: string
      readonly from: string
      readonly where: Condition
      readonly as: 'in' | 'not in' | 'any'
    }

export interface Claims {
  readonly role: 'authenticated' | 'anon'
  readonly sub?: string
  readonly [claim: string]: unknown
}

/** Statements in order, each with what it is an example of; one text may hold several, joined by `; `. */
export type Transaction = readonly Statement[]
export type Statement = readonly [kind: string, sql: string]

export interface Subscriber {
  readonly user: number
  readonly kind: 'live' | 'changes'
  readonly table: string
  /** PostgREST's grammar, one condition, or empty. */
  readonly filter: string
  /** The same in SQL. */
  readonly where: string
  /** Of a live query: the first so many rows of an order, in PostgREST's grammar and in SQL, with the key at the end. */
  readonly window?: { readonly order: string; readonly sql: string; readonly limit: number }
  /** Columns besides the key, or null for all. */
  readonly select: readonly string[] | null
  /** The number of the transaction before which it comes. */
  readonly joins: number
  /** From before one transaction to before another: gone, then back at its position. */
  readonly away: readonly Span[]
  /** Its queue is full, and then has room again. */
  readonly slow: readonly Span[]
}

export type Span = readonly [from: number, to: number]

export function render(condition: Condition): string {
  if (typeof condition === 'string') return condition
  if ('any' in condition) return `(${condition.any.map(render).join(' OR ')})`
  if ('all' in condition) return `(${condition.all.map(render).join(' AND ')})`
  if ('not' in condition) return `NOT (${render(condition.not)})`
  if ('exists' in condition) return `EXISTS (SELECT 1 FROM ${condition.exists} WHERE ${render(condition.where)})`
  const select = `SELECT ${condition.in} FROM ${condition.from} WHERE ${render(condition.where)}`
  if (condition.as === 'any') return `${condition.value} = ANY (ARRAY(${select}))`
  return `${condition.value} ${condition.as === 'in' ? 'IN' : 'NOT IN'} (${select})`
}

/** Everything but the rows, in a schema of its own, followed by the publication. */
export function schemaSql(history: History, schema: string, publication: string): string {
  const { tables, functions, policies } = history
  const names = tables.map(({ name }) => `${schema}.${name}`)
  const lines = [
    `CREATE SCHEMA ${schema}`,
    `GRANT USAGE ON SCHEMA ${schema} TO authenticated, anon`,
    `SET LOCAL search_path = ${schema}`,
    ...tables.flatMap(({ name, columns, rowSecurity }) => [
      `CREATE TABLE ${name} (${columns.join(', ')})`,
      `ALTER TABLE ${name} REPLICA IDENTITY FULL`,
      ...(rowSecurity ? [`ALTER TABLE ${name} ENABLE ROW LEVEL SECURITY`] : []),
    ]),
    `GRANT SELECT ON ALL TABLES IN SCHEMA ${schema} TO authenticated, anon`,
    ...functions.map(text => text.replaceAll('SCHEMA.', `${schema}.`)),
    ...policies.map(({ table, restrictive, clause, using }, i) => {
      const kind = restrictive ? 'AS RESTRICTIVE ' : ''
      const text = render(using).replaceAll('SCHEMA.', `${schema}.`)
      return `CREATE POLICY p${i} ON ${table} ${kind}${clause} USING (${text})`
    }),
    `ALTER PUBLICATION ${publication} ADD TABLE ${names.join(', ')}`,
  ]
  return lines.join(';\n')
}

/** How many results a text gives. */
export const statementsIn = (sql: string): number => sql.split('; ').length

/** The table that a statement names. */
export const targetOf = (sql: string): string => /(?:INSERT INTO|UPDATE|DELETE FROM|TRUNCATE) (\w+)/.exec(sql)![1]!

export const uuidOf = (user: number): string => `00000000-0000-0000-0000-00000000000${'abcdef'[user]}`
