// Generated histories over the Phoenix wire: peers of several users that join, leave, break off, become others and read slowly, while
// rows and memberships change. After each quiet point what they were told is compared with their SELECT at every commit.
import { randomInt } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Random } from '../../../checker/random.ts'
import type { Statement, Subscriber, Table } from '../../../histories/history.ts'
import { Truth } from '../../../histories/truth.ts'
import { person, prepareDatabase, TestNode, tokenFor } from '../../../support/node.ts'
import { TestDatabase } from '../../../support/postgres.ts'
import { crowding } from '../../../support/within.ts'
import { HistoryJudge } from './support/history-judge.ts'
import { type AskedBinding, HistoryPeer } from './support/history-peer.ts'

const columns = {
  rooms: ['id int PRIMARY KEY', 'name text', 'seq int'],
  members: ['room_id int', 'user_id uuid', 'role text', 'seq int', 'PRIMARY KEY (room_id, user_id)'],
  messages: ['id int PRIMARY KEY', 'room_id int', 'open boolean', 'body text', 'seq int'],
} as const

const tables: readonly Table[] = Object.entries(columns).map(([name, items]) => ({
  name,
  key: name === 'members' ? ['room_id', 'user_id'] : ['id'],
  columns: items,
  rowSecurity: true,
}))

const member = (role: string): string =>
  `EXISTS (SELECT 1 FROM members m WHERE m.room_id = messages.room_id AND m.user_id = (SELECT auth.uid()) AND ${role})`

const schema = `
  CREATE SEQUENCE seqs; CREATE TABLE ticks (id int);
  ${tables.map(({ name, columns }) => `CREATE TABLE ${name} (${columns.join(', ')}); ALTER TABLE ${name} ENABLE ROW LEVEL SECURITY;`).join('\n')}
  CREATE POLICY own ON members FOR SELECT TO authenticated USING (user_id = (SELECT auth.uid()));
  CREATE POLICY readers ON messages FOR SELECT TO authenticated USING (open OR ${member(`m.role <> 'banned'`)});
  CREATE POLICY readers ON rooms FOR SELECT TO authenticated USING (
    id IN (SELECT m.room_id FROM members m WHERE m.user_id = auth.uid()));
  GRANT SELECT ON rooms, members, messages TO authenticated;
  GRANT USAGE ON SCHEMA public TO authenticated, anon;
`

const rooms = 4
const ids = 24
const users = Array.from({ length: 4 }, person)
const readers = [`m.role <> 'banned'`, `m.role = 'reader'`, 'true']

const asked = (parts: Partial<AskedBinding>): AskedBinding => ({
  event: '*',
  table: 'messages',
  filter: null,
  where: 'true',
  select: null,
  ...parts,
})

/** Of one channel each. */
const bindings: readonly (readonly AskedBinding[])[] = [
  [asked({})],
  [asked({ filter: 'room_id=eq.1', where: 'room_id = 1' }), asked({ table: 'rooms' })],
  [asked({ table: null })],
  [asked({ select: ['id', 'body', 'seq'] })],
  [
    asked({ event: 'INSERT' }),
    asked({ event: 'UPDATE', filter: 'body=like.a%', where: `body LIKE 'a%'` }),
    asked({ event: 'DELETE', table: 'members' }),
  ],
  [asked({ filter: 'room_id=in.(2,3),open=is.false', where: 'room_id IN (2, 3) AND open IS FALSE' })],
  [asked({ table: 'members' }), asked({}), asked({ table: 'rooms', filter: 'id=gt.1', where: 'id > 1' })],
  [asked({ event: 'UPDATE' }), asked({ event: 'DELETE' })],
]

const stack = new AsyncDisposableStack()
let database: TestDatabase
let node: TestNode
let client: pg.Client

beforeAll(async () => {
  database = stack.use(await TestDatabase.create())
  await prepareDatabase(database, schema, ['rooms', 'members', 'messages'])
  await database.query('ALTER TABLE rooms REPLICA IDENTITY DEFAULT')
  node = stack.use(await TestNode.start(database.url, { AUDIENCE_GRACE_MS: '50' }))
  client = new pg.Client({ connectionString: database.url })
  await client.connect()
  stack.defer(() => client.end())
}, 120_000)

afterAll(() => stack.disposeAsync(), 60_000)

const seq = `nextval('seqs')::int`

function statement(random: Random): Statement {
  const id = 1 + random.below(ids)
  const other = 1 + random.below(ids)
  const room = 1 + random.below(rooms)
  const user = `'${random.pick(users)}'`
  const body = `'${random.pick(['alpha', 'apple', 'beta'])} ${random.below(100)}'`
  const role = `'${random.pick(['reader', 'owner', 'banned'])}'`
  const upsert = `ON CONFLICT (id) DO UPDATE SET body = excluded.body, seq = excluded.seq`
  return random.pick<() => Statement>([
    () => ['insert', `INSERT INTO messages VALUES (${id}, ${room}, ${random.once(4)}, ${body}, ${seq}) ${upsert}`],
    () => ['insert', `INSERT INTO messages VALUES (${id}, ${room}, false, ${body}, ${seq}) ${upsert}`],
    () => ['insert', `INSERT INTO messages VALUES (${other}, ${room}, false, ${body}, ${seq}) ${upsert}`],
    () => ['update', `UPDATE messages SET body = ${body}, seq = ${seq} WHERE id = ${id}`],
    () => ['update', `UPDATE messages SET body = ${body}, seq = ${seq} WHERE room_id = ${room}`],
    () => ['open', `UPDATE messages SET open = NOT open, seq = ${seq} WHERE id = ${id}`],
    () => ['move', `UPDATE messages SET room_id = ${room}, seq = ${seq} WHERE id IN (${id}, ${other})`],
    () => [
      'key',
      `UPDATE messages SET id = ${other}, seq = ${seq} WHERE id = ${id} AND NOT EXISTS (SELECT FROM messages WHERE id = ${other})`,
    ],
    () => [
      'twice',
      `UPDATE messages SET room_id = ${room}, seq = ${seq} WHERE id = ${id}; UPDATE messages SET body = ${body}, seq = ${seq} WHERE id = ${id}`,
    ],
    () => ['delete', `DELETE FROM messages WHERE id = ${id}`],
    () => [
      'delete and insert',
      `DELETE FROM messages WHERE id = ${id}; INSERT INTO messages VALUES (${id}, ${room}, false, ${body}, ${seq})`,
    ],
    () => [
      'room',
      `INSERT INTO rooms VALUES (${room}, ${body}, ${seq}) ON CONFLICT (id) DO UPDATE SET name = excluded.name, seq = excluded.seq`,
    ],
    () => ['room', `UPDATE rooms SET name = ${body}, seq = ${seq} WHERE id <> ${room}`],
    () => ['room', `DELETE FROM rooms WHERE id = ${room}`],
    () => [
      'grant',
      `INSERT INTO members VALUES (${room}, ${user}, ${role}, ${seq}) ON CONFLICT (room_id, user_id) DO UPDATE SET role = excluded.role, seq = excluded.seq`,
    ],
    () => [
      'grant',
      `INSERT INTO members VALUES (${room}, ${user}, 'reader', ${seq}) ON CONFLICT (room_id, user_id) DO NOTHING`,
    ],
    () => ['revoke', `DELETE FROM members WHERE room_id = ${room} AND user_id = ${user}`],
    () => ['role', `UPDATE members SET role = ${role}, seq = ${seq} WHERE user_id = ${user}`],
  ])()
}

/** A second between two questions whether it arrived, and the quarter of one in which timers tick, before each. */
const repeatedMs = 1500

class World {
  readonly random: Random
  readonly truth: Truth
  readonly judge: HistoryJudge
  readonly peers: HistoryPeer[] = []
  readonly spans: [number, number][] = [[-1, -1]]
  readonly #subscribers: Subscriber[] = []
  #isCommitting = false
  #repeatedMs = repeatedMs
  readonly counts = { commits: 0, cuts: 0, leaves: 0, swaps: 0, slow: 0, policies: 0 }

  constructor(seed: number) {
    this.random = Random.of(seed, 'phoenix')
    const all = [...bindings.flat(), asked({ table: 'members' })]
    for (const binding of all)
      for (const table of binding.table === null ? tables.map(({ name }) => name) : [binding.table])
        for (const user of users.keys()) this.#subscribers.push(subscriberFor(binding, table, user))
    const claims = users.map(sub => ({ role: 'authenticated' as const, sub }))
    const subscribers = this.#subscribers
    const history = { name: `seed ${seed}`, tables, functions: [], policies: [], users: claims, rows: [], subscribers }
    this.truth = new Truth({ ...history, transactions: [], pace: 'burst' }, client)
    const found = (binding: AskedBinding, table: string, user: number): Subscriber =>
      this.#subscribers.find(
        one =>
          one.table === table &&
          one.user === user &&
          one.where === binding.where &&
          `${one.select}` === `${binding.select}`,
      )!
    this.judge = new HistoryJudge({
      truth: this.truth,
      tables,
      keyOnly: new Set(['rooms']),
      subscriberOf: found,
      membershipsOf: user => found(asked({}), 'members', user),
      spans: this.spans,
      repeatedMs: () => this.#repeatedMs,
    })
  }

  async begin(): Promise<void> {
    const { random, truth } = this
    await truth.begin()
    const tokens = await Promise.all(users.map(sub => tokenFor(sub)))
    const key = await tokenFor(person(), { role: 'anon' })
    for (const [i, asks] of bindings.entries()) {
      const peer = new HistoryPeer({
        name: `peer-${i}`,
        bindings: asks,
        user: random.below(users.length),
        vsn: random.pick(['1.0.0', '2.0.0']),
        begun: () => truth.moments.length - (this.#isCommitting ? 0 : 1),
        url: node.url,
        key,
        tokens,
      })
      this.peers.push(peer)
      await peer.connect()
      peer.join()
    }
    for (const peer of this.peers) await peer.joined()
  }

  get now(): number {
    return this.truth.moments.length - 1
  }

  async commit(transaction: readonly Statement[]): Promise<void> {
    // Of no two commits is it unclear at which of them something took place.
    const last = this.spans.at(-1)![1]
    while (Date.now() <= last) await sleep(1)
    const from = Date.now()
    this.#isCommitting = true
    const committed = await this.truth.commit(transaction)
    this.#isCommitting = false
    if (committed === null) return
    this.spans.push([from, Date.now()])
    this.counts.commits += 1
  }

  /** What befalls the peers before a commit. */
  async turn(): Promise<void> {
    const { random } = this
    for (const peer of this.peers) {
      const isSettled = peer.swaps.every(({ to }) => to !== null)
      if (peer.state === 'cut') {
        if (random.once(3)) await peer.comeBack()
      } else if (peer.state === 'out') {
        if (random.once(3)) peer.join()
      } else if (peer.isSlow) {
        if (random.once(4)) peer.read()
        else if (random.once(6) && isSettled) await this.#cut(peer)
      } else if (peer.state === 'in' && isSettled) {
        const dice = random.below(60)
        if (dice < 3) await this.#cut(peer)
        else if (dice === 3) {
          this.counts.leaves += 1
          peer.leave()
        } else if (dice === 4) {
          this.counts.swaps += 1
          peer.become((peer.user + 1 + random.below(users.length - 1)) % users.length)
        } else if (dice < 7) {
          this.counts.slow += 1
          peer.slow()
        }
      }
    }
  }

  async #cut(peer: HistoryPeer): Promise<void> {
    this.counts.cuts += 1
    await peer.cut()
  }

  /** Until everybody who is there has been told everything. */
  async settle(): Promise<void> {
    const { truth, now } = this
    if (now === 0) return
    const { xid } = truth.moments[now]!
    const token = await tokenFor(users[0]!)
    const waited = await fetch(`${node.url}/v1/wait`, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      body: JSON.stringify({ txid: xid }),
    })
    if (!waited.ok) throw new Error(await waited.text())
    const deadline = performance.now() + 15_000
    await Promise.all(this.peers.filter(({ isPresent }) => isPresent).map(peer => peer.flushed()))
    for (const peer of this.peers) {
      if (peer.isSlow || peer.state === 'cut' || peer.state === 'out') {
        this.#expectRight(peer, this.judge.judge(peer, null))
        continue
      }
      for (;;) {
        const { state }: { state: string } = peer
        const isThere = state === 'in' || state === 'out'
        const wrong = isThere ? this.judge.judge(peer, now) : `it is ${state}`
        if (wrong === null) break
        if (performance.now() > deadline || /^\[P[25]\]/.test(wrong)) this.#expectRight(peer, wrong)
        await sleep(5)
      }
      if (peer.state === 'in') peer.settle(now)
    }
  }

  async end(): Promise<void> {
    for (const peer of this.peers) await peer.end()
    await client.query('DEALLOCATE ALL')
  }

  #expectRight(peer: HistoryPeer, wrong: string | null): void {
    if (wrong === null) return
    if (/ms before the break/.test(wrong) && this.#repeatedMs === repeatedMs) {
      this.#repeatedMs = repeatedMs * crowding()
      this.#expectRight(peer, this.judge.judge(peer, null))
      return
    }
    const { name, user, visits, ended, swaps, settled, errors, heard } = peer
    console.log(
      JSON.stringify({ name, user: users[user], bindings: peer.bindings, visits, ended, swaps, errors }, null, 1),
      settled.slice(-3),
      heard.slice(-8),
      this.truth.moments
        .slice(-12)
        .map(
          ({ statements }, i, all) => `${this.now + 1 - all.length + i} ${statements.map(([, sql]) => sql).join('; ')}`,
        )
        .join('\n'),
    )
    expect(wrong, name).toBe(null)
  }
}

function subscriberFor({ where, select }: AskedBinding, table: string, user: number): Subscriber {
  return { user, kind: 'changes', table, filter: '', where, select, joins: 0, away: [], slow: [] }
}

/** More of them meet what is rarer: HISTORY_ROUNDS=500 takes a few minutes. */
const rounds = Number(process.env.HISTORY_ROUNDS ?? 12)

test('[P1] [P2] [P4] [P5] generated histories: each peer is told what its SELECT says at every commit, once and in order', {
  timeout: 60_000 + rounds * 5000,
}, async () => {
  const seed = Number(process.env.TEST_SEED ?? randomInt(2 ** 31))
  console.log(`histories: seed ${seed}`)
  await client.query('TRUNCATE rooms, members, messages')
  const world = new World(seed)
  const { random, peers, counts } = world
  await world.begin()
  let policyAt = Number.NEGATIVE_INFINITY
  for (let round = 0; round < rounds; round++) {
    const isBurst = random.once(2)
    for (let i = 0; i < 4 + random.below(8); i++) {
      await world.turn()
      await world.commit(Array.from({ length: random.pick([1, 1, 2, 3, 5]) }, () => statement(random)))
      if (!isBurst) await world.settle()
    }
    await world.settle()
    // So long that what was told is known to have arrived.
    if (random.once(6)) await sleep(1500)
    for (const { errors } of peers)
      for (const { message, stood } of errors.splice(0)) {
        expect(message).toMatch(/^(INPUTS|QUERY)_CHANGED: /)
        // Noticed within a few commits, and told again to who was cut off before it is known to have heard it.
        expect(policyAt, `told ${message} where it stood at ${stood}`).toBeGreaterThan(stood - 60)
      }
    if (random.once(10)) {
      counts.policies += 1
      const policy = `ALTER POLICY readers ON messages USING (open OR ${member(random.pick(readers))})`
      await world.commit([
        ['policy', policy],
        ['tick', 'INSERT INTO ticks VALUES (1)'],
      ])
      policyAt = world.now
      await world.settle()
    }
  }
  const { compared, repeated, excused } = world.judge
  console.log(
    `histories: ${JSON.stringify(counts)}, ${peers.reduce((sum, { heard }) => sum + heard.length, 0)} events, ${compared} rows compared, ${repeated.size} repeated, ${excused.size} excused`,
  )
  await world.end()
  expect(counts.commits).toBeGreaterThan(rounds * 3)
  expect(compared).toBeGreaterThan(rounds * 10)
})
