import { readdirSync, readFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { expect, test } from 'vitest'
import { errorsPage } from '../../scripts/docs.ts'
import { clientCodes } from '../../src/protocol/client-codes.ts'
import {
  closeCodeOf,
  type PeerCode,
  peerCodes,
  resyncCodes,
  retryOfClose,
  warningCodes,
} from '../../src/protocol/codes.ts'
import { operatorCodes } from '../../src/protocol/operator-codes.ts'
import { options } from '../../src/server/config/config.ts'

const page = await readFile(new URL('../../docs/errors.md', import.meta.url), 'utf8')
const rowOf = (code: string): string => page.split('\n').find(line => line.startsWith(`| \`${code}\` |`)) ?? ''

test('docs/errors.md equals the table of codes; if not: npm run docs', () => {
  expect(page).toBe(errorsPage())
})

test.each(Object.keys(peerCodes) as PeerCode[])('%s stands in it with close code, status, meaning and remedy', code => {
  const { status, meaning, remedy } = peerCodes[code]
  expect(rowOf(code)).toContain(`| ${closeCodeOf(code)} | ${status} | `)
  expect(rowOf(code).endsWith(`| ${meaning} | ${remedy} |`)).toBe(true)
})

test.each(Object.entries({ ...resyncCodes, ...warningCodes }))('%s stands in it with its meaning', (code, meaning) => {
  expect(rowOf(code)).toContain(`| ${meaning} |`)
})

test.each(Object.entries({ ...operatorCodes, ...clientCodes }))(
  '%s stands in it with its remedy',
  (code, { remedy }) => {
    expect(rowOf(code)).toContain(`| ${remedy} |`)
  },
)

test('[P8] each close code is given once, and its range says what to do', () => {
  const codes = Object.keys(peerCodes) as PeerCode[]
  expect(new Set(codes.map(closeCodeOf)).size).toBe(codes.length)
  for (const code of codes) expect([code, retryOfClose(closeCodeOf(code))]).toEqual([code, peerCodes[code].retry])
})

test('remedies name only options that exist', () => {
  const remedies = Object.values({ ...peerCodes, ...operatorCodes }).map(entry => entry.remedy)
  const named = remedies.flatMap(remedy => remedy.match(/\b[A-Z]+(_[A-Z]+)+\b/g) ?? [])
  expect(named).toContain('SNAPSHOT_MAX_ROWS')
  expect(named.filter(name => !(name in options))).toEqual([])
})

test('a code means one thing: no name stands in two tables', () => {
  const names = [peerCodes, resyncCodes, warningCodes, clientCodes, operatorCodes].flatMap(table => Object.keys(table))
  expect(names.filter((name, index) => names.indexOf(name) !== index)).toEqual([])
})

const sourceOf = (folder: string): string => {
  const path = new URL(`../../src/${folder}/`, import.meta.url)
  const files = readdirSync(path, { recursive: true, encoding: 'utf8' }).filter(file => file.endsWith('.ts'))
  return files
    .filter(file => !/^protocol\/(client-|operator-)?codes\.ts$/.test(file))
    .map(file => readFileSync(new URL(file, path), 'utf8'))
    .join('\n')
}

test('every code is one that something says', () => {
  const source = sourceOf('.')
  const codes = [peerCodes, resyncCodes, warningCodes, clientCodes, operatorCodes].flatMap(table => Object.keys(table))
  expect(codes.filter(code => !new RegExp(`'${code}'|^\\s+${code}:`, 'm').test(source))).toEqual([])
})

test('whatever the client says by itself is in the table', () => {
  const source = sourceOf('client')
  const said = [...source.matchAll(/'([A-Z]+(?:_[A-Z]+)+)'/g)].map(match => match[1]!)
  expect(Object.keys(clientCodes).filter(code => !source.includes(`'${code}'`))).toEqual([])
  const known = { ...clientCodes, ...peerCodes, ...resyncCodes }
  expect(said.filter(code => !(code in known))).toEqual([])
})
