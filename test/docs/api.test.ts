import { readdirSync, readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { apiPages, type Declaration, entries, type Member } from '../../scripts/api.ts'

const docs = new URL('../../docs/', import.meta.url)
const { pages, declared } = apiPages()

test('docs/api has what the package exports; if not: npm run docs', () => {
  expect(readdirSync(new URL('api/', docs)).sort()).toEqual(
    Object.keys(entries)
      .map(name => `${name}.md`)
      .sort(),
  )
  for (const [path, text] of pages) expect(readFileSync(new URL(path, docs), 'utf8'), path).toBe(text)
})

test('every entry of the package but the server has its page', () => {
  const manifest = JSON.parse(readFileSync(new URL('../package.json', docs), 'utf8')) as {
    exports: Record<string, { default: string } | string>
  }
  const named = Object.entries(manifest.exports).flatMap(([name, entry]) =>
    typeof entry === 'string' || name === './server' ? [] : [[name.slice(2), entry.default]],
  )
  const ours = Object.entries(entries).map(([name, file]) => [name, `./dist/${file.replace(/\.ts$/, '.js')}`])
  expect(named.sort()).toEqual(ours.sort())
})

test('each page declares what one would look for in it', () => {
  const namesOf = (entry: string) => declared.get(entry)!.map(({ name }) => name)
  expect(namesOf('client')).toEqual(
    expect.arrayContaining(['createClient', 'Client', 'TableQuery', 'LiveQuery', 'Channel', 'Status', 'TidegateError']),
  )
  expect(namesOf('react').slice(0, 5)).toEqual(['useChanges', 'useChannel', 'useLive', 'usePresence', 'useStatus'])
  expect(namesOf('testing')).toEqual(expect.arrayContaining(['startTidegate', 'TestTidegate']))
  for (const [name, declarations] of declared) expect([name, declarations.length > 3]).toEqual([name, true])
})

const isSaid = ({ doc }: Pick<Member, 'doc'>): boolean => doc.text !== '' || doc.tags.length > 0

/** Functions, classes and methods without a word about them. Fields may speak for themselves, and one overload speaks for all. */
const silentIn = (declaration: Declaration): string[] => {
  const { kind, name, members } = declaration
  const isTold = isSaid(declaration) || kind === 'type' || kind === 'interface' || kind === 'const'
  const methods = members.filter(({ text }) => /^(get )?[\w[\].]*(<[^(]*)?\(/.test(text))
  const silent = methods.filter(method => !methods.some(other => other.name === method.name && isSaid(other)))
  return [...(isTold ? [] : [name]), ...silent.map(method => `${name}.${method.name}`)]
}

test.each([...declared])('everything in tidegate/%s that one calls has a docstring', (_entry, declarations) => {
  expect(declarations.flatMap(silentIn)).toEqual([])
})
