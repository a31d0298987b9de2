import { readFile } from 'node:fs/promises'
import { expect, test } from 'vitest'
import { configurationPage } from '../../scripts/docs.ts'
import { flagOf, optionNames } from '../../src/server/config.ts'

const page = await readFile(new URL('../../docs/configuration.md', import.meta.url), 'utf8')

test('docs/configuration.md equals the table of options; if not: npm run docs', () => {
  expect(page).toBe(configurationPage())
})

test.each(optionNames)('%s stands in it with its flag', name => {
  expect(page).toContain(`| \`${name}\` | \`${flagOf(name)}\` |`)
})
