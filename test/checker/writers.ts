// Those who write: many connections that never agree, and what makes the order of commits hard to follow: transactions that
// stay open, commits that stall in the WAL, two-phase commits, savepoints, cascades and thousands of rows at once.
import pg from 'pg'
import type { Random } from './random.ts'

export interface WritersOptions {
  readonly url: string
  readonly users: readonly string[]
  readonly random: Random
  readonly connections: number
  /** A TRUNCATE comes about once in this many statements of its kind. */
  readonly truncateOneIn: number
  /** Whether the server may be told that a standby is missing. */
  readonly stalls: boolean
  /** Rows of the largest commits. */
  readonly largeRows: number
}

export interface WriterCounts {
  commits: number
  refused: number
  large: number
  prepared: number
  stalls: number
  long: number
}

const rooms = 6
const ids = 80

export class Writers {
  readonly counts: WriterCounts = { commits: 0, refused: 0, large: 0, prepared: 0, stalls: 0, long: 0 }
  readonly #options: WritersOptions
  #prepared = 0

  constructor(options: WritersOptions) {
    this.#options = options
  }

  /** The rows that everything begins with. */
  async seed(): Promise<void> {
    const { random, users, url } = this.#options
    const client = await connected(url)
    await client.query(`INSERT INTO rooms SELECT i, 'room ' || i FROM generate_series(0, ${rooms - 1}) i`)
    for (let i = 0; i < 40; i++) await client.query(this.#statement(random, users)).catch(ignoreRefusal)
    await client.query(
      `INSERT INTO rooms SELECT i, 'room ' || i FROM generate_series(0, ${rooms - 1}) i ON CONFLICT DO NOTHING`,
    )
    await client.query(
      `INSERT INTO messages SELECT i, i % ${rooms}, i % 9 = 0, 'alpha' FROM generate_series(0, ${ids - 1}, 2) i ON CONFLICT DO NOTHING`,
    )
    await client.end()
  }

  /** Writes until the signal aborts; everything has ended and is visible when it resolves. */
  async run(signal: AbortSignal): Promise<void> {
    const { connections, random, stalls } = this.#options
    const actors = Array.from({ length: connections }, () => this.#write(random.fork(), signal))
    actors.push(this.#longOpen(random.fork(), signal))
    if (stalls) actors.push(this.#stall(random.fork(), signal))
    await Promise.all(actors)
  }

  async #write(random: Random, signal: AbortSignal): Promise<void> {
    await this.#withClient(signal, async client => {
      const sync = random.pick(['on', 'on', 'off', 'local'])
      if (random.once(150)) {
        await client.query(`BEGIN; SET LOCAL synchronous_commit = ${sync}; ${this.#large(random)}; COMMIT`)
        this.counts.large += 1
      } else if (random.once(40)) {
        this.#prepared += 1
        const name = `checker_${process.pid}_${this.#prepared}`
        await client.query(`BEGIN; ${this.#statements(random)}; PREPARE TRANSACTION '${name}'`)
        await sleep(random.below(150))
        await client.query(random.once(4) ? `ROLLBACK PREPARED '${name}'` : `COMMIT PREPARED '${name}'`)
        this.counts.prepared += 1
      } else await client.query(`BEGIN; SET LOCAL synchronous_commit = ${sync}; ${this.#statements(random)}; COMMIT`)
      this.counts.commits += 1
      await sleep(random.below(60))
    })
  }

  async #longOpen(random: Random, signal: AbortSignal): Promise<void> {
    await this.#withClient(signal, async client => {
      await sleep(random.below(300))
      await client.query(
        `BEGIN; INSERT INTO notes VALUES (${200 + random.below(50)}, 1, '${this.#options.users[0]}', 'long') ON CONFLICT DO NOTHING`,
      )
      await sleep(500 + random.below(2000))
      await client.query(random.once(3) ? 'ROLLBACK' : 'COMMIT')
      this.counts.long += 1
    })
  }

  /** Commits wait for a standby that does not exist: they are in the WAL, and no SELECT sees them. */
  async #stall(random: Random, signal: AbortSignal): Promise<void> {
    const client = await connected(this.#options.url)
    await client.query('SET synchronous_commit = local')
    try {
      while (!signal.aborted) {
        await sleep(300 + random.below(1500))
        await client.query(`ALTER SYSTEM SET synchronous_standby_names = 'ghost'`)
        await client.query('SELECT pg_reload_conf()')
        await sleep(50 + random.below(random.once(4) ? 1500 : 300))
        await client.query('ALTER SYSTEM RESET synchronous_standby_names')
        await client.query('SELECT pg_reload_conf()')
        this.counts.stalls += 1
      }
    } finally {
      await client.query('ALTER SYSTEM RESET synchronous_standby_names').catch(() => {})
      await client.query('SELECT pg_reload_conf()').catch(() => {})
      await client.end()
    }
  }

  /** Repeats the work. Unique keys, broken references and deadlocks are part of the game. */
  async #withClient(signal: AbortSignal, work: (client: pg.Client) => Promise<void>): Promise<void> {
    const client = await connected(this.#options.url)
    try {
      while (!signal.aborted) {
        try {
          await work(client)
        } catch (error) {
          await client.query('ROLLBACK')
          ignoreRefusal(error)
          this.counts.refused += 1
        }
      }
    } finally {
      await client.end()
    }
  }

  #statements(random: Random): string {
    const { users } = this.#options
    const statements = Array.from({ length: random.pick([1, 1, 1, 2, 3, 6]) }, () => this.#statement(random, users))
    if (random.once(6)) {
      const inner = `SAVEPOINT b; ${this.#statement(random, users)}; RELEASE b`
      statements.splice(
        random.below(statements.length + 1),
        0,
        `SAVEPOINT a; ${inner}; ${this.#statement(random, users)}; ROLLBACK TO a`,
      )
    }
    if (random.once(6)) statements.push(`SAVEPOINT c; ${this.#statement(random, users)}; RELEASE c`)
    return statements.join('; ')
  }

  #large(random: Random): string {
    const { largeRows } = this.#options
    const room = random.below(rooms)
    return random.pick([
      `INSERT INTO messages SELECT 10000 + i, ${room}, false, 'large ' || i FROM generate_series(1, ${largeRows}) i ON CONFLICT (id) DO UPDATE SET body = 'larger', room_id = excluded.room_id`,
      `UPDATE messages SET room_id = ${room} WHERE id > 10000`,
      'DELETE FROM messages WHERE id > 10000',
      `DELETE FROM messages WHERE id > 10000; DELETE FROM members WHERE room_id = ${room}`,
    ])
  }

  #statement(random: Random, users: readonly string[]): string {
    const id = random.below(ids)
    const room = random.below(rooms)
    const user = random.pick(users)
    const role = random.pick(['reader', 'reader', 'owner', 'owner', 'guest'])
    const body = random.once(12)
      ? random.pick(['x', 'y']).repeat(9000) + random.below(100)
      : `${random.pick(['alpha', 'apple', "it''s", 'gamma'])} ${random.below(100)}`
    const { truncateOneIn } = this.#options
    return random.pick([
      () =>
        `INSERT INTO messages VALUES (${id}, ${room}, ${random.once(8)}, '${body}') ON CONFLICT (id) DO UPDATE SET body = excluded.body`,
      () => `INSERT INTO messages VALUES (${id}, ${room}, false, NULL) ON CONFLICT DO NOTHING`,
      () => `UPDATE messages SET body = '${body}' WHERE id = ${id}`,
      () => `UPDATE messages SET room_id = ${random.once(9) ? 'NULL' : room} WHERE id = ${id}`,
      () => `UPDATE messages SET is_public = NOT is_public WHERE id = ${id}`,
      () => `UPDATE messages SET id = ${random.below(ids)} + ${1000 * random.below(3)} WHERE id = ${id}`,
      () => `DELETE FROM messages WHERE id = ${id} OR id BETWEEN 1000 AND 9999 AND id % 7 = ${random.below(7)}`,
      () => `UPDATE messages SET room_id = (room_id + 1) % ${rooms} WHERE id % 11 = ${random.below(11)} AND id < 10000`,
      () =>
        `INSERT INTO notes VALUES (${id}, ${room}, '${user}', '${body}') ON CONFLICT (id) DO UPDATE SET author = excluded.author`,
      () => `UPDATE notes SET body = '${body}' WHERE id = ${id}`,
      () => `UPDATE notes SET room_id = ${room} WHERE id BETWEEN ${id} AND ${id + 5}`,
      () => `UPDATE notes SET id = ${random.below(ids)} WHERE id = ${id}`,
      () => `DELETE FROM notes WHERE id = ${id}`,
      () =>
        `INSERT INTO members VALUES (${room}, '${user}', '${role}') ON CONFLICT (room_id, user_id) DO UPDATE SET role = excluded.role`,
      () => `INSERT INTO members SELECT id, '${user}', '${role}' FROM rooms ON CONFLICT DO NOTHING`,
      () => `DELETE FROM members WHERE user_id = '${user}' AND room_id = ${room}`,
      () => `UPDATE members SET role = '${role}' WHERE user_id = '${user}'`,
      () => `UPDATE members SET room_id = ${random.below(rooms)} WHERE user_id = '${user}' AND room_id = ${room}`,
      () => `UPDATE members SET user_id = '${random.pick(users)}' WHERE user_id = '${user}' AND room_id = ${room}`,
      () => `INSERT INTO bans VALUES (${room}, '${user}') ON CONFLICT DO NOTHING`,
      () => `DELETE FROM bans WHERE room_id = ${room}`,
      () => `DELETE FROM bans WHERE user_id = '${user}'`,
      () => `UPDATE rooms SET name = '${body.slice(0, 20)}' WHERE id = ${room}`,
      () => `INSERT INTO rooms VALUES (${room}, 'again') ON CONFLICT DO NOTHING`,
      () =>
        random.once(3)
          ? `DELETE FROM rooms WHERE id = ${room}`
          : `INSERT INTO rooms SELECT i, 'all' FROM generate_series(0, ${rooms - 1}) i ON CONFLICT DO NOTHING`,
      () =>
        random.once(2)
          ? `DELETE FROM rooms WHERE id = ${room}; INSERT INTO rooms VALUES (${room}, 'new')`
          : `INSERT INTO rooms VALUES (${room}, 'x') ON CONFLICT DO NOTHING`,
      () =>
        random.once(truncateOneIn)
          ? random.pick([
              'TRUNCATE messages',
              'TRUNCATE notes',
              'TRUNCATE members',
              'TRUNCATE bans',
              'TRUNCATE rooms CASCADE',
              'TRUNCATE messages, notes',
            ])
          : `DELETE FROM messages WHERE id = ${id}`,
    ])()
  }
}

function ignoreRefusal(error: unknown): void {
  const { code } = error as { code?: string }
  if (code === undefined || !['23505', '23503', '40P01', '21000'].includes(code)) throw error
}

const sleep = (ms: number): Promise<void> => new Promise(resolve => setTimeout(resolve, ms))

async function connected(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url })
  client.on('error', () => {})
  await client.connect()
  return client
}
