// What Postgres itself says: a row is inserted and selected under the role and claims, and rolled back.
import pg from 'pg'
import { settingsList } from '../../../../src/server/authorize/settings.ts'
import type { Principal } from '../../../../src/server/subscribe/subscription.ts'
import type { TestDatabase } from '../../../support/postgres.ts'
import type { PolicySet } from './policy-sets.ts'

export async function install(database: TestDatabase, { sql }: Pick<PolicySet, 'sql'>): Promise<void> {
  const old = await database.query<{ name: string }>(
    `SELECT polname AS name FROM pg_policy WHERE polrelid = 'realtime.messages'::regclass`,
  )
  const drops = old.map(({ name }) => `DROP POLICY "${name}" ON realtime.messages;`)
  await database.query(`BEGIN; ${drops.join('')} ${sql.replaceAll(/\bM\b/g, 'realtime.messages')}; COMMIT`)
}

/** Receives broadcasts, receives presence, sends broadcasts, sends presence. */
export async function truthOf(database: TestDatabase, principal: Principal, topic: string): Promise<boolean[]> {
  const extensions = ['broadcast', 'presence']
  const answers = await mayReceive(database, principal, topic, extensions)
  for (const extension of extensions) answers.push(await maySend(database, principal, topic, extension))
  return answers
}

async function maySend(
  database: TestDatabase,
  principal: Principal,
  topic: string,
  extension: string,
): Promise<boolean> {
  return (await attempt(database, [become(principal, topic), insert(topic, extension)])) !== null
}

async function mayReceive(
  database: TestDatabase,
  principal: Principal,
  topic: string,
  extensions: readonly string[],
): Promise<boolean[]> {
  const inserts = extensions.map(extension => insert(topic, extension))
  const select = 'SELECT extension FROM realtime.messages'
  const rows = await attempt(database, [...inserts, become(principal, topic), select])
  if (rows !== null) return extensions.map(extension => rows.some(row => row.extension === extension))
  // One that raises for the row of one extension may not for the other.
  if (extensions.length === 1) return [false]
  const each: boolean[] = []
  for (const extension of extensions) each.push(...(await mayReceive(database, principal, topic, [extension])))
  return each
}

const insert = (topic: string, extension: string): string =>
  `INSERT INTO realtime.messages (topic, extension, private) VALUES (${pg.escapeLiteral(topic)}, '${extension}', true)`

function become(principal: Principal, topic: string): string {
  const settings = [['realtime.topic', topic] as const, ...settingsList(principal, { claimSettings: [] })]
  const set = ([name, value]: readonly [string, string]): string =>
    `set_config(${pg.escapeLiteral(name)}, ${pg.escapeLiteral(value)}, true)`
  return `SELECT ${settings.map(set).join(', ')}`
}

/** In one message with its end: thousands are asked. A policy that raises shows nothing and lets nothing in.
 *  @returns rows of the last statement; null where it was refused */
async function attempt(
  database: TestDatabase,
  statements: readonly string[],
): Promise<readonly { extension?: string }[] | null> {
  try {
    const results = await database.client.query(['BEGIN', ...statements, 'ROLLBACK'].join('; '))
    return (results as unknown as pg.QueryResult<{ extension?: string }>[]).at(-2)!.rows
  } catch (error) {
    await database.query('ROLLBACK')
    if (/^(42501|22)/.test(String((error as { code?: unknown }).code))) return null
    throw error
  }
}
