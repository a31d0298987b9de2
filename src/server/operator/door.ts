// The door for those who run the service: who may pass is whoever sends an OPERATOR_TOKEN.
import { createHash, timingSafeEqual } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { answerRefusal, type Exchange, whenOver } from '../deliver/exchange.ts'
import { refuseForeignOrigin } from '../deliver/http.ts'
import { bearerOf } from '../deliver/identify.ts'
import type { Log } from '../log/log.ts'
import type { OperatorRoute } from './route.ts'

export interface OperatorDoorOptions {
  /** Each opens every address. */
  readonly tokens: readonly string[]
  /** Each method of a path once. */
  readonly routes: readonly OperatorRoute[]
  readonly log: Log
  readonly random: () => number
}

/** Answers under way at once, streams among them; past it BUSY. Beside the places of clients: a full node is looked at, too. */
const maxAnswers = 32
/** The same of open routes: whoever has no token keeps no operator out. */
const maxOpenAnswers = 16

export class OperatorDoor {
  readonly #options: OperatorDoorOptions
  readonly #digests: readonly Buffer[]
  readonly #addresses = new Map<string, Map<string, OperatorRoute>>()
  /** At most `maxAnswers`. */
  readonly #answering = new Set<Exchange>()
  /** At most `maxOpenAnswers`. */
  readonly #open = new Set<Exchange>()
  readonly #sentAway = new WeakSet<Exchange>()
  #isDraining = false

  constructor(options: OperatorDoorOptions) {
    this.#options = options
    this.#digests = options.tokens.map(digestOf)
    for (const route of options.routes) {
      const methods = this.#addresses.get(route.path) ?? new Map<string, OperatorRoute>()
      this.#addresses.set(route.path, methods.set(route.method, route))
    }
  }

  has(path: string): boolean {
    return this.#addresses.has(path)
  }

  /** For a path that it has. @throws ORIGIN_REFUSED, METHOD_NOT_ALLOWED, TOKEN_MISSING, TOKEN_INVALID, BUSY, GOING_AWAY, and what the
   *  route throws; nothing is answered then */
  async answer(exchange: Exchange): Promise<void> {
    const { request, response, path } = exchange
    for (const [name, value] of Object.entries(securityHeaders)) response.setHeader(name, value)
    // Pages of other origins have no business here, whatever ALLOWED_ORIGINS says: no CORS header is ever sent.
    refuseForeignOrigin(request, [])
    const methods = this.#addresses.get(path)!
    const route = methods.get(request.method ?? '')
    if (route === undefined)
      throw new TidegateError(
        'METHOD_NOT_ALLOWED',
        `${path} takes ${[...methods.keys()].join(' and ')}, not ${request.method}`,
      )
    if (route.isOpen !== true) this.#refuseStrangers(request)
    // Who looks may look on while the node leaves; what is to be carried out would not be.
    if (this.#isDraining && route.method !== 'GET') throw goingAway()
    this.#enter(exchange, route.isOpen === true)
    try {
      await route.answer(exchange)
    } catch (error) {
      // Told to go meanwhile: nobody waits for what came too late.
      if (!this.#sentAway.has(exchange)) throw error
    }
  }

  /** The node leaves: who waits for an answer is told so. Streams go on until their sockets are closed. */
  drain(): void {
    this.#isDraining = true
    const { log, random } = this.#options
    for (const exchange of this.#answering)
      if (!exchange.response.headersSent) {
        this.#sentAway.add(exchange)
        answerRefusal(exchange, goingAway(), log, random)
      }
  }

  #enter(exchange: Exchange, isOpen: boolean): void {
    const [among, most] = isOpen ? [this.#open, maxOpenAnswers] : [this.#answering, maxAnswers]
    if (among.size >= most)
      throw new TidegateError('BUSY', `${most} requests of operators are being answered, the most`)
    among.add(exchange)
    whenOver(exchange, () => among.delete(exchange))
  }

  /** @throws TOKEN_MISSING, TOKEN_INVALID */
  #refuseStrangers(request: IncomingMessage): void {
    const token = bearerOf(request)
    if (token === null) throw new TidegateError('TOKEN_MISSING', 'send Authorization: Bearer <OPERATOR_TOKEN>')
    // Hashed, and compared with each: neither the time it takes nor the length tells how much of which is right.
    const digest = digestOf(token)
    const matches = this.#digests.filter(known => timingSafeEqual(digest, known)).length
    if (matches === 0) throw new TidegateError('TOKEN_INVALID', 'the token is not OPERATOR_TOKEN')
  }
}

const digestOf = (text: string): Buffer => createHash('sha256').update(text).digest()

const goingAway = (): TidegateError => new TidegateError('GOING_AWAY', 'this node is shutting down; ask another')

/** A page of its own replaces the policy by one that lets its own files in. */
const securityHeaders: Readonly<Record<string, string>> = {
  'Cache-Control': 'no-store',
  'Content-Security-Policy': "default-src 'none'; frame-ancestors 'none'",
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Referrer-Policy': 'no-referrer',
  'X-Content-Type-Options': 'nosniff',
  'X-Frame-Options': 'DENY',
}
