// Where histories are played: a database and a node for many of them, each history in a schema of its own.
import pg from 'pg'
import { loadConfig } from '../../src/server/config/config.ts'
import { createLog } from '../../src/server/log/log.ts'
import { startServer, type TidegateServer } from '../../src/server/server.ts'
import type { Subscriptions } from '../../src/server/subscribe/subscription.ts'
import type { Life } from '../../src/server/wal/replication.ts'
import { Replication } from '../../src/server/wal/replication.ts'
import type { WalMessage, WalStream } from '../../src/server/wal/wal-source.ts'
import { jwtSecret, prepareDatabase } from '../support/node.ts'
import { poolerSettings } from '../support/pgbouncer.ts'
import { TestDatabase } from '../support/postgres.ts'
import { type History, schemaSql } from './history.ts'

const settings = {
  JWT_SECRET: jwtSecret,
  PORT: '0',
  BEACON_MS: '1000',
  AUDIENCE_GRACE_MS: '50',
  // Several parts of a handful of rows.
  SNAPSHOT_CHUNK_ROWS: '4',
  MAX_HELD_MS: '20000',
  RECHECK_MS: '300',
  ASKED_TIMEOUT_MS: '20000',
  LOG_LEVEL: process.env.TEST_LOG_LEVEL ?? 'silent',
}

/** The node does not go on. */
export class StallError extends Error {}

export class Site {
  readonly #database: TestDatabase
  readonly #server: TidegateServer
  readonly #commits: CommitTap
  #free: readonly pg.Client[] = []
  #schemas = 0

  private constructor(database: TestDatabase, server: TidegateServer, commits: CommitTap) {
    this.#database = database
    this.#server = server
    this.#commits = commits
  }

  /** @param serverUrl left out: the server of the tests' global setup */
  static async start(serverUrl?: string): Promise<Site> {
    const database = await TestDatabase.create(serverUrl)
    await prepareDatabase(database, 'GRANT USAGE ON SCHEMA auth TO authenticated, anon', [])
    const commits = new CommitTap()
    const config = loadConfig({ ...settings, DATABASE_URL: database.url, ...(await poolerSettings(database.url)) })
    const server = await startServer(config, {
      log: createLog(config.logLevel),
      replicate: options => commits.over(new Replication(options)),
    })
    await server.ready()
    return new Site(database, server, commits)
  }

  get door(): Subscriptions {
    return this.#server.subscriptions
  }

  /** Makes a schema for each history, and fills it. @throws what Postgres says of a history that it does not take */
  async build(histories: readonly History[]): Promise<string[]> {
    const schemas = histories.map(() => `h${++this.#schemas}`)
    await this.withClient(async client => {
      const made = histories.map((history, i) => schemaSql(history, schemas[i]!, 'tidegate'))
      await client.query(`BEGIN; ${made.join(';\n')}; COMMIT`).catch(rollBack(client))
      const filled = histories.map(({ rows }, i) => [`SET LOCAL search_path = ${schemas[i]}`, ...rows].join(';\n'))
      await client.query(`BEGIN; ${filled.join(';\n')}; COMMIT`).catch(rollBack(client))
    })
    return schemas
  }

  async drop(schemas: readonly string[]): Promise<void> {
    const drop = `SET client_min_messages = warning; DROP SCHEMA IF EXISTS ${schemas.join(', ')} CASCADE`
    await this.withClient(async client => {
      for (;;) {
        try {
          await client.query(drop)
          return
        } catch (error) {
          // A question that is still being answered reads the same tables in another order.
          if ((error as { code?: string }).code !== '40P01') throw error
        }
      }
    })
  }

  /** A connection of a superuser. */
  async withClient<T>(use: (client: pg.Client) => Promise<T>): Promise<T> {
    const client = this.#free.at(-1) ?? (await this.#connect())
    this.#free = this.#free.filter(other => other !== client)
    try {
      return await use(client)
    } finally {
      this.#free = [...this.#free, client]
    }
  }

  /** Resolves with the commit's position once the node has served it. @param xid64 as pg_current_xact_id() gives it */
  async served(xid64: string, timeoutMs: number): Promise<bigint> {
    const deadline = performance.now() + timeoutMs
    for (;;) {
      const lsn = this.#commits.lsnOf(xid64)
      if (lsn !== undefined && this.door.head().position.lsn >= lsn) return lsn
      if (performance.now() > deadline)
        throw new StallError(`transaction ${xid64} was not served within ${timeoutMs} ms`)
      await new Promise(resolve => setTimeout(resolve, 1))
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.stop()
    for (const client of this.#free) await client.end()
    await this.#database[Symbol.asyncDispose]()
  }

  async #connect(): Promise<pg.Client> {
    const client = new pg.Client({ connectionString: this.#database.url })
    client.on('error', () => {})
    await client.connect()
    return client
  }
}

const rollBack = (client: pg.Client) => async (error: unknown) => {
  await client.query('ROLLBACK')
  throw error
}

/** Reads each commit's position off the stream of bytes, before the node does anything with them. */
class CommitTap {
  /** By the transaction's 32 bits. */
  readonly #lsns = new Map<number, bigint>()

  lsnOf(xid64: string): bigint | undefined {
    return this.#lsns.get(Number(BigInt.asUintN(32, BigInt(xid64))))
  }

  over(replication: Replication): Replication {
    const lives = replication.lives.bind(replication)
    const tapped = (stream: WalStream) => this.#tapped(stream)
    replication.lives = async function* (signal: AbortSignal): AsyncIterable<Life> {
      for await (const life of lives(signal)) yield { ...life, stream: tapped(life.stream) }
    }
    return replication
  }

  #tapped(stream: WalStream): WalStream {
    const noted = (gulp: readonly WalMessage[]) => this.#note(gulp)
    return {
      acknowledge: lsn => stream.acknowledge(lsn),
      close: () => stream.close(),
      gulps: async function* () {
        for await (const gulp of stream.gulps()) {
          noted(gulp)
          yield gulp
        }
      },
    }
  }

  /** Begin: 'B', int64 LSN of the commit record, int64 time, int32 xid. */
  #note(gulp: readonly WalMessage[]): void {
    for (const { data } of gulp) if (data?.[0] === 0x42) this.#lsns.set(data.readUInt32BE(17), data.readBigUInt64BE(1))
  }
}
