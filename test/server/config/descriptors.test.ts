import fc from 'fast-check'
import { expect, test } from 'vitest'
import { roomWithin, takeRoom } from '../../../src/server/config/descriptors.ts'

const databasePool = 4

test.each([
  [10_000, 20_000, 10_000],
  [10_000, 11_100, 10_000],
  [10_000, 11_099, 9_999],
  [10_000, 1024, 759],
  [10_000, 300, 180],
  [100, 300, 100],
  [10_000, 93, 1],
  [10_000, 92, 0],
  [65, 158, 65],
  [65, 157, 64],
  [10_000, 10, 0],
  [10_000, null, 10_000],
  [10_000, undefined, 10_000],
])('of %s connections in %s files it holds %s', (maxConnections, openFiles, held) => {
  expect(roomWithin({ maxConnections, databasePool }, openFiles).maxConnections).toBe(held)
})

test('[P7] connections, sockets not heard yet and what the node needs itself never take more than there is', () => {
  const sizes = fc.record({
    maxConnections: fc.integer({ min: 1, max: 1_000_000 }),
    databasePool: fc.integer({ min: 4, max: 100 }),
  })
  fc.assert(
    fc.property(sizes, fc.integer({ min: 0, max: 1_200_000 }), (given, openFiles) => {
      const room = roomWithin(given, openFiles)
      expect(room.maxConnections).toBeLessThanOrEqual(given.maxConnections)
      expect(room.maxUnheard).toBeGreaterThanOrEqual(16)
      if (room.maxConnections > 0)
        expect(room.maxConnections + room.maxUnheard + 76 + 2 * (given.databasePool - 4)).toBeLessThanOrEqual(openFiles)
      // What is said to be needed is enough, and one less is not.
      expect(roomWithin(given, room.neededFiles).maxConnections).toBe(given.maxConnections)
      expect(roomWithin(given, room.neededFiles - 1).maxConnections).toBeLessThan(given.maxConnections)
    }),
    { numRuns: 2000 },
  )
})

test('[P8] a node with too few files says so once by its code, with the numbers, and starts with no room for nobody', () => {
  const said: unknown[] = []
  const warn = (facts: object, message: string) => said.push(facts, message)
  expect(takeRoom({ maxConnections: 10, databasePool }, 1024, warn).maxConnections).toBe(10)
  expect(said).toEqual([])
  expect(takeRoom({ maxConnections: 10_000, databasePool }, 300, warn).maxConnections).toBe(180)
  expect(said).toEqual([
    { code: 'DESCRIPTORS_SHORT', openFiles: 300, neededFiles: 11_100, maxConnections: 180 },
    expect.stringContaining('it holds 180 connections'),
  ])
  expect(() => takeRoom({ maxConnections: 10_000, databasePool }, 64, warn)).toThrow(
    expect.objectContaining({ code: 'DESCRIPTORS_SHORT' }),
  )
})
