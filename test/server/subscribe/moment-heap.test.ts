import fc from 'fast-check'
import { expect, test } from 'vitest'
import { MomentHeap } from '../../../src/server/subscribe/moment-heap.ts'

const moments = fc.bigInt({ min: 0n, max: 30n })
const add = fc.record({ step: fc.constant('add' as const), at: moments })
const steps = fc.array(
  fc.oneof(
    add,
    add,
    add,
    add,
    fc.record({ step: fc.constant('take' as const), at: moments }),
    fc.record({ step: fc.constant('keep' as const), at: moments }),
  ),
  { maxLength: 60 },
)

test('moments come out in order, each once, those up to the one asked for and no later one', () => {
  fc.assert(
    fc.property(steps, list => {
      const heap = new MomentHeap<number>()
      let held: { at: bigint; item: number }[] = []
      list.forEach(({ step, at }, item) => {
        if (step === 'add') {
          heap.add(at, item)
          held.push({ at, item })
        } else if (step === 'keep') {
          const isWanted = (each: number): boolean => each % 3 !== Number(at) % 3
          heap.keep(isWanted)
          held = held.filter(moment => isWanted(moment.item))
        } else {
          const taken = heap.takeUntil(at)
          expect(taken.map(({ atMicros }) => atMicros)).toEqual(
            taken.map(({ atMicros }) => atMicros).toSorted((a, b) => Number(a - b)),
          )
          const asText = (list: { at: bigint; item: number }[]): string[] =>
            list.map(moment => `${moment.at} ${moment.item}`).sort()
          expect(asText(taken.map(({ atMicros, item: each }) => ({ at: atMicros, item: each })))).toEqual(
            asText(held.filter(moment => moment.at <= at)),
          )
          held = held.filter(moment => moment.at > at)
        }
        expect(heap.size).toBe(held.length)
        expect(heap.next).toBe(
          held.reduce<bigint | null>((a, moment) => (a === null || moment.at < a ? moment.at : a), null),
        )
      })
    }),
    { numRuns: 1000 },
  )
})
