// The checker can fail: mistakes planted in the node, of the kinds it is there for, do not pass it.
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest'
import { LocalPostgres } from '../../src/cli/local-postgres.ts'
import { MemoryRelay } from '../../src/server/relay/memory-relay.ts'
import { Holds } from '../../src/server/subscribe/holds.ts'
import { check } from './checker.ts'
import { startHere } from './nodes.ts'

let server: LocalPostgres

beforeAll(async () => {
  server = await LocalPostgres.create({ settings: { max_prepared_transactions: '20', fsync: 'off' } })
  await server.start()
})

afterAll(() => server?.stop())

afterEach(() => {
  vi.restoreAllMocks()
})

test.each([
  [
    'snapshots are not spliced',
    () => {
      vi.spyOn(MemoryRelay.prototype, 'unseen').mockReturnValue([])
    },
  ],
  [
    'a commit is skipped when somebody comes back',
    () => {
      const { between } = MemoryRelay.prototype
      vi.spyOn(MemoryRelay.prototype, 'between').mockImplementation(function (this: MemoryRelay, from, to) {
        return between.call(this, from, to).slice(1)
      })
    },
  ],
  [
    'rows that a grant or revocation moves are not looked for',
    () => {
      vi.spyOn(Holds.prototype, 'flipped').mockImplementation(() => {})
    },
  ],
])('it is noticed when %s', { timeout: 90_000 }, async (_, plant) => {
  plant()
  const { failure } = await check({
    seed: 1,
    minutes: 0.5,
    roundMs: 2000,
    readers: 30,
    writers: 8,
    server,
    serverUrl: server.url,
    truncateOneIn: 30,
    largeRows: 300,
    windowMs: 300_000,
    spooledChanges: Number.POSITIVE_INFINITY,
    startNode: startHere,
    crashOneIn: 0,
    say: () => {},
  })
  expect(failure).not.toBe(null)
  console.log(failure!.split('\n')[0])
})
