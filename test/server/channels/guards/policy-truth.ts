// What Postgres itself says: a row is inserted and selected under the role and claims, and rolled back.
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

async function maySend(
  database: TestDatabase,
  principal: Principal,
  topic: string,
  extension: string,
): Promise<boolean> {
  return attempt(database, async () => {
    await become(database, principal, topic)
    await insert(database, topic, extension)
    return true
  })
}

async function mayReceive(
  database: TestDatabase,
  principal: Principal,
  topic: string,
  extension: string,
): Promise<boolean> {
  return attempt(database, async () => {
    await insert(database, topic, extension)
    await become(database, principal, topic)
    return (await database.query('SELECT topic, extension FROM realtime.messages')).length === 1
  })
}

const insert = (database: TestDatabase, topic: string, extension: string): Promise<unknown> =>
  database.query('INSERT INTO realtime.messages (topic, extension, private) VALUES ($1, $2, true)', [topic, extension])

async function become(database: TestDatabase, principal: Principal, topic: string): Promise<void> {
  const settings = [...settingsList(principal, { claimSettings: [] })]
  for (const [name, value] of [['realtime.topic', topic] as const, ...settings])
    await database.query('SELECT set_config($1, $2, true)', [name, value])
}

/** A policy that raises shows nothing and lets nothing in. */
async function attempt(database: TestDatabase, question: () => Promise<boolean>): Promise<boolean> {
  await database.query('BEGIN')
  try {
    return await question()
  } catch (error) {
    if (/^(42501|22)/.test(String((error as { code?: unknown }).code))) return false
    throw error
  } finally {
    await database.query('ROLLBACK')
  }
}
