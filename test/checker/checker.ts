// One checked run: writers and readers in rounds, and at the end of each, once everything is quiet, the verdict.
import { randomUUID } from 'node:crypto'
import pg from 'pg'
import type { LocalPostgres } from '../../src/cli/local-postgres.ts'
import type { JsonRow } from '../../src/protocol/messages.ts'
import { parseLsn } from '../../src/server/wal/lsn.ts'
import { prepareDatabase, selectAs, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { equal, Judge, type Tally, Untrue } from './judge.ts'
import type { CheckedNode } from './nodes.ts'
import { Random } from './random.ts'
import { Subscriber } from './subscriber.ts'
import { Truth } from './truth.ts'
import { transports } from './wires.ts'
import { type CheckedQuery, nameOf, queries, schema, tableNames } from './world.ts'
import { type WriterCounts, Writers } from './writers.ts'

export interface CheckerOptions {
  readonly seed: number
  readonly minutes: number
  /** Length of a round, without the wait for quiet. */
  readonly roundMs: number
  readonly readers: number
  readonly writers: number
  /** A server that nobody else uses; null when commits may not be stalled, because others do. */
  readonly server: LocalPostgres | null
  readonly serverUrl: string
  readonly truncateOneIn: number
  readonly largeRows: number
  readonly windowMs: number
  readonly spooledChanges: number
  startNode(databaseUrl: string): Promise<CheckedNode>
  /** Chance that the node is killed in a round: one in this many; 0 for never. */
  readonly crashOneIn: number
  say(line: string): void
}

export interface Verdict {
  /** Null when everything was true; else what was not, and its history. */
  readonly failure: string | null
  readonly rounds: number
  readonly commits: number
  readonly tally: Tally
  readonly resumes: number
  readonly pauses: number
  readonly crashes: number
  /** Connections that the node ended, by code. */
  readonly ended: Readonly<Record<string, number>>
  readonly writers: WriterCounts
}

export async function check(options: CheckerOptions): Promise<Verdict> {
  await using database = await TestDatabase.create(options.serverUrl)
  const run = new CheckedRun(options, database)
  try {
    return await run.run()
  } finally {
    await run.end()
  }
}

interface Checked {
  readonly reader: Subscriber
  readonly judge: Judge
}

class CheckedRun {
  readonly #options: CheckerOptions
  readonly #database: TestDatabase
  readonly #random: Random
  readonly #users = Array.from({ length: 6 }, () => randomUUID())
  readonly #tally: Tally = { deltas: 0, snapshots: 0, changes: 0, positions: 0, compared: 0, owed: 0, resyncs: {} }
  readonly #ended: Record<string, number> = {}
  /** Where the WAL ended, asked at each of these moments. */
  #polls: { at: number; lsn: bigint }[] = []
  /** The greatest position told to any reader by then. */
  #floors: { at: number; lsn: bigint }[] = [{ at: 0, lsn: 0n }]
  #checked: Checked[] = []
  #truth!: Truth
  #node!: CheckedNode
  #resumes = 0
  #pauses = 0
  #crashes = 0
  #rounds = 0
  #names = 0

  constructor(options: CheckerOptions, database: TestDatabase) {
    this.#options = options
    this.#database = database
    this.#random = new Random(options.seed)
  }

  async run(): Promise<Verdict> {
    const { seed, minutes, startNode, say, server, writers: connections, truncateOneIn, largeRows } = this.#options
    const database = this.#database
    say(`seed ${seed}`)
    await prepareDatabase(database, schema, tableNames)
    this.#truth = await Truth.begin(database.url)
    const writers = new Writers({
      url: database.url,
      users: this.#users,
      random: this.#random.fork(),
      connections,
      truncateOneIn,
      stalls: server !== null,
      largeRows,
    })
    await writers.seed()
    this.#node = await startNode(database.url)
    const endAt = performance.now() + minutes * 60_000
    let failure: string | null = null
    while (failure === null && performance.now() < endAt) {
      await this.#round(writers)
      failure = await this.#verdict()
      this.#rounds += 1
      if (this.#rounds % 10 === 0)
        say(`${this.#rounds} rounds, ${this.#truth.count} commits, ${JSON.stringify(this.#tally)}`)
    }
    return {
      failure,
      rounds: this.#rounds,
      commits: this.#truth.count,
      tally: this.#tally,
      resumes: this.#resumes + this.#checked.reduce((sum, { reader }) => sum + reader.resumes, 0),
      pauses: this.#pauses,
      crashes: this.#crashes,
      ended: this.#ended,
      writers: writers.counts,
    }
  }

  async end(): Promise<void> {
    for (const { reader } of this.#checked) reader.leave()
    await this.#node?.stop()
    await this.#truth?.end()
  }

  async #round(writers: Writers): Promise<void> {
    const stop = new AbortController()
    const polling = this.#poll(stop.signal)
    const writing = writers.run(stop.signal)
    const ended = Promise.all([polling, writing])
    ended.catch(() => stop.abort())
    const until = performance.now() + this.#options.roundMs
    const crashAt =
      this.#options.crashOneIn > 0 && this.#random.once(this.#options.crashOneIn)
        ? performance.now() + this.#random.below(this.#options.roundMs)
        : null
    let crashed = false
    while (performance.now() < until && !stop.signal.aborted) {
      if (crashAt !== null && !crashed && performance.now() > crashAt) {
        crashed = true
        await this.#crash()
      }
      await this.#step()
      await sleep(this.#random.below(40))
    }
    stop.abort()
    await ended
  }

  /** Somebody comes, goes, comes back, stops reading or goes on. */
  async #step(): Promise<void> {
    const random = this.#random
    if (this.#checked.length < this.#options.readers) {
      await this.#newcomer()
      return
    }
    const { reader } = random.pick(this.#checked)
    if (reader.failure !== null) return
    if (!reader.connected) {
      void reader.come(this.#node.url)
    } else if (reader.paused) reader.goOn()
    else if (random.once(3)) {
      reader.leave()
      if (random.once(3)) void reader.come(this.#node.url)
    } else if (random.once(4)) {
      reader.pause()
      this.#pauses += 1
    } else if (random.once(8)) {
      reader.leave()
      // Not before the verdict on what it was told.
      await this.#newcomer()
    }
  }

  async #newcomer(): Promise<void> {
    const random = this.#random
    const user = random.pick(this.#users)
    this.#names += 1
    const reader = new Subscriber({
      name: `reader ${this.#names}`,
      transport: random.pick(transports),
      kind: random.once(3) ? 'changes' : 'live',
      query: random.pick(queries),
      user,
      token: await tokenFor(user),
      random: random.fork(),
      floor: longBefore => this.#floor(longBefore),
      told: lsn => this.#told(lsn),
    })
    const truth = this.#truth
    const { windowMs, spooledChanges } = this.#options
    const judge = new Judge(reader, { truth, windowMs, spooledChanges, ceiling: at => this.#ceiling(at) }, this.#tally)
    this.#checked.push({ reader, judge })
    void reader.come(this.#node.url)
  }

  async #crash(): Promise<void> {
    this.#crashes += 1
    await this.#node.kill()
    await sleep(this.#random.below(1000))
    // A node that comes back begins before what the last one told.
    this.#floors = [{ at: 0, lsn: 0n }]
    this.#node = await this.#options.startNode(this.#database.url)
  }

  #told(lsn: bigint): void {
    const last = this.#floors.at(-1)!
    if (lsn > last.lsn) this.#floors.push({ at: performance.now(), lsn })
  }

  #floor(longBefore: boolean): bigint {
    if (!longBefore) return this.#floors.at(-1)!.lsn
    const before = performance.now() - longMs
    return this.#floors.findLast(({ at }) => at <= before)?.lsn ?? 0n
  }

  #ceiling(at: number): bigint {
    return this.#polls.find(poll => poll.at >= at)?.lsn ?? this.#polls.at(-1)!.lsn
  }

  async #poll(signal: AbortSignal): Promise<void> {
    const client = new pg.Client({ connectionString: this.#database.url })
    await client.connect()
    try {
      while (!signal.aborted) {
        this.#polls.push({ at: performance.now(), lsn: await insertLsn(client) })
        await sleep(10)
      }
    } finally {
      await client.end()
    }
  }

  /** @returns the first untruth with its history; null when there is none */
  async #verdict(): Promise<string | null> {
    const end = await insertLsn(this.#database.client)
    const stuck = await this.#quiet(end)
    this.#polls.push({ at: performance.now(), lsn: await insertLsn(this.#database.client) })
    await this.#truth.read()
    for (const { reader, judge } of this.#checked) {
      try {
        judge.look()
        if (reader.failure !== null)
          throw new Untrue(reader.failure, reader.lsn ?? 0n, /\[.*\]/.exec(reader.failure)?.[0] ?? null)
      } catch (error) {
        if (!(error instanceof Untrue)) throw error
        return this.#report(reader, error)
      }
    }
    if (stuck !== null)
      return this.#report(
        stuck,
        new Untrue(`it did not come to ${end.toString(16)}; it stands at ${stuck.lsn?.toString(16)}`, end),
      )
    const failure = await this.#asPostgresSees(end)
    if (failure !== null) return failure
    this.#forget()
    return null
  }

  /** Waits until every reader that is there has been told of everything. @returns one that is not in time */
  async #quiet(end: bigint): Promise<Subscriber | null> {
    const deadline = performance.now() + quietMs
    for (const { reader } of this.#checked) {
      if (reader.paused) reader.goOn()
      if (!reader.connected && reader.failure === null && this.#random.once(2)) void reader.come(this.#node.url)
    }
    for (const { reader } of this.#checked) {
      while (reader.connected && reader.failure === null && (reader.lsn === null || reader.lsn < end)) {
        if (performance.now() > deadline) return reader
        await sleep(10)
      }
    }
    return null
  }

  /** Each live query and each of the checker's own answers equal the SELECT. */
  async #asPostgresSees(end: bigint): Promise<string | null> {
    const answers = new Map<string, ReadonlyMap<string, JsonRow>>()
    for (const { reader } of this.#checked) {
      const { query, user, kind } = reader.options
      if (kind !== 'live' || !reader.connected || !reader.exact) continue
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
        return this.#report(reader, error)
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
    for (const { reader } of this.#checked)
      for (const code of reader.errors.splice(0)) this.#ended[code] = (this.#ended[code] ?? 0) + 1
    const kept = this.#options.readers
    while (this.#checked.length > kept) {
      const [gone] = this.#checked.splice(0, 1)
      gone!.reader.leave()
      this.#resumes += gone!.reader.resumes
    }
    let needed = this.#floor(true)
    for (const { reader, judge } of this.#checked) {
      for (const lsn of [judge.needs, reader.lsn]) if (lsn !== null && lsn < needed) needed = lsn
    }
    this.#truth.prune(needed - 1n)
    const before = performance.now() - longMs
    this.#polls = this.#polls.filter(({ at }) => at >= before)
    const last = this.#floors.findLastIndex(({ at }) => at <= before)
    if (last > 0) this.#floors.splice(0, last)
  }

  #report(reader: Subscriber, untrue: Untrue): string {
    const { name, transport, kind, query, user } = reader.options
    const told = reader.history.filter(
      (line, i) =>
        i > reader.history.length - 12 ||
        line.startsWith('--') ||
        line.startsWith('FAILED') ||
        line.includes(`-${untrue.lsn.toString(16)}`) ||
        / (resync|snapshot) /.test(line) ||
        (untrue.row !== null && keyTexts(untrue.row).every(text => line.includes(text))),
    )
    const story = untrue.row === null ? [] : this.#truth.story(query, user, untrue.row)
    const resyncStory =
      untrue.row === null ? this.#truth.commits.filter(({ lsn }) => lsn >= untrue.lsn - 2000n).slice(0, 5) : []
    return [
      `${name} (${transport} ${kind} ${query.table}?${query.filter} select ${query.select ?? '*'} as ${user}): ${untrue.message}, at ${untrue.lsn.toString(16)}`,
      'what it was told:',
      ...told.slice(-60).map(line => `  ${line}`),
      'what happened:',
      ...story.slice(-60).map(line => `  ${line}`),
      ...resyncStory.map(
        ({ lsn, size, touched }) => `  ${lsn.toString(16)} ${size} changes of ${[...touched.keys()].join(', ')}`,
      ),
    ].join('\n')
  }
}

const quietMs = 30_000
const longMs = 5000

/** As the key stands in an event. */
const keyTexts = (name: string): string[] => {
  const values = JSON.parse(name) as unknown[]
  return values.length === 1 ? [`"id":${values[0]}`] : [`"room_id":${values[0]}`]
}

const sleep = (ms: number): Promise<void> => new Promise(resolve => setTimeout(resolve, ms))

async function insertLsn(client: pg.Client): Promise<bigint> {
  const { rows } = await client.query<{ lsn: string }>('SELECT pg_current_wal_insert_lsn()::text AS lsn')
  return parseLsn(rows[0]!.lsn)
}
