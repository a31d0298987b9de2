import fc from 'fast-check'
import { expect, test } from 'vitest'
import { markOf, numberOf } from '../../../../src/server/channels/relay/number-mark.ts'

const epoch = fc.integer({ min: 0, max: 0xffff_ffff }).map(number => number.toString(16).padStart(8, '0'))
const seq = fc.bigInt({ min: 200_000n, max: 2n ** 40n })

test('[P4] a mark means its number, behind or a little ahead, in its own epoch', () => {
  fc.assert(
    fc.property(epoch, seq, fc.bigInt({ min: -100_000n, max: 1000n }), (epoch, seq, step) => {
      expect(numberOf(markOf({ epoch, seq: seq + step }), { epoch, seq })).toBe(seq + step)
    }),
  )
})

test('[P4] over to an epoch that goes on it means its number still; past where that was found it means nothing', () => {
  fc.assert(
    fc.property(epoch, epoch, seq, fc.bigInt({ min: -500n, max: 500n }), (former, epoch, found, step) => {
      const now = { epoch, seq: found + 300n, before: [{ epoch: former, seq: found }] }
      const shift = BigInt.asIntN(32, BigInt(`0x${former}`) - BigInt(`0x${epoch}`))
      // Epochs are random: so near to each other they are once in 20,000 times.
      fc.pre(shift < -200_000n || shift > 200_000n)
      const number = numberOf(markOf({ epoch: former, seq: found + step }), now)
      expect(number).toBe(step <= 0n ? found + step : null)
    }),
  )
})
