// docs/operations/alerts.yml, the rules as Prometheus reads them, and docs/operations/alerts.md, where each leads whoever it wakes.
import { stringify } from 'yaml'
import { type AlertRule, alertRules } from './alert-rules.ts'

const page = 'docs/operations/alerts.md'
const anchorOf = ({ name }: AlertRule): string => name.toLowerCase()

export function alertsFile(): string {
  const rules = alertRules.map(rule => ({
    alert: rule.name,
    expr: rule.expr,
    ...(rule.for === '0s' ? {} : { for: rule.for }),
    labels: { severity: rule.severity },
    annotations: {
      summary: rule.summary,
      description: `${rule.means} ${rule.todo}`,
      runbook_url: `${page}#${anchorOf(rule)}`,
    },
  }))
  const head = [
    '# Alerts of Tidegate for Prometheus: add this file to `rule_files`. Scrape every node every 15 seconds or more often, and give each',
    '# deployment a job of its own. severity: now wakes somebody, today waits for the morning. Set runbook_url to where your people',
    `# read ${page}. Written by \`npm run docs\` from scripts/alert-rules.ts.`,
  ]
  return `${head.join('\n')}\n${stringify({ groups: [{ name: 'tidegate', rules }] }, { lineWidth: 0 })}`
}

const severities: Readonly<Record<AlertRule['severity'], string>> = { now: '**now**', today: 'today' }

export function alertsPage(): string {
  const lines = alertRules.map(
    rule =>
      `| [${rule.name}](#${anchorOf(rule)}) | ${severities[rule.severity]} | ${rule.for === '0s' ? '' : rule.for} | ${rule.means.replaceAll('|', '\\|')} |`,
  )
  const sections = alertRules.flatMap(rule => [
    `## ${rule.name}`,
    '',
    rule.means,
    '',
    `**What to do:** ${rule.todo}`,
    '',
    `Severity \`${rule.severity}\`${rule.for === '0s' ? '' : `, after ${rule.for}`}, while`,
    '',
    '```promql',
    rule.expr,
    '```',
    '',
  ])
  return `${[
    '# Alerts',
    '',
    '[alerts.yml](alerts.yml) has the rules for Prometheus. Scrape every node every 15 seconds or more often ([metrics.md](metrics.md) has how), give',
    'each deployment a job of its own, and set `runbook_url` to where your people read this page. `now`: clients are stale or refused, or soon',
    'will be, and it does not mend by itself: wake somebody. `today`: it has mended itself, or there is time.',
    '',
    'A Prometheus that begins without history takes what nodes counted before for new, and may send alerts of the last kind once.',
    '',
    'This page and the rules are written by `npm run docs` from the table in `scripts/alert-rules.ts`; those of a code say what',
    '[errors.md](../errors.md#what-an-operator-can-meet) does. Tests break each of them and mend it again.',
    '',
    '| Alert | Severity | After | What it means |',
    '| --- | --- | --- | --- |',
    ...lines,
    '',
    ...sections,
  ]
    .join('\n')
    .trimEnd()}\n`
}
