// A hop against a plain recount: whatever partitions are held and overlap, whatever the history, as it is and as it was.
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { Predicate, SemiJoin } from '../../../src/predicate/algebra.ts'
import { sqlTypes } from '../../../src/predicate/sql-types.ts'
import { Hop, type Partition } from '../../../src/server/authorize/hop.ts'
import { IndexSize, type InnerSet } from '../../../src/server/authorize/inner-set.ts'
import {
  flipsOf,
  type MembershipsBefore,
  MembershipWriter,
  netChange,
  rollForward,
  type SetBefore,
  undo,
} from '../../../src/server/authorize/membership-history.ts'
import { hopRows } from '../../../src/server/authorize/membership-view.ts'
import type { Table } from '../../../src/server/catalog/table.ts'
import type { Change, Relation } from '../../../src/server/decode/change.ts'
import { RowTuple } from '../../../src/server/decode/tuple.ts'

const { int4, text } = sqlTypes
const [id, team, kind, org] = [0, 1, 2, 3]
const columns = ['id', 'team_id', 'kind', 'org_id', 'note'].map(name => ({
  name,
  type: name === 'kind' || name === 'note' ? text : int4,
  notNull: false,
}))
const table: Table = {
  oid: 1,
  schema: 'public',
  name: 'projects',
  columns,
  primaryKey: [0],
  identity: new Set([0, 1, 2, 3, 4]),
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
  name: 'projects',
  replicaIdentity: 'full',
  columns: columns.map(({ name, type }) => ({ name, typeOid: type.oid, typeModifier: -1, identity: true })),
}

const columnOf = (column: number) =>
  ({ kind: 'column', column, name: columns[column]!.name, type: columns[column]!.type }) as const
const isKind = (value: string): Predicate => ({
  kind: 'compare',
  op: '=',
  left: columnOf(kind),
  right: { kind: 'const', value, type: text },
})
/** What each reader has another of: rows are looked up by it, it does not decide what is held. */
const ofOrg = (value: string): Predicate => ({
  kind: 'compare',
  op: '=',
  left: columnOf(org),
  right: { kind: 'const', value, type: int4, ofReader: true },
})
const joinOn = (inner: number, ...where: Predicate[]): SemiJoin => ({
  kind: 'semiJoin',
  table: { oid: 1, schema: 'public', name: 'projects' },
  keys: [{ inner: columnOf(inner), outer: { ...columnOf(inner), column: 9 } }],
  where: { kind: 'and', args: [isKind('open'), ...where] },
  nullAware: true,
})

/** Of all projects that are open: by id, by team, and by team of those of one organisation. */
const joins: readonly { readonly join: SemiJoin; readonly key: number; readonly org: string | null }[] = [
  { join: joinOn(id), key: id, org: null },
  { join: joinOn(team), key: team, org: null },
  { join: joinOn(team, ofOrg('1')), key: team, org: '1' },
]
const kept = [id, team, org]

type Project = readonly (string | null)[]
const tuple = (project: Project): RowTuple => new RowTuple(relation, [...project])

const projects: fc.Arbitrary<Project> = fc.tuple(
  fc.constantFrom('1', '2', '3'),
  fc.constantFrom('1', '2', '3', null),
  fc.constantFrom('open', 'open', 'open', 'shut', null),
  fc.constantFrom('1', '2', null),
  // Not kept: rows that differ in it alone are counted as one kind.
  fc.constantFrom('x', 'y'),
)

type Wish = { readonly kind: string; readonly at: number; readonly project: Project }
const wishes = fc.array(
  fc.record({
    kind: fc.constantFrom('insert', 'insert', 'update', 'delete', 'truncate'),
    at: fc.nat(9),
    project: projects,
  }),
  { maxLength: 6 },
)

/** Partitions by one column, by two, and the whole. */
const places: readonly { readonly columns: readonly number[]; readonly values: readonly string[] }[] = [
  { columns: [team], values: ['1'] },
  { columns: [team], values: ['2'] },
  { columns: [org], values: ['1'] },
  { columns: [id], values: ['3'] },
  { columns: [team, org], values: ['1', '2'] },
  { columns: [], values: [] },
]
const steps = fc.array(
  fc.oneof(
    fc.record({ step: fc.constant('commit' as const), wishes }),
    fc.record({ step: fc.constant('toggle' as const), place: fc.nat(places.length - 1) }),
  ),
  { maxLength: 14 },
)

/** Turns wishes into changes that a table in this state can have. */
function changesOf(state: Project[], list: readonly Wish[]): Change[] {
  const changes: Change[] = []
  for (const { kind: wish, at, project } of list) {
    const index = changes.length
    const i = state.length === 0 ? -1 : at % state.length
    if (wish === 'insert' || (i < 0 && wish !== 'truncate')) {
      state.push(project)
      changes.push({ kind: 'insert', index, relation, new: tuple(project) })
    } else if (wish === 'update') {
      changes.push({ kind: 'update', index, relation, old: tuple(state[i]!), new: tuple(project) })
      state[i] = project
    } else if (wish === 'delete') {
      changes.push({ kind: 'delete', index, relation, old: tuple(state.splice(i, 1)[0]!) })
    } else if (at < 2) {
      state.length = 0
      changes.push({ kind: 'truncate', index, relation })
    }
  }
  return changes
}

/** A hop, the table that it reads, and which partitions somebody loaded. */
class World {
  readonly state: Project[] = []
  readonly index = new IndexSize(1000)
  readonly hop = new Hop({
    name: 'projects',
    table,
    local: isKind('open'),
    columns: kept,
    limits: { maxRows: 1000, partitionMaxRows: 1000, index: this.index },
  })
  readonly loaded = new Map<number, Partition>()

  constructor() {
    for (const { join } of joins) this.hop.lookupOf(join)
  }

  toggle(place: number): void {
    const { columns, values } = places[place]!
    const held = this.loaded.get(place)
    if (held !== undefined) {
      this.loaded.delete(place)
      this.hop.drop(held)
      return
    }
    const key = this.hop.keyOfColumns(columns, { text: column => values[columns.indexOf(column)] })!
    const partition = this.hop.partition(columns, key, values)
    for (const project of this.state) {
      const row = tuple(project)
      if (!this.hop.matches(row) || !isIn(place, project) || this.hop.isHeld(row)) continue
      this.hop.count(this.hop.entryOf(row), 1)
    }
    this.hop.loading.delete(partition)
    partition.isLoaded = true
    this.loaded.set(place, partition)
  }

  commit(changes: readonly Change[]): MembershipWriter {
    const writer = new MembershipWriter(0n)
    for (const change of changes) writer.apply(this.hop, change)
    return writer
  }

  /** Of a state of the table: the kinds of rows that some partition holds. */
  kindsIn(
    state: readonly Project[],
    of: { key: number; org: string | null },
    key: string | null | undefined,
  ): string[] {
    const kinds = state
      .filter(project => project[kind] === 'open' && [...this.loaded.keys()].some(place => isIn(place, project)))
      .filter(project => (of.org === null || project[org] === of.org) && (key === undefined || project[of.key] === key))
      .map(project => JSON.stringify(kept.map(column => project[column])))
    return [...new Set(kinds)].sort()
  }

  expectExact(state: readonly Project[], before?: SetBefore): void {
    for (const of of joins)
      for (const key of ['1', '2', '3', null, undefined]) {
        const found = hopRows(this.hop, of.join, key, before).map(row => JSON.stringify(row.values))
        expect(found.toSorted()).toEqual(this.kindsIn(state, of, key))
      }
  }

  /** Everything that is held is found, and nothing else has a place in an index. */
  expectSettled(): void {
    const total = this.state.filter(
      project => project[kind] === 'open' && [...this.loaded.keys()].some(place => isIn(place, project)),
    ).length
    expect([this.hop.total, this.index.rows]).toEqual([total, total])
    const kinds = this.kindsIn(this.state, joins[0]!, undefined)
    expect(this.hop.size).toBe(kinds.length)
    for (const { join } of joins) {
      const { joined, pinned, both } = this.hop.lookupOf(join)
      for (const { byKey, underNull } of [joined, both, ...(pinned === null ? [] : [pinned.index])]) {
        const sizes = [...byKey.values()].map(({ size }) => size)
        expect(sizes).not.toContain(0)
        expect(sizes.reduce((a, b) => a + b, 0) + underNull.size).toBe(kinds.length)
      }
    }
  }
}

const isIn = (place: number, project: Project): boolean =>
  places[place]!.columns.every((column, i) => project[column] === places[place]!.values[i])

test('[P1] after each commit a hop holds what a recount of its partitions finds, and before it what stood there', () => {
  fc.assert(
    fc.property(steps, list => {
      const world = new World()
      for (const step of list) {
        if (step.step === 'toggle') world.toggle(step.place)
        else {
          const was = [...world.state]
          const writer = world.commit(changesOf(world.state, step.wishes))
          const before = writer.before.get(world.hop)
          world.expectExact(world.state)
          world.expectExact(was, before)
          const [then, now] = [was, world.state].map(state => world.kindsIn(state, joins[0]!, undefined))
          const flips = before === undefined ? [] : flipsOf(world.hop, before)
          expect(flips.map(({ name }) => name).sort()).toEqual(
            [...new Set(then).symmetricDifference(new Set(now))].sort(),
          )
          for (const { name, granted } of flips) expect(granted).toBe(now!.includes(name))
          writer.settle()
        }
        world.expectExact(world.state)
        world.expectSettled()
      }
    }),
  )
})

test('[P4] undone from their old rows, commits give every earlier state of a hop back, and rolled forward each later one', () => {
  fc.assert(
    fc.property(steps, list => {
      const world = new World()
      const commits: { readonly was: Project[]; readonly changes: Change[] }[] = []
      for (const step of list) {
        if (step.step === 'toggle') world.toggle(step.place)
        else {
          const was = [...world.state]
          const changes = changesOf(world.state, step.wishes)
          commits.push({ was, changes })
          world.commit(changes).settle()
        }
        // What is held may have come or gone since: it is undone as it is held now.
        for (let from = 0; from < commits.length; from++) {
          const span = commits.slice(from)
          const all = span.flatMap(({ changes }) => changes)
          let state = undo([world.hop], () => all, 0n)
          if (all.some(change => change.kind === 'truncate')) {
            expect(state).toBe(null)
            continue
          }
          for (const { was, changes } of span) {
            world.expectExact(was, state!.get(world.hop))
            state = rolled(world.hop, state!, changes)
          }
          world.expectExact(world.state, state!.get(world.hop))
        }
      }
    }),
  )
})

function rolled(hop: Hop, state: MembershipsBefore, changes: readonly Change[]): MembershipsBefore {
  const net = netChange(hop, changes)!
  return rollForward(state, new Map<InnerSet, NonNullable<typeof net>>([[hop, net]]), 0n)
}

test('[P7] a hop that is cleared, or whose rows are gone, holds nothing', () => {
  fc.assert(
    fc.property(steps, fc.boolean(), (list, isCleared) => {
      const world = new World()
      for (const step of list) {
        if (step.step === 'toggle') world.toggle(step.place)
        else world.commit(changesOf(world.state, step.wishes)).settle()
      }
      if (isCleared) {
        world.hop.clear()
        world.loaded.clear()
      } else for (const place of [...world.loaded.keys()]) world.toggle(place)
      expect(world.loaded.size).toBe(0)
      world.expectSettled()
      expect(world.hop.size).toBe(0)
    }),
  )
})

test('[P1] a row that no partition holds any more is taken away, one that another holds stays', () => {
  const world = new World()
  world.state.push(['1', '1', 'open', '1', 'x'], ['2', '1', 'open', '2', 'x'], ['2', '1', 'open', '2', 'y'])
  world.toggle(0)
  world.toggle(2)
  const gone = world.hop.drop(world.loaded.get(0)!)
  expect(gone.map(({ values }) => values)).toEqual([['2', '1', '2']])
  expect(world.index.rows).toBe(1)
})

test('[P7] a row that cannot be judged breaks the partitions that have it, and none that has not', () => {
  const index = new IndexSize(1000)
  const local: Predicate = {
    kind: 'compare',
    op: '>',
    left: { kind: 'cast', arg: columnOf(kind), type: int4 },
    right: { kind: 'const', value: '0', type: int4 },
  }
  const limits = { maxRows: 1000, partitionMaxRows: 1000, index }
  const hop = new Hop({ name: 'ranked', table, local, columns: kept, limits })
  const [first, second] = ['1', '2'].map(value => hop.partition([team], value, [value]))
  for (const partition of [first!, second!]) partition.isLoaded = true
  const insert = (project: Project): Change => ({ kind: 'insert', index: 0, relation, new: tuple(project) })
  const writer = new MembershipWriter(0n)
  // Nobody reaches team 3: its rows are not even looked at.
  for (const project of [
    ['1', '1', '7', null, 'x'],
    ['2', '2', '7', null, 'x'],
    ['3', '3', 'many', null, 'x'],
  ])
    writer.apply(hop, insert(project))
  expect([hop.total, writer.failed.size, hop.failing.size]).toEqual([2, 0, 0])
  writer.apply(hop, insert(['4', '1', 'many', null, 'x']))
  expect(writer.failed).toEqual(new Set([hop]))
  expect([...hop.failing.keys()]).toEqual([first])
  expect(hop.failure).toBe(null)
  // Somebody who comes back over it starts over; that harms nobody either.
  hop.failing.clear()
  expect(undo([hop], () => [insert(['4', '1', 'many', null, 'x'])], 0n)).toBe(null)
  expect(hop.hasFailed).toBe(false)
  expect(hop.breakOff(first!, new Error('many')).map(({ values }) => values)).toEqual([['1', '1', null]])
  expect([hop.total, index.rows, first!.isLoaded, second!.isLoaded]).toEqual([1, 1, false, true])
  expect(hop.loading.has(first!)).toBe(true)
})

test('[P7] a partition that grows past its bound breaks, and no other', () => {
  const index = new IndexSize(1000)
  const limits = { maxRows: 1000, partitionMaxRows: 2, index }
  const hop = new Hop({ name: 'projects', table, local: isKind('open'), columns: kept, limits })
  const [first, second] = ['1', '2'].map(value => hop.partition([team], value, [value]))
  for (const partition of [first!, second!]) partition.isLoaded = true
  const writer = new MembershipWriter(0n)
  for (const [at, of] of ['1', '1', '2', '2', '1'].entries()) {
    expect(hop.failing.size).toBe(0)
    writer.apply(hop, { kind: 'insert', index: at, relation, new: tuple([String(at), of, 'open', null, 'x']) })
  }
  expect([...hop.failing]).toEqual([[first, expect.objectContaining({ code: 'MEMBERSHIP_TOO_LARGE' })]])
})

test('[P2] a row version that lacks a column which is read breaks what it may belong to', () => {
  const world = new World()
  world.toggle(0)
  const writer = new MembershipWriter(0n)
  const partial = new RowTuple(relation, ['1', '1', 'open', undefined, 'x'] as unknown as string[])
  writer.apply(world.hop, { kind: 'insert', index: 0, relation, new: partial })
  expect(writer.failed).toEqual(new Set([world.hop]))
  expect(world.hop.total).toBe(0)
})
