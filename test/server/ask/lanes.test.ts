import { expect, test, vi } from 'vitest'
import { Lanes } from '../../../src/server/ask/lanes.ts'

/** A question that takes until it is told otherwise. */
function question(lanes: Lanes, kind: string, pace: number | null) {
  const { promise, resolve } = Promise.withResolvers<void>()
  let hasBegun = false
  const done = lanes.run({ kind, pace }, () => {
    hasBegun = true
    return promise
  })
  return {
    hasBegun: () => hasBegun,
    end: () => {
      resolve()
      return done
    },
  }
}

const turn = (): Promise<void> => new Promise(resolve => setImmediate(resolve))

test('[P7] half of the places are for quick questions: slow ones wait for each other', async () => {
  const lanes = new Lanes(4)
  const slow = [1, 2, 3].map(() => question(lanes, 'a', 500))
  const quick = [1, 2, 3].map(() => question(lanes, 'b', 5))
  expect([...slow, ...quick].map(one => one.hasBegun())).toEqual([true, true, false, true, true, false])
  await quick[0]!.end()
  await turn()
  expect(quick[2]!.hasBegun()).toBe(true)
  expect(slow[2]!.hasBegun()).toBe(false)
  await slow[0]!.end()
  await turn()
  expect(slow[2]!.hasBegun()).toBe(true)
})

test('[P7] a question that turns out slow leaves its place to the next', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
  try {
    const lanes = new Lanes(4)
    const first = [1, 2, 3].map(() => question(lanes, 'a', 5))
    expect(first.map(one => one.hasBegun())).toEqual([true, true, false])
    vi.advanceTimersByTime(101)
    await turn()
    expect(first.map(one => one.hasBegun())).toEqual([true, true, true])
  } finally {
    vi.useRealTimers()
  }
})

test('[P7] of a kind that has been slow lately one is asked for at a time, and newcomers are taken for slow ones', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
  try {
    const lanes = new Lanes(4)
    const first = question(lanes, 'a', 5)
    vi.advanceTimersByTime(101)
    const more = [question(lanes, 'a', 5), question(lanes, 'a', 5)]
    const other = question(lanes, 'b', 5)
    const newcomers = [question(lanes, 'a', null), question(lanes, 'a', null)]
    await turn()
    expect(more.map(one => one.hasBegun())).toEqual([true, false])
    expect(other.hasBegun()).toBe(true)
    // Beside the first, which took one of the slow places.
    expect(newcomers.map(one => one.hasBegun())).toEqual([true, false])
    await more[0]!.end()
    await turn()
    expect(more[1]!.hasBegun()).toBe(true)
    await first.end()
    await turn()
    expect(newcomers[1]!.hasBegun()).toBe(true)
  } finally {
    vi.useRealTimers()
  }
})
