import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { clientCodes } from '../../src/protocol/client-codes.ts'
import { peerCodes, resyncCodes } from '../../src/protocol/codes.ts'
import { operatorCodes } from '../../src/protocol/operator-codes.ts'
import { options } from '../../src/server/config/config.ts'
import { namedFunctions, page } from './architecture.ts'

const root = fileURLToPath(new URL('../../', import.meta.url))

test('a row passes at most 15 named functions, numbered in order', () => {
  expect(namedFunctions.length).toBeGreaterThan(9)
  expect(namedFunctions.length).toBeLessThanOrEqual(15)
  expect(namedFunctions.map(({ number }) => number)).toEqual(namedFunctions.map((_, index) => index + 1))
})

test.each(namedFunctions)('$name is in $file', async ({ name, file }) => {
  expect(existsSync(`${root}${file}`)).toBe(true)
  const module: Record<string, unknown> = await import(/* @vite-ignore */ `${root}${file}`)
  const [owner = '', method] = name.split('.')
  const exported = module[owner] as { prototype: Record<string, unknown> }
  expect(typeof (method === undefined ? exported : exported.prototype[method])).toBe('function')
})

test('every folder of src/server is in it', () => {
  const folders = readdirSync(`${root}src/server`, { withFileTypes: true }).filter(entry => entry.isDirectory())
  expect(folders.length).toBeGreaterThan(8)
  expect(folders.map(({ name }) => name).filter(name => !page.includes(`| \`src/server/${name}\` |`))).toEqual([])
})

/** Rows of the tables of state: what, whose, how big, lost when. */
const stateRows = page
  .slice(page.indexOf('## What is held'))
  .split('\n')
  .filter(line => /^\| (?!---|What \|)/.test(line))
  .map(line => line.slice(2, -2).split(' | '))

test('every piece of state says whose it is, how big, and when it is lost', () => {
  expect(stateRows.length).toBeGreaterThan(30)
  for (const cells of stateRows) expect(cells.filter(cell => cell.trim() !== '')).toHaveLength(4)
})

test('owners of state are exported by the file that is named', () => {
  const named = stateRows.flatMap(cells => [...cells[1]!.matchAll(/`(\w+)`(?:, `\w+`)? in `(src\/[\w/-]+\.ts)`/g)])
  expect(named.length).toBeGreaterThan(20)
  const missing = named.filter(
    ([, owner, file]) =>
      !new RegExp(`export (class|(async )?function) ${owner}\\b`).test(readFileSync(`${root}${file}`, 'utf8')),
  )
  expect(missing.map(([text]) => text)).toEqual([])
})

test('its options and codes exist', () => {
  const named = [...page.matchAll(/`([A-Z]+(?:_[A-Z]+)+)`/g)].map(match => match[1]!)
  const known = { ...options, ...peerCodes, ...resyncCodes, ...clientCodes, ...operatorCodes }
  expect(named.filter(name => !(name in known))).toEqual([])
})
