import fc from 'fast-check'
import { expect, test } from 'vitest'
import { askedPlaces, fewestConnections, type LaneName, limitsOf } from '../../../src/server/postgres/connections.ts'
import { Places } from '../../../src/server/postgres/places.ts'
import { eventually } from '../../support/eventually.ts'

const forever = { queueLimit: 1000 }
const ranks = { first: 0, left: 1, right: 1 } as const
type Name = keyof typeof ranks

/** Takes places and keeps them. */
async function taken<N extends string>(places: Places<N>, ...names: N[]): Promise<number> {
  let count = 0
  for (const name of names) void places.take(name, forever).then(() => (count += 1))
  await new Promise(resolve => setImmediate(resolve))
  return count
}

test('[P7] no more have a place than any limit says, and nobody waits while there is room', async () => {
  const step = fc.oneof(
    fc.record({ take: fc.constantFrom<Name>('first', 'left', 'right') }),
    fc.record({ free: fc.nat() }),
  )
  const limits = [
    { of: ['first', 'left', 'right'] as const, most: 3 },
    { of: ['left', 'right'] as const, most: 2 },
    { of: ['left'] as const, most: 1 },
  ]
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 60 }), async steps => {
      const places = new Places<Name>(limits, ranks)
      const held: Name[] = []
      const waiting: Name[] = []
      for (const each of steps) {
        if ('take' in each) {
          waiting.push(each.take)
          void places.take(each.take, forever).then(() => {
            waiting.splice(waiting.indexOf(each.take), 1)
            held.push(each.take)
          })
        } else if (held.length > 0) places.free(held.splice(each.free % held.length, 1)[0]!)
        await new Promise(resolve => setImmediate(resolve))
        const isFull = ({ of, most }: (typeof limits)[number]): boolean =>
          held.filter(name => of.some(one => one === name)).length >= most
        for (const limit of limits)
          expect(held.filter(name => limit.of.some(one => one === name)).length).toBeLessThanOrEqual(limit.most)
        for (const name of waiting)
          expect(limits.some(limit => limit.of.some(one => one === name) && isFull(limit))).toBe(true)
      }
    }),
  )
})

test('[P7] the lower rank goes first, those of the same rank take turns, and each keeps the order in which it asked', async () => {
  const places = new Places<Name>([{ of: ['first', 'left', 'right'], most: 1 }], ranks)
  const served: string[] = []
  await places.take('left', forever)
  const asked: [Name, string][] = [
    ['left', 'left 1'],
    ['left', 'left 2'],
    ['right', 'right 1'],
    ['right', 'right 2'],
    ['first', 'first 1'],
  ]
  for (const [name, text] of asked)
    void places.take(name, forever).then(() => {
      served.push(text)
      places.free(name)
    })
  places.free('left')
  await eventually(() => expect(served).toHaveLength(5))
  expect(served).toEqual(['first 1', 'right 1', 'left 1', 'right 2', 'left 2'])
})

test('[P7] [P8] who waits for too long is told, past the bound nobody waits, and at the end all are refused', async () => {
  const places = new Places<Name>([{ of: ['first', 'left', 'right'], most: 1 }], ranks)
  await places.take('left', forever)
  const late = places.take('left', { waitMs: 20, queueLimit: 2 })
  const waits = places.take('left', { queueLimit: 2 })
  await expect(places.take('left', { queueLimit: 2 })).rejects.toMatchObject({ code: 'BUSY' })
  await expect(late).rejects.toThrow(/^timeout exceeded/)
  places.free('left')
  await waits
  const last = places.take('right', forever)
  places.close(new Error('over'))
  await expect(last).rejects.toThrow('over')
  await expect(places.take('first', forever)).rejects.toThrow('over')
})

const names: readonly LaneName[] = ['upkeep', 'look', 'slot', 'catalog', 'reads', 'snapshots', 'asked', 'explain']
const work: readonly LaneName[] = ['reads', 'snapshots', 'asked', 'explain']
const rankOf = Object.fromEntries(names.map(name => [name, 0])) as Record<LaneName, number>
const sizes = [fewestConnections, 5, 6, 10, 40]
const many = (lanes: readonly LaneName[]): LaneName[] => lanes.flatMap(name => new Array<LaneName>(100).fill(name))
const placesFor = (connections: number): Places<LaneName> =>
  new Places(limitsOf({ connections, snapshots: 8, asked: 4 }), rankOf)

test.each(sizes)('[P7] of %i connections, upkeep and the look find one whatever else is taken', async connections => {
  for (const lane of ['upkeep', 'look'] as const) {
    const places = placesFor(connections)
    expect(await taken(places, ...many(['slot', 'catalog', ...work]))).toBeLessThan(connections)
    expect(await taken(places, lane)).toBe(1)
  }
})

test.each(sizes)(
  '[P7] of %i connections, the catalog and a new slot find one whatever waits for the stream',
  async connections => {
    for (const lane of ['catalog', 'slot'] as const) {
      const places = placesFor(connections)
      await taken(places, ...many(work))
      expect(await taken(places, lane)).toBe(1)
    }
  },
)

test.each(sizes)('[P7] of %i connections, no kind of work takes all that work may have', async connections => {
  for (const lane of ['catalog', 'snapshots', 'explain'] as const) {
    const places = placesFor(connections)
    await taken(places, ...many([lane]))
    for (const other of ['reads', 'asked'] as const) {
      const copy = placesFor(connections)
      await taken(copy, ...many([lane]))
      expect([lane, other, await taken(copy, other)]).toEqual([lane, other, 1])
    }
  }
})

test('[P7] two questions may be asked at least, and as many as ASKED_CONCURRENCY where there is room', () => {
  const at = (connections: number, asked: number): number => askedPlaces({ connections, asked })
  expect([at(4, 4), at(5, 4), at(6, 4), at(10, 4), at(10, 20), at(4, 2)]).toEqual([2, 2, 3, 4, 7, 2])
})
