// Those who write: many connections that never agree, and what makes the order of commits hard to follow: transactions that
// stay open, commits that stall in the WAL, two-phase commits, savepoints, cascades and thousands of rows at once.
import pg from 'pg'
import { Random } from './random.ts'
import { firstRows, type StatementOptions, transaction } from './statements.ts'

export interface WritersOptions {
  readonly url: string
  readonly users: readonly string[]
  readonly seed: number
  readonly connections: number
  readonly truncateOneIn: number
  /** Whether the server may be told that a standby is missing. */
  readonly stalls: boolean
  readonly largeRows: number
  readonly largeOneIn?: number
  /** So many of the connections write their own rows only. */
  readonly calm?: number
  /** Whether connections may be lost. */
  readonly crashes: boolean
}

export interface WriterCounts {
  commits: number
  /** Unique keys, broken references, deadlocks. */
  refused: number
  large: number
  subtransactionsKept: number
  subtransactionsUndone: number
  preparedCommitted: number
  preparedRolledBack: number
  /** Found prepared after a crash, or when their writer had gone. */
  preparedLeft: number
  stalls: number
  /** Commits seen waiting in the WAL, where no SELECT shows them. */
  stalledCommits: number
  longOpen: number
  connectionsLost: number
}

export class Writers {
  readonly counts: WriterCounts = {
    commits: 0,
    refused: 0,
    large: 0,
    subtransactionsKept: 0,
    subtransactionsUndone: 0,
    preparedCommitted: 0,
    preparedRolledBack: 0,
    preparedLeft: 0,
    stalls: 0,
    stalledCommits: 0,
    longOpen: 0,
    connectionsLost: 0,
  }
  /** Commits that wait in the WAL, when last looked at. */
  stalledNow = 0
  readonly #options: WritersOptions
  #round = 0
  #prepared = 0

  constructor(options: WritersOptions) {
    this.#options = options
  }

  /** The rows that everything begins with. */
  async seed(): Promise<void> {
    const client = await connected(this.#options.url)
    const random = this.#random('seed')
    for (const sql of firstRows) await client.query(sql)
    for (let lane = 0; lane < 40; lane++)
      await client.query(`BEGIN; ${transaction(random, this.#statements(lane % 8)).sql}; COMMIT`).catch(async error => {
        await client.query('ROLLBACK')
        if (!isRefusal(error)) throw error
      })
    for (const sql of firstRows) await client.query(sql)
    await client.end()
  }

  /** Writes until the signal aborts; everything has ended and is visible when it resolves. */
  async run(signal: AbortSignal): Promise<void> {
    const { connections, stalls, crashes } = this.#options
    this.#round += 1
    const actors = Array.from({ length: connections }, (_, lane) => this.#write(lane, signal))
    actors.push(this.#longOpen(signal))
    if (stalls) actors.push(this.#stall(signal))
    if (crashes) actors.push(this.#tidyUp(signal))
    await Promise.all(actors)
    await this.#settle()
  }

  async #write(lane: number, signal: AbortSignal): Promise<void> {
    const random = this.#random('writer', lane)
    const statements = this.#statements(lane)
    const { counts } = this
    await this.#withClient(signal, async client => {
      const next = transaction(random, statements)
      const begin = `BEGIN; SET LOCAL synchronous_commit = ${next.synchronousCommit}; ${next.sql}`
      if (next.kind === 'prepared') {
        this.#prepared += 1
        const name = `checker_${process.pid}_${this.#prepared}`
        await client.query(`${begin}; PREPARE TRANSACTION '${name}'`)
        await sleep(next.preparedMs)
        await client.query(next.isRolledBack ? `ROLLBACK PREPARED '${name}'` : `COMMIT PREPARED '${name}'`)
        if (next.isRolledBack) counts.preparedRolledBack += 1
        else counts.preparedCommitted += 1
      } else await client.query(`${begin}; COMMIT`)
      counts.commits += 1
      if (next.kind === 'large') counts.large += 1
      counts.subtransactionsKept += next.kept
      counts.subtransactionsUndone += next.undone
      await sleep(next.pauseMs)
    })
  }

  async #longOpen(signal: AbortSignal): Promise<void> {
    const random = this.#random('long')
    await this.#withClient(signal, async client => {
      await sleep(random.below(300))
      const user = random.pick(this.#options.users)
      await client.query(
        `BEGIN; INSERT INTO notes VALUES (${200 + random.below(50)}, 1, '${user}', 'long') ON CONFLICT DO NOTHING`,
      )
      await sleep(500 + random.below(2000))
      await client.query(random.once(3) ? 'ROLLBACK' : 'COMMIT')
      this.counts.longOpen += 1
    })
  }

  /** Commits wait for a standby that does not exist: they are in the WAL, and no SELECT sees them. */
  async #stall(signal: AbortSignal): Promise<void> {
    const random = this.#random('stall')
    await this.#withClient(signal, async client => {
      await client.query('SET synchronous_commit = local')
      await sleep(500 + random.below(2500))
      if (signal.aborted) return
      await standby(client, 'ghost')
      const until = performance.now() + 50 + random.below(random.once(4) ? 1500 : 400)
      let most = 0
      while (performance.now() < until) {
        const { rows } = await client.query<{ n: number }>(
          `SELECT count(*)::int AS n FROM pg_stat_activity WHERE wait_event = 'SyncRep'`,
        )
        this.stalledNow = rows[0]!.n
        most = Math.max(most, this.stalledNow)
        await sleep(20)
      }
      await standby(client, null)
      this.stalledNow = 0
      this.counts.stalls += 1
      this.counts.stalledCommits += most
    })
  }

  /** Transactions that a crash left prepared hold their locks, and everybody waits. */
  async #tidyUp(signal: AbortSignal): Promise<void> {
    await this.#withClient(signal, async client => {
      await sleep(200)
      await this.#endPrepared(client, 1)
    })
  }

  /** What a crash may have left. */
  async #settle(): Promise<void> {
    const client = await connected(this.#options.url)
    this.stalledNow = 0
    await client.query('SET synchronous_commit = local')
    await standby(client, null)
    await this.#endPrepared(client, 0)
    await client.end()
  }

  async #endPrepared(client: pg.Client, seconds: number): Promise<void> {
    await client.query('SET synchronous_commit = local')
    const { rows } = await client.query<{ gid: string }>(
      `SELECT gid FROM pg_prepared_xacts WHERE database = current_database() AND prepared <= now() - make_interval(secs => $1)`,
      [seconds],
    )
    for (const { gid } of rows) {
      const isKept = this.counts.preparedLeft % 2 === 0
      await client.query(isKept ? `COMMIT PREPARED '${gid}'` : `ROLLBACK PREPARED '${gid}'`)
      this.counts.preparedLeft += 1
    }
  }

  /** Repeats the work. Unique keys, broken references and deadlocks are part of the game; so are, in a run with crashes, lost
   *  connections. */
  async #withClient(signal: AbortSignal, work: (client: pg.Client) => Promise<void>): Promise<void> {
    while (!signal.aborted) {
      let client: pg.Client | null = null
      try {
        client = await connected(this.#options.url)
        while (!signal.aborted) await this.#refusable(client, work)
      } catch (error) {
        if (!this.#options.crashes || isRefusal(error)) throw error
        this.counts.connectionsLost += 1
        await sleep(50)
      } finally {
        await client?.end().catch(() => {})
      }
    }
  }

  async #refusable(client: pg.Client, work: (client: pg.Client) => Promise<void>): Promise<void> {
    try {
      await work(client)
    } catch (error) {
      if (!isRefusal(error)) throw error
      await client.query('ROLLBACK')
      this.counts.refused += 1
    }
  }

  #random(...actor: readonly (string | number)[]): Random {
    return Random.of(this.#options.seed, 'round', this.#round, ...actor)
  }

  #statements(lane: number): StatementOptions {
    const { users, truncateOneIn, largeRows, largeOneIn, calm = 0 } = this.#options
    const isCalm = lane < calm
    return { users, truncateOneIn, largeRows, lane, isCalm, ...(largeOneIn === undefined ? {} : { largeOneIn }) }
  }
}

/** Commits wait for this standby from now on; null: for none. */
export async function standby(client: pg.Client, name: string | null): Promise<void> {
  await client.query(
    name === null
      ? 'ALTER SYSTEM RESET synchronous_standby_names'
      : `ALTER SYSTEM SET synchronous_standby_names = '${name}'`,
  )
  await client.query('SELECT pg_reload_conf()')
}

// Unique, foreign key, deadlock, a row twice in one ON CONFLICT; a prepared transaction that another session ends.
const refusals = ['23505', '23503', '40P01', '21000', '42704', '55000', '55006']
const isRefusal = (error: unknown): boolean => refusals.includes((error as { code?: string }).code ?? '')

const sleep = (ms: number): Promise<void> => new Promise(resolve => setTimeout(resolve, ms))

async function connected(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url })
  client.on('error', () => {})
  await client.connect()
  return client
}
