// An explanation as lines for a terminal. Pure.
import type {
  Explanation,
  MembershipLook,
  PolicyAnswer,
  PolicyExplanation,
  RowExplanation,
  TableExplanation,
} from '../server/explain/explanation.ts'
import { sayFound } from '../server/explain/sentence.ts'
import { visibleLine } from './visible.ts'

/** Without line breaks at their ends. */
export function explanationLines(explanation: Explanation): string[] {
  const { table, role, problems, warnings, columns, policies, tables, row } = explanation
  const lines = [
    `${table} for role ${role}: ${standingOf(explanation)}`,
    ...section(
      'Problems',
      problems.flatMap(({ code, message, run }) => [`${code}  ${message}`, ...(run === null ? [] : [`  run: ${run}`])]),
    ),
    ...section(
      'Warnings',
      warnings.map(({ code, message }) => `${code}  ${message}`),
    ),
    ...section('Policies', policyLines(explanation.rowSecurity, policies)),
    ...section('Tables', tables.flatMap(tableLines)),
    ...section('Columns', [
      `readable: ${columns.readable.join(', ') || 'none'}`,
      ...(columns.hidden.length === 0 ? [] : [`hidden: ${columns.hidden.join(', ')}`]),
      ...(columns.hiddenButRead.length === 0
        ? []
        : [`hidden, but read by policies: ${columns.hiddenButRead.join(', ')}`]),
    ]),
    // Last, because a terminal shows the end.
    ...section('Row', row === null ? [] : rowLines(row)),
  ]
  return lines.map(visibleLine)
}

function standingOf({ exact, policies }: Explanation): string {
  if (exact) return 'exact, judged at each commit'
  const isRefused = policies.some(({ judged }) => judged === 'refused')
  return isRefused ? 'refused, see the problems' : 'not exact, Postgres is asked'
}

const section = (title: string, lines: readonly string[]): string[] =>
  lines.length === 0 ? [] : ['', title, ...indent(lines)]

const indent = (lines: readonly string[]): string[] => lines.map(line => `  ${line}`)

const withoutSecurity: Readonly<Record<string, string>> = {
  off: 'row-level security is off: every row goes to whoever may SELECT',
  bypassed: 'row-level security does not bind this role',
}

function policyLines(rowSecurity: Explanation['rowSecurity'], policies: readonly PolicyExplanation[]): string[] {
  const note = withoutSecurity[rowSecurity]
  const none = policies.length === 0 && note === undefined ? ['none: nothing is visible'] : []
  return [...(note === undefined ? none : [note]), ...policies.flatMap(policyLinesOf)]
}

function policyLinesOf({ name, kind, roles, using, judged, reason, reads }: PolicyExplanation): string[] {
  const how = { compiled: 'compiled', asked: 'asked of Postgres', refused: 'refused', 'not applied': 'not applied' }[
    judged
  ]
  const read = [
    ...(reads.columns.length === 0 ? [] : [`columns ${reads.columns.join(', ')}`]),
    ...(reads.settings.length === 0 ? [] : [`claims in ${reads.settings.join(', ')}`]),
    ...(reads.time ? ['the time'] : []),
    ...reads.tables.map(({ table, columns }) => (columns.length === 0 ? table : `${table} (${columns.join(', ')})`)),
  ]
  return [
    `"${name}"  ${kind}, to ${roles.join(', ')}: ${how}${reason === null ? '' : `: ${reason}`}`,
    // As Postgres breaks it: a subquery takes several lines.
    ...indent(using.split('\n').map(line => line.trim())),
    ...(read.length === 0 ? [] : indent([`reads ${read.join('; ')}`])),
  ]
}

function tableLines({ table, tracked, readThrough, replicaIdentity, columns, missing }: TableExplanation): string[] {
  const facts = [
    tracked ? 'tracked' : 'not tracked',
    `replica identity ${replicaIdentity}${missing.length === 0 ? ', which suffices' : `, which lacks ${missing.join(', ')}`}`,
    { table: 'read as it is', function: "read through its owner's function", none: 'not readable whole' }[
      readThrough ?? 'none'
    ],
  ]
  return [`${table}  ${facts.join('; ')}`, ...(columns.length === 0 ? [] : [`  decides by ${columns.join(', ')}`])]
}

function rowLines({ key, visible, because, code, policies, postgres, agrees }: RowExplanation): string[] {
  const named = Object.entries(key)
    .map(([column, value]) => `${column}=${value}`)
    .join(', ')
  const answer = visible === null ? 'UNDECIDED' : visible ? 'VISIBLE' : 'HIDDEN'
  return [
    `${named}: ${code === null ? answer : `REFUSED (${code})`}`,
    ...indent([because]),
    ...indent(policies.flatMap(answerLines)),
    ...indent([postgresLine(postgres, agrees)]),
  ]
}

function answerLines({ name, kind, answer, reason, memberships }: PolicyAnswer): string[] {
  const said = answer === 'unknown' ? 'unknown: a NULL decides, which hides' : answer
  return [
    `${kind} "${name}": ${said}${reason === null ? '' : `: ${reason}`}`,
    ...indent(memberships.flatMap(lookLines)),
  ]
}

function lookLines(look: MembershipLook): string[] {
  return [
    `${look.negated ? 'unless ' : ''}${sayFound(look)}`,
    ...indent(look.through.flatMap(looks => looks.flatMap(lookLines))),
  ]
}

function postgresLine({ visible, sqlState }: RowExplanation['postgres'], agrees: boolean | null): string {
  const said =
    visible === null ? `a SELECT raises ${sqlState ?? ''}` : `a SELECT returns ${visible ? 'the row' : 'no row'}`
  if (agrees === false)
    return `POSTGRES DISAGREES: ${said}. This is a fault of Tidegate: please report it with the policies above.`
  return agrees === true ? `Postgres agrees: ${said}` : `Postgres: ${said}`
}
