import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { Backpressure } from '../../../src/server/channels/rules.ts'
import { SlowBuffer } from '../../../src/server/channels/slow-buffer.ts'
import { expectWithin } from '../../support/within.ts'

interface Item {
  readonly name: string
  readonly event: string
  readonly bytes: number
}

const item = (name: string, event = name[0]!, bytes = 10): Item => ({ name, event, bytes })

function filled(policy: Backpressure, maxBytes: number, items: readonly Item[]): SlowBuffer<Item> {
  const buffer = new SlowBuffer<Item>({ policy, maxBytes })
  for (const each of items) buffer.push(each, each)
  return buffer
}

function drained(buffer: SlowBuffer<Item>): string[] {
  const names: string[] = []
  for (let next = buffer.shift(); next !== null; next = buffer.shift()) names.push(next.name)
  return names
}

test.each<[Backpressure, string[], string[], number]>([
  ['buffer', ['a1', 'b1', 'a2'], ['a1', 'b1', 'a2'], 0],
  ['drop-oldest', ['a1', 'b1', 'a2', 'c1'], ['b1', 'a2', 'c1'], 1],
  ['latest', ['a1', 'b1', 'a2', 'a3'], ['b1', 'a3'], 2],
  ['latest', ['a1', 'b1', 'c1', 'd1'], ['b1', 'c1', 'd1'], 1],
  ['latest', ['a1', 'b1', 'c1', 'd1', 'a2'], ['c1', 'd1', 'a2'], 2],
])('[P7] %s of 30 bytes: %j becomes %j, with %d dropped', (policy, pushed, kept, dropped) => {
  const buffer = filled(
    policy,
    30,
    pushed.map(name => item(name)),
  )
  expect(buffer.takeDropped()).toBe(dropped)
  expect(buffer.takeDropped()).toBe(0)
  expect(drained(buffer)).toEqual(kept)
  expect(buffer).toMatchObject({ size: 0, bytes: 0 })
})

test('[P7] a full buffer takes no more, and loses nothing that it has', () => {
  const buffer = filled('buffer', 30, [item('a1'), item('b1')])
  expect(buffer.push(item('c1'), { bytes: 11, event: 'c' })).toBe(false)
  expect(buffer.push(item('d1'), { bytes: 10, event: 'd' })).toBe(true)
  expect(drained(buffer)).toEqual(['a1', 'b1', 'd1'])
})

test('a message that could never fit is dropped with what is older', () => {
  expect(drained(filled('drop-oldest', 30, [item('a1'), item('b1', 'b', 31), item('c1')]))).toEqual(['c1'])
  const latest = filled('latest', 30, [item('a1'), item('b1', 'b', 31)])
  expect(latest.takeDropped()).toBe(2)
  expect(latest.shift()).toBeNull()
})

/** The same, said naively. */
function expected(policy: Backpressure, maxBytes: number, pushed: readonly Item[]): readonly Item[] {
  let kept: Item[] = []
  for (const next of pushed) {
    if (policy === 'latest') kept = kept.filter(({ event }) => event !== next.event)
    const bytes = () => kept.reduce((sum, each) => sum + each.bytes, 0)
    if (policy === 'buffer' && bytes() + next.bytes > maxBytes) continue
    kept.push(next)
    while (bytes() > maxBytes) kept.shift()
  }
  return kept
}

const policy = fc.constantFrom<Backpressure[]>('buffer', 'drop-oldest', 'latest')
const items = fc.array(
  fc.record({ event: fc.constantFrom('a', 'b', 'c', 'd'), bytes: fc.integer({ min: 1, max: 40 }), name: fc.uuid() }),
  { maxLength: 80 },
)

test('[P7] whatever is pushed: order kept, bound held, dropped and kept make up what was pushed', () => {
  fc.assert(
    fc.property(policy, fc.integer({ min: 1, max: 200 }), items, (given, maxBytes, pushed) => {
      const buffer = new SlowBuffer<Item>({ policy: given, maxBytes })
      let refused = 0
      for (const each of pushed) {
        if (!buffer.push(each, each)) refused += 1
        expect(buffer.bytes).toBeLessThanOrEqual(maxBytes)
      }
      const kept = expected(given, maxBytes, pushed)
      expect(buffer.size).toBe(kept.length)
      expect(buffer.bytes).toBe(kept.reduce((sum, { bytes }) => sum + bytes, 0))
      expect(buffer.size + buffer.takeDropped() + refused).toBe(pushed.length)
      expect(drained(buffer)).toEqual(kept.map(({ name }) => name))
    }),
  )
})

test('[P7] pushed and shifted in any order, everything comes out once, in order, or is counted as dropped', () => {
  const steps = fc.array(fc.oneof(items, fc.nat({ max: 20 })), { maxLength: 20 })
  fc.assert(
    fc.property(policy, fc.integer({ min: 1, max: 200 }), steps, (given, maxBytes, plan) => {
      const buffer = new SlowBuffer<number>({ policy: given, maxBytes })
      let number = 0
      let refused = 0
      const out: number[] = []
      for (const step of plan)
        if (typeof step === 'number')
          for (let i = 0; i < step; i++) {
            const shifted = buffer.shift()
            if (shifted !== null) out.push(shifted)
          }
        else for (const each of step) if (!buffer.push(number++, each)) refused += 1
      for (let next = buffer.shift(); next !== null; next = buffer.shift()) out.push(next)
      expect(out).toEqual([...out].sort((a, b) => a - b))
      expect(new Set(out).size).toBe(out.length)
      expect(out.length + refused + buffer.takeDropped()).toBe(number)
    }),
  )
})

test('[P7] a member that never reads costs what its bound says, however much is sent', () => {
  for (const given of ['drop-oldest', 'latest'] as const) {
    const buffer = new SlowBuffer<Item>({ policy: given, maxBytes: 1000 })
    const startedAt = performance.now()
    for (let i = 0; i < 300_000; i++) buffer.push(item('x'), { bytes: 10, event: `e${i % 200}` })
    expectWithin(performance.now() - startedAt, 3000)
    expect(buffer.size).toBe(100)
    expect(buffer.takeDropped()).toBe(299_900)
  }
})
