// May this reader see this row? Judged here as the server does, by the memberships of this moment, and asked of Postgres under
// the same snapshot.
import type pg from 'pg'
import { escapeIdentifier } from 'pg'
import type { Predicate, Row, Truth } from '../../predicate/algebra.ts'
import { bind, type Settings } from '../../predicate/bind.ts'
import { evaluate } from '../../predicate/evaluate.ts'
import { castNameOf } from '../../predicate/sql-types.ts'
import { ValueError } from '../../predicate/value-error.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { type AccessExplained, joinPolicies, type PolicyAlone } from '../authorize/policies.ts'
import type { Table } from '../catalog/table.ts'
import { type Lane, queryText } from '../postgres/database.ts'
import { QueryRow } from '../snapshot/query-row.ts'
import { asLoginSql, asReaderSql, type Reader, readAsLogin } from '../snapshot/reader.ts'
import type { PolicyAnswer, PostgresAnswer, RowExplanation } from './explanation.ts'
import { InnerRows } from './inner-rows.ts'
import { looksOf } from './looks.ts'
import { isAsked, reasonOf } from './reads.ts'
import { becauseOf, sayPolicy } from './sentence.ts'
import { inReadTransaction, within } from './transaction.ts'

export interface RowOptions {
  readonly pool: Lane
  readonly access: AccessExplained
  readonly reader: Reader
  /** Values of the primary key in its order, as Postgres prints them. */
  readonly key: readonly string[]
  readonly maxRows: number
  readonly timeoutMs: number
}

type Judgement = Omit<RowExplanation, 'key' | 'postgres' | 'agrees'>

export function explainRow(options: RowOptions): Promise<RowExplanation> {
  const { pool, access, reader, key, timeoutMs } = options
  const { table } = access.relation
  return inReadTransaction(pool, timeoutMs, async ({ client, nowMicros }) => {
    const postgres = await ask(client, table, reader, key)
    const judged = await within(client, asLoginSql, () => judge(client, nowMicros, options))
    const told = completed(judged, postgres)
    return { key: keyOf(table, key), ...told, postgres, agrees: agreementOf(judged, postgres) }
  })
}

const keyOf = ({ columns, primaryKey }: Table, key: readonly string[]): Record<string, string> =>
  Object.fromEntries(primaryKey.map((column, index) => [columns[column]!.name, key[index]!]))

/** What a SELECT returns, or that it raises. */
async function ask(
  client: pg.ClientBase,
  table: Table,
  reader: Reader,
  key: readonly string[],
): Promise<PostgresAnswer> {
  const { schema, name, columns, primaryKey } = table
  const conditions = primaryKey.map((column, index) => {
    const { name: column_, type } = columns[column]!
    return `${escapeIdentifier(column_)} = $${index + 1}::${castNameOf(type)}`
  })
  const from = `${escapeIdentifier(schema)}.${escapeIdentifier(name)}`
  const sql = `SELECT 1 FROM ${from} WHERE ${conditions.join(' AND ')}`
  try {
    const rows = await within(client, asReaderSql(reader), () => queryText(client, sql, key))
    return { visible: rows.length > 0, sqlState: null }
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined
    // Without a state it is no answer of Postgres's.
    if (typeof code !== 'string' || !/^[0-9A-Z]{5}$/.test(code)) throw error
    return { visible: null, sqlState: code }
  }
}

async function judge(client: pg.ClientBase, nowMicros: bigint, options: RowOptions): Promise<Judgement> {
  const { access, reader, key, maxRows } = options
  const { table } = access.relation
  const refuse = (code: string, because: string, found = true): Judgement => ({
    found,
    visible: null,
    judgedBy: 'refused',
    code,
    because,
    policies: [],
  })
  if (!access.privileges.anyColumn || !access.privileges.schemaUsage)
    return refuse('TABLE_REFUSED', `role ${access.role.name} may not SELECT ${table.schema}.${table.name}`)
  let rows: Awaited<ReturnType<typeof readAsLogin>>
  try {
    rows = await readAsLogin(client, table, { columns: table.primaryKey, keys: [key] }, 2)
  } catch (error) {
    if (!(error instanceof TidegateError)) throw error
    return refuse(error.code, error.message)
  }
  const [values] = rows
  if (values === undefined) {
    const because = 'there is no row with this key'
    return { found: false, visible: false, judgedBy: 'tidegate', code: null, because, policies: [] }
  }
  if (access.seesAllRows) {
    const because = table.rowSecurity
      ? `visible: row-level security does not bind role ${access.role.name}`
      : 'visible: row-level security is off'
    return { found: true, visible: true, judgedBy: 'tidegate', code: null, because, policies: [] }
  }
  const tables = new Map(access.policies.flatMap(({ memberships }) => memberships.map(each => [each.oid, each])))
  const inner = new InnerRows({ client, tables, maxRows, nowMicros })
  const settings = new Map(reader.settings)
  return judgeRow(access, new QueryRow(values), inner, name => settings.get(name))
}

interface Answered {
  readonly alone: PolicyAlone
  readonly answer: PolicyAnswer
  /** Bound; null when it cannot be. */
  readonly predicate: Predicate | null
  readonly code: string | null
}

async function judgeRow(access: AccessExplained, row: Row, inner: InnerRows, settings: Settings): Promise<Judgement> {
  const answered: Answered[] = []
  for (const alone of access.policies.filter(({ applies }) => applies))
    answered.push(await answerOf(alone, row, inner, settings))
  const policies = answered.map(({ answer }) => answer)
  const refused = answered.find(({ answer }) => answer.answer === 'refused')
  if (refused !== undefined) {
    const what = refused.code === 'TABLE_REFUSED' ? 'a SELECT raises' : 'nobody is shown anything'
    const because = `${what}: ${sayPolicy(refused.answer)}`
    return { found: true, visible: null, judgedBy: 'refused', code: refused.code, because, policies }
  }
  const truth = await truthOf(answered, row, inner, settings)
  if (truth instanceof TidegateError)
    return { found: true, visible: null, judgedBy: 'refused', code: truth.code, because: truth.message, policies }
  const because = becauseOf(truth, policies)
  return {
    found: true,
    visible: truth,
    judgedBy: truth === null ? 'postgres' : 'tidegate',
    code: null,
    because,
    policies,
  }
}

async function answerOf(alone: PolicyAlone, row: Row, inner: InnerRows, settings: Settings): Promise<Answered> {
  const { policy, predicate, refusal } = alone
  const head = { name: policy.name, kind: policy.permissive ? 'permissive' : 'restrictive' } as const
  const failed = (answer: PolicyAnswer['answer'], error: Error, bound: Predicate | null): Answered => ({
    alone,
    answer: { ...head, answer, reason: reasonOf(error.message), memberships: [] },
    predicate: bound,
    code: error instanceof TidegateError ? error.code : 'CLAIM_INVALID',
  })
  if (predicate === null) {
    return failed(isAsked(refusal!) ? 'asked' : 'refused', refusal!, null)
  }
  let bound: Predicate | null = null
  try {
    bound = bind(predicate, settings)
    await inner.load(bound, [row])
    const answer = sayTruth(evaluate(bound, row, inner))
    const memberships = looksOf(bound, row, inner)
    return { alone, answer: { ...head, answer, reason: null, memberships }, predicate: bound, code: null }
  } catch (error) {
    if (!(error instanceof TidegateError || error instanceof ValueError)) throw error
    return failed(bound === null ? 'invalid' : 'failed', error, bound)
  }
}

const sayTruth = (truth: Truth): 'true' | 'false' | 'unknown' => (truth === null ? 'unknown' : truth ? 'true' : 'false')

/** All policies together, as the server binds and judges them: what fails in one may be decided by another.
 *  @returns null when it depends on what is asked of Postgres; the error that shows nothing to this reader */
async function truthOf(
  answered: readonly Answered[],
  row: Row,
  inner: InnerRows,
  settings: Settings,
): Promise<boolean | null | TidegateError> {
  if (!answered.some(({ alone }) => alone.policy.permissive)) return false
  const dependsOnPostgres = answered.some(({ answer }) => answer.answer === 'asked')
  const answers = answered.map(({ alone: { policy }, answer: { answer } }) => ({
    permissive: policy.permissive,
    answer,
  }))
  if (dependsOnPostgres) {
    const could = (answer: string): boolean => answer !== 'false' && answer !== 'unknown'
    if (answers.some(({ permissive, answer }) => !permissive && !could(answer))) return false
    if (!answers.some(({ permissive, answer }) => permissive && could(answer))) return false
    const isGranted =
      answers.every(({ permissive, answer }) => permissive || answer === 'true') &&
      answers.some(({ permissive, answer }) => permissive && answer === 'true')
    return isGranted ? true : null
  }
  try {
    const isBound = answered.every(({ code }) => code === null)
    const whole = isBound
      ? joinPolicies(answered.map(({ alone: { policy }, predicate }) => ({ ...policy, predicate: predicate! })))
      : bind(joinPolicies(answered.map(({ alone }) => ({ ...alone.policy, predicate: alone.predicate! }))), settings)
    await inner.load(whole, [row])
    return evaluate(whole, row, inner) === true
  } catch (error) {
    if (error instanceof TidegateError) return error
    if (!(error instanceof ValueError)) throw error
    return new TidegateError('CLAIM_INVALID', `this row cannot be judged: ${error.message}`)
  }
}

/** What is left to Postgres is what it answered. */
function completed(judged: Judgement, postgres: PostgresAnswer): Judgement {
  if (judged.judgedBy !== 'postgres' || postgres.visible === null) return judged
  return { ...judged, visible: postgres.visible, because: becauseOf(postgres.visible, judged.policies) }
}

function agreementOf({ visible, judgedBy, code }: Judgement, postgres: PostgresAnswer): boolean | null {
  if (judgedBy === 'postgres') return null
  if (visible !== null) return postgres.visible === null ? null : postgres.visible === visible
  const { sqlState } = postgres
  if (sqlState === null) return null
  // 22xxx: a value that cannot be cast. 42501: a privilege is missing.
  if (code === 'CLAIM_INVALID' && sqlState.startsWith('22')) return true
  return code === 'TABLE_REFUSED' && sqlState === '42501' ? true : null
}
