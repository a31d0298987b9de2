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
