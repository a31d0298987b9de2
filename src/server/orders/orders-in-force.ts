// The orders that hold now, found by the user or token that they are against. Pure: time comes as an argument.
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { isAgainst, type Order, type Refresh, type Revocation, type Token } from './order.ts'

/** A refresh, and from when on older tokens are refused: milliseconds since 1970, by this node's clock. */
export interface DueRefresh {
  readonly order: Refresh
  readonly deadlineMs: number
}

/** What a token's holder meets. */
export type Verdict =
  | { readonly kind: 'refused'; readonly error: TidegateError }
  /** It must be replaced within this time. */
  | { readonly kind: 'outdated'; readonly withinMs: number }

export class OrdersInForce {
  /** All rows of `tidegate.orders`, kicks that are over too, so that none is carried out twice. The table refuses more than
   *  100,000. */
  readonly #orders = new Map<string, Order>()
  /** Of the revocations, by token and by user. */
  readonly #byToken = new Map<string, Map<string, Revocation>>()
  readonly #byUser = new Map<string, Map<string, Revocation>>()
  readonly #refreshes = new Map<string, Map<string, DueRefresh>>()

  get size(): number {
    return this.#orders.size
  }

  get ids(): Iterable<string> {
    return this.#orders.keys()
  }

  has(id: string): boolean {
    return this.#orders.has(id)
  }

  /** One of the same id is replaced. @param deadlineMs of a refresh */
  put(order: Order, deadlineMs: number): void {
    this.delete(order.id)
    this.#orders.set(order.id, order)
    if (order.kind === 'refresh') add(this.#refreshes, order.sub, order.id, { order, deadlineMs })
    else if (order.kind === 'revoke' && order.jti !== null) add(this.#byToken, order.jti, order.id, order)
    else if (order.kind === 'revoke') add(this.#byUser, order.sub!, order.id, order)
  }

  delete(id: string): void {
    const order = this.#orders.get(id)
    if (order === undefined) return
    this.#orders.delete(id)
    if (order.kind === 'refresh') remove(this.#refreshes, order.sub, id)
    else if (order.kind === 'revoke' && order.jti !== null) remove(this.#byToken, order.jti, id)
    else if (order.kind === 'revoke') remove(this.#byUser, order.sub!, id)
  }

  /** @param nowMs milliseconds since 1970 @returns null where nothing is against it */
  verdictOn(token: Token, nowMs: number): Verdict | null {
    // Nearly always: then no claim is looked up.
    if (this.#orders.size === 0) return null
    const ofToken = token.jti === null ? undefined : this.#byToken.get(token.jti)
    const ofUser = token.sub === null ? undefined : this.#byUser.get(token.sub)
    for (const found of [ofToken, ofUser])
      for (const order of found?.values() ?? [])
        if (order.untilMs > nowMs && isAgainst(order, token)) return { kind: 'refused', error: revoked(order) }
    let withinMs = Number.POSITIVE_INFINITY
    for (const { order, deadlineMs } of (token.sub === null ? undefined : this.#refreshes.get(token.sub))?.values() ??
      []) {
      if (order.untilMs <= nowMs || !isAgainst(order, token)) continue
      if (deadlineMs <= nowMs) return { kind: 'refused', error: outdated(order) }
      withinMs = Math.min(withinMs, deadlineMs - nowMs)
    }
    return withinMs === Number.POSITIVE_INFINITY ? null : { kind: 'outdated', withinMs }
  }
}

export const revoked = ({ reason }: Revocation): TidegateError =>
  new TidegateError('TOKEN_REVOKED', `the token was revoked${because(reason)}`)

export const outdated = ({ reason }: Refresh): TidegateError =>
  new TidegateError('TOKEN_OUTDATED', `the token was issued before newer claims were asked for${because(reason)}`)

export const because = (reason: string | null): string => (reason === null ? '' : `: ${reason}`)

function add<T>(index: Map<string, Map<string, T>>, name: string, id: string, value: T): void {
  const found = index.get(name)
  if (found === undefined) index.set(name, new Map([[id, value]]))
  else found.set(id, value)
}

function remove<T>(index: Map<string, Map<string, T>>, name: string, id: string): void {
  const found = index.get(name)
  found?.delete(id)
  if (found?.size === 0) index.delete(name)
}
