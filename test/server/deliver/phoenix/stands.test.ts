import fc from 'fast-check'
import { expect, test } from 'vitest'
import { MemoryStands } from '../../../../src/server/deliver/phoenix/memory-stands.ts'
import {
  added,
  choose,
  type Kept,
  keepable,
  ownerOf,
  standLimits,
  taken,
} from '../../../../src/server/deliver/phoenix/stands.ts'
import type { Binding, JoinConfig } from '../../../../src/server/deliver/phoenix/wire.ts'
import type { Principal } from '../../../../src/server/subscribe/subscription.ts'
import { at, stand, standRules } from './stand-rules.ts'

standRules('in memory', async limits => {
  const stands = new MemoryStands(() => performance.now(), limits)
  return { keeping: stands, taking: stands, settled: async () => {} }
})

test('a stand is kept for five minutes', async () => {
  let now = 0
  const stands = new MemoryStands(() => now)
  stands.keep(stand(7, 0x30))
  now = 299_999
  stands.keep(stand(9, 0x40, { owner: 'bob' }))
  expect(await stands.take('alice', '8')).toEqual({ channel: at(0x30) })
  stands.keep(stand(7, 0x30))
  now += 300_000
  expect(await stands.take('alice', '8')).toBeNull()
})

test('[P7] an owner whose stands are over is forgotten with the next that is kept', () => {
  let now = 0
  const stands = new MemoryStands(() => now)
  for (let number = 0; number < 100; number += 1) stands.keep(stand(7, 0x30, { owner: `owner ${number}` }))
  expect(stands.size).toBe(100)
  now = 300_000
  stands.keep(stand(7, 0x30))
  expect(stands.size).toBe(1)
})

/** Tabs of one owner: what each was heard with last, when, how far it had got, and how much it sent unheard before it came back. */
const tab = fc.record({
  lastRef: fc.integer({ min: 1, max: 60 }),
  brokeAt: fc.constantFrom(0, 500, 1000, 60_000, 61_000, 200_000),
  lsn: fc.integer({ min: 1, max: 1000 }),
})

const lsnOf = (positions: Readonly<Record<string, string>> | null): number | null =>
  positions === null ? null : Number.parseInt(positions.channel!.split('-')[1]!, 16)

test('[P4] tabs that are cut off together miss nothing, however much each had sent unheard, in whatever order they come back', () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(tab, fc.integer({ min: 1, max: 100 }), fc.nat()), { minLength: 1, maxLength: 40 }),
      all => {
        let kept: readonly Kept[] = []
        for (const [{ lastRef, lsn }] of all) kept = added(kept, stand(lastRef, lsn), 0, standLimits)
        const lowest = Math.min(...all.map(([{ lsn }]) => lsn))
        for (const [{ lastRef, lsn }, unheard] of all.toSorted((a, b) => a[2] - b[2])) {
          const result = taken(kept, String(lastRef + unheard), 0, standLimits)
          kept = result.kept
          const found = lsnOf(result.positions)
          expect(found).not.toBeNull()
          expect(found).toBeLessThanOrEqual(lsn)
          expect(found).toBeGreaterThanOrEqual(lowest)
        }
      },
    ),
    { numRuns: 2000 },
  )
})

test('[P4] tabs that sent nothing unheard are each given theirs, or one that was cut off together with it and had got no further', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(tab, fc.nat()), { minLength: 1, maxLength: 12 }), all => {
      const tabs = all.map(([one, turn], place) => ({ ...one, turn, lastRef: 10 + 5 * place }))
      let kept: readonly Kept[] = []
      for (const { lastRef, brokeAt, lsn } of tabs.toSorted((a, b) => a.brokeAt - b.brokeAt))
        kept = added(kept, stand(lastRef, lsn), brokeAt, standLimits)
      for (const { lastRef, brokeAt, lsn } of tabs.toSorted((a, b) => a.turn - b.turn)) {
        const result = taken(kept, String(lastRef + 1), 200_000, standLimits)
        kept = result.kept
        const found = lsnOf(result.positions)
        expect(found).toBeLessThanOrEqual(lsn)
        // Through a third, those next to each other by twice the time may have come to one position.
        const near = tabs.filter(other => Math.abs(other.brokeAt - brokeAt) <= 2 * standLimits.togetherMs)
        expect(near.map(other => other.lsn)).toContain(found)
      }
      expect(kept).toEqual([])
    }),
    { numRuns: 2000 },
  )
})

test('what is chosen is among those below the ref, and of those the greatest', () => {
  const candidate = fc.record({ lastRef: fc.nat(50), heardMs: fc.nat(20_000) })
  fc.assert(
    fc.property(fc.array(candidate), fc.nat(60), (candidates, ref) => {
      const choice = choose(candidates, String(ref))
      const below = candidates.filter(({ lastRef }) => lastRef < ref)
      expect(choice === null).toBe(below.length === 0)
      if (choice === null) return
      expect(choice.own.lastRef).toBe(Math.max(...below.map(({ lastRef }) => lastRef)))
      expect(choice.alike).toContain(choice.own)
      for (const other of choice.alike) expect(below).toContain(other)
      for (const other of below)
        expect(choice.alike.includes(other)).toBe(
          other.lastRef === choice.own.lastRef || Math.abs(other.heardMs - choice.own.heardMs) <= 3000,
        )
    }),
  )
})

const principal = (claims: Record<string, unknown>, role = 'authenticated'): Principal => ({
  role,
  claims,
  expiresAt: null,
})
const binding: Binding = {
  id: 5,
  echo: '{}',
  event: '*',
  schema: 'public',
  table: 'messages',
  filter: null,
  select: null,
}
const config: JoinConfig = {
  isPrivate: false,
  self: false,
  ack: false,
  replay: null,
  replicationReady: false,
  presenceKey: '',
  presence: false,
  bindings: [binding],
  accessToken: null,
  isLegacy: false,
} as JoinConfig
const alice = { sub: 'alice', session_id: 's', app_metadata: { a: 1, b: [{ c: 1, d: 2 }] }, exp: 1, iat: 1 }

test.each<[string, Principal, string, Partial<JoinConfig>]>([
  ['another token', principal({ ...alice, exp: 2, iat: 2, nbf: 3, jti: 'x' }), 'realtime:a', { accessToken: 'x' }],
  [
    'claims in another order',
    principal({ iat: 1, app_metadata: { b: [{ d: 2, c: 1 }], a: 1 }, session_id: 's', sub: 'alice' }),
    'realtime:a',
    {},
  ],
  ['what it wants replayed', principal(alice), 'realtime:a', { replay: { sinceMs: 1, limit: 2 } }],
])('%s makes nobody another owner', (_, who, topic, change) => {
  expect(ownerOf(who, topic, { ...config, ...change })).toBe(ownerOf(principal(alice), 'realtime:a', config))
})

test('whoever is told anything else is another owner', () => {
  const owners = [
    ownerOf(principal(alice), 'realtime:a', config),
    ownerOf(principal(alice, 'anon'), 'realtime:a', config),
    ownerOf(principal({ ...alice, sub: 'bob' }), 'realtime:a', config),
    ownerOf(principal({ ...alice, session_id: 't' }), 'realtime:a', config),
    ownerOf(principal({ ...alice, app_metadata: { a: 1, b: [{ c: 1, d: 3 }] } }), 'realtime:a', config),
    ownerOf(principal(alice), 'realtime:b', config),
    ...[
      { isPrivate: true },
      { self: true },
      { ack: true },
      { presenceKey: 'k' },
      { presence: true },
      { isLegacy: true },
      { bindings: [] },
      { bindings: [binding, binding] },
      { bindings: [{ ...binding, event: 'INSERT' as const }] },
      { bindings: [{ ...binding, schema: '*' }] },
      { bindings: [{ ...binding, table: '*' }] },
      { bindings: [{ ...binding, filter: 'id=eq.1' }] },
      { bindings: [{ ...binding, select: ['id'] }] },
      { bindings: [{ ...binding, select: [] }] },
    ].map(change => ownerOf(principal(alice), 'realtime:a', { ...config, ...change })),
  ]
  expect(new Set(owners).size).toBe(owners.length)
  for (const owner of owners) expect(owner).toMatch(/^[\w-]{43}$/)
})

test('the bound on a stand is of bytes', () => {
  const { positions } = stand(7, 0x30)
  const size = JSON.stringify(positions).length
  expect(keepable(stand(7, 0x30), { ...standLimits, maxBytes: size })).toBe(JSON.stringify(positions))
  expect(keepable(stand(7, 0x30), { ...standLimits, maxBytes: size - 1 })).toBeNull()
  const wide = stand(7, 0, { positions: { ü: at(0x30) } })
  expect(keepable(wide, { ...standLimits, maxBytes: JSON.stringify(wide.positions).length })).toBeNull()
})
