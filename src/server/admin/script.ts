// A change of the database as SQL text: run it under a lock timeout, or print it for someone else to run with psql.
import pg from 'pg'

/** `statements` run in one transaction. `before` and `after` run outside of it, because Postgres wants them so: CREATE
 *  INDEX CONCURRENTLY, dropping a slot. Statements carry no semicolon at the end. */
export interface Script {
  readonly title: string
  readonly before: readonly string[]
  readonly statements: readonly string[]
  readonly after: readonly string[]
}

export const identifier = (name: string): string => pg.escapeIdentifier(name)
export const literal = (text: string): string => pg.escapeLiteral(text)
export const qualified = (schema: string, name: string): string => `${identifier(schema)}.${identifier(name)}`

/** A DO block. @param body PL/pgSQL statements @param declarations PL/pgSQL declarations */
export function block(body: string, declarations = ''): string {
  const declare = declarations === '' ? '' : `DECLARE\n${declarations}\n`
  return `DO ${dollarQuoted(`\n${declare}BEGIN\n${body}\nEND\n`)}`
}

/** Readable where `literal` would double every quote. The tag is one that the text lacks: a table may be called
 *  `a$tidegate$`. */
export function dollarQuoted(text: string): string {
  let tag = '$tidegate$'
  for (let n = 1; text.includes(tag); n++) tag = `$tidegate${n}$`
  return `${tag}${text}${tag}`
}

export const isEmpty = (script: Script): boolean =>
  script.before.length + script.statements.length + script.after.length === 0

/** Everything as one text for `psql -f`. Stops at the first error. */
export function printScripts(scripts: readonly Script[], lockTimeoutMs: number): string {
  const lines = ['\\set ON_ERROR_STOP on']
  for (const script of scripts) {
    lines.push('', ...script.title.split('\n').map(line => `-- ${line}`))
    if (isEmpty(script)) lines.push('-- Nothing to do.')
    lines.push(...script.before.map(statement => `${statement};`))
    if (script.statements.length > 0) {
      lines.push('BEGIN;', `SET LOCAL lock_timeout = ${lockTimeoutMs};`)
      lines.push(...script.statements.map(statement => `${statement};`), 'COMMIT;')
    }
    lines.push(...script.after.map(statement => `${statement};`))
  }
  return `${lines.join('\n')}\n`
}

/** @throws what Postgres throws, after ROLLBACK */
export async function runScript(client: pg.ClientBase, script: Script): Promise<void> {
  for (const statement of script.before) await client.query(statement)
  if (script.statements.length > 0)
    await inTransaction(client, async () => {
      for (const statement of script.statements) await client.query(statement)
    })
  for (const statement of script.after) await client.query(statement)
}

export async function inTransaction<T>(client: pg.ClientBase, use: () => Promise<T>): Promise<T> {
  await client.query('BEGIN')
  try {
    const result = await use()
    await client.query('COMMIT')
    return result
  } catch (error) {
    // The first error is the one to tell; a connection that is gone has rolled back by itself.
    await client.query('ROLLBACK').catch(() => {})
    throw error
  }
}
