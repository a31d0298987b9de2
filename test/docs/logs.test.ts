// docs/operations/logs.md: a line looks as it says, and what it quotes is said.
import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { peerCodes } from '../../src/protocol/codes.ts'
import { operatorCodes } from '../../src/protocol/operator-codes.ts'
import { options } from '../../src/server/config/config.ts'
import { metrics } from '../../src/server/metrics/table.ts'
import { tracingPackages } from '../../src/server/tracing/packages.ts'

const root = fileURLToPath(new URL('../../', import.meta.url))
const page = readFileSync(`${root}docs/operations/logs.md`, 'utf8')
const source = readdirSync(`${root}src/server`, { recursive: true, encoding: 'utf8' })
  .filter(path => path.endsWith('.ts'))
  .map(path => readFileSync(`${root}src/server/${path}`, 'utf8'))
  .join('\n')

interface Line extends Record<string, unknown> {
  readonly err: Record<string, unknown> & { readonly cause: Record<string, unknown> }
}

const example = JSON.parse(/```json\n(.*)\n```/.exec(page)![1]!) as Line

test('its example has the fields of a real line, in their order', () => {
  const script = `
    const { createLog } = await import('./src/server/log/log.ts')
    const { TidegateError } = await import('./src/protocol/tidegate-error.ts')
    const cause = Object.assign(new Error('connect'), { code: 'ECONNREFUSED' })
    const err = new TidegateError('RELAY_UNREACHABLE', 'redis does not answer', { cause })
    createLog('info').warn({ code: err.code, err }, 'changes do not come')`
  const { stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script], { cwd: root, encoding: 'utf8' })
  const line = JSON.parse(stderr) as Line
  expect(Object.keys(example)).toEqual(Object.keys(line))
  expect(Object.keys(example.err)).toEqual(Object.keys(line.err))
  expect(Object.keys(example.err.cause)).toEqual(Object.keys(line.err.cause))
  expect([example.level, example.name, example.code]).toEqual([line.level, line.name, line.code])
  for (const field of Object.keys(line)) expect(page).toContain(`\`${field}\``)
  const { remedy } = operatorCodes.RELAY_UNREACHABLE
  expect(String(example.msg).endsWith(` ${remedy}`)).toBe(true)
})

test('what it quotes of the log is said, and its codes, options, metrics and packages exist', () => {
  const said = ['changes come again', 'traces are sent again', 'a text does not parse', 'Postgres says ']
  for (const text of said) {
    expect(page).toContain(text)
    expect(source).toContain(text)
  }
  const known = { ...options, ...peerCodes, ...operatorCodes, OTEL_EXPORTER_OTLP_HEADERS: 0, REDIS_URL: 0 }
  const named = [...page.matchAll(/\b[A-Z]+(?:_[A-Z]+)+\b/g)].map(match => match[0])
  expect(new Set(named).size).toBeGreaterThan(5)
  expect(named.filter(name => !(name in known))).toEqual([])
  expect([...page.matchAll(/\btidegate_\w+/g)].map(match => match[0]).filter(name => !(name in metrics))).toEqual([])
  expect(page).toContain(`npm install ${tracingPackages.join(' ')}`)
})

test('the page of operations leads to it, to the alerts and to the dashboard', () => {
  const operations = readFileSync(`${root}docs/operations.md`, 'utf8').split('## ')[0]!
  for (const name of ['metrics.md', 'alerts.md', 'grafana.json', 'logs.md'])
    expect(operations).toContain(`operations/${name}`)
})
