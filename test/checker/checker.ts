// One checked run: writers and readers in rounds, and at the end of each, once everything is quiet, the verdict.
import { prepareDatabase } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import type { Cluster } from './cluster.ts'
import { Crowd, type CrowdCounts, usersOf } from './crowd.ts'
import { asPostgresSees, forgetPast, judged } from './findings.ts'
import { Horizon } from './horizon.ts'
import { type Misfortune, misfortunes } from './misfortunes.ts'
import type { CheckedNode } from './nodes.ts'
import { Random } from './random.ts'
import { dropSlot, invalidateSlot } from './slot-loss.ts'
import { count, newTally, type Tally } from './tally.ts'
import { Truth } from './truth.ts'
import { schema, tableNames } from './world.ts'
import { type WriterCounts, Writers } from './writers.ts'

export interface CheckerOptions {
  readonly seed: number
  readonly minutes: number
  /** Length of a round, without the wait for quiet. */
  readonly roundMs: number
  /** Connections of readers; each holds up to four queries. */
  readonly clients: number
  readonly writers: number
  /** A server that nobody else uses. */
  readonly cluster: Cluster
  /** Whether commits stall in the WAL. */
  readonly stalls: boolean
  /** Whether node and Postgres are killed and restarted, and the slot is lost. */
  readonly crashes: boolean
  readonly truncateOneIn: number
  readonly largeRows: number
  readonly windowMs: number
  readonly spoolBytes: number
  /** How many people read and are written about. */
  readonly users?: number
  /** What befalls node and server in a round; drawn from the seed when not given. */
  readonly plan?: typeof misfortunes
  startNode(databaseUrl: string, settings: Record<string, string>): Promise<CheckedNode>
  say(line: string): void
}

export interface Verdict {
  /** Null when everything was true; else what was not, and its history. */
  readonly failure: string | null
  readonly rounds: number
  /** In the truth, and told again by its slots after a crash. */
  readonly commits: number
  readonly repeated: number
  readonly tally: Tally
  readonly crowd: CrowdCounts
  readonly misfortunes: Readonly<Record<string, number>>
  readonly epochs: number
  /** Connections and subscriptions that the node ended, by code. */
  readonly ended: Readonly<Record<string, number>>
  readonly writers: WriterCounts
}

export async function check(options: CheckerOptions): Promise<Verdict> {
  const database = await TestDatabase.create(options.cluster.url)
  const run = new CheckedRun(options, database)
  try {
    return await run.run()
  } finally {
    await run.end()
  }
}

class CheckedRun {
  readonly #options: CheckerOptions
  #database: TestDatabase
  readonly #horizon: Horizon
  readonly #users: readonly string[]
  readonly #tally = newTally()
  readonly #ended: Record<string, number> = {}
  readonly #misfortunes: Record<string, number> = {}
  #crowd!: Crowd
  #truth!: Truth
  #writers!: Writers
  #node!: CheckedNode
  #lostSlots = 0
  #rounds = 0

  constructor(options: CheckerOptions, database: TestDatabase) {
    this.#options = options
    this.#database = database
    this.#horizon = new Horizon(database.url)
    this.#users = usersOf(options.seed, options.users ?? 6)
  }

  async run(): Promise<Verdict> {
    const { seed, minutes, say, stalls, writers, truncateOneIn, largeRows, crashes } = this.#options
    const { url } = this.#database
    say(`seed ${seed}`)
    await prepareDatabase(this.#database, schema, tableNames)
    this.#truth = await Truth.begin(url)
    const users = this.#users
    this.#writers = new Writers({ url, users, seed, connections: writers, truncateOneIn, stalls, largeRows, crashes })
    await this.#writers.seed()
    await this.#start()
    const { clients, windowMs, spoolBytes } = this.#options
    this.#crowd = new Crowd({
      seed,
      users,
      clients,
      truth: this.#truth,
      horizon: this.#horizon,
      tally: this.#tally,
      windowMs,
      spoolBytes,
      url: () => this.#node.url,
      stalled: () => this.#writers.stalledNow,
    })
    const endAt = performance.now() + minutes * 60_000
    let failure: string | null = null
    while (failure === null && performance.now() < endAt) {
      await this.#round()
      failure = await this.#verdict()
      this.#rounds += 1
      if (this.#rounds % 10 === 0)
        say(`${this.#rounds} rounds, ${this.#truth.count} commits, resyncs ${JSON.stringify(this.#tally.resyncs)}`)
    }
    if (failure !== null) failure = [failure, 'what the node said last:', ...this.#node.log()].join('\n')
    return {
      failure,
      rounds: this.#rounds,
      commits: this.#truth.count,
      repeated: this.#truth.repeated,
      tally: this.#tally,
      crowd: this.#crowd.counts,
      misfortunes: this.#misfortunes,
      epochs: this.#horizon.epochs.length,
      ended: this.#ended,
      writers: this.#writers.counts,
    }
  }

  async end(): Promise<void> {
    for (const { client } of this.#crowd?.checked ?? []) client.leave()
    await this.#node?.stop()
    await this.#truth?.end()
    await this.#connect()
    await this.#database[Symbol.asyncDispose]()
  }

  async #round(): Promise<void> {
    const { seed, roundMs, crashes, plan: draw = misfortunes } = this.#options
    const plan = crashes ? draw(seed, this.#rounds, roundMs) : []
    if (plan[0]?.misfortune.what === 'slot invalidated') await this.#befalls(plan.shift()!.misfortune, 0)
    const stop = new AbortController()
    const ended = Promise.all([this.#horizon.poll(stop.signal), this.#writers.run(stop.signal)])
    ended.catch(() => stop.abort())
    const until = performance.now() + roundMs
    const begunAt = performance.now()
    const suffered = (async () => {
      for (const { atMs, misfortune } of plan) {
        await sleep(Math.max(0, begunAt + atMs - performance.now()))
        await this.#befalls(misfortune, atMs)
      }
    })()
    suffered.catch(() => stop.abort())
    await this.#crowd.bustle(until, stop.signal)
    await suffered
    stop.abort()
    await ended
    await this.#connect()
  }

  async #start(): Promise<void> {
    const { startNode, windowMs, spoolBytes } = this.#options
    const settings = { WINDOW_MAX_AGE_MS: String(windowMs), SPOOL_BYTES: String(spoolBytes) }
    this.#node = await startNode(this.#database.url, settings)
  }

  async #befalls(misfortune: Misfortune, atMs: number): Promise<void> {
    const { seed, cluster } = this.#options
    const random = Random.of(seed, 'misfortune', this.#rounds, atMs)
    const { what } = misfortune
    count(this.#misfortunes, 'how' in misfortune ? `${what} ${misfortune.how}` : what)
    const { url } = this.#database
    if (what === 'postgres') return await cluster.crash(misfortune.how, random)
    if (what === 'slot dropped under the node') {
      this.#lostSlots += 1
      return await dropSlot(url, true)
    }
    await this.#node.kill()
    this.#horizon.restarted('node')
    if (what === 'both') await cluster.crash(misfortune.how, random)
    else if (what === 'slot dropped while away') await dropSlot(url, false)
    else if (what === 'slot invalidated') await invalidateSlot(url, () => this.#truth.read())
    else await sleep(random.below(1000))
    if (what.startsWith('slot')) this.#lostSlots += 1
    await this.#start()
  }

  /** The server may have crashed since. */
  async #connect(): Promise<void> {
    try {
      await this.#database.query('SELECT 1')
    } catch {
      await this.#database.client.end().catch(() => {})
      this.#database = await TestDatabase.connect(this.#database)
    }
  }

  /** @returns the first untruth with its history; null when there is none */
  async #verdict(): Promise<string | null> {
    const end = await this.#horizon.look(this.#database.client)
    const stuck = await this.#crowd.quiet(end, quietMs)
    await this.#horizon.look(this.#database.client)
    await this.#truth.read()
    const [finding] = await judged(this.#crowd, this.#truth, end, stuck)
    if (finding !== undefined) return finding.text
    const failure = this.#node.fault() ?? this.#endings()
    if (failure !== null) return failure
    const [unequal] = await asPostgresSees(this.#crowd, this.#truth, this.#database, end)
    if (unequal !== undefined) return unequal.text
    const { epochs } = this.#horizon
    if (epochs.length > 1 + this.#lostSlots)
      return `${epochs.length} epochs, and ${this.#lostSlots} slots were lost: ${epochs.join(', ')}`
    forgetPast(this.#crowd, this.#truth, this.#horizon)
    return null
  }

  /** What the node ended, it may have ended only with a code that lets one come back; a bare end is a crash of something. */
  #endings(): string | null {
    for (const { client } of this.#crowd.checked) {
      for (const { code, isRetryable } of client.endings.splice(0)) {
        count(this.#ended, code)
        if (!isRetryable || (code === 'closed' && !this.#options.crashes))
          return `${client.options.name} (${client.options.transport}) was ended with ${code}`
      }
    }
    return null
  }
}

const quietMs = 30_000

const sleep = (ms: number): Promise<void> => new Promise(resolve => setTimeout(resolve, ms))
