// What the documents say of installing and importing holds for the package as it is published.
import { readdirSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { expect, test } from 'vitest'

const root = new URL('../../', import.meta.url)
const manifest = JSON.parse(await readFile(new URL('package.json', root), 'utf8')) as {
  name: string
  exports: Record<string, unknown>
  peerDependencies: Record<string, string>
  devDependencies: Record<string, string>
}
const pages = [
  'README.md',
  ...['docs', 'examples'].flatMap(folder =>
    readdirSync(new URL(`${folder}/`, root), { recursive: true, encoding: 'utf8' })
      .filter(path => /\.(md|tsx?|js|html)$/.test(path) && !path.includes('node_modules'))
      .map(path => `${folder}/${path}`),
  ),
]
const texts = await Promise.all(pages.map(async page => [page, await readFile(new URL(page, root), 'utf8')] as const))

/** What the pages say that is none of these. */
function strange(said: RegExp, known: ReadonlySet<string>): string[] {
  return texts.flatMap(([page, text]) =>
    [...text.matchAll(said)].flatMap(match =>
      match[1]!
        .split(/\s+/)
        .filter(word => /^[@a-z]/.test(word) && !known.has(word))
        .map(word => `${page}: ${word}`),
    ),
  )
}

test('every import from the package is of an entry that it has', () => {
  const entries = new Set(Object.keys(manifest.exports).map(entry => entry.replace('.', manifest.name)))
  expect(strange(/(?:from|import)\s*\(?'(tidegate(?:\/[^']*)?)'/g, entries)).toEqual([])
  expect(texts.filter(([, text]) => text.includes("'tidegate/client'")).length).toBeGreaterThan(2)
})

test('every install line names the package, what it asks for beside it, or what a reader of it has', () => {
  const known = new Set([
    manifest.name,
    ...Object.keys(manifest.peerDependencies),
    ...Object.keys(manifest.devDependencies),
  ])
  expect(strange(/^\s*npm (?:install|i)[ \t]+([^\n`#]*)/gm, known)).toEqual([])
  expect(texts.filter(([, text]) => /^npm install tidegate$/m.test(text)).map(([page]) => page)).toContain('README.md')
})

test('every npx line runs what the package brings', () => {
  expect(strange(/\bnpx(?: -[-\w]+)* ([\w@/-]+)/g, new Set([manifest.name, 'serve']))).toEqual([])
})
