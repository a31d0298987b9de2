// The membership index against a plain recount: whatever the history, before and after each commit.
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { SemiJoin } from '../../../src/predicate/algebra.ts'
import { sqlTypes } from '../../../src/predicate/sql-types.ts'
import { IndexSize } from '../../../src/server/authorize/inner-set.ts'
import { KeyHolders, MembershipSet } from '../../../src/server/authorize/membership.ts'
import { flipsOf, MembershipWriter, undo } from '../../../src/server/authorize/membership-history.ts'
import { MembershipView } from '../../../src/server/authorize/membership-view.ts'
import type { Table } from '../../../src/server/catalog/table.ts'
import type { Change, Relation } from '../../../src/server/decode/change.ts'
import { RowTuple } from '../../../src/server/decode/tuple.ts'

const { int4, text } = sqlTypes
const columns = [
  { name: 'room_id', type: int4, notNull: false },
  { name: 'user_id', type: text, notNull: false },
]
const table: Table = {
  oid: 1,
  schema: 'public',
  name: 'members',
  columns,
  primaryKey: [0, 1],
  identity: new Set([0, 1]),
  replicaIdentity: 'full',
  partitioned: false,
  rowSecurity: false,
  forceRowSecurity: false,
  published: true,
  readThrough: 'table',
}
const relation: Relation = {
  oid: 1,
  schema: 'public',
  name: 'members',
  replicaIdentity: 'full',
  columns: columns.map(({ name, type }) => ({ name, typeOid: type.oid, typeModifier: -1, identity: true })),
}

/** Members where user_id is ada, by room. */
const join: SemiJoin = {
  kind: 'semiJoin',
  table: { oid: 1, schema: 'public', name: 'members' },
  keys: [
    {
      inner: { kind: 'column', column: 0, name: 'room_id', type: int4 },
      outer: { kind: 'column', column: 3, name: 'room_id', type: int4 },
    },
  ],
  where: {
    kind: 'compare',
    op: '=',
    left: { kind: 'column', column: 1, name: 'user_id', type: text },
    right: { kind: 'const', value: 'ada', type: text },
  },
  nullAware: false,
}

type Member = readonly [room: string | null, user: string]
const tuple = (member: Member): RowTuple => new RowTuple(relation, [...member])

const members = fc.tuple(fc.constantFrom('1', '2', '3', null), fc.constantFrom('ada', 'ada', 'ben'))
const steps = fc.array(
  fc.record({ kind: fc.constantFrom('insert', 'update', 'delete', 'truncate'), at: fc.nat(9), member: members }),
  { maxLength: 12 },
)
const histories = fc.array(steps, { maxLength: 8 })

/** Turns wishes into changes that a table in this state can have. */
function changesOf(state: Member[], wishes: readonly { kind: string; at: number; member: Member }[]): Change[] {
  const changes: Change[] = []
  for (const { kind, at, member } of wishes) {
    const index = changes.length
    const i = state.length === 0 ? -1 : at % state.length
    if (kind === 'insert' || (i < 0 && kind !== 'truncate')) {
      state.push(member)
      changes.push({ kind: 'insert', index, relation, new: tuple(member) })
    } else if (kind === 'update') {
      changes.push({ kind: 'update', index, relation, old: tuple(state[i]!), new: tuple(member) })
      state[i] = member
    } else if (kind === 'delete') {
      changes.push({ kind: 'delete', index, relation, old: tuple(state.splice(i, 1)[0]!) })
    } else if (at === 0) {
      state.length = 0
      changes.push({ kind: 'truncate', index, relation })
    }
  }
  return changes
}

const recount = (state: readonly Member[], room: string): number =>
  state.filter(([key, user]) => key === room && user === 'ada').length

const clock = { nowMicros: 0n }
const rooms = ['1', '2', '3']
const newSet = (maxRows = 1000): MembershipSet =>
  new MembershipSet(join, table, new KeyHolders('members(room_id)'), { maxRows, index: new IndexSize(1000) })

test('[P1] after each commit the set holds what a recount finds, and before it what stood there', () => {
  fc.assert(
    fc.property(histories, commits => {
      const set = newSet()
      const now = new MembershipView(new Map([[join, set]]), clock)
      const state: Member[] = []
      for (const wishes of commits) {
        const was = [...state]
        const writer = new MembershipWriter(0n)
        for (const change of changesOf(state, wishes)) writer.apply(set, change)
        const before = new MembershipView(new Map([[join, set]]), clock, writer.before)
        for (const room of rooms) {
          expect(now.count(join, room)).toBe(recount(state, room))
          expect(before.count(join, room)).toBe(recount(was, room))
          // Until the commit is settled a key is found by those who held it before it, too.
          if (recount(was, room) + recount(state, room) > 0) expect(set.holders.of(room)?.has(set)).toBe(true)
        }
        const flips = writer.before.sets.size === 0 ? [] : flipsOf(set, writer.before.get(set)!)
        const expected = rooms.filter(room => recount(was, room) > 0 !== recount(state, room) > 0)
        expect(flips.map(({ name }) => name).sort()).toEqual(expected)
        writer.settle()
        expect([...set.entries()].map(([key]) => key).sort()).toEqual(rooms.filter(room => recount(state, room) > 0))
        for (const room of rooms) expect(set.holders.of(room)?.has(set) ?? false).toBe(recount(state, room) > 0)
      }
    }),
  )
})

test('[P4] undone from their old rows, the commits give every earlier state back; a truncation says that it cannot', () => {
  fc.assert(
    fc.property(histories, commits => {
      const set = newSet()
      const state: Member[] = []
      const states: Member[][] = []
      const lists: Change[][] = []
      for (const wishes of commits) {
        states.push([...state])
        const changes = changesOf(state, wishes)
        lists.push(changes)
        const writer = new MembershipWriter(0n)
        for (const change of changes) writer.apply(set, change)
        writer.settle()
      }
      for (let from = 0; from < lists.length; from++) {
        const span = lists.slice(from).flat()
        const before = undo([set], () => span, 0n)
        if (span.some(change => change.kind === 'truncate')) {
          expect(before).toBe(null)
          continue
        }
        const view = new MembershipView(new Map([[join, set]]), clock, before)
        for (const room of rooms) expect(view.count(join, room)).toBe(recount(states[from]!, room))
      }
    }),
  )
})

test('[P7] a set past its bound counts no further and is not taken for exact', () => {
  const set = newSet(2)
  for (const room of rooms) set.count(set.entryOf(tuple([room, 'ada'])), 1)
  expect(set.total).toBe(2)
  expect(set.failure).toMatchObject({ code: 'MEMBERSHIP_TOO_LARGE' })
})
