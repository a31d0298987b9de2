// What the policies of a table read, one by one, and what is missing for that: tracking, replica identity, a way to read the
// table whole, privileges. Pure.
import type { Predicate } from '../../predicate/algebra.ts'
import { allSemiJoinsOf, columnsOf, innerColumnsOf, settingsOf } from '../../predicate/columns.ts'
import { readsTime } from '../../predicate/hops.ts'
import type { TidegateError } from '../../protocol/tidegate-error.ts'
import type { AccessExplained, PolicyAlone } from '../authorize/policies.ts'
import { RemedyNeeded, type Table } from '../catalog/table.ts'
import { identityRemedy } from '../subscribe/prepare.ts'
import type { ColumnsExplanation, PolicyExplanation, Problem, TableExplanation } from './explanation.ts'

/** Columns by table that a policy names, as Postgres has recorded it. */
export type RecordedReads = ReadonlyMap<string, ReadonlySet<string>>

export const nameOf = ({ schema, name }: { schema: string; name: string }): string => `${schema}.${name}`

/** @param recorded by name of the policy, for those that do not compile */
export function explainPolicies(
  access: AccessExplained,
  recorded: ReadonlyMap<string, RecordedReads>,
): PolicyExplanation[] {
  const { table } = access.relation
  return access.policies.map(alone => {
    const { policy, predicate, refusal } = alone
    return {
      name: policy.name,
      kind: policy.permissive ? 'permissive' : 'restrictive',
      roles: policy.roles.map(oid => (oid === 0 ? 'public' : (access.roleNames.get(oid) ?? String(oid)))),
      using: policy.using ?? '',
      judged: judgedOf(alone),
      reason: refusal === null ? null : reasonOf(refusal.message),
      reads:
        predicate === null
          ? recordedReadsOf(table, recorded.get(policy.name) ?? new Map())
          : compiledReadsOf(table, predicate, alone.memberships),
    }
  })
}

function judgedOf({ applies, refusal }: PolicyAlone): PolicyExplanation['judged'] {
  if (!applies) return 'not applied'
  if (refusal === null) return 'compiled'
  return isAsked(refusal) ? 'asked' : 'refused'
}

/** Whether only Postgres can judge it, and no statement would mend that. */
export const isAsked = (refusal: TidegateError): boolean =>
  refusal.code === 'POLICY_UNSUPPORTED' && !(refusal instanceof RemedyNeeded)

/** The construct, of a message that also names the policy and the table, which stand beside it. */
export const reasonOf = (message: string): string =>
  /^.*? cannot be judged in the stream yet: it uses (.*?); see docs\/authorization\.md$/s.exec(message)?.[1] ??
  message.replace(/^policy "(?:[^"]|"")*" on \S+ /, '')

function compiledReadsOf(
  table: Table,
  predicate: Predicate,
  memberships: readonly Table[],
): PolicyExplanation['reads'] {
  return {
    columns: namesOf(table, columnsOf(predicate)),
    settings: [...settingsOf(predicate)].sort(),
    time: readsTime(predicate),
    tables: [...columnsByTable([predicate])].map(([oid, columns]) => {
      const inner = memberships.find(each => each.oid === oid)!
      return { table: nameOf(inner), columns: namesOf(inner, columns) }
    }),
  }
}

function recordedReadsOf(table: Table, recorded: RecordedReads): PolicyExplanation['reads'] {
  const own = nameOf(table)
  const tables = [...recorded].filter(([name]) => name !== own)
  return {
    columns: [...(recorded.get(own) ?? [])],
    settings: [],
    time: false,
    tables: tables.map(([name, columns]) => ({ table: name, columns: [...columns] })),
  }
}

/** Positions of the columns that semi-joins read, at every depth, by the inner table's OID. */
function columnsByTable(predicates: readonly Predicate[]): Map<number, Set<number>> {
  const found = new Map<number, Set<number>>()
  for (const join of predicates.flatMap(predicate => allSemiJoinsOf(predicate))) {
    const columns = found.get(join.table.oid) ?? new Set()
    for (const column of innerColumnsOf(join)) columns.add(column)
    found.set(join.table.oid, columns)
  }
  return found
}

const namesOf = ({ columns }: Table, positions: Iterable<number>): string[] =>
  [...positions].sort((a, b) => a - b).map(position => columns[position]!.name)

/** The table itself, then those that its compiled policies read. */
export function explainTables(access: AccessExplained): TableExplanation[] {
  const { table } = access.relation
  const predicates = access.policies.flatMap(({ predicate }) => (predicate === null ? [] : [predicate]))
  const own = new Set([...table.primaryKey, ...predicates.flatMap(predicate => [...columnsOf(predicate)])])
  const inner = new Map(access.policies.flatMap(({ memberships }) => memberships.map(each => [each.oid, each])))
  const reads = columnsByTable(predicates)
  // A table whose policies read it again is one table.
  for (const column of reads.get(table.oid) ?? []) own.add(column)
  const others = [...inner.values()].filter(each => each.oid !== table.oid && reads.has(each.oid))
  return [explainTable(table, own), ...others.map(each => explainTable(each, reads.get(each.oid)!))]
}

function explainTable(table: Table, columns: ReadonlySet<number>): TableExplanation {
  return {
    table: nameOf(table),
    tracked: table.published,
    readThrough: table.readThrough,
    replicaIdentity: table.replicaIdentity,
    columns: namesOf(table, columns),
    missing: namesOf(
      table,
      [...columns].filter(column => !table.identity.has(column)),
    ),
  }
}

/** What of tracking and replica identity is missing, with the statement. */
export function problemsOfTables(tables: readonly TableExplanation[], access: AccessExplained): Problem[] {
  const known = [access.relation.table, ...access.policies.flatMap(({ memberships }) => memberships)]
  const readsTables = tables.length > 1
  return tables.flatMap(({ table: name, tracked, missing, readThrough }, index) => {
    const table = known.find(each => nameOf(each) === name)!
    const track = `tidegate track ${name}`
    const problems: Problem[] = []
    if (!tracked) problems.push({ code: 'TABLE_UNKNOWN', message: `${name} is not tracked`, run: track })
    if (missing.length > 0)
      problems.push({
        code: 'IDENTITY_INSUFFICIENT',
        message: `the replica identity of ${name} lacks ${missing.join(', ')}`,
        run: identityRemedy(table),
      })
    // The guarded table itself is read whole only where memberships move its rows.
    if (readThrough === null && (index > 0 || readsTables))
      problems.push({
        code: 'INDEX_NOT_READABLE',
        message: `the server's login cannot read ${name} whole`,
        run: track,
      })
    return problems
  })
}

export function explainColumns({ relation, privileges, policies }: AccessExplained): ColumnsExplanation {
  const { columns } = relation.table
  const read = new Set(policies.flatMap(({ predicate }) => (predicate === null ? [] : [...columnsOf(predicate)])))
  const isReadable = (column: number): boolean => privileges.columns.has(columns[column]!.name)
  const positions = columns.map((_, column) => column)
  return {
    readable: namesOf(relation.table, positions.filter(isReadable)),
    hidden: namesOf(
      relation.table,
      positions.filter(column => !isReadable(column)),
    ),
    hiddenButRead: namesOf(
      relation.table,
      positions.filter(column => !isReadable(column) && read.has(column)),
    ),
  }
}
