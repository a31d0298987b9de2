// What keeps changes from coming, for the log. Many parts notice that the database is away, in any order, and each tries
// again by itself; an operator is told once what is wrong, and once that it is over.
import { type OperatorCode, operatorCodes } from '../../protocol/operator-codes.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { Counts } from '../figures/figures.ts'
import { isAway } from '../postgres/database.ts'
import type { Log } from './log.ts'

/** Kinds of trouble told before it is over; further ones go with `debug`. */
const maxTold = 16

export class Trouble {
  readonly #log: Log
  readonly #now: () => number
  readonly #told = new Set<string>()
  /** Attempts that failed, by code. */
  readonly #counts: Counts
  #sinceMs: number | null = null
  #overMs = 0

  /** @param now steady: `steadyNow` */
  constructor(log: Log, now: () => number, counts = new Counts()) {
    this.#log = log
    this.#now = now
    this.#counts = counts
  }

  get isOpen(): boolean {
    return this.#sinceMs !== null
  }

  /** Something happened that is over already, and that the log has been told. */
  count(code: OperatorCode): void {
    this.#counts.add(code)
  }

  /** Something failed that is tried again. @param beganMs when the attempt began, of the same clock: one that hung since before the last
   *  trouble was over is no news */
  noticed(error: unknown, beganMs: number = this.#now()): void {
    const kind = kindOf(error)
    this.#counts.add(labelOf(kind, error))
    // The next session drops the slot, and says so.
    if (kind === 'SLOT_OVER_LIMIT' || this.#told.has(kind) || this.#told.size >= maxTold || beganMs < this.#overMs) {
      this.#log.debug({ err: error }, 'tried again in vain')
      return
    }
    this.#told.add(kind)
    this.#sinceMs ??= this.#now()
    const code = kind === away ? 'DATABASE_UNREACHABLE' : kind
    const remedy = isOperatorCode(code) ? operatorCodes[code].remedy : 'Report it if it stays so.'
    this.#log.warn({ code, err: error }, kind === away ? awayText : `${text} ${remedy}`)
  }

  /** A heartbeat came through the whole way. @param sentMs when it was written: one from before the trouble proves nothing */
  over(sentMs: number): void {
    if (this.#sinceMs === null || sentMs < this.#sinceMs) return
    this.#overMs = this.#now()
    this.#log.info({ afterMs: this.#overMs - this.#sinceMs }, 'changes come again')
    this.#sinceMs = null
    this.#told.clear()
  }
}

const away = 'away'
const awayText =
  'cut off from the database: clients are told stale, and it is tried again until it answers. If it stays so, look at Postgres\'s own log, and check the way with: psql "$DATABASE_URL" -c "SELECT 1"'
const text = 'changes do not come: clients are told stale, and it is tried again until they do.'

/** Never a text of somebody else's: a label for each would have no bound. */
const labelOf = (kind: string, error: unknown): string => {
  if (kind === away) return 'DATABASE_UNREACHABLE'
  return error instanceof TidegateError ? kind : 'OTHER'
}

const isOperatorCode = (code: string): code is OperatorCode => code in operatorCodes

function kindOf(error: unknown): string {
  if (error instanceof TidegateError)
    return error.code === 'DATABASE_UNREACHABLE' || error.code === 'UNAVAILABLE' ? away : error.code
  if (isAway(error)) return away
  const { code, message } = error as { code?: unknown; message?: unknown }
  return String(code ?? message)
}
