// The Postgres under check: can be killed, crashed and restarted under load, lose the slot, and begin at high transaction ids.
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import pg from 'pg'
import { LocalPostgres } from '../../src/cli/local-postgres.ts'
import { advanceXids, debianBin } from '../support/debian-postgres.ts'
import type { Random } from './random.ts'

export interface ClusterOptions {
  /** Postgres's binaries, instead of the packaged ones. */
  readonly binDir?: string
  /** Transaction ids begin a few thousand before this epoch of 2^32 ends, so that the run passes over. Null: at the start. */
  readonly xidEpoch: number | null
  /** Whether it crashes: what was flushed is then flushed for good. */
  readonly crashes: boolean
}

export const crashes = ['killed', 'crashed', 'backend killed', 'restarted'] as const
export type Crash = (typeof crashes)[number]

const xidsBeforeWrap = 3000

export class Cluster {
  readonly #server: LocalPostgres

  private constructor(server: LocalPostgres) {
    this.#server = server
  }

  static async start({ binDir, xidEpoch, crashes, ...rest }: ClusterOptions): Promise<Cluster> {
    const bin = xidEpoch === null ? binDir : debianBin
    if (bin === null) throw new Error('pg_resetwal is needed for the transaction ids: install postgresql')
    const server = await LocalPostgres.create({
      ...rest,
      settings: {
        max_prepared_transactions: '20',
        fsync: crashes ? 'on' : 'off',
        autovacuum: xidEpoch === null ? 'on' : 'off',
        ...(crashes ? { checkpoint_timeout: '30s' } : {}),
      },
      // Small segments, so that WAL can be taken from a slot without writing gigabytes.
      initdbArgs: ['--wal-segsize=1'],
      ...(bin === undefined ? {} : { binDir: bin }),
    })
    try {
      await server.start()
      // Whoever ends this process in a hurry leaves no server behind.
      process.once('exit', () => void server.halt('immediate'))
      if (xidEpoch !== null) await advanceXids(server, { epoch: xidEpoch, next: 2 ** 32 - xidsBeforeWrap })
      return new Cluster(server)
    } catch (error) {
      await server.stop()
      throw error
    }
  }

  get url(): string {
    return this.#server.url
  }

  /** Resolves when it takes connections again. */
  async crash(how: Crash, random: Random): Promise<void> {
    if (how === 'backend killed') await this.#killBackend(random)
    else {
      if (how === 'killed') await this.#killAll()
      else await this.#server.halt(how === 'crashed' ? 'immediate' : 'fast')
      await this.#startAgain()
    }
    await this.#untilReady()
  }

  async stop(): Promise<void> {
    await this.#server.stop()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }

  /** kill -9 of the postmaster and of all that it started. */
  async #killAll(): Promise<void> {
    const postmaster = (await readFile(join(this.#server.dataDir, 'postmaster.pid'), 'utf8')).split('\n')[0]!
    const children = await readFile(`/proc/${postmaster}/task/${postmaster}/children`, 'utf8')
    const killed = this.#server.halt('kill')
    for (const child of children.trim().split(' ')) kill(Number(child))
    await killed
  }

  /** The postmaster then ends all sessions and recovers. */
  async #killBackend(random: Random): Promise<void> {
    const client = await connected(this.url)
    const ended = new Promise(resolve => client.once('end', resolve))
    for (;;) {
      const { rows } = await client.query<{ pid: number }>(
        `SELECT pid FROM pg_stat_activity WHERE backend_type IN ('client backend', 'walsender') AND pid <> pg_backend_pid()
         ORDER BY backend_type DESC, pid`,
      )
      // The walsender half of the time: it comes first.
      const victim = random.once(2) ? rows[0] : rows[random.below(Math.max(1, rows.length))]
      if (victim !== undefined && kill(victim.pid)) break
      await sleep(20)
    }
    await ended
  }

  /** After kill -9 the server's children may still hold its memory for a moment. */
  async #startAgain(): Promise<void> {
    for (let attempt = 0; ; attempt++) {
      try {
        return await this.#server.start()
      } catch (error) {
        if (attempt === 50) throw error
        await sleep(100)
      }
    }
  }

  async #untilReady(): Promise<void> {
    for (let attempt = 0; ; attempt++) {
      try {
        const client = await connected(this.url)
        await client.query('SELECT 1')
        await client.end()
        return
      } catch (error) {
        if (attempt === 3000) throw error
        await sleep(20)
      }
    }
  }
}

/** @returns false when it has gone by itself */
function kill(pid: number): boolean {
  try {
    return process.kill(pid, 'SIGKILL')
  } catch (error) {
    if ((error as { code?: string }).code !== 'ESRCH') throw error
    return false
  }
}

async function connected(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url })
  client.on('error', () => {})
  await client.connect()
  return client
}

const sleep = (ms: number): Promise<void> => new Promise(resolve => setTimeout(resolve, ms))
