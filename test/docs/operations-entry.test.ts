// docs/operations.md leads to every page beside it.
import { readdirSync, readFileSync } from 'node:fs'
import { expect, test } from 'vitest'

const docs = new URL('../../docs/', import.meta.url)
const [entry = ''] = readFileSync(new URL('operations.md', docs), 'utf8').split('\n## ')

test('the table at its beginning has each page of docs/operations, and the dashboard', () => {
  const pages = readdirSync(new URL('operations/', docs)).filter(name => /\.(md|json)$/.test(name))
  expect(pages.length).toBeGreaterThan(8)
  expect(pages.filter(name => !entry.includes(`](operations/${name}`))).toEqual([])
})
