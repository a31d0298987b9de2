import { expect, test } from 'vitest'
import { type FaultKind, faultKinds, faultOf, nameOfFault } from './faults.ts'
import { RedisLosses } from './redis-losses.ts'

const draw = (seed: number, kinds: readonly FaultKind[] = faultKinds) =>
  Array.from({ length: 600 }, (_, number) => faultOf(seed, number, { kinds, everyMs: 1000 }))

test('a seed repeats its faults, another draws others, and every kind comes', () => {
  expect(draw(7)).toEqual(draw(7))
  expect(draw(8)).not.toEqual(draw(7))
  expect(new Set(draw(7).map(({ fault }) => fault.what))).toEqual(new Set(faultKinds))
  const names = new Set(draw(7).map(({ fault }) => nameOfFault(fault)))
  for (const to of ['clients', 'postgres', 'redis']) {
    expect(names).toContain(`connections cut: ${to}`)
    expect(names).toContain(`connections half open: ${to}`)
    for (const ways of ['up', 'down', 'up and down']) expect(names).toContain(`connections black-holed: ${to} ${ways}`)
  }
  const mean = draw(7).reduce((sum, { afterMs }) => sum + afterMs, 0) / 600
  expect(mean).toBeGreaterThan(800)
  expect(mean).toBeLessThan(1200)
})

test('without Redis nothing befalls it', () => {
  const kinds = faultKinds.filter(kind => !kind.startsWith('redis'))
  expect(draw(7, kinds).map(({ fault }) => nameOfFault(fault))).not.toContainEqual(expect.stringContaining('redis'))
})

test('[P4] a Redis that forgot excuses only who was further behind than the slot, at a node that had not read so far', () => {
  const losses = new RedisLosses()
  losses.add({ name: 'emptied', at: 100, acknowledged: 50n, heldFrom: 60n, told: new Map([['ada#1', 70n]]) })
  const resync = {
    ...{ code: 'WINDOW_PASSED', node: 'ben#2', from: 40n, at: 200, seenAt: 90, epoch: 0, epochChanges: 0 },
    isHalfTold: false,
  }
  expect(losses.excuse(resync)).toContain('emptied')
  expect(losses.excuse({ ...resync, from: 50n })).toBe(null)
  expect(losses.excuse({ ...resync, node: 'ada#1' })).toBe(null)
  expect(losses.excuse({ ...resync, at: 99 })).toBe(null)
  expect(losses.excuse({ ...resync, code: 'INPUTS_CHANGED' })).toBe(null)
  // Acknowledged before it had been held back long enough: no excuse for what is younger.
  losses.add({ name: 'emptied early', at: 300, acknowledged: 90n, heldFrom: 60n, told: new Map() })
  expect(losses.excuse({ ...resync, from: 70n, at: 400 })).toBe(null)
})
