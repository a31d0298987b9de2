// What the database does: messages in transactions, some of which are rolled back, and members let in and out. It may crash.
import pg from 'pg'
import type { Random } from '../../checker/random.ts'
import { type Change, type Ledger, nameOf, type Said } from './ledger.ts'
import { type Room, rooms, roomsOfSql } from './world.ts'

export interface DatabaseActor {
  readonly url: string
  readonly ledger: Ledger
  readonly random: Random
  readonly pauseMs: number
}

/** Says things in transactions, until the signal aborts. */
export async function speakInSql(actor: DatabaseActor, signal: AbortSignal): Promise<void> {
  const { ledger, random, pauseMs } = actor
  await using session = new Session(actor.url)
  while (!signal.aborted) {
    const change = ledger.lastChange
    const transaction = ledger.transaction()
    const begin = (room: Room): Said => {
      const said = ledger.begin({ room, way: 'sql', transaction })
      ledger.attempt(said, change)
      return said
    }
    const all: Said[] = []
    /** Of a savepoint that was rolled back. */
    const undone: Said[] = []
    const isMeantToCommit = !random.once(5)
    const isCommitted = await session.transaction(async query => {
      const count = random.once(15) ? 60 + random.below(200) : 1 + random.below(8)
      const only = random.once(2) ? random.pick(roomsOfSql) : null
      for (let i = 0; i < count; i++) {
        const said = begin(only ?? random.pick(roomsOfSql))
        if (random.once(10)) {
          undone.push(said)
          await query('SAVEPOINT here')
          await query(saying(said))
          await query('ROLLBACK TO SAVEPOINT here')
        } else {
          all.push(said)
          await query(saying(said))
        }
      }
      return isMeantToCommit
    })
    for (const said of all) ledger.settle(said, isCommitted ? 'accepted' : 'refused')
    for (const said of undone) ledger.settle(said, 'refused')
    await sleep(random.below(2 * pauseMs))
  }
}

/** Lets members in and out, one after the other, until the signal aborts. */
export async function moveMembers(actor: DatabaseActor, users: readonly string[], signal: AbortSignal): Promise<void> {
  const { ledger, random, pauseMs } = actor
  await using session = new Session(actor.url)
  while (!signal.aborted) {
    const user = random.pick(users)
    const room = random.pick(rooms)
    await moveMember(
      session,
      ledger,
      { user, room, isLetIn: !ledger.isMember(user, room) },
      random.once(3) && roomsOfSql.includes(room),
    )
    await sleep(random.below(2 * pauseMs))
  }
}

/** @param speaks in the same transaction, behind it */
export async function moveMember(
  session: Session,
  ledger: Ledger,
  { user, room, isLetIn }: Pick<Change, 'user' | 'room' | 'isLetIn'>,
  speaks: boolean,
): Promise<void> {
  const change: Change = {
    ...{ user, room, isLetIn },
    number: ledger.changes.length + 1,
    begunAt: performance.now(),
    committedAt: null,
    isRolledBack: false,
    xid: '',
  }
  ledger.changes.push(change)
  const said = speaks ? ledger.begin({ room, way: 'sql', transaction: ledger.transaction() }) : null
  if (said !== null) ledger.attempt(said, change.number)
  const isCommitted = await session.transaction(async (query, xid) => {
    change.xid = xid
    await query(
      isLetIn
        ? `INSERT INTO members VALUES (${room.id}, '${user}')`
        : `DELETE FROM members WHERE room_id = ${room.id} AND user_id = '${user}'`,
    )
    if (said !== null) await query(saying(said))
    return true
  })
  if (isCommitted) change.committedAt = performance.now()
  else change.isRolledBack = true
  if (said !== null) ledger.settle(said, isCommitted ? 'accepted' : 'refused')
}

const saying = ({ n, room }: Said): string => `SELECT realtime.send('{"id": "-", "n": ${n}}', 'said', '${room.topic}')`

/** Of one transaction: in a history its messages stand in their order, all of them or none. */
export function judgeTransactions(ledger: Ledger, room: Room, numbers: ReadonlyMap<number, bigint>): void {
  const transactions = new Map<number, Said[]>()
  for (const said of ledger.said) {
    if (said.room !== room || said.transaction === null || said.outcome !== 'accepted') continue
    const { number } = said.transaction
    transactions.set(number, [...(transactions.get(number) ?? []), said])
  }
  for (const all of transactions.values()) {
    if (all.some(said => ledger.isHit(said))) continue
    let last = 0n
    for (const said of all) {
      const seq = numbers.get(said.n)
      if (seq === undefined) continue
      if (seq < last)
        ledger.find('disordered', `${nameOf(said)} is number ${seq}, and one before it in its transaction is ${last}`)
      last = seq
    }
  }
}

/** One connection, made anew when it is lost. */
export class Session {
  readonly #url: string
  #client: pg.Client | null = null

  constructor(url: string) {
    this.#url = url
  }

  /** @param work says whether to commit. @returns whether it was committed */
  async transaction(
    work: (query: (sql: string) => Promise<unknown>, xid: string) => Promise<boolean>,
  ): Promise<boolean> {
    let xid: string | null = null
    try {
      const client = await this.#connected()
      const { rows } = await client
        .query<{ xid: string }[]>('BEGIN; SELECT pg_current_xact_id()::text AS xid')
        .then(results => (results as unknown as pg.QueryResult<{ xid: string }>[])[1]!)
      xid = rows[0]!.xid
      const isMeantToCommit = await work(sql => client.query(sql), xid)
      await client.query(isMeantToCommit ? 'COMMIT' : 'ROLLBACK')
      return isMeantToCommit
    } catch {
      await this.#lose()
      return xid !== null && (await this.#hasCommitted(xid))
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#lose()
  }

  /** Asked until the server knows. */
  async #hasCommitted(xid: string): Promise<boolean> {
    for (;;) {
      try {
        const client = await this.#connected()
        const { rows } = await client.query<{ status: string | null }>(`SELECT pg_xact_status('${xid}') AS status`)
        if (rows[0]!.status !== 'in progress') return rows[0]!.status === 'committed'
      } catch {
        await this.#lose()
      }
      await sleep(100)
    }
  }

  async #connected(): Promise<pg.Client> {
    while (this.#client === null) {
      const client = new pg.Client({ connectionString: this.#url })
      client.on('error', () => {})
      try {
        await client.connect()
        this.#client = client
      } catch {
        await sleep(100)
      }
    }
    return this.#client
  }

  async #lose(): Promise<void> {
    await this.#client?.end().catch(() => {})
    this.#client = null
  }
}

const sleep = (ms: number): Promise<void> => new Promise(resolve => setTimeout(resolve, ms))
