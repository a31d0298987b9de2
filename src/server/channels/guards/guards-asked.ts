// Guards that only Postgres can answer: it is asked, under the reader's role and claims, what the policies say of a row that
// is made up in the question. Nothing is written.
//
// Asked when somebody comes, when a commit touches what the policies are known to read, and every `recheckMs`. Whoever
// cannot be answered for is not allowed.
import { createHash } from 'node:crypto'
import { escapeLiteral } from 'pg'
import { TidegateError } from '../../../protocol/tidegate-error.ts'
import type { Statement } from '../../ask/ask-sql.ts'
import type { Asker } from '../../ask/asker.ts'
import { isTransient } from '../../ask/failures.ts'
import { tablesRead } from '../../ask/tables-read.ts'
import type { Commit } from '../../decode/change.ts'
import type { Log } from '../../log/log.ts'
import { repeated } from '../../log/log-repeated.ts'
import { answered, type Lane } from '../../postgres/database.ts'
import type { Query } from '../../route/query.ts'
import type { Reader } from '../../snapshot/reader.ts'
import { messagesTable } from './guards-access.ts'
import { extensionAt, places } from './guards-plan.ts'

export interface AskedGuardsOptions {
  readonly asker: Asker
  /** For the catalog. */
  readonly pool: Lane
  readonly limits: {
    /** Guards that are asked for at a time, those in their grace among them. */
    readonly maxGuards: number
    readonly recheckMs: number
    readonly graceMs: number
  }
  readonly log: Log
  /** 0 to 1. */
  readonly random: () => number
}

export interface AskedGuardRequest {
  readonly query: Query
  /** With the topic among its settings. */
  readonly reader: Reader
  readonly topic: string
  /** By place; null for what is not asked. */
  readonly conditions: readonly (string | null)[]
}

export interface AskedGuardUser {
  /** Some of the truths are others now. */
  askedAnew(): void
}

/** What Postgres said last. */
export class AskedGuard {
  readonly request: AskedGuardRequest
  readonly key: string
  readonly users = new Set<AskedGuardUser>()
  /** By place. */
  truths: readonly boolean[] = nothing
  /** How long a question took the last time, in milliseconds. */
  pace: number | null = null
  /** A commit that the next question must see. */
  touchedLsn = 0n
  /** Counts what made it necessary to ask; `answered` is how far that has been done. */
  wanted = 0
  answered = -1
  /** When it was answered last, by the steady clock. */
  answeredAtMs = 0
  asking: Promise<void> | null = null
  timer: NodeJS.Timeout | null = null
  grace: NodeJS.Timeout | null = null

  constructor(request: AskedGuardRequest, key: string) {
    this.request = request
    this.key = key
  }
}

const nothing: readonly boolean[] = Array.from({ length: places }, () => false)

/** After a question that only did not come at the right moment. */
const againMs = 100

export class AskedGuards {
  readonly #options: AskedGuardsOptions
  /** Bounded by `maxGuards`. */
  readonly #held = new Map<string, AskedGuard>()
  /** Tables that the policies are known to read; null: not known yet. */
  #reads: Promise<ReadonlySet<number>> | null = null
  #readsNow: ReadonlySet<number> = new Set()

  constructor(options: AskedGuardsOptions) {
    this.#options = options
  }

  get size(): number {
    return this.#held.size
  }

  /** Resolves when Postgres has answered for it. `leave` when the user goes.
   *  @throws ASKED_TOO_MANY, UNAVAILABLE */
  async join(request: AskedGuardRequest, user: AskedGuardUser): Promise<AskedGuard> {
    // What it reads is known before it stands: a commit in between would be looked at too late.
    await this.#tablesRead(request.query.table.oid)
    const key = keyOf(request)
    let guard = this.#held.get(key)
    if (guard === undefined) {
      this.#makeRoom()
      guard = new AskedGuard(request, key)
      this.#held.set(key, guard)
    }
    if (guard.grace !== null) clearTimeout(guard.grace)
    guard.grace = null
    guard.users.add(user)
    try {
      await (guard.answered < 0 ? this.#ask(guard) : guard.asking)
      return guard
    } catch (error) {
      this.leave(guard, user)
      throw error
    }
  }

  leave(guard: AskedGuard, user: AskedGuardUser): void {
    if (!guard.users.delete(user) || guard.users.size > 0 || this.#held.get(guard.key) !== guard) return
    if (guard.answered < 0) this.#close(guard)
    else guard.grace = setTimeout(() => this.#close(guard), this.#options.limits.graceMs).unref()
  }

  /** A commit has been served. */
  served(commit: Commit): void {
    if (this.#held.size === 0) return
    for (const oid of commit.relations) {
      if (!this.#readsNow.has(oid)) continue
      for (const guard of this.#held.values()) this.#moved(guard, commit.commitLsn)
      return
    }
  }

  /** The catalog changed: all are asked again, whatever the policies read now. */
  async recheck(): Promise<void> {
    this.#reads = null
    for (const guard of [...this.#held.values()]) {
      if (guard.users.size === 0) this.#close(guard)
      else await this.#tablesRead(guard.request.query.table.oid).catch(() => {})
      this.#moved(guard, 0n)
    }
  }

  close(): void {
    for (const guard of [...this.#held.values()]) this.#close(guard)
  }

  #tablesRead(oid: number): Promise<ReadonlySet<number>> {
    if (this.#reads === null) {
      const reading = answered(tablesRead(this.#options.pool, oid))
      this.#reads = reading
      reading.then(
        reads => {
          if (this.#reads === reading) this.#readsNow = reads
        },
        () => {
          if (this.#reads === reading) this.#reads = null
        },
      )
    }
    return this.#reads
  }

  #makeRoom(): void {
    const { maxGuards } = this.#options.limits
    if (this.#held.size < maxGuards) return
    for (const guard of this.#held.values()) {
      if (guard.users.size > 0) continue
      this.#close(guard)
      return
    }
    throw new TidegateError(
      'ASKED_TOO_MANY',
      `Postgres is asked for ${maxGuards} readers of channels already; write the policies on realtime.messages so that they compile, or raise ASKED_MAX_AUDIENCES_PER_TABLE`,
      { retryAfterMs: 5000 },
    )
  }

  #close(guard: AskedGuard): void {
    if (this.#held.get(guard.key) === guard) this.#held.delete(guard.key)
    for (const timer of [guard.timer, guard.grace]) if (timer !== null) clearTimeout(timer)
    guard.timer = null
    guard.grace = null
  }

  #moved(guard: AskedGuard, lsn: bigint): void {
    if (lsn > guard.touchedLsn) guard.touchedLsn = lsn
    guard.wanted += 1
    void this.#ask(guard).catch(() => {})
  }

  #ask(guard: AskedGuard): Promise<void> {
    guard.asking ??= this.#askUntilAnswered(guard).finally(() => {
      guard.asking = null
      this.#askLater(guard, this.#options.limits.recheckMs * (0.75 + 0.5 * this.#options.random()))
    })
    return guard.asking
  }

  #askLater(guard: AskedGuard, ms: number): void {
    if (guard.timer !== null) clearTimeout(guard.timer)
    guard.timer = null
    if (this.#held.get(guard.key) !== guard || guard.users.size === 0) return
    guard.timer = setTimeout(() => this.#moved(guard, 0n), ms).unref()
  }

  /** One question at a time; what commits meanwhile is looked at by the next.
   *  @throws UNAVAILABLE for one that was never answered */
  async #askUntilAnswered(guard: AskedGuard): Promise<void> {
    const { recheckMs } = this.#options.limits
    const beganMs = performance.now()
    while (guard.answered < guard.wanted) {
      const { wanted } = guard
      try {
        const truths = await this.#truthsOf(guard)
        guard.answered = wanted
        guard.answeredAtMs = performance.now()
        this.#tell(guard, truths)
      } catch (error) {
        const sinceMs = performance.now() - (guard.answered < 0 ? beganMs : guard.answeredAtMs)
        if (isTransient(error) && sinceMs < 2 * recheckMs) {
          await new Promise(resolve => setTimeout(resolve, againMs))
          continue
        }
        // Nobody knows: nobody is let in.
        this.#tell(guard, nothing)
        if (guard.answered < 0)
          throw new TidegateError('UNAVAILABLE', 'Postgres could not be asked who may be in the channel', {
            cause: error,
            retryAfterMs: recheckMs,
          })
        return
      }
    }
  }

  #tell(guard: AskedGuard, truths: readonly boolean[]): void {
    if (truths.every((truth, place) => truth === guard.truths[place])) return
    guard.truths = truths
    for (const user of [...guard.users]) user.askedAnew()
  }

  /** @throws what passes by itself */
  async #truthsOf(guard: AskedGuard): Promise<readonly boolean[]> {
    const { conditions } = guard.request
    const wanted = conditions.flatMap((condition, place) => (condition === null ? [] : [place]))
    const together = await this.#answers(guard, wanted)
    if (together !== null) return together
    // What one of them raises says nothing about the others.
    const truths = [...nothing]
    for (const place of wanted) truths[place] = (await this.#answers(guard, [place]))?.[place] ?? false
    return truths
  }

  /** Null where a policy raises, or is too slow. */
  async #answers(guard: AskedGuard, wanted: readonly number[]): Promise<boolean[] | null> {
    const { asker, log } = this.#options
    const { query, reader } = guard.request
    try {
      const { result, tookMs } = await asker.run(
        { query, reader },
        { pace: guard.pace, begin: () => guard.touchedLsn },
        view => view.ask(statementOf(guard.request, wanted)),
      )
      guard.pace = tookMs
      const truths = [...nothing]
      wanted.forEach((place, i) => {
        truths[place] = result[0]![i] === 't'
      })
      return truths
    } catch (error) {
      if (isTransient(error)) throw error
      const { code, cause } = error as { code?: string; cause?: { code?: string } }
      if (code === 'POLICY_SLOW') guard.pace = asker.timeoutMs
      if (wanted.length === 1 || code === 'POLICY_SLOW')
        repeated(log).warn(
          { code, sqlState: cause?.code, role: reader.role },
          'a policy on realtime.messages could not be asked: not allowed',
        )
      return code === 'POLICY_SLOW' ? [...nothing] : null
    }
  }
}

/** One row, of a boolean for each place. A composite value in FROM, called as the table: policies name its columns, its rows,
 *  and in subqueries itself. */
function statementOf({ topic, conditions }: AskedGuardRequest, wanted: readonly number[]): Statement {
  const { schema, name } = messagesTable
  const answers = wanted.map(place => {
    const row = JSON.stringify({ topic, extension: extensionAt(place), private: true })
    const from = `pg_catalog.jsonb_populate_record(NULL::${schema}.${name}, ${escapeLiteral(row)}::pg_catalog.jsonb) AS ${name}`
    return `coalesce((SELECT ${conditions[place]} FROM ${from}), false)`
  })
  return { sql: `SELECT ${answers.join(', ')}`, values: [] }
}

/** Of all claims: a function may read any. */
function keyOf({ reader, conditions }: AskedGuardRequest): string {
  const text = JSON.stringify([reader.role, [...reader.settings].sort(), conditions])
  return createHash('sha256').update(text).digest('base64url')
}
