// Who is concerned by a row whose readers are found over other tables: from its key to the rows of a hop, from those on.
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { Predicate, SemiJoin } from '../../../src/predicate/algebra.ts'
import { sqlTypes } from '../../../src/predicate/sql-types.ts'
import { Hop } from '../../../src/server/authorize/hop.ts'
import { IndexSize } from '../../../src/server/authorize/inner-set.ts'
import { KeyHolders, MembershipSet } from '../../../src/server/authorize/membership.ts'
import type { Table } from '../../../src/server/catalog/table.ts'
import { type BoundAnchor, RowIndex } from '../../../src/server/route/row-index.ts'

const { int4, text } = sqlTypes
const tableOf = (oid: number, name: string, columns: readonly string[]): Table => ({
  oid,
  schema: 'public',
  name,
  columns: columns.map(each => ({ name: each, type: int4, notNull: false })),
  primaryKey: [0],
  identity: new Set(columns.keys()),
  replicaIdentity: 'full',
  partitioned: false,
  rowSecurity: false,
  forceRowSecurity: false,
  published: true,
  readThrough: 'table',
})
const [members, projects, tasks] = [
  tableOf(1, 'members', ['team_id', 'user_id']),
  tableOf(2, 'projects', ['id', 'team_id', 'org_id']),
  tableOf(3, 'tasks', ['id', 'project_id']),
]
const joinOf = (table: Table, inner: number, outer: number, where: Predicate): SemiJoin => ({
  kind: 'semiJoin',
  table: { oid: table.oid, schema: table.schema, name: table.name },
  keys: [
    {
      inner: { kind: 'column', column: inner, name: table.columns[inner]!.name, type: int4 },
      outer: { kind: 'column', column: outer, name: 'outer', type: int4 },
    },
  ],
  where,
  nullAware: false,
})
const isTrue: Predicate = { kind: 'true' }
const index = new IndexSize(1_000_000)
const limits = { maxRows: 1000, partitionMaxRows: 1000, index }
const values = fc.constantFrom('1', '2', '3', null)
const row = (cells: readonly (string | null | undefined)[]) => ({ text: (column: number) => cells[column] })

/** A hop with these rows, all held. */
function hopOf(table: Table, rows: readonly (readonly (string | null)[])[]): Hop {
  const columns = table.columns.map((_, column) => column)
  const hop = new Hop({ name: table.name, table, local: isTrue, columns, limits })
  const whole = hop.partition([], '', [])
  for (const cells of rows) hop.count(hop.entryOf(row(cells)), 1)
  hop.loading.delete(whole)
  whole.isLoaded = true
  return hop
}

/** The rows guarded name a task, tasks a project, projects a team and an organisation. */
const worlds = fc.record({
  projects: fc.uniqueArray(fc.tuple(fc.constantFrom('1', '2', '3'), values, values), { maxLength: 6 }),
  tasks: fc.uniqueArray(fc.tuple(fc.constantFrom('1', '2', '3'), values), { maxLength: 6 }),
  readers: fc.array(
    fc.record({
      teams: fc.uniqueArray(fc.constantFrom('1', '2', '3'), { maxLength: 2 }),
      orgs: fc.uniqueArray(fc.constantFrom('1', '2', '3'), { minLength: 1, maxLength: 2 }),
      /** How it is found: by its teams, by a literal too, by whatever the project is, or by one of its own as well. */
      way: fc.constantFrom('teams', 'teams or orgs', 'any project', 'own or teams'),
    }),
    { maxLength: 12 },
  ),
  gone: fc.array(fc.nat(11)),
  cells: fc.tuple(fc.constantFrom('1', '2', '3', null, undefined), fc.constantFrom('1', '2', null)),
})

test('finds everybody whom a row could concern over two hops, whoever came and went, and nobody else', () => {
  fc.assert(
    fc.property(worlds, world => {
      const [taskHop, projectHop] = [hopOf(tasks, world.tasks), hopOf(projects, world.projects)]
      const holders = new KeyHolders('members(team_id)')
      const teamsOf = joinOf(members, 0, 1, isTrue)
      const [byProject, byTask] = [joinOf(projects, 0, 1, teamsOf), joinOf(tasks, 0, 0, isTrue)]
      const rows = new RowIndex<number>([int4, int4, text])
      const anchorsOf = world.readers.map(({ teams, orgs, way }): BoundAnchor[] => {
        const set = new MembershipSet(teamsOf, members, holders, limits)
        for (const each of teams) set.count(set.entryOf(row([each])), 1)
        const bySet: BoundAnchor = { kind: 'set', columns: [1], set }
        const byOrg: BoundAnchor = { kind: 'const', column: 2, keys: orgs, ofReader: true }
        const inner = way === 'any project' ? null : way === 'teams or orgs' ? [bySet, byOrg] : [bySet]
        const project: BoundAnchor = { kind: 'hop', columns: [1], join: byProject, hop: projectHop, inner }
        const task: BoundAnchor = { kind: 'hop', columns: [0], join: byTask, hop: taskHop, inner: [project] }
        return way === 'own or teams' ? [task, { kind: 'const', column: 1, keys: ['1'], ofReader: true }] : [task]
      })
      anchorsOf.forEach((anchors, reader) => {
        rows.add(reader, anchors)
      })
      const left = new Set(world.readers.keys())
      for (const reader of world.gone) {
        if (!left.delete(reader)) continue
        rows.remove(reader, anchorsOf[reader]!)
      }
      const found = new Set<number>()
      rows.collect(row(world.cells), found)
      const reached = (reader: (typeof world.readers)[number]): boolean => {
        const isOwn = reader.way === 'own or teams' && world.cells[1] === '1'
        if (isOwn || world.cells[0] === undefined) return true
        const projectIds = world.tasks.filter(([id]) => id === world.cells[0]).map(([, project]) => project)
        return world.projects.some(
          ([id, team, org]) =>
            projectIds.includes(id) &&
            (reader.way === 'any project' ||
              (team !== null && reader.teams.includes(team)) ||
              (reader.way === 'teams or orgs' && org !== null && reader.orgs.includes(org))),
        )
      }
      const expected = [...left].filter(reader => reached(world.readers[reader]!))
      expect([...found].toSorted((a, b) => a - b)).toEqual(expected)
      expect(rows.size).toBe(left.size)

      // A column that is unknown rules nobody out: whatever had been left behind would be found by it.
      for (const reader of left) rows.remove(reader, anchorsOf[reader]!)
      const ghosts = new Set<number>()
      rows.collect(row([undefined, undefined]), ghosts)
      rows.all(ghosts)
      expect(ghosts).toEqual(new Set())
    }),
  )
})

test('a row of a hop that comes, goes or moves leads to those it leads to then', () => {
  const holders = new KeyHolders('members(team_id)')
  const teamsOf = joinOf(members, 0, 1, isTrue)
  const hop = hopOf(projects, [['1', '1', null]])
  const rows = new RowIndex<string>([int4])
  for (const team of ['1', '2']) {
    const set = new MembershipSet(teamsOf, members, holders, limits)
    set.count(set.entryOf(row([team])), 1)
    const inner: BoundAnchor[] = [{ kind: 'set', columns: [1], set }]
    rows.add(`of team ${team}`, [{ kind: 'hop', columns: [0], join: joinOf(projects, 0, 0, teamsOf), hop, inner }])
  }
  const concerned = (): string[] => {
    const found = new Set<string>()
    rows.collect(row(['1']), found)
    return [...found].sort()
  }
  expect(concerned()).toEqual(['of team 1'])
  const [old, next] = [hop.entryOf(row(['1', '1', null])), hop.entryOf(row(['1', '2', null]))]
  hop.count(old, -1)
  hop.count(next, 1)
  // Until the commit is settled both are concerned: who saw the row must be told that it went.
  expect(concerned()).toEqual(['of team 1', 'of team 2'])
  hop.settle([old.name])
  expect(concerned()).toEqual(['of team 2'])
  hop.count(next, -1)
  hop.settle([next.name])
  expect(concerned()).toEqual([])
})
