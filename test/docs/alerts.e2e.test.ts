// The alerts for Prometheus: each fires when it should and not when it comes close, as Prometheus's own promtool judges.
import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { beforeAll, expect, test } from 'vitest'
import { parse, stringify } from 'yaml'
import { type AlertRule, alertRules } from '../../scripts/alert-rules.ts'
import { alertsFile, alertsPage } from '../../scripts/alerts-page.ts'
import { peerCodes, resyncCodes } from '../../src/protocol/codes.ts'
import { operatorCodes } from '../../src/protocol/operator-codes.ts'
import { options } from '../../src/server/config/config.ts'
import { programFromPackage } from '../support/debian-package.ts'
import { alertCases, type Series } from './alert-cases.ts'
import { namesIn, unknownIn } from './promql.ts'

const operations = new URL('../../docs/operations/', import.meta.url)
const rulesPath = fileURLToPath(new URL('alerts.yml', operations))

let promtool: string

beforeAll(async () => {
  promtool = await programFromPackage(['promtool'], 'prometheus')
}, 300_000)

const run = (...args: readonly string[]): Promise<{ code: number; output: string }> =>
  new Promise(resolve => {
    execFile(promtool, args, (error, stdout, stderr) =>
      resolve({ code: error === null ? 0 : 1, output: stdout + stderr }),
    )
  })

test('docs/operations/alerts.yml and alerts.md equal the table of rules; if not: npm run docs', async () => {
  expect(await readFile(rulesPath, 'utf8')).toBe(alertsFile())
  expect(await readFile(new URL('alerts.md', operations), 'utf8')).toBe(alertsPage())
})

test.each(alertRules.map(rule => [rule.name, rule] as const))('%s is named once and says what to do', (name, rule) => {
  expect(alertRules.filter(each => each.name === name)).toEqual([rule])
  for (const text of [rule.means, rule.todo]) expect(text).toMatch(/[.);"\w]$/)
  expect(unknownIn(rule.expr)).toEqual([])
  const codes = [...`${rule.expr} ${rule.means} ${rule.todo}`.matchAll(/\b[A-Z]+(?:_[A-Z]+)+\b/g)].map(
    match => match[0],
  )
  const known = { ...options, ...peerCodes, ...resyncCodes, ...operatorCodes }
  expect(codes.filter(code => !(code in known))).toEqual([])
})

test('a metric or a label that does not exist is seen', () => {
  expect(unknownIn('sum by (job, kind) (tidegate_leader{role="a"}) > tidegate_nothing')).toEqual([
    'tidegate_nothing',
    'role',
    'kind',
  ])
  expect(namesIn('up == 0 and on (job) rate(process_cpu_seconds_total[1m])').metrics).toEqual([
    'up',
    'process_cpu_seconds_total',
  ])
})

test('Prometheus reads the rules', async () => {
  const { code, output } = await run('check', 'rules', rulesPath)
  expect(output).toContain(`${alertRules.length} rules found`)
  expect(code).toBe(0)
})

interface Look {
  readonly rule: AlertRule
  readonly at: string
  readonly series: Series
  readonly count: number
}

const unit = ({ rule, at, series, count }: Look): unknown => ({
  interval: '15s',
  name: `${rule.name} ${count === 0 ? 'must not fire' : 'must fire'}`,
  input_series: Object.entries(series).map(([series, values]) => ({ series, values })),
  promql_expr_test: [
    {
      expr: `count by (alertname, severity) (ALERTS{alertname="${rule.name}", alertstate="firing"})`,
      eval_time: at,
      exp_samples:
        count === 0 ? [] : [{ labels: `{alertname="${rule.name}", severity="${rule.severity}"}`, value: count }],
    },
  ],
})

/** Each rule in a file of its own: with the others beside it, forty would be evaluated for each case of one. */
async function judge(looks: readonly Look[]): Promise<{ code: number; output: string }> {
  const folder = await mkdtemp(join(tmpdir(), 'tidegate-alerts-'))
  const { groups } = parse(await readFile(rulesPath, 'utf8')) as { groups: { rules: { alert: string }[] }[] }
  const rules = groups.flatMap(group => group.rules)
  try {
    const paths = await Promise.all(
      [...Map.groupBy(looks, ({ rule }) => rule.name)].map(async ([name, ofRule]) => {
        const own = { name, rules: rules.filter(({ alert }) => alert === name) }
        await writeFile(join(folder, `${name}.rules.yml`), stringify({ groups: [own] }))
        const cases = { rule_files: [`${name}.rules.yml`], evaluation_interval: '15s', tests: ofRule.map(unit) }
        await writeFile(join(folder, `${name}.yml`), stringify(cases))
        return join(folder, `${name}.yml`)
      }),
    )
    return await run('test', 'rules', ...paths)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

const looks = alertCases.flatMap(({ alert, at, fires, quiet, count = 1 }): Look[] => {
  const rule = alertRules.find(({ name }) => name === alert)!
  return [
    { rule, at, series: fires, count },
    { rule, at, series: quiet, count: 0 },
  ]
})

test('every alert fires when it should, and not when it comes close', async () => {
  expect(alertCases.map(({ alert }) => alert).sort()).toEqual(alertRules.map(({ name }) => name).sort())
  const { code, output } = await judge(looks)
  expect(output.match(/SUCCESS/g)).toHaveLength(alertRules.length)
  expect(code).toBe(0)
})

test('a case that is wrong is seen', async () => {
  const some = looks.filter(({ rule }) => /SlotHalf|RelayFull|Refuses/.test(rule.name))
  const { code, output } = await judge(some.map(look => ({ ...look, count: look.count === 0 ? 1 : 0 })))
  expect(code).toBe(1)
  expect(output.match(/got: nil/g)).toHaveLength(3)
  expect(output.match(/exp: nil/g)).toHaveLength(3)
})
