// What connected readers reach of a chain, against a plain recount: whoever comes and goes, also amid a commit that is served in
// slices, whatever changes at any place.
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { Predicate, SemiJoin } from '../../../src/predicate/algebra.ts'
import { sqlTypes } from '../../../src/predicate/sql-types.ts'
import type { Hop } from '../../../src/server/authorize/hop.ts'
import { IndexSize, type InnerSet } from '../../../src/server/authorize/inner-set.ts'
import { KeyHolders, MembershipSet } from '../../../src/server/authorize/membership.ts'
import { MembershipWriter } from '../../../src/server/authorize/membership-history.ts'
import type { Table } from '../../../src/server/catalog/table.ts'
import type { Change, Relation } from '../../../src/server/decode/change.ts'
import { RowTuple } from '../../../src/server/decode/tuple.ts'
import { createLog } from '../../../src/server/log/log.ts'
import { Head } from '../../../src/server/relay/head.ts'
import { MemoryRelay } from '../../../src/server/relay/memory-relay.ts'
import { Router } from '../../../src/server/route/router.ts'
import type { RowMatch } from '../../../src/server/snapshot/reader.ts'
import type { HopUse } from '../../../src/server/subscribe/hop-use.ts'
import { Reach } from '../../../src/server/subscribe/reach.ts'
import type { StreamParts } from '../../../src/server/subscribe/stream-parts.ts'
import { Times } from '../../../src/server/subscribe/times.ts'

const { int4 } = sqlTypes
const tableOf = (oid: number, name: string, columns: readonly string[]): Table => ({
  oid,
  schema: 'public',
  name,
  columns: columns.map(each => ({ name: each, type: int4, notNull: false })),
  primaryKey: [0, 1],
  identity: new Set(columns.keys()),
  replicaIdentity: 'full',
  partitioned: false,
  rowSecurity: false,
  forceRowSecurity: false,
  published: true,
  readThrough: 'table',
})
const tables = {
  members: tableOf(1, 'members', ['team_id', 'user_id']),
  projects: tableOf(2, 'projects', ['id', 'team_id']),
  tasks: tableOf(3, 'tasks', ['id', 'project_id']),
}
type Name = keyof typeof tables
const relationOf = ({ oid, schema, name, columns }: Table): Relation => ({
  oid,
  schema,
  name,
  replicaIdentity: 'full',
  columns: columns.map(column => ({ name: column.name, typeOid: int4.oid, typeModifier: -1, identity: true })),
})
const relations = {
  members: relationOf(tables.members),
  projects: relationOf(tables.projects),
  tasks: relationOf(tables.tasks),
}

/** The first column of the inner table equals the second of the outer one. */
const joinOf = (name: Name, where: Predicate): SemiJoin => ({
  kind: 'semiJoin',
  table: tables[name],
  keys: [
    {
      inner: { kind: 'column', column: 0, name: 'inner', type: int4 },
      outer: { kind: 'column', column: 1, name: 'outer', type: int4 },
    },
  ],
  where,
  nullAware: false,
})
/** The row's task is of a project of a team of this user. */
function chainOf(user: string): { teams: SemiJoin; projects: SemiJoin; tasks: SemiJoin } {
  const left = { kind: 'column', column: 1, name: 'user_id', type: int4 } as const
  const teams = joinOf('members', { kind: 'compare', op: '=', left, right: { kind: 'const', value: user, type: int4 } })
  const projects = joinOf('projects', teams)
  return { teams, projects, tasks: joinOf('tasks', projects) }
}

type Cells = readonly [string, string]
const users = ['1', '2', '3']

class World {
  readonly rows: Record<Name, Cells[]> = { members: [], projects: [], tasks: [] }
  readonly head = new Head()
  readonly index = new IndexSize(100_000)
  readonly sets = new Map<string, MembershipSet>()
  readonly reach: Reach
  readonly hops = new Map<Name, Hop>()
  /** What is followed, by reader: two of each user. */
  readonly followed = new Map<number, { uses: HopUse[]; chain: ReturnType<typeof chainOf> }>()
  #lsn = 0n

  constructor() {
    const reader = {
      asLogin: async ({ name }: Table, match: RowMatch | null) => {
        while (!this.head.resting) await this.head.change()
        const rows = this.rows[name as Name].filter(
          cells =>
            match === null || match.keys.some(key => key.every((value, i) => cells[match.columns[i]!] === value)),
        )
        return { rows, snapshot: { xmin: 1n, xmax: 1n, xip: [] }, fence: 0n, nowMicros: 0n }
      },
      passed: async () => {},
    }
    const parts = {
      relay: new MemoryRelay({ maxBytes: 0, maxAgeMs: 0, maxWalBytes: 0, now: () => 0 }),
      head: this.head,
      router: new Router(),
      reader,
      indexSize: this.index,
      log: createLog('silent'),
      limits: { membershipMaxRows: 1000, audienceGraceMs: 0 },
    } as unknown as StreamParts
    this.reach = new Reach(parts, new Times(parts, { emit: () => Promise.resolve({ id: '' }) }))
    const holders = new KeyHolders('members(team_id)')
    for (const user of users) {
      const { teams } = chainOf(user)
      this.sets.set(user, new MembershipSet(teams, tables.members, holders, { maxRows: 1000, index: this.index }))
    }
  }

  /** Somebody comes, or goes. */
  toggle(reader: number): void {
    const held = this.followed.get(reader)
    if (held !== undefined) {
      this.followed.delete(reader)
      for (const use of held.uses) this.reach.release(use)
      return
    }
    const user = users[reader % users.length]!
    const chain = chainOf(user)
    const sets = new Map<SemiJoin, InnerSet>([[chain.teams, this.sets.get(user)!]])
    const uses = (['projects', 'tasks'] as const).map(name => {
      const use = this.reach.acquire(chain[name], tables[name], sets)
      sets.set(chain[name], use.hop)
      this.hops.set(name, use.hop)
      return use
    })
    this.followed.set(reader, { uses, chain })
  }

  /** @param amid what happens in the middle of it */
  commit(changes: readonly (readonly [Name, Change])[], amid: () => void): void {
    const writer = new MembershipWriter(0n)
    const half = Math.ceil(changes.length / 2)
    this.head.resting = false
    this.reach.begin(writer)
    for (const [i, [name, change]] of changes.entries()) {
      if (i === half) amid()
      for (const set of this.setsOf(name)) writer.apply(set, change)
    }
    if (changes.length <= half) amid()
    this.reach.follow(writer)
    writer.settle()
    this.#lsn += 1n
    this.head.lsn = this.#lsn
    this.head.resting = true
    this.head.moved()
  }

  setsOf(name: Name): InnerSet[] {
    if (name === 'members') return [...this.sets.values()]
    const hop = this.hops.get(name)
    return hop === undefined || this.followed.size === 0 ? [] : [hop]
  }

  async settled(): Promise<void> {
    for (const { uses } of this.followed.values()) await this.reach.settled(uses)
    // What is let go of goes one hop at a time.
    for (let i = 0; i < 4; i++) await new Promise(resolve => setTimeout(resolve, 1))
  }

  expectExact(): void {
    const teamsOf = (user: string): string[] => this.rows.members.filter(([, of]) => of === user).map(([team]) => team)
    const readers = new Set([...this.followed.keys()].map(reader => users[reader % users.length]!))
    const links = [...readers].flatMap(user => [...new Set(teamsOf(user))])
    const held = this.rows.projects.filter(([, team]) => links.includes(team))
    expect(usesOf(this.hops.get('projects'))).toEqual(countsOf(links))
    expect(usesOf(this.hops.get('tasks'))).toEqual(countsOf(new Set(held.map(cells => cells.join())), ([id]) => id!))
    expect(kindsOf(this.hops.get('projects'))).toEqual(distinct(held))
    const ids = new Set(held.map(([id]) => id))
    expect(kindsOf(this.hops.get('tasks'))).toEqual(distinct(this.rows.tasks.filter(([, project]) => ids.has(project))))
  }
}

const distinct = (rows: readonly Cells[]): string[] => [...new Set(rows.map(cells => cells.join()))].sort()
const kindsOf = (hop: Hop | undefined): string[] => [...(hop?.rows ?? [])].map(({ values }) => values.join()).sort()

/** Keys of the partitions that somebody reaches, and by how many ways. */
const usesOf = (hop: Hop | undefined): Record<string, number> =>
  Object.fromEntries(
    [...(hop?.partitions.values() ?? [])].filter(({ uses }) => uses !== 0).map(({ key, uses }) => [key, uses]),
  )

function countsOf(items: Iterable<string>, keyOf = (item: string): string => item): Record<string, number> {
  const counts: Record<string, number> = {}
  for (const item of items) counts[keyOf(item)] = (counts[keyOf(item)] ?? 0) + 1
  return counts
}

const cells = fc.tuple(fc.constantFrom('1', '2', '3'), fc.constantFrom('1', '2', '3'))
const wishes = fc.array(
  fc.record({
    name: fc.constantFrom<Name>('members', 'members', 'projects', 'projects', 'tasks'),
    wish: fc.constantFrom('insert', 'insert', 'update', 'delete'),
    at: fc.nat(9),
    cells,
  }),
  { maxLength: 6 },
)
const toggles = fc.array(fc.nat(5), { maxLength: 3 })
const steps = fc.array(fc.record({ before: toggles, wishes, amid: toggles, waits: fc.boolean() }), { maxLength: 8 })

/** Turns wishes into changes that the tables in this state can have. */
function changesOf(
  rows: Record<Name, Cells[]>,
  list: typeof wishes extends fc.Arbitrary<infer T> ? T : never,
): [Name, Change][] {
  return list.map(({ name, wish, at, cells: next }, index): [Name, Change] => {
    const [state, relation] = [rows[name], relations[name]]
    const tuple = (each: Cells): RowTuple => new RowTuple(relation, [...each])
    const i = state.length === 0 ? -1 : at % state.length
    if (wish === 'insert' || i < 0) {
      state.push(next)
      return [name, { kind: 'insert', index, relation, new: tuple(next) }]
    }
    const old = tuple(state[i]!)
    if (wish === 'update') {
      state[i] = next
      return [name, { kind: 'update', index, relation, old, new: tuple(next) }]
    }
    state.splice(i, 1)
    return [name, { kind: 'delete', index, relation, old }]
  })
}

test('[P1] [P7] what is held is what is reached, whoever comes and goes amid which commit, and nothing when all have left', async () => {
  await fc.assert(
    fc.asyncProperty(steps, async list => {
      const world = new World()
      for (const { before, wishes: wanted, amid, waits } of list) {
        for (const reader of before) world.toggle(reader)
        // A read sees what has been committed: it comes before the commit, or after it.
        if (waits) await world.settled()
        else await new Promise(resolve => setImmediate(resolve))
        world.commit(changesOf(world.rows, wanted), () => {
          for (const reader of amid) world.toggle(reader)
        })
        if (!waits) continue
        await world.settled()
        world.expectExact()
      }
      await world.settled()
      world.expectExact()
      for (const reader of [...world.followed.keys()]) world.toggle(reader)
      await world.settled()
      expect(world.reach.size).toBe(0)
      for (const set of world.sets.values()) set.clear()
      expect(world.index.rows).toBe(0)
    }),
  )
})
