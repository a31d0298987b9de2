import { expect, test } from 'vitest'
import { Acks } from '../../../../src/server/deliver/phoenix/acks.ts'

const pongOf = (ping: Buffer): Buffer => ping.subarray(2)

test('whoever has come is asked at once, then a second after it was sent something, and else when it is time to see whether it is there', () => {
  const acks = new Acks(0, 25_000)
  acks.sent()
  expect(acks.isDue(0, 1)).toBe(true)
  expect(acks.answered(pongOf(acks.ask(0)))).toBe(true)
  expect(acks.isOwed).toBe(false)
  expect(acks.isDue(24_999, 1)).toBe(false)
  expect(acks.isDue(25_000, 1)).toBe(true)
  acks.sent()
  expect([acks.isDue(999, 1), acks.isDue(1000, 1)]).toEqual([false, true])
})

test('one ping at a time, and a pong answers the last alone', () => {
  const acks = new Acks(0, 25_000)
  const first = acks.ask(0)
  acks.sent()
  expect(acks.isDue(100_000, 1)).toBe(false)
  expect(acks.answered(Buffer.from('none'))).toBe(false)
  expect(acks.answered(pongOf(first))).toBe(true)
  acks.ask(1000)
  expect(acks.answered(pongOf(first))).toBe(false)
  expect(acks.isOwed).toBe(true)
})

test('a node asks about a thousand clients a second, and none more rarely than one that is sent nothing', () => {
  const acks = new Acks(0, 25_000)
  acks.answered(pongOf(acks.ask(0)))
  acks.sent()
  expect([acks.isDue(4999, 5000), acks.isDue(5000, 5000)]).toEqual([false, true])
  expect([acks.isDue(24_999, 1_000_000), acks.isDue(25_000, 1_000_000)]).toEqual([false, true])
})
