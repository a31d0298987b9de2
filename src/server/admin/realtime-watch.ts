// Looks once an hour at a schema `realtime` that somebody else made, and warns in the log of what is wrong with it: a partition may be missing
// long after migrate said that all is well. The node that leads does it.
import type { Log } from '../log/log.ts'
import { type Asked, findingsOfRealtimeSchema, type RealtimeFindingKind } from './realtime-findings.ts'

const lookEveryMs = 3_600_000

export interface RealtimeWatchOptions {
  readonly pool: Asked
  readonly publication: string
  readonly log: Log
}

export class RealtimeWatch {
  readonly #options: RealtimeWatchOptions
  /** Said, and not over since: one of each kind at most. */
  #warned = new Set<RealtimeFindingKind>()
  #lastMs = Number.NEGATIVE_INFINITY

  constructor(options: RealtimeWatchOptions) {
    this.#options = options
  }

  /** @param nowMs steady */
  isDue(nowMs: number): boolean {
    return nowMs - this.#lastMs >= lookEveryMs
  }

  /** @throws what Postgres throws */
  async look(nowMs: number): Promise<void> {
    this.#lastMs = nowMs
    const { pool, publication, log } = this.#options
    const found = await findingsOfRealtimeSchema(pool, publication)
    const warnings = found.filter(({ severity }) => severity === 'warning')
    for (const { kind, message, remedy } of warnings)
      if (!this.#warned.has(kind)) log.warn({ finding: kind }, `${message}; ${remedy}`)
    this.#warned = new Set(warnings.map(({ kind }) => kind))
  }
}
