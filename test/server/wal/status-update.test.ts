import { expect, test } from 'vitest'
import { encodeStatusUpdate } from '../../../src/server/wal/status-update.ts'

test('a status update is 34 bytes as the manual lays them out', () => {
  const bytes = encodeStatusUpdate({
    writtenLsn: 0x16b374d848n,
    flushedLsn: 0x16b374d000n,
    sentAtMs: Date.UTC(2000, 0, 1, 0, 0, 1),
    replyRequested: true,
  })
  const expected = [
    '72', // 'r'
    '00000016b374d848', // written
    '00000016b374d000', // flushed
    '00000016b374d000', // applied
    '00000000000f4240', // a second after 2000-01-01 in microseconds
    '01', // answer at once
  ]
  expect(bytes.toString('hex')).toBe(expected.join(''))
})

test('without an acknowledgement the flush position is 0', () => {
  const bytes = encodeStatusUpdate({ writtenLsn: 5n, flushedLsn: 0n, sentAtMs: Date.now(), replyRequested: false })
  expect(bytes.readBigUInt64BE(1)).toBe(5n)
  expect(bytes.readBigUInt64BE(9)).toBe(0n)
  expect(bytes.readBigUInt64BE(17)).toBe(0n)
  expect(bytes[33]).toBe(0)
})

test('the time is that of 2026, in microseconds since 2000', () => {
  const sentAtMs = Date.UTC(2026, 5, 1)
  const bytes = encodeStatusUpdate({ writtenLsn: 0n, flushedLsn: 0n, sentAtMs, replyRequested: false })
  expect(Number(bytes.readBigInt64BE(25)) / 1000 + Date.UTC(2000, 0, 1)).toBe(sentAtMs)
})
