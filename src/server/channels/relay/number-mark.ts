// Which message a client of a channel without history was told last, in the 32 bits that its position has for it: the number, shifted by
// its epoch. So a number that was lost with Redis and given again in another epoch is not taken for the one that the client has.
import type { Standing } from './channel-relay.ts'

/** Further behind than this nobody counts what was missed. With nine epochs to look at, a mark of none of them passes for one once
 *  in 5,000 times. */
const maxBehind = 100_000n
/** So many a node may not have heard yet that another one has told. */
const maxAhead = 1000n

export const markOf = ({ epoch, seq }: Standing): number => Number(BigInt.asUintN(32, seq + shiftOf(epoch)))

/** The number that a mark means, as the channel counts now; null when it leads to nothing: its epoch is over, and it was lost with it. */
export function numberOf(mark: number, now: Standing): bigint | null {
  const { epoch, seq, before = [] } = now
  const epochs = [{ epoch, seq: seq + maxAhead }, ...before]
  for (const each of epochs) {
    const number = seq - BigInt.asIntN(32, seq + shiftOf(each.epoch) - BigInt(mark))
    if (number <= each.seq && number >= seq - maxBehind) return number
  }
  return null
}

const shiftOf = (epoch: string): bigint => BigInt(`0x${epoch || '0'}`)
