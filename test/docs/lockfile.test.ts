import { readFile } from 'node:fs/promises'
import { expect, test } from 'vitest'

const root = new URL('../../', import.meta.url)

test('package-lock.json names no registry: packages come from wherever npm is told to look', async () => {
  const lockfile = await readFile(new URL('package-lock.json', root), 'utf8')
  const { packages } = JSON.parse(lockfile) as { packages: Record<string, { integrity?: string; resolved?: string }> }
  expect(lockfile.match(/"resolved": *"(http|git)[^"]*"/g) ?? []).toEqual([])
  expect(Object.keys(packages).length).toBeGreaterThan(50)
})

test('package-lock.json knows every dependency of package.json', async () => {
  const manifest = JSON.parse(await readFile(new URL('package.json', root), 'utf8'))
  const { packages } = JSON.parse(await readFile(new URL('package-lock.json', root), 'utf8'))
  for (const kind of ['dependencies', 'devDependencies']) expect(packages[''][kind]).toEqual(manifest[kind])
})

/** npm leaves out those of other platforms where it finds one installed, or the registry has no other: `npm ci` then refuses. */
test('package-lock.json knows the packages of every platform', async () => {
  const lockfile = await readFile(new URL('package-lock.json', root), 'utf8')
  const { packages } = JSON.parse(lockfile) as {
    packages: Record<string, { optionalDependencies?: Record<string, string> }>
  }
  const isThere = (name: string, from: string): boolean => {
    for (let folder = from; ; folder = folder.slice(0, Math.max(0, folder.lastIndexOf('node_modules/') - 1))) {
      if (`${folder === '' ? '' : `${folder}/`}node_modules/${name}` in packages) return true
      if (folder === '') return false
    }
  }
  const missing = Object.entries(packages).flatMap(([from, { optionalDependencies = {} }]) =>
    Object.keys(optionalDependencies).filter(name => !isThere(name, from)),
  )
  expect(missing).toEqual([])
})
