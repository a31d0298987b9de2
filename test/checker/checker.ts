// One checked run: writers and readers in rounds, and at the end of each, once everything is quiet, the verdict.
import type { JsonRow } from '../../src/protocol/messages.ts'
import { prepareDatabase, selectAs, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { Client } from './client.ts'
import type { Cluster } from './cluster.ts'
import { Horizon } from './horizon.ts'
import { equal, Judge, Untrue } from './judge.ts'
import { type Misfortune, misfortunes } from './misfortunes.ts'
import type { CheckedNode } from './nodes.ts'
import { Random } from './random.ts'
import { report } from './report.ts'
import { dropSlot, invalidateSlot } from './slot-loss.ts'
import { Subscriber } from './subscriber.ts'
import { count, newTally, type Tally, wireCounts } from './tally.ts'
import { Truth } from './truth.ts'
import { type Transport, transports } from './wires.ts'
import { type CheckedQuery, nameOf, queries, schema, tableNames } from './world.ts'
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
  readonly pauses: number
  readonly laggards: number
  /** Queries let go of and taken up again on a connection that stayed. */
  readonly swaps: number
  /** Subscriptions that began while commits were in the WAL that no SELECT showed. */
  readonly begunWhileStalled: number
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

interface Checked {
  readonly client: Client
  readonly judges: readonly { readonly reader: Subscriber; readonly judge: Judge }[]
}

class CheckedRun {
  readonly #options: CheckerOptions
  #database: TestDatabase
  readonly #horizon: Horizon
  readonly #steps: Random
  readonly #users: readonly string[]
  readonly #tally = newTally()
  readonly #ended: Record<string, number> = {}
  readonly #misfortunes: Record<string, number> = {}
  #checked: Checked[] = []
  #truth!: Truth
  #writers!: Writers
  #node!: CheckedNode
  #lostSlots = 0
  #pauses = 0
  #laggards = 0
  #swaps = 0
  #begunWhileStalled = 0
  #rounds = 0
  #names = 0

  constructor(options: CheckerOptions, database: TestDatabase) {
    this.#options = options
    this.#database = database
    this.#horizon = new Horizon(database.url)
    this.#steps = Random.of(options.seed, 'steps')
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
      pauses: this.#pauses,
      laggards: this.#laggards,
      swaps: this.#swaps,
      begunWhileStalled: this.#begunWhileStalled,
      misfortunes: this.#misfortunes,
      epochs: this.#horizon.epochs.length,
      ended: this.#ended,
      writers: this.#writers.counts,
    }
  }

  async end(): Promise<void> {
    for (const { client } of this.#checked) client.leave()
    await this.#node?.stop()
    await this.#truth?.end()
    await this.#connect()
    await this.#database[Symbol.asyncDispose]()
  }

  async #round(): Promise<void> {
    const { seed, roundMs, crashes, plan: draw = misfortunes } = this.#options
    const plan = crashes ? draw(seed, this.#rounds, roundMs) : []
    if (plan[0]?.misfortune.what === 'slot invalidated') await this.#befalls(plan.shift()!.misfortune, 0)
    for (const { client } of this.#checked) client.lagBehind()
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
    while (performance.now() < until && !stop.signal.aborted) {
      await this.#step()
      await sleep(this.#steps.below(40))
    }
    await suffered
    stop.abort()
    await ended
    await this.#connect()
  }

  /** Somebody comes, goes, comes back, stops reading or goes on. */
  async #step(): Promise<void> {
    const random = this.#steps
    if (this.#checked.length < this.#options.clients) {
      await this.#newcomer()
      return
    }
    const { client } = random.pick(this.#checked)
    const choice = random.below(12)
    if (!client.connected) void client.come(this.#node.url)
    else if (client.paused) client.goOn()
    else if (choice < 4) {
      client.leave()
      if (random.once(3)) void client.come(this.#node.url)
    } else if (choice < 6) {
      client.pause()
      this.#pauses += 1
    } else if (choice < 9) {
      if (client.swap(random)) this.#swaps += 1
    } else if (choice === 9) {
      client.leave()
      // Not before the verdict on what it was told.
      await this.#newcomer()
    }
  }

  /** Who it is and what it asks depends on the seed and its number only. */
  async #newcomer(): Promise<void> {
    this.#names += 1
    const random = Random.of(this.#options.seed, 'client', this.#names)
    const user = random.pick(this.#users)
    const transport = random.pick(transports)
    const streamKind = random.once(3) ? 'changes' : 'live'
    const wanted = new Map<string, { kind: 'live' | 'changes'; query: CheckedQuery }>()
    for (let i = random.pick([1, 1, 2, 4]); i > 0; i--) {
      const at = random.below(queries.length)
      const isOther = transport === 'websocket' && random.once(3)
      const kind = isOther ? (random.once(2) ? 'changes' : 'live') : streamKind
      const query = queries[at]!
      // One connection follows a query once.
      const name = `${kind} ${query.table} ${query.filter} ${query.select}`
      wanted.set(name, { kind, query: kind === 'changes' ? { ...query, ...someEvents(random) } : query })
    }
    const readers = [...wanted.values()].map(({ kind, query }, i) =>
      this.#reader({
        name: `reader ${this.#names}.${i}`,
        transport,
        kind,
        query,
        user,
        random,
        shared: wanted.size > 1,
      }),
    )
    const isLaggard = transport !== 'long-poll' && random.once(6)
    if (isLaggard) this.#laggards += 1
    if (this.#writers.stalledNow > 0) this.#begunWhileStalled += readers.length
    const client = new Client({
      name: `client ${this.#names}`,
      transport,
      token: await tokenFor(user),
      readers,
      isLaggard,
    })
    this.#checked.push({ client, judges: readers.map(reader => ({ reader, judge: this.#judge(reader) })) })
    void client.come(this.#node.url)
  }

  #reader({ shared, ...wanted }: Wanted): Subscriber {
    const counts = wireCounts(this.#tally, wanted.transport, wanted.kind)
    counts.readers += 1
    if (shared) counts.shared += 1
    if (wanted.query.filter !== '' || wanted.query.events !== undefined) counts.filtered += 1
    const horizon = this.#horizon
    return new Subscriber({
      ...wanted,
      random: Random.of(this.#options.seed, wanted.name),
      counts,
      floor: longBefore => horizon.floor(longBefore),
      told: (epoch, lsn) => horizon.told(epoch, lsn),
    })
  }

  #judge(reader: Subscriber): Judge {
    const { windowMs, spoolBytes } = this.#options
    const ceiling = (at: number): bigint => this.#horizon.ceiling(at)
    return new Judge(reader, { truth: this.#truth, windowMs, spoolBytes, ceiling }, this.#tally)
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
    this.#horizon.restarted()
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
    const stuck = await this.#quiet(end)
    await this.#horizon.look(this.#database.client)
    await this.#truth.read()
    for (const { judges } of this.#checked) {
      for (const { reader, judge } of judges) {
        try {
          judge.look()
          if (reader.failure !== null)
            throw new Untrue(reader.failure, reader.lsn ?? 0n, /\[.*\]/.exec(reader.failure)?.[0] ?? null)
        } catch (error) {
          if (!(error instanceof Untrue)) throw error
          return report(reader, error, this.#truth)
        }
      }
    }
    if (stuck !== null) {
      const message = `it did not come to ${end.toString(16)}; it stands at ${stuck.lsn?.toString(16)}`
      return report(stuck, new Untrue(message, end), this.#truth)
    }
    const failure = this.#node.fault() ?? this.#endings() ?? (await this.#asPostgresSees(end))
    if (failure !== null) return failure
    const { epochs } = this.#horizon
    if (epochs.length > 1 + this.#lostSlots)
      return `${epochs.length} epochs, and ${this.#lostSlots} slots were lost: ${epochs.join(', ')}`
    this.#forget()
    return null
  }

  /** Waits until every reader that is there has been told of everything. @returns one that is not in time */
  async #quiet(end: bigint): Promise<Subscriber | null> {
    const deadline = performance.now() + quietMs
    for (const { client } of this.#checked) if (client.paused || client.options.isLaggard) client.goOn()
    const wanted = this.#checked.filter(({ client }) => client.connected || this.#steps.once(2))
    for (const { client } of wanted) {
      const { readers } = client.options
      for (;;) {
        const late = readers.find(
          ({ failure, attached, lsn }) => failure === null && !(attached && lsn !== null && lsn >= end),
        )
        if (late === undefined) break
        if (performance.now() > deadline) return late
        // Whoever is sent away with a code that lets it come back must get through in the end.
        if (readers.some(({ attached }) => !attached)) await client.complete(this.#node.url)
        await sleep(20)
      }
    }
    return null
  }

  /** What the node ended, it may have ended only with a code that lets one come back; a bare end is a crash of something. */
  #endings(): string | null {
    for (const { client } of this.#checked) {
      for (const { code, isRetryable } of client.endings.splice(0)) {
        count(this.#ended, code)
        if (!isRetryable || (code === 'closed' && !this.#options.crashes))
          return `${client.options.name} (${client.options.transport}) was ended with ${code}`
      }
    }
    return null
  }

  /** Each live query and each of the checker's own answers equal the SELECT. */
  async #asPostgresSees(end: bigint): Promise<string | null> {
    const answers = new Map<string, ReadonlyMap<string, JsonRow>>()
    for (const reader of this.#checked.flatMap(({ judges }) => judges.map(judge => judge.reader))) {
      const { query, user, kind } = reader.options
      if (kind !== 'live' || !reader.attached || !reader.exact) continue
      const question = `${user} ${queries.indexOf(query)}`
      const asked = answers.get(question) ?? (await this.#select(query, user))
      if (!answers.has(question)) {
        answers.set(question, asked)
        try {
          equal(this.#truth.state(query, user, end), asked, end)
        } catch (error) {
          throw new Error(`the checker's own truth is not Postgres's, for ${user} in ${query.table}?${query.filter}`, {
            cause: error,
          })
        }
      }
      try {
        equal(reader.rows, asked, end)
      } catch (error) {
        if (!(error instanceof Untrue)) throw error
        return report(reader, error, this.#truth)
      }
    }
    return null
  }

  async #select({ table, select, where }: CheckedQuery, user: string): Promise<ReadonlyMap<string, JsonRow>> {
    const keys = table === 'members' || table === 'bans' ? ['room_id', 'user_id'] : ['id']
    const columns = select === null ? '*' : [...new Set([...keys, ...select])].join(', ')
    const rows = await selectAs(this.#database, user, `SELECT ${columns} FROM ${table} WHERE ${where}`)
    return new Map(rows.map(row => [nameOf(table, row), row]))
  }

  /** What is not needed for those who may come back. */
  #forget(): void {
    const gone = this.#checked.splice(0, Math.max(0, this.#checked.length - this.#options.clients))
    for (const { client } of gone) client.leave()
    let needed = this.#horizon.floor(true)
    for (const { reader, judge } of this.#checked.flatMap(({ judges }) => judges)) {
      for (const lsn of [judge.needs, reader.lsn]) if (lsn !== null && lsn < needed) needed = lsn
    }
    this.#truth.prune(needed - 1n)
    this.#horizon.forget()
  }
}

interface Wanted {
  readonly name: string
  readonly transport: Transport
  readonly kind: 'live' | 'changes'
  readonly query: CheckedQuery
  readonly user: string
  readonly random: Random
  readonly shared: boolean
}

const quietMs = 30_000

/** Half of those who follow changes ask for some kinds of events only. */
function someEvents(random: Random): { events?: readonly string[] } {
  if (random.once(2)) return {}
  return {
    events: random.pick([
      ['insert'],
      ['update'],
      ['delete'],
      ['insert', 'delete'],
      ['insert', 'update'],
      ['update', 'delete'],
    ]),
  }
}

/** The subjects of the readers' tokens. */
export function usersOf(seed: number, length: number): string[] {
  const random = Random.of(seed, 'users')
  return Array.from({ length }, () => uuid(random))
}

function uuid(random: Random): string {
  const hex = Array.from({ length: 32 }, () => random.below(16).toString(16)).join('')
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20)}`
}

const sleep = (ms: number): Promise<void> => new Promise(resolve => setTimeout(resolve, ms))
