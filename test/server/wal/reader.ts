// Reads a replication session in a test: keeps the commits of every life, with the text of their first column.
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { Counts } from '../../../src/server/figures/figures.ts'
import { createLog } from '../../../src/server/log/log.ts'
import { Trouble } from '../../../src/server/log/trouble.ts'
import { createPool } from '../../../src/server/postgres/database.ts'
import { type Life, Replication, type ReplicationOptions } from '../../../src/server/wal/replication.ts'
import type { WalMessage } from '../../../src/server/wal/wal-source.ts'

export interface SeenCommit {
  readonly life: number
  readonly xid: number
  readonly endLsn: bigint
  readonly rows: readonly string[]
  readonly messages: readonly { prefix: string; content: Buffer }[]
}

export interface LogLine {
  readonly level: 'debug' | 'info' | 'warn' | 'error'
  readonly code: string | undefined
  readonly text: string
}

export type ReaderOptions = Partial<ReplicationOptions> & {
  databaseUrl: string
  acknowledge?: boolean
  /** Called with each gulp, awaited before the next; what it throws ends the life. */
  onGulp?: () => Promise<void> | undefined
}

export class Reader {
  readonly commits: SeenCommit[] = []
  readonly lives: Life[] = []
  /** Errors that ended a life, by code. */
  readonly ends: string[] = []
  readonly logged: LogLine[] = []
  /** What kept changes from coming, and slots that were given up, by code. */
  readonly troubles = new Counts()
  error: unknown = null
  /** While it is there, nothing is read. */
  gate: Promise<void> | null = null
  readonly #abort = new AbortController()
  readonly #done: Promise<void>
  #open: { xid: number; rows: string[]; messages: { prefix: string; content: Buffer }[] } | null = null

  constructor(options: ReaderOptions) {
    const { acknowledge = false, onGulp, ...rest } = options
    const pool = createPool(options.databaseUrl, { maxConnections: 2, queryTimeoutMs: 5000 })
    const log = this.#log()
    const replication = new Replication({
      pool,
      name: 'tidegate',
      publication: 'tidegate',
      slotMaxBytes: 2 ** 30,
      resumeFrom: () => null,
      log,
      trouble: new Trouble(log, () => performance.now(), this.troubles),
      ...rest,
    })
    const run = this.#run(replication, acknowledge, onGulp).catch(error => {
      this.error = error
    })
    this.#done = run.finally(() => pool.end())
  }

  get life(): Life {
    return this.lives.at(-1)!
  }

  get rows(): string[] {
    return this.commits.flatMap(commit => commit.rows)
  }

  /** Waits for a condition, and fails at once when the session has failed. */
  async until(condition: () => boolean | Promise<boolean>, what = condition.toString()): Promise<void> {
    const deadline = performance.now() + 25_000
    while (!(await condition())) {
      if (this.error !== null) throw this.error
      if (performance.now() > deadline)
        throw new Error(`waited in vain for: ${what}; log: ${JSON.stringify(this.logged)}; ends: ${this.ends}`)
      await sleep(10)
    }
  }

  /** The same for what concerns several. */
  static async untilTrue(condition: () => boolean | Promise<boolean>): Promise<void> {
    const deadline = performance.now() + 25_000
    while (!(await condition())) {
      if (performance.now() > deadline) throw new Error(`waited in vain for: ${condition}`)
      await sleep(10)
    }
  }

  async stop(): Promise<void> {
    this.#abort.abort()
    await this.#done
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }

  async #run(replication: Replication, acknowledge: boolean, onGulp: ReaderOptions['onGulp']): Promise<void> {
    for await (const life of replication.lives(this.#abort.signal)) {
      this.lives.push(life)
      this.#open = null
      try {
        for await (const gulp of life.stream.gulps()) {
          for (const message of gulp) this.#take(message)
          await onGulp?.()
          const last = this.commits.at(-1)
          if (acknowledge && last?.life === this.lives.length) life.stream.acknowledge(last.endLsn)
          if (this.gate !== null) await this.gate
        }
      } catch (error) {
        this.ends.push(String((error as { code?: unknown }).code ?? error))
      }
    }
  }

  #take({ data }: WalMessage): void {
    if (data === null) return
    const kind = String.fromCharCode(data[0]!)
    if (kind === 'B') this.#open = { xid: data.readUInt32BE(17), rows: [], messages: [] }
    if (kind === 'I') this.#open!.rows.push(data.toString('utf8', 13, 13 + data.readUInt32BE(9)))
    if (kind === 'M') {
      const end = data.indexOf(0, 10)
      const content = data.subarray(end + 5, end + 5 + data.readUInt32BE(end + 1))
      this.#open!.messages.push({ prefix: data.toString('utf8', 10, end), content })
    }
    if (kind === 'C') this.commits.push({ life: this.lives.length, ...this.#open!, endLsn: data.readBigUInt64BE(10) })
  }

  #log(): ReplicationOptions['log'] {
    const log = createLog('silent')
    for (const level of ['debug', 'info', 'warn', 'error'] as const)
      log[level] = ((first: unknown, text?: string) => {
        const code = typeof first === 'object' ? (first as { code?: string }).code : undefined
        const cause = typeof first === 'object' ? (first as { err?: Error }).err : undefined
        this.logged.push({ level, code, text: `${text ?? first}${cause === undefined ? '' : `: ${cause.message}`}` })
      }) as typeof log.info
    return log
  }
}

/** Runs statements over a connection of its own. */
export async function query<R extends pg.QueryResultRow>(databaseUrl: string, sql: string): Promise<R[]> {
  const client = new pg.Client({ connectionString: databaseUrl })
  client.on('error', () => {})
  await client.connect()
  try {
    const result = (await client.query<R>(sql)) as pg.QueryResult<R> | pg.QueryResult<R>[]
    return (Array.isArray(result) ? result.at(-1)! : result).rows
  } finally {
    await client.end()
  }
}

export const confirmedFlush = async (databaseUrl: string): Promise<string> =>
  (
    await query<{ lsn: string }>(
      databaseUrl,
      "SELECT confirmed_flush_lsn::text AS lsn FROM pg_replication_slots WHERE slot_name LIKE 'tidegate\\_%' AND database = current_database()",
    )
  )[0]!.lsn

export const schema =
  'CREATE TABLE notes (body text); CREATE PUBLICATION tidegate FOR TABLE notes WITH (publish_via_partition_root = true)'
