// The members of a channel, against a model: whatever comes and goes, the list is who is there; what cannot be is an error.
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Members } from '../../../src/client/channels/presence.ts'
import { ProtocolError } from '../../../src/client/queries/live-rows.ts'
import type { PresenceMember } from '../../../src/protocol/messages.ts'

const member = (ref: string, meta: number): PresenceMember => ({
  ref,
  key: `key of ${ref}`,
  user: 'somebody',
  connection: `c${meta}`,
  meta,
  since: '2026-01-01T00:00:00.000Z',
})

const refs = ['a', 'b', 'c', 'd', 'e', 'f']
const someone = fc.record({ ref: fc.constantFrom(...refs), meta: fc.nat(3) })
const many = fc.uniqueArray(someone, { selector: ({ ref }) => ref, maxLength: 6 })
type Step =
  | { readonly do: 'change'; readonly people: { ref: string; meta: number }[]; readonly leave: string[] }
  | { readonly do: 'count' }
  | { readonly do: 'reconnect'; readonly people: { ref: string; meta: number }[] }
const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    { weight: 5, arbitrary: fc.record({ do: fc.constant('change' as const), people: many, leave: fc.subarray(refs) }) },
    { weight: 1, arbitrary: fc.constant({ do: 'count' as const }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('reconnect' as const), people: many }) },
  ),
  { maxLength: 40 },
)

test('the list is who is there, and what is told of changes leads from one list to the next', () => {
  fc.assert(
    fc.property(steps, given => {
      const members = new Members()
      const there = new Map<string, PresenceMember>()
      // What somebody holds who heeds nothing but what is told of changes, from the first list on.
      let followed: Map<string, PresenceMember> | null = null
      let isListed = false
      const apply = (event: Parameters<Members['apply']>[0]): void => {
        const before = members.state
        const { joined, left, updated } = members.apply(event)
        expect(members.state).not.toBe(before)
        if (followed !== null) {
          for (const { ref } of left) expect(followed.delete(ref)).toBe(true)
          for (const one of joined) expect(followed.has(one.ref)).toBe(false)
          for (const one of updated) expect(followed.has(one.ref)).toBe(true)
          for (const one of [...joined, ...updated]) followed.set(one.ref, one)
        } else expect([...joined, ...left, ...updated]).toEqual([])
        followed = members.state.isListed ? new Map(members.state.here.map(one => [one.ref, one])) : null
      }
      const here = (): void => {
        apply({ here: [...there.values()], count: there.size })
        isListed = true
      }
      here()
      for (const step of given) {
        if (step.do === 'count') {
          there.set('x', member('x', there.size))
          apply({ count: there.size + 5000 })
          isListed = false
        } else if (step.do === 'reconnect') {
          members.interrupt()
          expect(members.state.isCurrent).toBe(false)
          there.clear()
          for (const { ref, meta } of step.people) there.set(ref, member(ref, meta))
          here()
        } else if (!isListed) here()
        else {
          const left = step.leave.flatMap(ref => there.get(ref) ?? [])
          for (const { ref } of left) there.delete(ref)
          const coming = step.people.map(({ ref, meta }) => member(ref, meta))
          const updated = coming.filter(({ ref }) => there.has(ref))
          const joined = coming.filter(({ ref }) => !there.has(ref))
          for (const one of coming) there.set(one.ref, one)
          if (left.length + coming.length > 0) apply({ joined, left, updated, count: there.size })
        }
        const byRef = (list: readonly { ref: string }[]) => [...list].sort((a, b) => (a.ref < b.ref ? -1 : 1))
        expect(byRef(members.state.here)).toEqual(isListed ? byRef([...there.values()]) : [])
        expect(members.state).toMatchObject({ isListed, isCurrent: true })
      }
    }),
    { numRuns: 500 },
  )
})

test.each([
  ['a leave of somebody unknown', { left: [member('x', 1)], count: 1 }],
  ['an update of somebody unknown', { updated: [member('x', 1)], count: 1 }],
  ['a join of somebody known', { joined: [member('a', 2)], count: 2 }],
])('%s is an error, and changes nothing', (_name, event) => {
  const members = new Members()
  members.apply({ here: [member('a', 1)], count: 1 })
  const { state } = members
  expect(() => members.apply(event)).toThrow(ProtocolError)
  expect(members.state).toBe(state)
})

test.each([
  ['before the first list', (_members: Members) => {}],
  [
    'after a reconnect, before the list',
    (members: Members) => {
      members.apply({ here: [], count: 0 })
      members.interrupt()
    },
  ],
  ['while there are more than are listed', (members: Members) => members.apply({ count: 2000 })],
])('a change %s is an error', (_name, prepare) => {
  const members = new Members()
  prepare(members)
  expect(() => members.apply({ joined: [member('a', 1)], count: 1 })).toThrow(ProtocolError)
})
