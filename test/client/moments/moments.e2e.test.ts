// The client through what happens to laptops, pages and servers: rows equal the SELECT afterwards, every event came once, and the status
// told the truth.
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { freePort } from '../../../src/cli/local-postgres.ts'
import { createClient } from '../../../src/client/client.ts'
import { Balancer } from '../../support/balancer.ts'
import { eventually } from '../../support/eventually.ts'
import { jwtSecret, person, prepareDatabase, roomsSchema, selectAs, tokenFor } from '../../support/node.ts'
import { TestDatabase } from '../../support/postgres.ts'
import { type RedisProcess, startRedis } from '../../support/redis-process.ts'
import { RunningProcess, startCli } from '../../support/run-cli.ts'
import { crowding } from '../../support/within.ts'

const heartbeatMs = 500
/** Of clients whose server dies: `MOMENTS_CROWD=1000` for a full one. */
const crowd = Number(process.env.MOMENTS_CROWD ?? 250)
const program = fileURLToPath(new URL('follower.ts', import.meta.url))
let database: TestDatabase
let redis: RedisProcess
const [ana, ben, cleo] = [person(), person(), person()]
let lastId = 0

beforeAll(async () => {
  database = await TestDatabase.create()
  redis = await startRedis()
  await prepareDatabase(database, roomsSchema, ['rooms', 'members', 'messages'])
  await database.query(`INSERT INTO members VALUES (1, '${ana}'), (1, '${ben}'), (2, '${cleo}')`)
}, 120_000)

afterAll(async () => {
  await redis?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

async function startNode(
  port: number,
  settings: Record<string, string> = {},
): Promise<RunningProcess & { url: string }> {
  const node = startCli(['start'], {
    DATABASE_URL: database.url,
    REDIS_URL: redis.url,
    JWT_SECRET: jwtSecret,
    PORT: String(port),
    LOG_LEVEL: 'warn',
    BEACON_MS: '1000',
    HEARTBEAT_MS: String(heartbeatMs),
    ...settings,
  })
  await node.until(({ out }) => out.includes('ready'))
  return Object.assign(node, { url: `http://127.0.0.1:${port}` })
}

async function write(count = 1): Promise<void> {
  for (let n = 0; n < count; n++) await database.query(`INSERT INTO messages VALUES (${++lastId}, 1, 'w', 'row')`)
}

interface Line {
  readonly status?: string
  readonly at?: number
  readonly feed?: string
  /** How many rows, and the sum of their ids. */
  readonly held?: [number, number]
  readonly op?: string
  readonly id?: number
  readonly resync?: string
  readonly token?: string
}

class Follower extends RunningProcess {
  get lines(): Line[] {
    return this.out
      .split('\n')
      .slice(0, -1)
      .map(line => JSON.parse(line) as Line)
  }

  get statuses(): string[] {
    return this.lines.flatMap(({ status }) => (status === undefined ? [] : [status]))
  }

  get events(): number[] {
    return this.lines.flatMap(({ op, id }) => (op === 'insert' ? [id!] : []))
  }

  get tokens(): number {
    return this.lines.filter(({ token }) => token !== undefined).length
  }

  /** Its rows are those of the SELECT now, and it says that it is live. */
  async isRight(user = ana): Promise<void> {
    await eventually(async () => {
      const [row] = await selectAs(database, user, 'SELECT count(*)::int, sum(id)::int FROM public.messages')
      const held = [row!.count, row!.sum ?? 0]
      const last = this.lines.findLast(({ feed }) => feed !== undefined)
      expect([last?.feed, last?.held, this.statuses.at(-1)]).toEqual(['live', held, 'live'])
    })
  }
}

const follow = (url: string, settings: Record<string, string> = {}): Follower =>
  new Follower([program], { TIDEGATE_URL: url, USER_ID: ana, JWT_SECRET: jwtSecret, ...settings })

test('[P4] [P8] a laptop that sleeps past its connection and its token, and a page in the background, whose timers come late', {
  timeout: 180_000,
}, async () => {
  await using node = await startNode(await freePort())
  await sleepsLikeALaptop(node.url)
  await waitsInTheBackground(node.url)
})

/** [P4] A laptop that sleeps past its connection and its token: right when it wakes, and told away until then. */
async function sleepsLikeALaptop(url: string): Promise<void> {
  await using follower = follow(url, { TOKEN_SECONDS: '3' })
  await follower.isRight()
  await write(2)
  await follower.isRight()
  follower.child.kill('SIGSTOP')
  const since = lastId
  const asked = follower.tokens
  await write(3)
  // Longer than its token and two heartbeats, after which the server has given the connection up.
  await sleep(3500)
  await write(3)
  const before = follower.lines.length
  const wokeAt = Date.now()
  follower.child.kill('SIGCONT')
  await follower.isRight()
  expect(follower.tokens).toBeGreaterThan(asked)
  const after = follower.lines.slice(before)
  const away = after.findIndex(({ status }) => status === 'offline')
  // Within the watchdog's time it says that it was away, and live only once it has everything.
  expect(away).toBeGreaterThanOrEqual(0)
  expect(after[away]!.at! - wokeAt).toBeLessThan(2 * heartbeatMs * crowding() + 1000)
  const live = after.findIndex(({ status }, index) => index > away && status === 'live')
  expect(after.slice(live).filter(({ op }) => op !== undefined)).toEqual([])
  expect(follower.events.filter(id => id > since - 2)).toEqual(Array.from({ length: 8 }, (_, n) => since - 1 + n))
  expect(after.filter(({ resync }) => resync !== undefined)).toEqual([])
}

/** [P8] The connection stays, because it answers to what it hears. */
async function waitsInTheBackground(url: string): Promise<void> {
  // Six heartbeats, three times what the server waits for. Its user reads a room of her own, whatever others write meanwhile.
  await using follower = follow(url, { TIMER_GRAIN_MS: String(6 * heartbeatMs), USER_ID: cleo })
  await follower.isRight(cleo)
  const tokens = follower.tokens
  const told = follower.lines.length
  // Two of its timers are due in it.
  await sleep(12 * heartbeatMs)
  await database.query("INSERT INTO messages VALUES (1000000, 2, 'w', 'row')")
  await follower.isRight(cleo)
  expect(follower.lines.slice(told).filter(({ status }) => status !== undefined)).toEqual([])
  expect(follower.tokens).toBe(tokens)
}

test('[P4] a server that dies and is started anew: nothing lost, nothing repeated, no resync', {
  timeout: 180_000,
}, async () => {
  const port = await freePort()
  await using first = await startNode(port)
  await using follower = follow(first.url)
  await follower.isRight()
  const since = lastId
  await write(5)
  first.child.kill('SIGKILL')
  await first.end()
  await write(5)
  await eventually(() => expect(follower.statuses.at(-1)).toBe('offline'))
  await using _second = await startNode(port)
  await write(5)
  await follower.isRight()
  // Another subscription than that of the rows.
  await eventually(() => expect(follower.events).toEqual(Array.from({ length: 15 }, (_, n) => since + 1 + n)))
  expect(follower.lines.filter(({ resync }) => resync !== undefined)).toEqual([])
})

test('[P4] over to another node, again and again, while somebody writes: every event once', {
  timeout: 180_000,
}, async () => {
  await using balancer = await Balancer.start()
  const nodes = new Map<string, RunningProcess & { url: string }>()
  await Promise.all(['a', 'b'].map(async name => nodes.set(name, await startNode(await freePort()))))
  for (const [name, { url }] of nodes) balancer.add(name, url)
  await using follower = follow(balancer.url)
  await follower.isRight()
  const since = lastId
  let stopped = false
  const writing = (async () => {
    while (!stopped) {
      await write()
      await sleep(20)
    }
  })()
  for (const name of ['a', 'b', 'a']) {
    balancer.remove(name)
    const node = nodes.get(name)!
    node.child.kill('SIGKILL')
    await node.end()
    const again = await startNode(Number(new URL(node.url).port))
    nodes.set(name, again)
    balancer.add(name, again.url)
    await eventually(() => expect(follower.statuses.at(-1)).toBe('live'))
  }
  stopped = true
  await writing
  await follower.isRight()
  await eventually(() => expect(follower.events.at(-1)).toBe(lastId))
  expect(follower.events).toEqual(Array.from({ length: lastId - since }, (_, n) => since + 1 + n))
  expect(follower.lines.filter(({ resync }) => resync !== undefined)).toEqual([])
  for (const node of nodes.values()) await node[Symbol.asyncDispose]()
})

test('[P4] [P7] a crowd whose server dies comes back spread out, each right and none resynced', {
  timeout: 180_000,
}, async () => {
  const port = await freePort()
  await using first = await startNode(port, { HEARTBEAT_MS: '25000' })
  const token = await tokenFor(ben)
  const statuses = new Map<number, string>()
  const rows = new Map<number, number>()
  const resynced: string[] = []
  const attempts: number[] = []
  const clients = Array.from({ length: crowd }, (_, n) => {
    const client = createClient<{ messages: { id: number } }>(first.url, {
      token,
      transports: ['websocket'],
    })
    client.onStatus(status => {
      statuses.set(n, status.name)
      // The time of waiting is over, and the next attempt begins.
      if (status.name === 'offline' && status.retryAt === null) attempts.push(Date.now())
    })
    client
      .from('messages')
      .live()
      .subscribe(({ rows: { length }, error }) => {
        rows.set(n, length)
        if (error !== null && error.code !== 'CONNECTION_LOST') resynced.push(error.code)
      })
    return client
  })
  const allLive = async (): Promise<void> => {
    const count = lastId
    await expect
      .poll(() => [...statuses].filter(([n, name]) => name === 'live' && rows.get(n) === count).length, {
        timeout: 60_000 * crowding(),
        interval: 100,
      })
      .toBe(crowd)
  }
  await allLive()
  attempts.length = 0
  first.child.kill('SIGKILL')
  await first.end()
  await write(10)
  await using _second = await startNode(port, { HEARTBEAT_MS: '25000' })
  await allLive()
  for (const client of clients) client.close()
  expect(resynced).toEqual([])
  // Full jitter from half a second on: without it, a tenth of a second would have all of them.
  const buckets = Map.groupBy(attempts, at => Math.floor((at - attempts[0]!) / 100))
  expect(attempts.length).toBeGreaterThanOrEqual(crowd)
  expect(Math.max(...[...buckets.values()].map(({ length }) => length))).toBeLessThan(crowd / 2)
})
