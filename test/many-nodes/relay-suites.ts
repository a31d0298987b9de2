// The suites of one node, kept with a journal in a Redis of some kind. Those that say most of the journal, in the time that every
// run of the tests has; all of them: `npm run test:relay -- <kind>`.
import { describe, expect, test } from 'vitest'
import { keysOfRelays, type RelayKind } from '../support/relay.ts'

/** @param what `all`; or `commands`: what writes the journal, and what reads it anew. What differs between kinds of Redis is how
 *  a command gets to its server and what its failover does (relay-failover.e2e.test.ts); what is done with the answer does not */
export function testOverRelay(kind: RelayKind, what: 'all' | 'commands'): void {
  process.env.TEST_RELAY = kind
  describe('promises', async () => {
    await import('../server/promises.pg.test.ts')
  })
  describe('changes', async () => {
    await import('../server/promises-changes.pg.test.ts')
  })
  if (what === 'all') {
    describe('stalled commits', async () => {
      await import('../server/splice.pg.test.ts')
    })
    describe('random histories', async () => {
      await import('../server/histories.pg.test.ts')
    })
  }
  test('what they were told went through journals', async () => {
    const keys = await keysOfRelays()
    expect(keys.length).toBeGreaterThanOrEqual(what === 'all' ? 4 : 2)
    for (const each of keys) expect(each).toContainEqual(expect.stringMatching(/^\{tidegate\}:log:[0-9a-f]{8}$/))
  })
}
