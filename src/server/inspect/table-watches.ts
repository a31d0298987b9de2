// `GET /v1/inspect/watch`: a table as a user would see it. It comes through the door that the user would come through, so that nothing
// is shown that the user would not be.
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { Departures } from '../deliver/departures.ts'
import { type Exchange, whenOver } from '../deliver/exchange.ts'
import type { GatewayLimits } from '../deliver/limits.ts'
import { noSupabase } from '../deliver/phoenix/api-keys.ts'
import { MemoryStands } from '../deliver/phoenix/memory-stands.ts'
import type { Turn } from '../deliver/send-queue.ts'
import type { Services } from '../deliver/services.ts'
import { EventStream } from '../deliver/sse.ts'
import type { Log } from '../log/log.ts'
import type { OperatorRoute } from '../operator/route.ts'
import { noOrders } from '../orders/targets.ts'
import { steadyNow } from '../steady-clock.ts'
import type { Subscriptions } from '../subscribe/subscription.ts'
import { parseWatchRequest } from './watch-request.ts'

export interface TableWatchesOptions {
  readonly subscriptions: Subscriptions
  /** JWT_ROLE_CLAIM */
  readonly roleClaim: string
  readonly limits: GatewayLimits
  readonly turn: Turn
  readonly log: Log
}

/** Past it BUSY. */
const maxTables = 8
const tickMs = 250

export class TableWatches {
  readonly #options: TableWatchesOptions
  readonly #services: Services
  /** At most `maxTables`, also of those that still join. */
  readonly #streams = new Set<EventStream>()
  #ticker: NodeJS.Timeout | null = null
  #isClosed = false

  constructor(options: TableWatchesOptions) {
    const { subscriptions, limits, turn, log } = options
    this.#options = options
    this.#services = {
      subscriptions,
      limits,
      turn,
      log,
      figures: turn.figures,
      // What a stream of one table asks nothing of.
      channels: null,
      authenticator: { authenticate: () => Promise.reject(new TidegateError('TOKEN_INVALID', 'no user comes here')) },
      orders: noOrders,
      supabase: noSupabase,
      stands: new MemoryStands(steadyNow),
      departures: new Departures(log),
      now: steadyNow,
      wallNow: Date.now,
      random: Math.random,
    }
  }

  get route(): OperatorRoute {
    return { method: 'GET', path: '/v1/inspect/watch', answer: exchange => this.#begin(exchange) }
  }

  /** Everybody is told to come back elsewhere. */
  close(): void {
    this.#isClosed = true
    for (const stream of [...this.#streams]) stream.goAway(goingAway())
  }

  /** @throws BUSY, GOING_AWAY, ROLE_REFUSED, FILTER_INVALID, and what the door throws */
  async #begin(exchange: Exchange): Promise<void> {
    const { roleClaim, log } = this.#options
    if (this.#isClosed) throw goingAway()
    const { principal, request } = parseWatchRequest(exchange.parameters, roleClaim)
    if (this.#streams.size >= maxTables)
      throw new TidegateError('BUSY', `${maxTables} tables are watched on this node already, the most`)
    const stream = new EventStream({
      services: this.#services,
      response: exchange.response,
      principal,
      request: { asked: [request], label: null, after: null, waitMs: null },
      proof: null,
    })
    this.#streams.add(stream)
    whenOver(exchange, () => this.#over(stream))
    this.#ticker ??= setInterval(() => this.#tick(), tickMs)
    await stream.start({ 'Cache-Control': 'no-store, no-transform' })
    const table = `${request.schema}.${request.table}`
    log.info({ role: principal.role, table }, 'an operator watches a table as a user would see it')
  }

  #tick(): void {
    for (const stream of [...this.#streams]) stream.tick(steadyNow())
  }

  #over(stream: EventStream): void {
    stream.leave()
    this.#streams.delete(stream)
    if (this.#streams.size > 0 || this.#ticker === null) return
    clearInterval(this.#ticker)
    this.#ticker = null
  }
}

const goingAway = (): TidegateError => new TidegateError('GOING_AWAY', 'this node is shutting down; look at another')
