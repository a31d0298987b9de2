// One run: a node, neighbours who were there before, and actors who send it what it should refuse. At the end nothing is
// left of them.

import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { Random } from '../checker/random.ts'
import { ChannelClient, type JoinedChannel } from '../support/channel-client.ts'
import { person, tokenFor } from '../support/node.ts'
import type { TestDatabase } from '../support/postgres.ts'
import { Reader, type Transport, transports } from '../support/readers.ts'
import { LoggedNode } from '../support/refused.ts'
import { channelRules, database as databaseSpeaks, echoes, members } from './channels.ts'
import { filters } from './filters.ts'
import { bytes, sessions } from './frames.ts'
import { Oracle } from './oracle.ts'
import { positions } from './positions.ts'
import { requests } from './requests.ts'
import type { Actor, Run } from './run.ts'
import { tokens } from './tokens.ts'
import { comesTrue, connect, prepareWorld, rooms, secret } from './world.ts'

export interface Verdict {
  readonly seed: number
  readonly inputs: Readonly<Record<string, number>>
  /** How often each code was met. */
  readonly codes: Readonly<Record<string, number>>
  readonly delivered: number
  /** Bytes in use after a collection: once everything was warm, and at the end. */
  readonly heapBefore: number
  readonly heapAfter: number
  /** The longest turn of the event loop, the actors' own work included. */
  readonly longestTurnMs: number
  readonly failures: readonly string[]
}

/** Small bounds, so that what is rare elsewhere is common here. */
const settings: Record<string, string> = {
  HANDSHAKE_MS: '3000',
  HEARTBEAT_MS: '1000',
  AUDIENCE_GRACE_MS: '100',
  RESUME_WAIT_MS: '100',
  BEACON_MS: '200',
  MAX_SUBSCRIPTIONS: '20',
  MAX_FRAMES_PER_SECOND: '2000',
  SNAPSHOT_CHUNK_ROWS: '7',
  WINDOW_MAX_BYTES: '1048576',
  CHANNELS: JSON.stringify(channelRules),
}

const actors: Readonly<Record<string, Actor>> = {
  sessions,
  'more sessions': sessions,
  bytes,
  'more bytes': bytes,
  requests,
  'more requests': requests,
  tokens,
  filters,
  positions,
  members,
  'more members': members,
  echoes,
  databaseSpeaks,
}

/** How much longer a run may take that has not met what it is to meet. */
const longerMs = 30_000

export async function fuzz(options: {
  readonly seed: number
  readonly runMs: number
  readonly database: TestDatabase
  /** Of a node that is not alone. */
  readonly redisUrl?: string
  /** Refusals that a run is to meet: it goes on for up to half a minute where chance has not brought one of them. */
  readonly codes?: readonly string[]
  readonly say: (line: string) => void
}): Promise<Verdict> {
  const { seed, runMs, database, redisUrl, codes = [], say } = options
  const people = { ada: person(), ben: person(), eve: person() }
  await prepareWorld(database, people)
  await using node = await LoggedNode.start(database.url, {
    ...settings,
    ...(redisUrl === undefined ? {} : { REDIS_URL: redisUrl }),
  })
  const oracle = new Oracle(secret)
  const neighbours = new Neighbours(node, database, await tokenFor(people.eve))
  await neighbours.come()
  const delay = monitorEventLoopDelay({ resolution: 5 })
  const parts = {
    database,
    oracle,
    ada: people.ada,
    token: await tokenFor(people.ada),
    foreignToken: await tokenFor(people.ben),
  }
  const act = async (phase: string, forMs: number, wanted: readonly string[]): Promise<void> => {
    const endAt = Date.now() + forMs
    const isEnough = (): boolean => wanted.every(code => oracle.codes.has(code)) || Date.now() > endAt + longerMs
    const run: Run = { ...parts, url: node.url, port: node.server.port, isOver: () => Date.now() > endAt && isEnough() }
    const acting = Object.entries(actors).map(async ([name, actor]) => {
      try {
        await actor(run, Random.of(seed, phase, name))
      } catch (error) {
        oracle.fail(`${name} came to a stop: ${String(error)}`, (error as Error).stack)
      }
    })
    await Promise.all([neighbours.follow(run), ...acting])
  }
  const rest = async (): Promise<number> => {
    await neighbours.leave()
    const isLeft = (): boolean =>
      Object.values({ ...node.server.holdings(), connections: node.server.connections() }).some(n => n > 0)
    if (!(await comesTrue(() => !isLeft(), 15_000)))
      oracle.fail('something is left of them', { ...node.server.holdings(), connections: node.server.connections() })
    return heapUsed()
  }
  // Everything is compiled and every pool filled before anything is weighed.
  const warmMs = Math.min(runMs / 2, 30_000)
  await act('warm', warmMs, [])
  const heapBefore = await rest()
  await neighbours.come()
  delay.enable()
  await act('run', runMs - warmMs, codes)
  delay.disable()
  const heapAfter = await rest()
  // In half a minute not all is compiled: a short run can tell a large leak only.
  if (heapAfter > heapBefore * (warmMs < 30_000 ? 1.3 : 1.1)) oracle.fail('memory grew', { heapBefore, heapAfter })
  const health = await fetch(`${node.url}/health`)
  if (health.status !== 200) oracle.fail(`the node is not healthy any more: ${health.status}`, await health.text())
  for (const line of node.lines) {
    if (line.level >= 50) oracle.fail(`the log has an error: ${line.msg}`, line)
    else say(`log: ${line.msg}`)
  }
  if (neighbours.failure !== null) oracle.fail('a neighbour was harmed', neighbours.failure)
  return {
    seed,
    inputs: Object.fromEntries(oracle.inputs),
    codes: Object.fromEntries([...oracle.codes].sort()),
    delivered: neighbours.delivered,
    heapBefore,
    heapAfter,
    longestTurnMs: Math.round(delay.max / 1e6),
    failures: oracle.failures,
  }
}

/** One over each wire, and one who takes every change; who is told of every row of theirs, and two in a channel of theirs, whatever
 *  else happens. */
class Neighbours {
  readonly #node: LoggedNode
  readonly #database: TestDatabase
  readonly #token: string
  readonly #wires: readonly Transport[] = transports
  #readers: Reader[] = []
  #talkers: ChannelClient[] = []
  #channels: JoinedChannel[] = []
  #next = 1
  delivered = 0
  failure: string | null = null

  constructor(node: LoggedNode, database: TestDatabase, token: string) {
    this.#node = node
    this.#database = database
    this.#token = token
  }

  async come(): Promise<void> {
    this.#readers = [
      ...this.#wires.map(wire => new Reader(wire, 'live', 'messages', this.#token)),
      new Reader('websocket', 'changes', 'messages', this.#token),
    ]
    await Promise.all(this.#readers.map(reader => reader.come(this.#node)))
    await Promise.all(this.#readers.map(reader => reader.until(() => reader.kind === 'changes' || reader.rows.exact)))
    this.#talkers = [
      await ChannelClient.open(this.#node, this.#token),
      await ChannelClient.open(this.#node, this.#token),
    ]
    this.#channels = await Promise.all(this.#talkers.map(talker => talker.join(`room:${rooms.neighbours}`)))
  }

  /** Writes and waits for it everywhere, until the run is over. */
  async follow(run: Run): Promise<void> {
    const client = await connect(this.#database)
    const first = this.#next
    try {
      while (!run.isOver() && this.failure === null) {
        const id = this.#next++
        await client.query('INSERT INTO messages VALUES ($1, $2, $3, $3)', [id, rooms.neighbours, 'x'])
        for (const reader of this.#readers) {
          const has = (): boolean =>
            reader.kind === 'changes' ? reader.changes.length === id - first + 1 : reader.rows.rows.has(`[${id}]`)
          await reader.until(has, 15_000)
          if (reader.resyncs.length > 0) throw new Error(`${reader.transport} was told ${reader.resyncs}`)
          this.delivered += 1
        }
        await this.#talk(id)
        await new Promise(resolve => setTimeout(resolve, 10))
      }
    } catch (error) {
      this.failure = String(error)
    } finally {
      await client.end()
    }
  }

  async #talk(id: number): Promise<void> {
    const [speaker, listener] = this.#channels
    await speaker!.send('said', id)
    await listener!.waitFor(() => listener!.payloads.at(-1) === id, 15_000)
    if (listener!.told.some(({ kind }) => kind !== 'message')) throw new Error(JSON.stringify(listener!.told))
    listener!.told.length = 0
    this.delivered += 1
  }

  async leave(): Promise<void> {
    for (const talker of this.#talkers.splice(0)) talker.close()
    await Promise.all(this.#readers.map(reader => reader.leave()))
    this.#readers = []
  }
}

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

async function heapUsed(): Promise<number> {
  let used = Number.POSITIVE_INFINITY
  // What is freed may free more: until two in a row say the same.
  for (let times = 0; times < 10; times++) {
    await new Promise(resolve => setTimeout(resolve, 20))
    collect()
    const now = process.memoryUsage().heapUsed
    if (now > used * 0.999) return Math.min(now, used)
    used = now
  }
  return used
}
