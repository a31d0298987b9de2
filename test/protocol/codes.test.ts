import { expect, test } from 'vitest'
import { closeCodeOf, type PeerCode, peerCodes, retryOfClose } from '../../src/protocol/codes.ts'
import { errorBodyOf, TidegateError } from '../../src/protocol/tidegate-error.ts'

const codes = Object.keys(peerCodes) as PeerCode[]

test.each(codes)('[P8] %s closes with a number of the range that says what to do', code => {
  expect(retryOfClose(closeCodeOf(code))).toBe(peerCodes[code].retry)
})

test('[P8] no two codes share a close code', () => {
  expect(new Set(codes.map(closeCodeOf)).size).toBe(codes.length)
})

test.each([
  [1006, 'now'],
  [1012, 'now'],
  [4099, 'now'],
  [4100, 'later'],
  [4200, 'never'],
  [4300, 'token'],
])('a client that knows no single code knows what %i asks of it', (closeCode, retry) => {
  expect(retryOfClose(closeCode)).toBe(retry)
})

test('[P2] of an error that is not a refusal a peer is told nothing but that it happened', () => {
  const body = errorBodyOf(new Error('duplicate key value (email)=(someone@example.com)'))
  expect(body).toEqual({ code: 'INTERNAL', message: expect.any(String), retry: true, retryAfterMs: expect.any(Number) })
  expect(body.message).not.toContain('someone')
  expect(errorBodyOf(new TidegateError('WAL_LEVEL', 'for the operator only')).code).toBe('INTERNAL')
})

test('[P8] a refusal says its code, its words, and whether and when to try again', () => {
  expect(errorBodyOf(new TidegateError('BUSY', 'too many', { retryAfterMs: 700 }))).toEqual({
    code: 'BUSY',
    message: 'too many',
    retry: true,
    retryAfterMs: 700,
  })
  expect(errorBodyOf(new TidegateError('COLUMN_UNKNOWN', 'no such column')).retry).toBe(false)
})
