import { readdirSync, readFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { expect, test } from 'vitest'
import { configurationPage } from '../../scripts/docs.ts'
import { flagOf, keyOf, type OptionName, optionNames } from '../../src/server/config/config.ts'

const page = await readFile(new URL('../../docs/configuration.md', import.meta.url), 'utf8')

test('docs/configuration.md equals the table of options; if not: npm run docs', () => {
  expect(page).toBe(configurationPage())
})

test.each(optionNames)('%s stands in it with its flag', name => {
  expect(page).toContain(`| \`${name}\` | \`${flagOf(name)}\` |`)
})

test('every option is read by something: one that nothing reads would be a promise not kept', () => {
  const folder = new URL('../../src/', import.meta.url)
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter(
    path => path.endsWith('.ts') && path !== 'server/config/config.ts',
  )
  const source = files.map(path => readFileSync(new URL(path, folder), 'utf8')).join('\n')
  const isRead = (name: OptionName) => new RegExp(`\\.${keyOf(name)}\\b|\\b${keyOf(name)}[,:]|'${name}'`).test(source)
  expect(optionNames.filter(name => !isRead(name))).toEqual([])
})
