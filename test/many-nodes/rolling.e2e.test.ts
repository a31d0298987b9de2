// A rolling restart, as an orchestrator does it: each node gets SIGTERM, leaves, and starts anew, while rows are written and
// a balancer without stickiness stands before all of them.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { freePort } from '../../src/cli/local-postgres.ts'
import { Balancer } from '../support/balancer.ts'
import { jwtSecret, person, prepareDatabase, roomsSchema, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { transports } from '../support/readers.ts'
import { findRedis, type TestRedis } from '../support/redis.ts'
import { type RunningProcess, startCli } from '../support/run-cli.ts'
import { until } from '../support/stalled.ts'
import { writing } from '../support/writing.ts'
import { type Absence, Returning } from './returning.ts'

const ada = person()
let database: TestDatabase
let redis: TestRedis
let token: string

beforeAll(async () => {
  database = await TestDatabase.create()
  redis = await findRedis()
  await prepareDatabase(database, roomsSchema, ['rooms', 'members', 'messages'])
  await database.query(`INSERT INTO members VALUES (1, '${ada}')`)
  token = await tokenFor(ada)
})

afterAll(async () => {
  await redis?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

class Node implements AsyncDisposable {
  readonly url: string
  readonly #env: Record<string, string>
  #process!: RunningProcess

  private constructor(port: number, env: Record<string, string>) {
    this.url = `http://127.0.0.1:${port}`
    this.#env = { DATABASE_URL: database.url, JWT_SECRET: jwtSecret, PORT: String(port), BEACON_MS: '500', ...env }
  }

  static async start(env: Record<string, string>): Promise<Node> {
    const node = new Node(await freePort(), env)
    await node.start()
    return node
  }

  async start(): Promise<void> {
    this.#process = startCli(['start'], this.#env)
    await this.#process.until(({ out }) => out.includes('tidegate is ready'))
  }

  terminate(): void {
    this.#process.child.kill('SIGTERM')
  }

  /** @returns the exit code */
  async ended(): Promise<number | null> {
    return (await this.#process.end()).code
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#process[Symbol.asyncDispose]()
  }
}

/** Coming back, at the first attempt, takes a handshake and a resume, on a machine that starts a node at the time. */
const slackMs = 10_000

test('[P4] [P5] a rolling restart of three nodes: every client back within its hint, no resync, nothing repeated, nothing lost', {
  timeout: 180_000,
}, async () => {
  const env = { REDIS_URL: redis.url, DRAIN_DELAY_MS: '2000', DRAIN_SPREAD_MS: '1000' }
  await using stack = new AsyncDisposableStack()
  const nodes = await Promise.all([1, 2, 3].map(async () => stack.use(await Node.start(env))))
  const balancer = stack.use(await Balancer.start({ readyPath: '/ready?scope=node', askEveryMs: 100 }))
  for (const { url } of nodes) balancer.add(url, url)
  const isWholeAgain = (): Promise<void> => until(() => balancer.ready.length === nodes.length, 30_000)
  await isWholeAgain()
  const readers: Returning[] = []
  const written = await writing(database, { afterId: 0, everyMs: 30 }, async () => {
    for (let i = 0; i < 2; i++)
      for (const transport of transports)
        for (const kind of ['live', 'changes'] as const)
          readers.push(stack.use(new Returning(transport, kind, balancer.url, token)))
    await until(() => readers.every(({ isSettled }) => isSettled), 30_000)
    for (const node of nodes) {
      node.terminate()
      expect(await node.ended()).toBe(0)
      await node.start()
      await isWholeAgain()
      await until(() => readers.every(({ isSettled }) => isSettled), 30_000)
    }
  })

  const isWhole = (reader: Returning): boolean =>
    reader.kind === 'live' ? reader.rows.rows.size === written : reader.changes.at(-1)?.key?.id === written
  await until(() => readers.every(isWhole), 30_000).catch(() => {})
  for (const reader of readers) {
    const who = `${reader.transport} ${reader.kind}`
    expect([who, reader.failures, reader.rows.resyncs, isWhole(reader)]).toEqual([who, [], [], true])
    // Each once, in order, from its first on.
    const ids = reader.changes.map(({ key }) => Number(key?.id))
    expect(ids).toEqual(ids.map((_, place) => ids[0]! + place))
  }
  const absences = readers.flatMap(reader => reader.absences)
  // Of three nodes each leaves once, and takes a share of the readers with it.
  expect(absences.length).toBeGreaterThanOrEqual(readers.length / 2)
  const isLate = ({ hintMs, awayMs }: Absence): boolean => awayMs > hintMs + slackMs
  expect(absences.filter(isLate)).toEqual([])
  expect(absences.every(({ hintMs }) => hintMs > 0 && hintMs <= 1000)).toBe(true)
})
