import { expect, test } from 'vitest'
import { Surplus } from '../../../src/server/deliver/surplus.ts'
import type { MoveOrder } from '../../../src/server/nodes/node-state.ts'
import { Random } from '../../checker/random.ts'

const randomOf = (seed: number): (() => number) => {
  const random = new Random(seed)
  return () => random.next()
}
const order: MoveOrder = { rebalancing: 'r', keep: 20, overMs: 30_000, nodes: 3, ageMs: 0 }

/** A node with so many connections, of which a part of those sent away comes back a step later. */
function play(count: number, comesBack: () => boolean, change: Partial<MoveOrder> = {}) {
  const here = new Set(Array.from({ length: count }, (_, id) => id))
  const returned = new Set<number>()
  const sent: { id: number; at: number }[] = []
  let now = 1000
  let underWay: number[] = []
  const asked = { ...order, ...change }
  const surplus = new Surplus({
    order: asked,
    candidates: [...here],
    staying: () => here.size + returned.size,
    sendAway: id => {
      if (!here.delete(id)) return false
      sent.push({ id, at: now - 1000 })
      if (comesBack()) underWay.push(id)
      return true
    },
    random: randomOf(7),
    now,
  })
  const staysAt: number[] = []
  while (!surplus.moving.isOver) {
    now += 250
    for (const id of underWay) returned.add(id)
    underWay = []
    surplus.step(now)
    staysAt.push(here.size + returned.size)
  }
  for (const id of underWay) returned.add(id)
  return { surplus, sent, stays: here.size + returned.size, endedAt: now - 1000, here }
}

test('as many go as are past the share, each once, evenly over the time', () => {
  const { sent, stays, endedAt, surplus } = play(60, () => false)
  expect(stays).toBe(20)
  expect(surplus.moving).toEqual({ rebalancing: 'r', moved: 40, isOver: true })
  expect(new Set(sent.map(({ id }) => id)).size).toBe(40)
  expect(endedAt).toBeLessThanOrEqual(30_250)
  // Never many in one step: all at once would be a crowd at the other nodes.
  const perStep = Map.groupBy(sent, ({ at }) => at)
  expect(Math.max(...[...perStep.values()].map(step => step.length))).toBeLessThanOrEqual(2)
})

test.each([
  [2, 1 / 2],
  [3, 1 / 3],
  [10, 1 / 10],
])('of %i nodes behind dice, those that come straight back are counted in', (nodes, part) => {
  const random = randomOf(nodes)
  const total = 600
  const keep = total / nodes
  const { sent, stays } = play(total, () => random() < part, { keep, nodes })
  expect(new Set(sent.map(({ id }) => id)).size).toBe(sent.length)
  // None of them in a crowd at the end, when the rest turns out to be more than it seemed.
  const late = sent.filter(({ at }) => at > 0.8 * order.overMs).length
  expect(late / sent.length).toBeLessThan(0.3)
  // Binomial, at three deviations.
  expect(Math.abs(stays - keep)).toBeLessThan(3 * Math.sqrt(total * part * (1 - part)))
})

test('they are picked at random', () => {
  const { here } = play(60, () => false)
  const left = [...here]
  expect(left.filter(id => id < 30).length).toBeGreaterThan(3)
  expect(left.filter(id => id >= 30).length).toBeGreaterThan(3)
})

test('a node at its share sends nobody away, and one that nobody leaves comes to an end', () => {
  expect(play(20, () => false).sent).toEqual([])
  const { sent, endedAt } = play(60, () => true)
  expect(sent).toHaveLength(60)
  expect(endedAt).toBeLessThanOrEqual(30_250)
  expect(play(60, () => false, { overMs: 0 }).stays).toBe(20)
})
