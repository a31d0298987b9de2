// One run of torture: writers, readers that hop, and faults that never rest, in rounds; at the end of each, once all is made
// good and quiet, the verdict.
import { Cluster } from '../checker/cluster.ts'
import { Crowd, type CrowdCounts, usersOf } from '../checker/crowd.ts'
import { asPostgresSees, type Finding, forgetPast, judged } from '../checker/findings.ts'
import { Horizon } from '../checker/horizon.ts'
import { Random } from '../checker/random.ts'
import { count, deliveriesOf, newTally, type Tally } from '../checker/tally.ts'
import { Truth } from '../checker/truth.ts'
import type { Harm } from '../checker/untrue.ts'
import { schema, tableNames } from '../checker/world.ts'
import { type WriterCounts, Writers } from '../checker/writers.ts'
import { prepareDatabase } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { type RedisProcess, startRedis } from '../support/redis-process.ts'
import { Fate } from './fate.ts'
import { type DueFault, type Fault, type FaultKind, faultKinds, nameOfFault } from './faults.ts'
import { acknowledgedUpTo, Tormentor, type Wound } from './inflict.ts'
import { TorturedNodes } from './nodes.ts'
import { type FaultRecord, Recovery } from './recovery.ts'
import { RedisLosses } from './redis-losses.ts'

export interface TortureOptions {
  readonly seed: number
  readonly minutes: number
  /** It goes on past its minutes until so much has come about, on a machine that is slow. */
  readonly least?: { readonly faults: number; readonly commits: number; readonly deliveries: number }
  /** Length of a round, without the wait for what befell in it to be over, and for quiet. */
  readonly roundMs: number
  /** One: without Redis. */
  readonly nodes: number
  readonly clients: number
  readonly writers: number
  readonly truncateOneIn: number
  readonly largeRows: number
  /** Of the time between two faults, the mean. */
  readonly faultEveryMs: number
  /** Those to draw from; left out, all that there are. */
  readonly kinds?: readonly FaultKind[]
  /** What befalls in each round, instead of what is drawn. */
  readonly plan?: readonly DueFault[]
  /** A mistake to plant in every node: see plant.ts. */
  readonly plant?: string
  readonly windowMs: number
  /** How long acknowledgements are held back. */
  readonly holdMs: number
  readonly spoolBytes: number
  say(line: string): void
}

export interface TortureReport {
  readonly seed: number
  readonly minutes: number
  readonly rounds: number
  readonly nodes: number
  /** Each found in one reader at most once; the run ends with the round that found them. */
  readonly found: Readonly<Record<Harm, number>>
  /** What befell lately, then the first of what was found with their histories, and last all of it in a line each: where a log is
   *  cut off, it is at its beginning. */
  readonly failures: readonly string[]
  readonly faults: readonly FaultRecord[]
  /** Faults that were drawn while what they would have befallen was hurt already. */
  readonly faultsPassedOver: number
  readonly commits: number
  /** Commits told again by the truth's own slots after a crash. */
  readonly commitsToldAgain: number
  readonly tally: Tally
  readonly crowd: CrowdCounts
  readonly writers: WriterCounts
  readonly epochs: number
  /** Connections and subscriptions that a node ended, by code. */
  readonly ended: Readonly<Record<string, number>>
  /** Nodes that were started again because they found no database. */
  readonly restarts: number
}

/** Nobody comes any further for this long, though all is well: it is stuck, however slow the machine. */
const stuckMs = 90_000
const patienceMs = 4000

export async function torture(options: TortureOptions): Promise<TortureReport> {
  await using cluster = await Cluster.start({ xidEpoch: null, crashes: true })
  await using redis = options.nodes === 1 ? null : await startRedis({ appendonly: true })
  await using database = await TestDatabase.create(cluster.url)
  const run = new Run(options, cluster, redis, database)
  try {
    return await run.run()
  } finally {
    await run.end()
  }
}

class Run {
  readonly #options: TortureOptions
  readonly #cluster: Cluster
  readonly #redis: RedisProcess | null
  #database: TestDatabase
  readonly #horizon: Horizon
  readonly #users: readonly string[]
  readonly #tally = newTally()
  readonly #ended: Record<string, number> = {}
  readonly #losses = new RedisLosses()
  readonly #recovery = new Recovery()
  readonly #kinds: readonly FaultKind[]
  #truth!: Truth
  #writers!: Writers
  #nodes!: TorturedNodes
  #crowd!: Crowd
  #fate!: Fate
  #slotsDropped = 0

  constructor(options: TortureOptions, cluster: Cluster, redis: RedisProcess | null, database: TestDatabase) {
    this.#options = options
    this.#cluster = cluster
    this.#redis = redis
    this.#database = database
    this.#horizon = new Horizon(database.url)
    this.#users = usersOf(options.seed, 6)
    const isThere = (kind: FaultKind): boolean =>
      redis !== null || !(kind.startsWith('redis') || kind === 'node joined')
    this.#kinds = (options.kinds ?? faultKinds).filter(isThere)
  }

  async run(): Promise<TortureReport> {
    const { seed, minutes, roundMs, say } = this.#options
    say(`seed ${seed}`)
    await this.#begin()
    const endAt = performance.now() + minutes * 60_000
    const leftMs = (): number => endAt - performance.now()
    let findings: Finding[] = []
    let rounds = 0
    while (findings.length === 0 && (leftMs() > 0 || this.#isTooLittle())) {
      const begunMs = this.#recovery.nowMs
      await this.#round(leftMs() > 0 ? Math.min(roundMs, leftMs()) : roundMs)
      const endedMs = this.#recovery.nowMs
      findings = await this.#verdict()
      rounds += 1
      const { records } = this.#recovery
      say(
        `${Math.round(this.#recovery.nowMs / 1000)} s: ${records.length} faults, ${this.#truth.count} commits, ${Math.round((endedMs - begunMs) / 1000)} s of faults and ${Math.round((this.#recovery.nowMs - endedMs) / 1000)} s of quiet, resyncs ${JSON.stringify(this.#tally.resyncs)}`,
      )
    }
    const found: Record<Harm, number> = { lost: 0, repeated: 0, leaked: 0, 'resync without a cause': 0, wrong: 0 }
    for (const { harm } of findings) found[harm] += 1
    return {
      seed,
      minutes: Math.round(this.#recovery.nowMs / 600) / 100,
      rounds,
      nodes: this.#options.nodes,
      found,
      failures: findings.length === 0 ? [] : this.#told(findings),
      faults: this.#recovery.records,
      faultsPassedOver: this.#fate.passedOver,
      commits: this.#truth.count,
      commitsToldAgain: this.#truth.repeated,
      tally: this.#tally,
      crowd: this.#crowd.counts,
      writers: this.#writers.counts,
      epochs: this.#horizon.epochs.length,
      ended: this.#ended,
      restarts: this.#nodes.restarts,
    }
  }

  #isTooLittle(): boolean {
    const { least } = this.#options
    if (least === undefined) return false
    const isEnough =
      this.#recovery.records.length >= least.faults &&
      this.#truth.count >= least.commits &&
      deliveriesOf(this.#tally) >= least.deliveries
    return !isEnough
  }

  async end(): Promise<void> {
    for (const { client } of this.#crowd?.checked ?? []) client.leave()
    await this.#nodes?.[Symbol.asyncDispose]()
    await this.#truth?.end()
    await this.#connect()
  }

  async #begin(): Promise<void> {
    const { seed, nodes, clients, writers, truncateOneIn, largeRows, windowMs, spoolBytes, plant } = this.#options
    const { url } = this.#database
    await prepareDatabase(this.#database, schema, tableNames)
    this.#truth = await Truth.begin(url)
    const users = this.#users
    this.#writers = new Writers({
      ...{ url, users, seed, connections: writers, truncateOneIn, largeRows, largeOneIn: 2000, calm: writers / 2 },
      // They stall when it is drawn.
      stalls: false,
      crashes: true,
    })
    await this.#writers.seed()
    const random = Random.of(seed, 'balancer')
    this.#nodes = await TorturedNodes.start(nodes, {
      databaseUrl: url,
      redisUrl: this.#redis?.url ?? null,
      settings: {
        WINDOW_MAX_AGE_MS: String(windowMs),
        WINDOW_MAX_BYTES: String(2 ** 30),
        SPOOL_BYTES: String(spoolBytes),
        HEARTBEAT_MS: '2000',
        DATABASE_POOL: '4',
        ...(this.#redis === null
          ? {}
          : { RELAY_MAX_BYTES: String(2 ** 30), RELAY_HOLD_MS: String(this.#options.holdMs) }),
      },
      plant: plant ?? null,
      random: () => random.next(),
    })
    this.#crowd = new Crowd({
      ...{ seed, users, clients, windowMs, spoolBytes, truth: this.#truth, horizon: this.#horizon, tally: this.#tally },
      url: () => this.#nodes.balancer.url,
      stalled: () => this.#writers.stalledNow,
      hopping: {
        patienceMs,
        sampleOneIn: 32,
        sleepMs: windowMs + 10_000,
        nodeOf: port => this.#nodes.nodeOf(port),
        excuse: resync => this.#losses.excuse(resync),
      },
    })
    const tormentor = new Tormentor({
      nodes: this.#nodes,
      cluster: this.#cluster,
      redis: this.#redis,
      crowd: this.#crowd,
      databaseUrl: url,
      redisLoses: () => this.#redisLoses(),
    })
    const { faultEveryMs: everyMs, plan } = this.#options
    this.#fate = new Fate({
      ...{ seed, everyMs, tormentor, kinds: this.#kinds, ...(plan === undefined ? {} : { plan }) },
      begins: (...begun) => this.#begins(...begun),
    })
  }

  async #round(forMs: number): Promise<void> {
    const stop = new AbortController()
    const written = Promise.all([this.#horizon.poll(stop.signal), this.#writers.run(stop.signal)])
    written.catch(() => stop.abort())
    const bustled = this.#crowd.bustle(Number.POSITIVE_INFINITY, stop.signal)
    const looking = setInterval(() => this.#recovery.look(), 20)
    try {
      await this.#fate.befall(performance.now() + forMs, stop.signal)
    } finally {
      stop.abort()
      await Promise.all([written, bustled])
      clearInterval(looking)
    }
    await this.#connect()
  }

  #begins(number: number, fault: Fault, wound: Wound): () => void {
    const concerned = this.#crowd.checked
      .map(({ client }) => client)
      .filter(({ via }) => wound.isShared || wound.node === null || via === wound.node.life)
    const record = this.#recovery.begin(
      { number, name: nameOfFault(fault), node: wound.node?.name ?? null },
      concerned,
      this.#horizon.walEnd,
    )
    if (fault.what === 'slot dropped') this.#slotsDropped += 1
    return () => {
      record.overMs = this.#recovery.nowMs - record.atMs
    }
  }

  /** @returns what is not true; nothing when all is */
  async #verdict(): Promise<Finding[]> {
    const looking = setInterval(() => this.#recovery.look(), 20)
    const end = await this.#horizon.look(this.#database.client)
    const stuck = await this.#crowd.quiet(end, stuckMs)
    clearInterval(looking)
    this.#recovery.look()
    await this.#horizon.look(this.#database.client)
    await this.#truth.read()
    const findings = await judged(this.#crowd, this.#truth, end, stuck)
    findings.push(...this.#endings(), ...(await asPostgresSees(this.#crowd, this.#truth, this.#database, end)))
    for (const { fault } of this.#nodes.all) if (fault !== null) findings.push({ harm: 'wrong', text: fault })
    const { epochs } = this.#horizon
    if (epochs.length > 1 + this.#slotsDropped)
      findings.push({
        harm: 'resync without a cause',
        text: `${epochs.length} epochs, and ${this.#slotsDropped} slots were dropped: ${epochs.join(', ')}`,
      })
    if (findings.length === 0) forgetPast(this.#crowd, this.#truth, this.#horizon)
    return findings
  }

  /** What a node ended, it may have ended only with a code that lets one come back. */
  #endings(): Finding[] {
    const findings: Finding[] = []
    for (const { client } of this.#crowd.checked) {
      for (const { code, isRetryable } of client.endings.splice(0)) {
        count(this.#ended, code)
        if (!isRetryable)
          findings.push({ harm: 'wrong', text: `${client.options.name} (${client.transport}) was ended with ${code}` })
      }
    }
    return findings
  }

  #told(findings: readonly Finding[]): string[] {
    const stories = findings.map(({ harm, text }) => `${harm}: ${text}`)
    const inShort = stories.map(story => story.split('\n', 1)[0]!)
    return [this.#circumstances(), ...stories.slice(0, 5), ['found:', ...inShort.slice(0, 20)].join('\n')]
  }

  /** What befell lately, and what the nodes said last. */
  #circumstances(): string {
    const { records } = this.#recovery
    const nodes = this.#nodes.all
    const faults = records
      .slice(-15)
      .map(
        ({ number, name, node, atMs, overMs }) =>
          `  ${this.#clockOf(atMs)} #${number} ${name}${node === null ? '' : ` of ${node}`}, for ${overMs} ms`,
      )
    const linesOfEach = Math.floor(20 / nodes.length)
    const said = nodes.flatMap(({ name, log }) => [
      `what ${name} said last:`,
      ...log.slice(-linesOfEach).map(line => `  ${line.slice(0, 300)}`),
    ])
    return ['what befell (moments as in the histories):', ...faults, ...said].join('\n')
  }

  /** Histories count from the start of this process. */
  #clockOf(atMs: number): number {
    return Math.round(performance.now() - this.#recovery.nowMs + atMs)
  }

  async #redisLoses(): Promise<void> {
    const at = performance.now()
    const told = this.#horizon.toldByNow()
    this.#losses.add({
      name: `the redis fault at ${Math.round(this.#recovery.nowMs / 1000)} s`,
      at,
      told,
      acknowledged: await acknowledgedUpTo(this.#database.url),
      heldFrom: this.#horizon.ceiling(at - this.#options.holdMs),
    })
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
}
