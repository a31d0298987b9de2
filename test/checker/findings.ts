// The verdict on what readers were told, once everything is quiet and the truth is known up to where they stand.
import type { JsonRow } from '../../src/protocol/messages.ts'
import { selectAs } from '../support/node.ts'
import type { TestDatabase } from '../support/postgres.ts'
import type { Crowd } from './crowd.ts'
import type { Horizon } from './horizon.ts'
import { equal } from './judge.ts'
import { report } from './report.ts'
import type { Subscriber } from './subscriber.ts'
import type { Truth } from './truth.ts'
import { type Harm, Lost, refused, Untrue } from './untrue.ts'
import { type CheckedQuery, nameOf, queries } from './world.ts'

export interface Finding {
  readonly harm: Harm
  /** With its history. */
  readonly text: string
}

/** What each reader was told, step by step. At most one finding for each.
 *  @param stuck one that did not come to `end` */
export async function judged(crowd: Crowd, truth: Truth, end: bigint, stuck: Subscriber | null): Promise<Finding[]> {
  const findings: Finding[] = []
  for (const { judges } of crowd.checked) {
    for (const { reader, judge } of judges) {
      try {
        judge.look()
        if (reader.failure !== null) throw refused(reader.failure, reader.lsn ?? 0n)
      } catch (error) {
        if (!(error instanceof Untrue)) throw error
        findings.push({ harm: error.harm, text: report(reader, error, truth) })
      }
    }
    // Nobody who is connected may take the judge for dead meanwhile.
    await new Promise<void>(resolve => setImmediate(resolve))
  }
  if (stuck !== null) {
    const message = `it did not come to ${end.toString(16)}; it stands at ${stuck.lsn?.toString(16)}`
    findings.push({ harm: 'lost', text: report(stuck, new Lost(message, end), truth) })
  }
  return findings
}

/** Each live query and each of the checker's own answers equal the SELECT. */
export async function asPostgresSees(
  crowd: Crowd,
  truth: Truth,
  database: TestDatabase,
  end: bigint,
): Promise<Finding[]> {
  const findings: Finding[] = []
  const answers = new Map<string, ReadonlyMap<string, JsonRow>>()
  for (const reader of crowd.readers) {
    const { query, user, kind } = reader.options
    if (kind !== 'live' || !reader.attached || !reader.exact) continue
    const question = `${user} ${queries.indexOf(query)}`
    const asked = answers.get(question) ?? (await select(database, query, user))
    if (!answers.has(question)) {
      answers.set(question, asked)
      try {
        equal(truth.state(query, user, end), asked, end)
      } catch (error) {
        throw new Error(`the checker's own truth is not Postgres's, for ${user} in ${query.table}?${query.filter}`, {
          cause: error,
        })
      }
    }
    try {
      equal(reader.rows, asked, end)
    } catch (error) {
      if (!(error instanceof Untrue)) throw error
      findings.push({ harm: error.harm, text: report(reader, error, truth) })
    }
  }
  return findings
}

/** What is not needed for those who may come back. */
export function forgetPast(crowd: Crowd, truth: Truth, horizon: Horizon): void {
  crowd.shrink()
  let { needed } = horizon
  for (const { reader, judge } of crowd.checked.flatMap(({ judges }) => judges)) {
    for (const lsn of [judge.needs, reader.lsn]) if (lsn !== null && lsn < needed) needed = lsn
  }
  truth.prune(needed - 1n)
  horizon.forget()
}

async function select(
  database: TestDatabase,
  { table, select, where }: CheckedQuery,
  user: string,
): Promise<ReadonlyMap<string, JsonRow>> {
  const keys = table === 'members' || table === 'bans' ? ['room_id', 'user_id'] : ['id']
  const columns = select === null ? '*' : [...new Set([...keys, ...select])].join(', ')
  const rows = await selectAs(database, user, `SELECT ${columns} FROM ${table} WHERE ${where}`)
  return new Map(rows.map(row => [nameOf(table, row), row]))
}
