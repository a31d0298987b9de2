// What the event trigger of migrations/functions/tidegate.announce_catalog.sql says in the stream: with this commit, rules
// changed that decide who may read what. Any role can write a message of that name, and each that counts holds up the
// stream for a look at the catalog: so the trigger signs them, with a key that only it and the server can read.
import { createHash, timingSafeEqual } from 'node:crypto'
import type { Commit } from '../decode/change.ts'
import type { Lane } from '../postgres/database.ts'

/** No deployment can have this name. */
const prefix = 'tidegate catalog'

/** As many messages as are kept of one commit: whoever writes that many could have hidden ours behind them. */
const mostMessages = 10_000

export class Announcements {
  readonly #pool: Lane
  #key: Buffer | null = null
  /** The key held may be another's: `migrate` may have run since. */
  #isDoubtful = true
  #isComplete = false

  constructor(pool: Lane) {
    this.#pool = pool
  }

  /** Whether every change is announced but those that fire no event trigger. As of the last `refresh`. */
  get isComplete(): boolean {
    return this.#isComplete
  }

  /** Looks whether there is a trigger, and for its key. @throws what Postgres throws */
  async refresh(): Promise<void> {
    const found = await this.#pool.query<{ may: boolean; triggers: number }>(
      `SELECT coalesce(has_schema_privilege(to_regnamespace('tidegate')::oid, 'USAGE')
           AND has_table_privilege(to_regclass('tidegate.catalog_key')::oid, 'SELECT'), false) AS may,
         (SELECT count(*)::int FROM pg_event_trigger
           WHERE evtname IN ('tidegate_announce', 'tidegate_announce_drop') AND evtenabled IN ('O', 'A')) AS triggers`,
    )
    const { may, triggers } = found.rows[0]!
    // Where it may not be read, changes are polled for.
    if (!may) this.#key = null
    else if (this.#key === null || this.#isDoubtful) {
      const { rows } = await this.#pool.query<{ key: Buffer }>('SELECT key FROM tidegate.catalog_key')
      this.#key = rows[0]?.key ?? null
    }
    this.#isDoubtful = false
    this.#isComplete = this.#key !== null && triggers === 2
  }

  /** Whether a commit changed the catalog, by the word of our trigger. */
  isIn(commit: Commit): boolean {
    const { messages } = commit
    if (messages.length === 0) return false
    if (messages.length >= mostMessages) return true
    for (const message of messages) {
      if (message.prefix !== prefix) continue
      // Left out behind 16 MiB of others.
      if (message.omittedBytes !== undefined) return true
      if (this.#key !== null && isSigned(commit.xid, message.content, this.#key)) return true
      this.#isDoubtful = true
    }
    return false
  }
}

/** @param xid 32-bit, from the Begin of the transaction that carried it */
function isSigned(xid: number, content: Buffer, key: Buffer): boolean {
  if (content.length !== 64) return false
  const inner = createHash('sha256').update(key).update(`catalog ${xid}`).digest()
  const outer = createHash('sha256').update(key).update(inner).digest('hex')
  return timingSafeEqual(Buffer.from(outer, 'latin1'), content)
}
