import { readdirSync, readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { doctorPage } from '../../scripts/doctor-page.ts'
import { type CheckName, checks } from '../../src/server/doctor/checks.ts'
import { databaseChecks } from '../../src/server/doctor/database-checks.ts'

const page = readFileSync(new URL('../../docs/operations/doctor.md', import.meta.url), 'utf8')
const names = Object.keys(checks) as CheckName[]

test('docs/operations/doctor.md equals the table of checks; if not: npm run docs', () => {
  expect(page).toBe(doctorPage())
})

test.each(names)('%s stands in it with its question', name => {
  expect(checks[name].asks).toMatch(/\?/)
  expect(page).toContain(`| \`${name}\` | `)
})

test('every check is made somewhere; those besides the database are named where a test breaks them', () => {
  const textsOf = (folder: URL): string[] =>
    readdirSync(folder, { recursive: true, encoding: 'utf8' })
      .filter(path => path.endsWith('.ts'))
      .filter(path => !path.endsWith('checks.ts'))
      .map(path => readFileSync(new URL(path, folder), 'utf8'))
  const source = textsOf(new URL('../../src/server/doctor/', import.meta.url)).join('\n')
  const tests = textsOf(new URL('../server/doctor/', import.meta.url)).join('\n')
  const isIn = (text: string) => (name: string) => new RegExp(`(?<![\\w-])${name}(?![\\w-])`).test(text)
  expect(names.filter(name => !isIn(source)(name))).toEqual([])
  expect(names.filter(name => !(name in databaseChecks) && !isIn(tests)(name))).toEqual([])
})
