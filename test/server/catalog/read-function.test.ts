import { expect, test } from 'vitest'
import { readFunctionName } from '../../../src/server/catalog/read-function.ts'

test('the read function is named like its table, shortened with a hash past 63 bytes', () => {
  expect(readFunctionName('public', 'messages')).toBe('public.messages')
  expect(readFunctionName('s'.repeat(31), 't'.repeat(31))).toBe(`${'s'.repeat(31)}.${'t'.repeat(31)}`)
  const long = readFunctionName('s'.repeat(32), 't'.repeat(31))
  expect(long).toMatch(/^s{32}\.t{17}_[0-9a-f]{12}$/)
  expect(Buffer.byteLength(long)).toBe(63)
})

test('names that share their first 50 bytes stay apart, and no character is cut in half', () => {
  const first = readFunctionName('public', `${'ä'.repeat(30)}a`)
  const second = readFunctionName('public', `${'ä'.repeat(30)}b`)
  expect(first).not.toBe(second)
  expect(first).toMatch(/^public\.ä{21}_[0-9a-f]{12}$/)
})
