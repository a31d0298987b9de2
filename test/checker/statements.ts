// What writers write, as SQL: drawn from a generator and nothing else, so that a seed repeats it.
import type { Random } from './random.ts'

export interface StatementOptions {
  readonly users: readonly string[]
  /** A TRUNCATE comes about once in this many statements of its kind. */
  readonly truncateOneIn: number
  /** Rows of the largest commits. */
  readonly largeRows: number
  /** One in this many is large; left out, 500. */
  readonly largeOneIn?: number
  /** Writes its own rows only, a few at a time: many commits, and nobody waits. */
  readonly isCalm?: boolean
  /** Who writes: some rows are written by nobody else, so that not every commit waits for another. */
  readonly lane: number
}

export interface Transaction {
  readonly kind: 'small' | 'large' | 'prepared'
  /** Between BEGIN and COMMIT. */
  readonly sql: string
  readonly synchronousCommit: string
  /** Subtransactions in it that are kept, and that are rolled back. */
  readonly kept: number
  readonly undone: number
  /** Of a prepared one: how it ends. */
  readonly isRolledBack: boolean
  /** How long its writer rests after it, and how long it stays prepared. */
  readonly pauseMs: number
  readonly preparedMs: number
}

export const rooms = 6
const ids = 80
const laneIds = 30

export const allRooms = `INSERT INTO rooms SELECT i, 'all' FROM generate_series(0, ${rooms - 1}) i ON CONFLICT DO NOTHING`

export const firstRows: readonly string[] = [
  allRooms,
  `INSERT INTO messages SELECT i, i % ${rooms}, i % 9 = 0, 'alpha' FROM generate_series(0, ${ids - 1}, 2) i ON CONFLICT DO NOTHING`,
]

export function transaction(random: Random, options: StatementOptions): Transaction {
  const isWild = options.isCalm !== true
  const kind =
    isWild && random.once(options.largeOneIn ?? 500) ? 'large' : isWild && random.once(40) ? 'prepared' : 'small'
  const synchronousCommit = random.pick(['on', 'on', 'off', 'local', 'remote_apply'])
  const { sql, kept, undone } =
    kind === 'large' ? { sql: large(random, options), kept: 0, undone: 0 } : statements(random, options)
  return {
    kind,
    sql,
    synchronousCommit,
    kept,
    undone,
    isRolledBack: random.once(4),
    pauseMs: random.below(25),
    preparedMs: random.below(150),
  }
}

function statements(random: Random, options: StatementOptions): { sql: string; kept: number; undone: number } {
  const list = Array.from({ length: random.pick([1, 1, 1, 2, 3, 6]) }, () => statement(random, options))
  const hasUndone = random.once(6)
  if (hasUndone) {
    const inner = `SAVEPOINT b; ${statement(random, options)}; RELEASE b`
    const outer = `SAVEPOINT a; ${inner}; ${statement(random, options)}; ROLLBACK TO a`
    list.splice(random.below(list.length + 1), 0, outer)
  }
  const hasKept = random.once(6)
  if (hasKept) list.push(`SAVEPOINT c; ${statement(random, options)}; RELEASE c`)
  return { sql: list.join('; '), kept: hasKept ? 1 : 0, undone: hasUndone ? 2 : 0 }
}

function large(random: Random, { largeRows }: StatementOptions): string {
  const room = random.below(rooms)
  const bulky = Math.ceil(largeRows / 10)
  return random.pick([
    `INSERT INTO messages SELECT 10000 + i, ${room}, false, 'large ' || i FROM generate_series(1, ${largeRows}) i ON CONFLICT (id) DO UPDATE SET body = 'larger', room_id = excluded.room_id`,
    `UPDATE messages SET room_id = ${room} WHERE id > 10000`,
    'DELETE FROM messages WHERE id > 10000',
    `DELETE FROM messages WHERE id > 10000; DELETE FROM members WHERE room_id = ${room}`,
    // Megabytes in few rows: what a slow reader leaves in the sockets until nothing more fits.
    `INSERT INTO messages SELECT 10000 + i, ${room}, false, repeat('bulk', 2000) || i FROM generate_series(1, ${bulky}) i ON CONFLICT (id) DO UPDATE SET body = excluded.body`,
    `DELETE FROM messages WHERE id > 10000; INSERT INTO messages SELECT 10000 + i, ${room}, i % 2 = 0, repeat('mass', 2000) || i FROM generate_series(1, ${bulky}) i; UPDATE messages SET body = body || '.' WHERE id > 10000`,
  ])
}

function statement(random: Random, options: StatementOptions): string {
  return options.isCalm || random.once(2) ? own(random, options) : contended(random, options)
}

const bodyOf = (random: Random): string =>
  random.once(20)
    ? random.pick(['x', 'y']).repeat(9000) + random.below(100)
    : `${random.pick(['alpha', 'apple', "it''s", 'gamma'])} ${random.below(100)}`

const roles = ['reader', 'reader', 'owner', 'owner', 'guest']

/** Rows that only this writer writes, but for the statements that take all. */
function own(random: Random, { users, lane }: StatementOptions): string {
  const id = 100 + lane * laneIds + random.below(laneIds)
  const other = 100 + lane * laneIds + random.below(laneIds)
  const room = random.below(rooms)
  const user = random.pick(users)
  const body = bodyOf(random)
  return random.pick([
    `INSERT INTO messages VALUES (${id}, ${room}, ${random.once(8)}, '${body}') ON CONFLICT (id) DO UPDATE SET body = excluded.body`,
    `INSERT INTO messages VALUES (${id}, NULL, true, '${body}') ON CONFLICT (id) DO UPDATE SET is_public = true`,
    `UPDATE messages SET body = '${body}' WHERE id = ${id}`,
    `UPDATE messages SET room_id = ${room} WHERE id = ${id}`,
    `UPDATE messages SET id = ${other} WHERE id = ${id} AND NOT EXISTS (SELECT FROM messages WHERE id = ${other})`,
    `DELETE FROM messages WHERE id = ${id}`,
    `INSERT INTO notes VALUES (${id + 1000}, ${room}, '${user}', '${body}') ON CONFLICT (id) DO UPDATE SET room_id = excluded.room_id`,
    `UPDATE notes SET author = '${user}' WHERE id = ${id + 1000}`,
    `DELETE FROM notes WHERE id = ${id + 1000}`,
  ])
}

/** Rows that all fight for. */
function contended(random: Random, { users, truncateOneIn }: StatementOptions): string {
  const id = random.below(ids)
  const room = random.below(rooms)
  const user = random.pick(users)
  const role = random.pick(roles)
  const body = bodyOf(random)
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
    () => `UPDATE rooms SET name = '${body.slice(0, 20).replaceAll("'", '')}' WHERE id = ${room}`,
    () => `INSERT INTO rooms VALUES (${room}, 'again') ON CONFLICT DO NOTHING`,
    () => (random.once(6) ? `DELETE FROM rooms WHERE id = ${room}` : allRooms),
    () =>
      random.once(4)
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
