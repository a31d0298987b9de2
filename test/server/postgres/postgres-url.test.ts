import { expect, test } from 'vitest'
import { connectionOf, reasonOf } from '../../../src/server/postgres/postgres-url.ts'

const base = 'postgres://u:p%40ss@db.example.com:5433/app'
const file = import.meta.filename

const kinds: readonly [
  string,
  { readonly verifies: boolean; readonly names?: boolean; readonly prefers?: boolean } | false,
][] = [
  ['', false],
  ['?sslmode=disable', false],
  ['?sslmode=prefer', { verifies: false, prefers: true }],
  ['?sslmode=require', { verifies: false }],
  ['?ssl=true', { verifies: false }],
  ['?sslmode=no-verify', { verifies: false }],
  [`?sslmode=require&sslrootcert=${file}`, { verifies: true, names: false }],
  [`?sslmode=verify-ca&sslrootcert=${file}`, { verifies: true, names: false }],
  [`?sslmode=verify-full&sslrootcert=${file}`, { verifies: true, names: true }],
  ['?sslmode=verify-full', { verifies: true, names: true }],
  ['?sslrootcert=system', { verifies: true, names: true }],
  ['?sslmode=require&channel_binding=require', { verifies: true, names: true }],
]

test.each(kinds)('%s is read as libpq means it', (query, expected) => {
  const { ssl, prefersTls, connectionString } = connectionOf(`${base}${query}`)
  expect(connectionString).toBe(base)
  if (expected === false || ssl === false) {
    expect(ssl).toBe(expected)
    return
  }
  expect(prefersTls).toBe(expected.prefers === true)
  expect(ssl.rejectUnauthorized !== false).toBe(expected.verifies)
  if (expected.verifies) expect(ssl.checkServerIdentity === undefined).toBe(expected.names)
  if (expected.verifies) expect(ssl.ca).not.toEqual([])
})

const refusals: readonly [string, RegExp][] = [
  ['?sslmode=allow', /sslmode is allow; it takes disable/],
  ['?sslmode=verify_full', /sslmode is verify_full/],
  ['?sslmode=verify-ca', /sslrootcert=<file>/],
  ['?sslmode=require&sslrootcert=system', /verify-full only/],
  ['?sslrootcert=/etc/ca.crt', /add sslmode=verify-full/],
  ['?sslmode=verify-full&sslrootcert=/nowhere/ca.crt', /sslrootcert: \/nowhere\/ca\.crt cannot be read/],
  ['?sslmode=require&sslcert=/etc/x', /go together/],
  ['?sslmode=disable&channel_binding=require', /needs TLS/],
  ['?sslmode=require&channel_binding=must', /channel_binding is must/],
  ['?sslmode=verify-full&sslcrl=/etc/crl', /sslcrl is not kept/],
]

test.each(refusals)('[P8] %s is refused, with what would do, and without the password', (query, message) => {
  const read = (): unknown => connectionOf(`${base}${query}`, '', 'DATABASE_REPLICATION_URL')
  expect(read).toThrow(expect.objectContaining({ code: 'CONFIG_INVALID', message: expect.stringMatching(message) }))
  expect(read).toThrow(/^DATABASE_REPLICATION_URL: /)
  expect(read).not.toThrow(/p%40ss|p@ss/)
})

test('settings of the connection string stay, and ours win', () => {
  expect(connectionOf(`${base}?options=-c%20work_mem%3D8MB`, '-c DateStyle=ISO').options).toBe(
    '-c work_mem=8MB -c DateStyle=ISO',
  )
})

test('a reason that is not known is told as it came', () => {
  expect(reasonOf(new Error('something else'))).toBe('something else')
  expect(reasonOf(Object.assign(new Error(''), { code: 'ECONNREFUSED' }))).toBe('ECONNREFUSED')
})
