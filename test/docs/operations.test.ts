import { readFile } from 'node:fs/promises'
import { expect, test } from 'vitest'
import { withAlarms } from '../../scripts/alarms.ts'
import { peerCodes, resyncCodes } from '../../src/protocol/codes.ts'
import { operatorCodes } from '../../src/protocol/operator-codes.ts'
import { options } from '../../src/server/config/config.ts'

const page = await readFile(new URL('../../docs/operations.md', import.meta.url), 'utf8')

test('the alarms of docs/operations.md equal the table of codes; if not: npm run docs', () => {
  expect(page).toBe(withAlarms(page))
})

test.each(Object.entries(operatorCodes))('%s stands in it with what to do', (code, { remedy }) => {
  const row = page.split('\n').find(line => line.startsWith(`| \`${code}\` |`)) ?? ''
  expect(row.endsWith(`| ${remedy} |`)).toBe(true)
})

test('its codes and options exist', () => {
  const known = { ...options, ...peerCodes, ...resyncCodes, ...operatorCodes }
  const named = [...page.matchAll(/`([A-Z]+(?:_[A-Z]+)+)[=`]/g)].map(match => match[1]!)
  expect(new Set(named).size).toBeGreaterThan(30)
  expect(named.filter(name => !(name in known))).toEqual([])
})
