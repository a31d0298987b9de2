import { readFile } from 'node:fs/promises'
import { expect, test } from 'vitest'
import { metricsPage } from '../../scripts/metrics-page.ts'
import { peerCodes, resyncCodes } from '../../src/protocol/codes.ts'
import { operatorCodes } from '../../src/protocol/operator-codes.ts'
import { options } from '../../src/server/config/config.ts'
import { metrics } from '../../src/server/metrics/table.ts'

const page = await readFile(new URL('../../docs/operations/metrics.md', import.meta.url), 'utf8')
const entries = Object.entries(metrics)

test('docs/operations/metrics.md equals the table of metrics; if not: npm run docs', () => {
  expect(page).toBe(metricsPage())
})

test.each(entries)('%s is named as Prometheus would', (name, { type, unit, help, bad, label }) => {
  expect(name).toMatch(/^tidegate_[a-z]+(_[a-z]+)*$/)
  expect(name.endsWith('_total')).toBe(type === 'counter')
  const base = name.replace(/_total$/, '')
  if (unit === 'bytes') expect(base).toMatch(/_bytes$/)
  if (unit === 'seconds') expect(base).toMatch(/_seconds$/)
  expect(base).not.toMatch(/_(ms|millis|kb|mb|percent)$/)
  for (const text of [help, bad, ...(label === undefined ? [] : [label.values])]) expect(text).not.toMatch(/[|\n]/)
  expect(help).toMatch(/[.]$/)
})

test('what it says of codes, options and other metrics exists', () => {
  const known = { ...options, ...peerCodes, ...resyncCodes, ...operatorCodes, CLIENT_LEFT: 0, ANSWERED: 0, OTHER: 0 }
  const named = [...page.matchAll(/\b([A-Z]+(?:_[A-Z]+)+)\b/g)].map(match => match[1]!)
  expect(new Set(named).size).toBeGreaterThan(10)
  expect(named.filter(name => !(name in known))).toEqual([])
  const others = [...page.matchAll(/\btidegate_[a-z_]+/g)].map(match => match[0])
  expect(others.filter(name => !(name in metrics))).toEqual([])
})
