// A thousand readers: who is not reached is not even looked at, and those who come together are read for together.
import pg from 'pg'
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest'
import type { DeltaEvent, SnapshotEvent } from '../../src/protocol/messages.ts'
import { Audience } from '../../src/server/route/audience.ts'
import { SnapshotReader } from '../../src/server/snapshot/reader.ts'
import type { Outgoing, Outlet, SubscribeRequest, Subscription } from '../../src/server/subscribe/subscription.ts'
import { asSet, prepareDatabase, StrictRows, selectAs, TestNode } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { until } from '../support/stalled.ts'

const count = 1000
/** Two of a team, and two of a room. */
const teams = count / 2

const schema = `
  CREATE TABLE team_members (team_id int NOT NULL, user_id uuid NOT NULL, expires_at timestamptz NOT NULL DEFAULT '2100-01-01',
    PRIMARY KEY (team_id, user_id));
  CREATE TABLE projects (id int PRIMARY KEY, team_id int);
  CREATE TABLE notes (id int PRIMARY KEY, project_id int, body text);
  CREATE TABLE tickets (id int PRIMARY KEY, team_id int, status text NOT NULL DEFAULT 'open');
  CREATE TABLE passes (id int PRIMARY KEY, team_id int, status text NOT NULL DEFAULT 'open');
  ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
  ALTER TABLE tickets ENABLE ROW LEVEL SECURITY;
  ALTER TABLE passes ENABLE ROW LEVEL SECURITY;
  CREATE POLICY p ON notes USING (EXISTS (SELECT FROM projects p JOIN team_members m ON m.team_id = p.team_id
    WHERE p.id = project_id AND m.user_id = auth.uid()));
  CREATE POLICY p ON tickets USING (status = 'open' AND EXISTS (SELECT FROM team_members m
    WHERE m.team_id = tickets.team_id AND m.user_id = auth.uid()));
  CREATE POLICY p ON passes USING (status = 'open' AND EXISTS (SELECT FROM team_members m
    WHERE m.team_id = passes.team_id AND m.user_id = auth.uid() AND m.expires_at > now()));
  GRANT SELECT ON team_members, projects, notes, tickets, passes TO authenticated;
  GRANT USAGE ON SCHEMA public TO authenticated;`

const userOf = (n: number): string => `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`
const teamOf = (n: number): number => 1 + (n % teams)

let database: TestDatabase
let node: TestNode

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, schema, ['team_members', 'projects', 'notes', 'tickets', 'passes'])
  const values = Array.from({ length: count }, (_, n) => `(${teamOf(n)}, '${userOf(n)}')`).join()
  await database.query(`
    INSERT INTO team_members VALUES ${values};
    INSERT INTO projects SELECT i, i FROM generate_series(1, ${teams + 10}) i;
    INSERT INTO notes SELECT i, i, 'old' FROM generate_series(1, ${teams + 10}) i`)
  node = await TestNode.start(database.url, { AUDIENCE_GRACE_MS: '50' })
})

afterEach(() => {
  vi.restoreAllMocks()
  unwatch()
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

/** A live query of one user behind the transports. */
class Follower implements Outlet {
  readonly user: string
  readonly rows = new StrictRows()
  readonly sink = null
  deltas = 0
  failure: unknown = null
  subscription: Subscription | null = null

  constructor(user: string) {
    this.user = user
  }

  async follow(table: string, since: SubscribeRequest['since'] = null): Promise<this> {
    const principal = { role: 'authenticated', claims: { role: 'authenticated', sub: this.user }, expiresAt: null }
    const request = { kind: 'live', schema: 'public', table, filters: [], select: null, events: null, since } as const
    this.subscription = await node.server.subscriptions.subscribe(principal, request, this)
    return this
  }

  /** Where it stands, to come back to. */
  get place(): NonNullable<SubscribeRequest['since']> {
    return { ...this.subscription!.position(), tag: this.subscription!.tag }
  }

  send({ event, json }: Outgoing): boolean {
    if (event === 'delta') this.deltas += 1
    try {
      this.rows.take({ event, data: JSON.parse(json) as SnapshotEvent | DeltaEvent })
    } catch (error) {
      this.failure ??= error
    }
    return true
  }

  sendBatch({ events }: Parameters<Outlet['sendBatch']>[0]): boolean {
    for (const event of events) this.send(event)
    return true
  }

  resync(code: string): void {
    this.rows.take({ event: 'resync', data: { code } })
  }

  fail(error: unknown): void {
    this.failure ??= error
  }

  move(): boolean {
    return false
  }

  sinkIsFull(): void {}
  takeBack(): void {}
}

async function followers(table: string, howMany: number): Promise<Follower[]> {
  const all = await Promise.all(Array.from({ length: howMany }, (_, n) => new Follower(userOf(n)).follow(table)))
  await until(() => all.every(({ rows }) => rows.exact))
  return all
}

async function left(all: readonly Follower[]): Promise<void> {
  for (const { subscription } of all) subscription?.close()
  await until(() => node.server.holdings().audiences === 0)
}

const visible = Object.getOwnPropertyDescriptor(Audience.prototype, 'visible')!

/** Whose rows are judged from here on. */
function watchDecisions(): Set<Audience> {
  const judged = new Set<Audience>()
  Object.defineProperty(Audience.prototype, 'visible', {
    ...visible,
    get(this: Audience) {
      judged.add(this)
      return visible.get!.call(this)
    },
  })
  return judged
}

const unwatch = (): void => void Object.defineProperty(Audience.prototype, 'visible', visible)

/** Everything committed so far has been served. */
async function passed(): Promise<void> {
  const [row] = await database.query<{ xid: string }>(
    `SELECT pg_current_xact_id()::text AS xid, pg_logical_emit_message(true, 'test', '')`,
  )
  await node.server.subscriptions.waitForTransaction(BigInt(row!.xid), 10_000)
}

test('[P7] of a thousand readers over a chain, what changes in the middle concerns those of the two teams, and nobody else', {
  timeout: 60_000,
}, async () => {
  const all = await followers('notes', count)
  const of = (...teamIds: number[]): Follower[] => all.filter((_, n) => teamIds.includes(teamOf(n)))
  const judged = watchDecisions()
  const steps: readonly (readonly [statement: string, told: Follower[]])[] = [
    ['UPDATE projects SET team_id = 8 WHERE id = 7', of(7, 8)],
    [`UPDATE notes SET body = 'new' WHERE id = 9`, of(9)],
    [`INSERT INTO notes VALUES (2000, 7, 'moved')`, of(8)],
    ['UPDATE projects SET team_id = 7 WHERE id = 7', of(7, 8)],
    [`UPDATE projects SET team_id = ${teams + 2} WHERE id = ${teams + 1}`, []],
    [`INSERT INTO team_members VALUES (20, '${userOf(29)}')`, all.slice(29, 30)],
    [`DELETE FROM team_members WHERE team_id = 20 AND user_id = '${userOf(29)}'`, all.slice(29, 30)],
  ]
  for (const [statement, told] of steps) {
    const before = new Map(all.map(follower => [follower, follower.deltas]))
    judged.clear()
    await database.query(statement)
    await until(() => told.every(follower => follower.deltas > before.get(follower)!))
    await passed()
    expect(all.filter(follower => follower.deltas > before.get(follower)!)).toEqual(told)
    expect([statement, judged.size]).toEqual([statement, told.length])
  }
  for (const follower of of(7, 8, 9, 20, 30)) {
    const expected = asSet(await selectAs(database, follower.user, 'SELECT * FROM notes'))
    expect(asSet(follower.rows.list())).toEqual(expected)
  }
  expect(all.map(({ failure }) => failure).filter(failure => failure !== null)).toEqual([])
  await left(all)
})

test.each(['tickets', 'passes'])(
  '[P7] a literal that everybody shares leads to nobody: of %s a change is judged for as many with a thousand readers as with fifty',
  { timeout: 60_000 },
  async table => {
    const decisions: number[] = []
    for (const howMany of [50, count]) {
      const all = await followers(table, howMany)
      const judged = watchDecisions()
      const concerned = all.filter((_, n) => teamOf(n) === 45)
      await database.query(`INSERT INTO ${table} VALUES (${howMany}, 45)`)
      await until(() => concerned.every(({ deltas }) => deltas === 1))
      await passed()
      expect(all.filter(({ deltas }) => deltas > 0)).toEqual(concerned)
      decisions.push(judged.size - concerned.length)
      unwatch()
      await left(all)
    }
    // The first few are not worth looking up otherwise.
    expect(decisions[1]).toBe(decisions[0])
    expect(decisions[1]).toBeLessThanOrEqual(33)
  },
)

test('[P6] after a restart a thousand readers over a chain come back with a few queries, each at its place', {
  timeout: 60_000,
}, async () => {
  const first = await followers('notes', count)
  const places = first.map(({ place }) => place)
  await node[Symbol.asyncDispose]()
  await database.query(`UPDATE notes SET body = 'while it was away' WHERE id <= 20`)
  node = await TestNode.start(database.url, { AUDIENCE_GRACE_MS: '50' })
  const reads = vi.spyOn(SnapshotReader.prototype, 'asLogin')
  const back = await Promise.all(
    first.map(async ({ user, rows }, n) => {
      const follower = new Follower(user)
      for (const [name, row] of rows.rows) follower.rows.rows.set(name, row)
      return follower.follow('notes', places[n])
    }),
  )
  expect(back.filter(({ subscription }) => !subscription!.resumed)).toEqual([])
  const concerned = back.filter((_, n) => teamOf(n) <= 20)
  await until(() => concerned.every(({ deltas }) => deltas === 1))
  await passed()
  expect(back.filter(({ deltas }) => deltas > 0)).toEqual(concerned)
  expect(back.map(({ failure }) => failure).filter(failure => failure !== null)).toEqual([])
  const tables = reads.mock.calls.map(([{ name }]) => name)
  // Not one for each of a thousand; how many turns they come in is the machine's affair.
  expect(tables.length).toBeLessThan(40)
  expect(new Set(tables)).toEqual(new Set(['team_members', 'projects']))
  await left(back)
})

test('[P7] what readers come to reach one after the other, while others of the table are being read, is read together', async () => {
  const locker = new pg.Client({ connectionString: database.url })
  await locker.connect()
  const reads = vi.spyOn(SnapshotReader.prototype, 'asLogin')
  await locker.query('BEGIN; LOCK TABLE projects IN ACCESS EXCLUSIVE MODE')
  const opening: Promise<Follower>[] = []
  const asked = (): number => reads.mock.calls.filter(([{ name }]) => name === 'team_members').length
  for (let n = 0; n < 20; n++) {
    opening.push(new Follower(userOf(n)).follow('notes'))
    await until(() => asked() >= n + 1)
  }
  await locker.query('COMMIT')
  const all = await Promise.all(opening)
  await until(() => all.every(({ rows }) => rows.exact))
  expect(reads.mock.calls.filter(([{ name }]) => name === 'projects').length).toBe(2)
  await left(all)
  await locker.end()
})
