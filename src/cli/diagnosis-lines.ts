// A diagnosis as lines for a terminal. Pure.
import { byBadness } from '../server/doctor/diagnose.ts'
import type { CheckArea, Diagnosis, Finding, Remedy, Verdict } from '../server/doctor/finding.ts'
import { visible, visibleLine } from './visible.ts'

const areas: Readonly<Record<CheckArea, string>> = {
  postgres: 'Postgres',
  policies: 'Tables and policies',
  redis: 'Redis',
  configuration: 'Configuration',
  machine: 'Machine',
}

/** SGR parameters: red, yellow, blue, green. */
const colors: Readonly<Record<Verdict, number>> = { failure: 31, warning: 33, unknown: 34, ok: 32 }
const bold = 1
const dim = 2

export interface DiagnosisLinesOptions {
  readonly isColored: boolean
}

/** Grouped by area, the worst of each first, at the end how many of which. Without line breaks at their ends. */
export function diagnosisLines({ findings, release }: Diagnosis, { isColored }: DiagnosisLinesOptions): string[] {
  const paint = (text: string, color: number): string => (isColored ? `\u001b[${color}m${text}\u001b[0m` : text)
  const sections = (Object.keys(areas) as CheckArea[]).flatMap(area => {
    const own = findings.filter(finding => finding.area === area).toSorted(byBadness)
    if (own.length === 0) return []
    return [paint(areas[area], bold), ...own.flatMap(finding => findingLines(finding, paint)), '']
  })
  return [...sections, `${paint(summaryOf(findings), bold)} (tidegate ${release})`]
}

type Paint = (text: string, color: number) => string

function findingLines({ check, about, verdict, reason, remedy, code }: Finding, paint: Paint): string[] {
  const named = code === null ? check : `${check}, ${code}`
  const line = visibleLine(about === null || reason.startsWith(about) ? reason : `${about}: ${reason}`)
  return [
    `  ${paint(verdict.padEnd(7), colors[verdict])}  ${line}  ${paint(`[${named}]`, dim)}`,
    ...(remedy === null ? [] : remedyLines(remedy)),
  ]
}

const ways: Readonly<Record<Remedy['kind'], string>> = {
  sql: 'In the database, run',
  shell: 'Run',
  setting: 'Set',
  redis: 'With redis-cli, run',
}

/** What is to be copied stands alone on its lines. */
function remedyLines({ kind, text, then }: Remedy): string[] {
  return [
    `           ${ways[kind]}:`,
    ...visible(text)
      .split('\n')
      .map(line => `             ${line}`),
    ...(then === null ? [] : [`           Then: ${visibleLine(then)}`]),
  ]
}

function summaryOf(findings: readonly Finding[]): string {
  const counts = (['failure', 'unknown', 'warning', 'ok'] as const).map(verdict => ({
    verdict,
    count: findings.filter(finding => finding.verdict === verdict).length,
  }))
  return counts
    .filter(({ count, verdict }) => count > 0 || verdict === 'failure')
    .map(({ verdict, count }) => `${count} ${words[verdict][count === 1 ? 0 : 1]}`)
    .join(', ')
}

const words: Readonly<Record<Verdict, readonly [one: string, many: string]>> = {
  failure: ['failure', 'failures'],
  unknown: ['not looked at', 'not looked at'],
  warning: ['warning', 'warnings'],
  ok: ['ok', 'ok'],
}
