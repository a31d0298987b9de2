// The suites of one node, kept with a journal in a Redis of some kind. Those that say most of the journal, in the time that every
// run of the tests has; all of them: `npm run test:relay -- <kind>`.
import { describe, expect, test } from 'vitest'
import { keysOfRelays, type RelayKind } from '../support/relay.ts'

export function testOverRelay(kind: RelayKind): void {
  process.env.TEST_RELAY = kind
  describe('promises', async () => {
    await import('../server/promises.pg.test.ts')
  })
  describe('changes', async () => {
    await import('../server/promises-changes.pg.test.ts')
  })
  describe('stalled commits', async () => {
    await import('../server/splice.pg.test.ts')
  })
  describe('random histories', async () => {
    await import('../server/histories.pg.test.ts')
  })
  test('what they were told went through journals', async () => {
    const keys = await keysOfRelays()
    expect(keys.length).toBeGreaterThanOrEqual(4)
    for (const each of keys) expect(each).toContainEqual(expect.stringMatching(/^\{tidegate\}:log:[0-9a-f]{8}$/))
  })
}
