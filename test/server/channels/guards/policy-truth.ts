// What Postgres itself says: a row is inserted and selected under the role and claims, and rolled back.
import pg from 'pg'
import { settingsList } from '../../../../src/server/authorize/settings.ts'
import type { Principal } from '../../../../src/server/subscribe/subscription.ts'
import type { TestDatabase } from '../../../support/postgres.ts'
import type { PolicySet } from './policy-sets.ts'

/** In the order of `answersOf`. */
export const questions = [
  ['receive', 'broadcast'],
  ['receive', 'presence'],
  ['send', 'broadcast'],
  ['send', 'presence'],
] as const

export async function install(database: TestDatabase, { sql }: Pick<PolicySet, 'sql'>): Promise<void> {
  const old = await database.query<{ name: string }>(
    `SELECT polname AS name FROM pg_policy WHERE polrelid = 'realtime.messages'::regclass`,
  )
  const drops = old.map(({ name }) => `DROP POLICY "${name}" ON realtime.messages;`)
  await database.query(`BEGIN; ${drops.join('')} ${sql.replaceAll(/\bM\b/g, 'realtime.messages')}; COMMIT`)
}

export async function truthOf(database: TestDatabase, principal: Principal, topic: string): Promise<boolean[]> {
  const answers: boolean[] = []
  for (const [action, extension] of questions)
    answers.push(await (action === 'send' ? maySend : mayReceive)(database, principal, topic, extension))
  return answers
}

function maySend(database: TestDatabase, principal: Principal, topic: string, extension: string): Promise<boolean> {
  return attempt(database, [become(principal, topic), insert(topic, extension)], () => true)
}

function mayReceive(database: TestDatabase, principal: Principal, topic: string, extension: string): Promise<boolean> {
  const select = 'SELECT topic, extension FROM realtime.messages'
  return attempt(database, [insert(topic, extension), become(principal, topic), select], rows => rows.length === 1)
}

const insert = (topic: string, extension: string): string =>
  `INSERT INTO realtime.messages (topic, extension, private) VALUES (${pg.escapeLiteral(topic)}, '${extension}', true)`

function become(principal: Principal, topic: string): string {
  const settings = [['realtime.topic', topic] as const, ...settingsList(principal, { claimSettings: [] })]
  const set = ([name, value]: readonly [string, string]): string =>
    `set_config(${pg.escapeLiteral(name)}, ${pg.escapeLiteral(value)}, true)`
  return `SELECT ${settings.map(set).join(', ')}`
}

/** In one message each, the question and the end of it: thousands are asked. A policy that raises shows nothing and lets nothing
 *  in. */
async function attempt(
  database: TestDatabase,
  statements: readonly string[],
  judge: (rows: readonly unknown[]) => boolean,
): Promise<boolean> {
  try {
    return judge(await database.query(['BEGIN', ...statements].join('; ')))
  } catch (error) {
    if (/^(42501|22)/.test(String((error as { code?: unknown }).code))) return false
    throw error
  } finally {
    await database.query('ROLLBACK')
  }
}
