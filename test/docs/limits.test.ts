import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { type PeerCode, peerCodes, type Retry } from '../../src/protocol/codes.ts'
import { type OptionName, options } from '../../src/server/config/config.ts'

const read = (path: string): string => readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8')

/** Limit, option, default, code, what the client does, what to do. */
const rows = [...read('docs/operations/limits.md').matchAll(/^\| (?!-|limit )(.*) \|$/gm)].map(([, cells]) =>
  cells!.split(' | ').map(cell => cell.replaceAll('`', '')),
) as [limit: string, option: string, byDefault: string, code: string, client: string, remedy: string][]

const does: Readonly<Record<Retry, RegExp>> = {
  later: /^comes back (later|after)|^the same: /,
  never: /^does not come back/,
  now: /^connects again at once/,
  token: /^fetches a token/,
}

test.each(rows)('%s: the option, its default and what the code tells a client are as the page says', (...row) => {
  const [, option, byDefault, code, client] = row
  expect(options).toHaveProperty(option)
  expect(options[option as OptionName].default).toBe(byDefault)
  if (code === 'none') return
  expect(peerCodes).toHaveProperty(code)
  expect(client).toMatch(does[peerCodes[code as PeerCode].retry])
})

/** Where a client really reaches each of them. */
const reached: Readonly<Record<string, string>> = {
  'connections of a node': 'deliver/limits.test.ts',
  'files of the process': 'config/descriptors.e2e.test.ts',
  'connections of an address, or a /64 of IPv6': 'deliver/quotas.test.ts',
  'connections of a user (subject and role)': 'deliver/quotas.test.ts',
  'time to send a token': 'deliver/limits.test.ts',
  silence: 'deliver/flow.test.ts',
  'snapshots that wait': 'snapshot/first-reads.pg.test.ts',
  "time of a snapshot's query": 'snapshot/first-reads.pg.test.ts',
  'time of a question to Postgres': 'asked-failures.pg.test.ts',
  'rows of a snapshot': 'bounds.pg.test.ts',
  'rows of a question': 'asked-failures.pg.test.ts',
  "questions' readers of a table": 'asked-failures.pg.test.ts',
  'commits kept for a snapshot': 'bounds.pg.test.ts',
  'rows that decide for one reader': 'bounds.pg.test.ts',
  'rows that decide for all readers of a node': 'index-bounds.pg.test.ts',
  'subscriptions of a connection': 'refusals/frames.ts',
  'bytes of a frame or body': 'refusals/frames.ts',
  'frames a second of a connection': 'deliver/limits.test.ts',
  'characters of a filter': 'refusals/questions.ts',
  'depth of a filter': 'refusals/questions.ts',
  'comparisons of a filter': 'refusals/questions.ts',
  'bytes for a slow client': 'promises-slow.pg.test.ts',
}

test('each limit of the page is reached by a test, which knows its code', () => {
  expect(rows.map(([limit]) => limit).sort()).toEqual(Object.keys(reached).sort())
  const unknown = rows.filter(([limit, option, , code]) => {
    const test = read(`test/server/${reached[limit]}`)
    return !test.includes(code === 'none' ? option : code)
  })
  expect(unknown.map(([limit]) => limit)).toEqual([])
})

test('every limit of the options stands on the page', () => {
  const named = new Set(rows.map(([, option]) => option))
  const limits = Object.entries(options).filter(([, { group }]) => group === 'limits')
  expect(limits.map(([name]) => name).filter(name => !named.has(name))).toEqual([])
})
