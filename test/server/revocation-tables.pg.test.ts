// A grant or a revocation and changes of rows under its key in one transaction, in every order: what is told leads from the
// SELECT before to the SELECT after, and no version is sent that its reader could see in neither.
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { ChangeEvent, JsonRow } from '../../src/protocol/messages.ts'
import {
  asSet,
  LiveSse,
  person,
  prepareDatabase,
  roomsSchema,
  SseStream,
  selectAs,
  TestNode,
  tokenFor,
} from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'

let database: TestDatabase
let node: TestNode

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, roomsSchema, ['rooms', 'members', 'messages'])
  node = await TestNode.start(database.url)
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

/** Each case has a reader, rooms and rows of its own: `a`, of which the reader is a member, `b`, of which it is not, and
 *  `always`. In both, rows to update, to delete, to give another key, and to leave alone. */
interface Case {
  readonly reader: string
  readonly other: string
  readonly a: number
  readonly b: number
  readonly always: number
}

let cases = 0

function newCase(): Case {
  cases += 1
  return { reader: person(), other: person(), a: cases * 10, b: cases * 10 + 1, always: cases * 10 + 2 }
}

const idsOf = (room: number) => ({
  updated: room * 10 + 1,
  deleted: room * 10 + 2,
  rekeyed: room * 10 + 3,
  still: room * 10 + 4,
  inserted: room * 10 + 5,
  newKey: room * 10 + 6,
})

type Room = 'a' | 'b'
type RowOp = 'insert' | 'update' | 'delete' | 'another key'

const rowOps: Readonly<Record<RowOp, (room: number) => string>> = {
  insert: room => `INSERT INTO messages VALUES (${idsOf(room).inserted}, ${room}, 'w', 'inserted in ${room}')`,
  update: room => `UPDATE messages SET body = 'updated in ${room}' WHERE id = ${idsOf(room).updated}`,
  delete: room => `DELETE FROM messages WHERE id = ${idsOf(room).deleted}`,
  'another key': room =>
    `UPDATE messages SET id = ${idsOf(room).newKey}, body = 'key in ${room}' WHERE id = ${idsOf(room).rekeyed}`,
}

const memberships = {
  revoke: ({ a, reader }: Case) => `DELETE FROM members WHERE room_id = ${a} AND user_id = '${reader}'`,
  'revoke by the user': ({ a, reader, other }: Case) =>
    `UPDATE members SET user_id = '${other}' WHERE room_id = ${a} AND user_id = '${reader}'`,
  grant: ({ b, reader }: Case) => `INSERT INTO members VALUES (${b}, '${reader}')`,
  'grant by the user': ({ b, reader, other }: Case) =>
    `UPDATE members SET user_id = '${reader}' WHERE room_id = ${b} AND user_id = '${other}'`,
  'move to the other room': ({ a, b, reader }: Case) =>
    `UPDATE members SET room_id = ${b} WHERE room_id = ${a} AND user_id = '${reader}'`,
  'grant anew': ({ a, reader }: Case) => `INSERT INTO members VALUES (${a}, '${reader}')`,
  'revoke anew': ({ b, reader }: Case) => `DELETE FROM members WHERE room_id = ${b} AND user_id = '${reader}'`,
} as const
type MembershipOp = keyof typeof memberships

type Step = MembershipOp | RowOp

function permutations<T>(items: readonly T[]): T[][] {
  if (items.length < 2) return [[...items]]
  return items.flatMap((item, place) => permutations(items.toSpliced(place, 1)).map(rest => [item, ...rest]))
}

const changesAll: readonly RowOp[] = ['insert', 'update', 'delete']
const each: readonly RowOp[] = ['insert', 'update', 'delete', 'another key']

/** The two memberships in this order, the change of a row before, between or after. */
const around = (first: MembershipOp, second: MembershipOp): Step[][] =>
  each.flatMap(op => [
    [op, first, second],
    [first, op, second],
    [first, second, op],
  ])

const table: [Room, Step[]][] = [
  ...(
    [
      ['revoke', 'a'],
      ['revoke by the user', 'a'],
      ['grant', 'b'],
      ['grant by the user', 'b'],
      ['move to the other room', 'a'],
      ['move to the other room', 'b'],
    ] as const
  ).flatMap(([membership, room]) =>
    [...permutations<Step>([membership, ...changesAll]), ...permutations<Step>([membership, 'another key'])].map(
      (steps): [Room, Step[]] => [room, steps],
    ),
  ),
  ...permutations<Step>(['revoke', 'grant', 'update']).flatMap((steps): [Room, Step[]][] => [
    ['a', steps],
    ['b', steps],
  ]),
  ...around('revoke', 'grant anew').map((steps): [Room, Step[]] => ['a', steps]),
  ...around('grant', 'revoke anew').map((steps): [Room, Step[]] => ['b', steps]),
]

const isRowOp = (step: Step): step is RowOp => step in rowOps

test.each(table.map(([room, steps]) => ({ name: `${steps.join(', ')}; rows of ${room}`, room, steps })))(
  '[P1] [P2] [P3] $name',
  async ({ room, steps }) => {
    const now = newCase()
    const { reader, other, a, b, always } = now
    const rows = [a, b].flatMap(number => {
      const { updated, deleted, rekeyed, still } = idsOf(number)
      return [updated, deleted, rekeyed, still].map(id => `(${id}, ${number}, 'w', 'old ${id} in ${number}')`)
    })
    await database.query(`INSERT INTO members VALUES (${a}, '${reader}'), (${always}, '${reader}'), (${b}, '${other}');
      INSERT INTO messages VALUES ${rows.join(', ')}`)
    const token = await tokenFor(reader)
    const select = (): Promise<JsonRow[]> => selectAs(database, reader, 'SELECT * FROM messages')
    using live = await LiveSse.open(node, '/v1/live/messages', token)
    await live.exact()
    const before = await select()
    using changes = await SseStream.open(node, '/v1/changes/messages', token)
    await changes.until(({ event }) => event === 'subscribed')

    const number = now[room]
    const statements = steps.map(step => (isRowOp(step) ? rowOps[step](number) : memberships[step](now)))
    await database.query(['BEGIN', ...statements, 'COMMIT'].join(';'))
    const after = await select()
    const fence = idsOf(always).still
    await database.query(`INSERT INTO messages VALUES (${fence}, ${always}, 'w', 'fence')`)

    await live.stream.waitFor(() => live.rows.rows.has(`[${fence}]`))
    expect(live.failure).toBe(null)
    expect(live.rows.resyncs).toEqual([])
    const told = live.rows.list().filter(({ id }) => id !== fence)
    expect(asSet(told)).toEqual(asSet(after))

    const isFence = ({ data }: { data: unknown }): boolean => (data as Partial<ChangeEvent>).key?.id === fence
    await changes.until(isFence)
    const events = changes.events.filter(event => event.event === 'change' && !isFence(event))
    expect(events.map(({ data }) => shortOf(data as ChangeEvent)).sort()).toEqual(
      expectedChanges(before, after, touchedBy(steps, number)).sort(),
    )
    expect(changes.events.filter(({ event }) => event === 'resync')).toEqual([])

    // Every version has a body of its own.
    const visible = new Set([...before, ...after].map(({ body }) => body))
    const text = JSON.stringify([...live.stream.events, ...changes.events])
    const bodies = [...text.matchAll(/"body":"([^"]*)"/g)].map(match => match[1])
    expect(bodies.filter(body => body !== 'fence' && !visible.has(body!))).toEqual([])
  },
)

function touchedBy(steps: readonly Step[], room: number): Set<number> {
  const { inserted, updated, deleted, rekeyed, newKey } = idsOf(room)
  const ids: Record<RowOp, number[]> = {
    insert: [inserted],
    update: [updated],
    delete: [deleted],
    'another key': [rekeyed, newKey],
  }
  return new Set(steps.filter(isRowOp).flatMap(op => ids[op]))
}

/** What a reader is told who could see these rows before and those after, of the rows that were touched. */
function expectedChanges(
  before: readonly JsonRow[],
  after: readonly JsonRow[],
  touched: ReadonlySet<number>,
): string[] {
  const byId = (rows: readonly JsonRow[]): Map<unknown, JsonRow> => new Map(rows.map(row => [row.id, row]))
  const [was, is] = [byId(before), byId(after)]
  return [...touched].flatMap(id => {
    const [old, next] = [was.get(id), is.get(id)]
    if (old === undefined && next === undefined) return []
    if (old !== undefined && next !== undefined) return [`update ${id}: ${old.body} -> ${next.body}`]
    return old === undefined ? [`insert ${id}: ${next!.body}`] : [`delete ${id}: ${old.body}`]
  })
}

function shortOf(event: ChangeEvent): string {
  const { op, key } = event
  const [old, next] = [(event.old as JsonRow | undefined)?.body, (event.new as JsonRow | undefined)?.body]
  return `${op} ${key?.id}: ${[old, next].filter(body => body !== undefined).join(' -> ')}`
}
