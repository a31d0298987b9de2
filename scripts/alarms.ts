// How urgent each of the operator's codes is, for docs/operations.md: a code without an entry here does not compile.
import { type OperatorCode, operatorCodes } from '../src/protocol/operator-codes.ts'

export type Urgency = 'start' | 'now' | 'today' | 'look'

/** As the page says them. */
export const urgencies: Readonly<Record<Urgency, string>> = {
  now: '**now**',
  today: 'today',
  look: 'if it comes again',
  start: 'at the command',
}

export const alarms: Readonly<Record<OperatorCode, Urgency>> = {
  DATABASE_UNREACHABLE: 'now',
  DATABASE_STANDBY: 'now',
  RELAY_UNREACHABLE: 'now',
  RELAY_FULL: 'now',
  JOURNAL_UNREADABLE: 'now',
  STREAM_BEHIND: 'now',
  DATABASE_POOLED: 'now',
  SLOT_BLOCKED: 'now',
  SPOOL_FAILED: 'now',
  PUBLICATION_MISSING: 'now',
  RELAY_NOT_DURABLE: 'now',
  SLOT_LOST: 'today',
  SLOT_AHEAD: 'today',
  SLOT_OVER_LIMIT: 'today',
  HISTORY_DIVERGED: 'today',
  SLOT_BUSY: 'today',
  WAL_UNREADABLE: 'today',
  LSN_WENT_BACKWARDS: 'today',
  PRIVILEGE_MISSING: 'today',
  DESCRIPTORS_SHORT: 'today',
  TRACING_UNREACHABLE: 'look',
  LEADER_SILENT: 'look',
  RELAY_MOVED: 'look',
  TRACING_MISSING: 'start',
  CONFIG_INVALID: 'start',
  WAL_LEVEL: 'start',
  NOT_REPLICATION: 'start',
  VERSION_UNSUPPORTED: 'start',
  REDIS_VERSION: 'start',
  NODES_TOO_FEW: 'start',
  LOCK_TIMEOUT: 'start',
  NODE_TOO_OLD: 'start',
  SERVICES_MISSING: 'start',
}

const begin = '<!-- alarms: written by npm run docs -->'
const end = '<!-- end of alarms -->'

/** The page with its table of alarms as it should be. @throws when the page has no place for it */
export function withAlarms(page: string): string {
  const [before, rest] = page.split(begin)
  const after = rest?.split(end)[1]
  if (before === undefined || after === undefined) throw new Error(`the page lacks ${begin} or ${end}`)
  return `${before}${begin}\n${alarmsTable()}\n${end}${after}`
}

function alarmsTable(): string {
  const order = Object.keys(urgencies)
  const codes = (Object.keys(alarms) as OperatorCode[]).toSorted(
    (a, b) => order.indexOf(alarms[a]) - order.indexOf(alarms[b]),
  )
  const rows = codes.map(code => {
    const { meaning, remedy } = operatorCodes[code]
    return `| \`${code}\` | ${urgencies[alarms[code]]} | ${meaning} | ${remedy.replaceAll('|', '\\|')} |`
  })
  return ['| Code | Urgent | What it means | What to do |', '| --- | --- | --- | --- |', ...rows].join('\n')
}
