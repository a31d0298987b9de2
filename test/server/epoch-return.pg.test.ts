// A new epoch: everybody starts over, and the database is not stampeded for it.
import { once } from 'node:events'
import { expect, test } from 'vitest'
import { WebSocket } from 'ws'
import type { ServerFrame } from '../../src/protocol/messages.ts'
import { dropSlot } from '../checker/slot-loss.ts'
import { person, prepareDatabase, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { until } from '../support/stalled.ts'

const schema = `
  CREATE TABLE public.notes (id int PRIMARY KEY, owner uuid NOT NULL, body text);
  ALTER TABLE public.notes ENABLE ROW LEVEL SECURITY;
  CREATE POLICY own ON public.notes FOR SELECT TO authenticated USING (owner = (SELECT auth.uid()));
  GRANT SELECT ON public.notes TO authenticated;
  GRANT USAGE ON SCHEMA public TO authenticated, anon;
`
const sockets = 20
const queriesOfEach = 100
const snapshotsAtOnce = 2

/** A client of a hundred live queries, one row each, that comes back for each when it is told. */
class Crowd {
  readonly hints: number[] = []
  readonly refused: string[] = []
  /** Queries whose rows are exact. */
  readonly exact = new Set<number>()
  readonly #socket: WebSocket
  isClosed = false

  private constructor(socket: WebSocket) {
    this.#socket = socket
    socket.on('message', data => this.#take(JSON.parse(String(data))))
    socket.on('close', () => {
      this.isClosed = true
    })
  }

  static async join(node: TestNode, token: string, first: number): Promise<Crowd> {
    const socket = new WebSocket(`${node.url.replace('http', 'ws')}/v1/socket`, {
      headers: { authorization: `Bearer ${token}` },
    })
    const crowd = new Crowd(socket)
    await once(socket, 'open')
    for (let id = first; id < first + queriesOfEach; id += 1) crowd.#subscribe(id)
    return crowd
  }

  [Symbol.dispose](): void {
    this.#socket.terminate()
  }

  #subscribe(id: number): void {
    this.#socket.send(JSON.stringify({ type: 'subscribe', id, kind: 'live', table: 'notes', filter: `id=eq.${id}` }))
  }

  #take(frame: ServerFrame): void {
    if (frame.type === 'snapshot' && frame.done) this.exact.add(frame.id)
    if (frame.type !== 'error') return
    const { id, code, retryAfterMs } = frame
    this.exact.delete(id!)
    if (code === 'UNAVAILABLE') this.hints.push(retryAfterMs!)
    else this.refused.push(code)
    setTimeout(() => this.#subscribe(id!), retryAfterMs)
  }
}

test('[P4] [P7] 2,000 live queries start over spread by the server, and read a few snapshots at a time', {
  timeout: 120_000,
}, async () => {
  await using database = await TestDatabase.create()
  await prepareDatabase(database, schema, ['notes'])
  const owner = person()
  const count = sockets * queriesOfEach
  await database.query(`INSERT INTO notes SELECT id, '${owner}', 'a' FROM generate_series(1, ${count}) AS id`)
  await using node = await TestNode.start(database.url, {
    DATABASE_POOL: '8',
    SNAPSHOT_CONCURRENCY: String(snapshotsAtOnce),
    MAX_FRAMES_PER_SECOND: '100000',
    AUDIENCE_GRACE_MS: '0',
  })
  const token = await tokenFor(owner)
  using stack = new DisposableStack()
  const crowds: Crowd[] = []
  for (let place = 0; place < sockets; place += 1)
    crowds.push(stack.use(await Crowd.join(node, token, 1 + place * queriesOfEach)))
  const sumOf = (of: (crowd: Crowd) => number): number => crowds.reduce((sum, crowd) => sum + of(crowd), 0)
  await until(() => sumOf(({ exact }) => exact.size) === count, 60_000)

  await dropSlot(database.url, true)
  let most = 0
  await until(async () => {
    const [{ reading }] = (await database.query<{ reading: number }>(
      `SELECT count(*)::int AS reading FROM pg_stat_activity WHERE datname = current_database() AND state <> 'idle'
         AND pid <> pg_backend_pid() AND query ~ 'REPEATABLE READ|SET LOCAL ROLE|"notes"'`,
    )) as [{ reading: number }]
    most = Math.max(most, reading)
    return sumOf(({ hints }) => hints.length) >= count && sumOf(({ exact }) => exact.size) === count
  }, 60_000)

  expect(most).toBeGreaterThan(0)
  expect(most).toBeLessThanOrEqual(snapshotsAtOnce)
  const hints = crowds.flatMap(crowd => crowd.hints)
  expect(hints.length).toBeGreaterThanOrEqual(count)
  // Two milliseconds for each, evenly.
  for (let from = 0; from < 4000; from += 1000) {
    const within = hints.filter(hint => hint >= from && hint < from + 1000).length
    expect(within, `told to come back within the second from ${from} ms on`).toBeGreaterThan(count / 8)
  }
  expect(Math.max(...hints)).toBeLessThan(4000)
  expect(crowds.flatMap(crowd => crowd.refused)).toEqual([])
  expect(crowds.some(crowd => crowd.isClosed)).toBe(false)
})
