// The orders that hold now, found by the user or token that they are against. Pure: time comes as an argument.
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { isAgainst, type Order, type Refresh, type Revocation, type Token } from './order.ts'

/** A refresh, and from when on older tokens are refused: milliseconds since 1970, by this node's clock. */
interface DueRefresh {
  readonly id: string
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
  readonly #byToken: Index<Revocation> = new Map()
  readonly #byUser: Index<Revocation> = new Map()
  readonly #refreshes: Index<DueRefresh> = new Map()

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
    if (order.kind === 'refresh') add(this.#refreshes, order.sub, { id: order.id, order, deadlineMs })
    else if (order.kind === 'revoke' && order.jti !== null) add(this.#byToken, order.jti, order)
    else if (order.kind === 'revoke') add(this.#byUser, order.sub!, order)
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
    for (const found of [allOf(this.#byToken, token.jti), allOf(this.#byUser, token.sub)])
      for (const order of found)
        if (order.untilMs > nowMs && isAgainst(order, token)) return { kind: 'refused', error: revoked(order) }
    let withinMs = Number.POSITIVE_INFINITY
    for (const { order, deadlineMs } of allOf(this.#refreshes, token.sub)) {
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

/** Most have one, and a map of one takes 200 bytes. */
type Index<T> = Map<string, T | Map<string, T>>

function add<T extends { readonly id: string }>(index: Index<T>, name: string, value: T): void {
  const found = index.get(name)
  if (found === undefined) index.set(name, value)
  else if (found instanceof Map) found.set(value.id, value)
  else index.set(name, new Map([found, value].map(each => [each.id, each])))
}

function remove<T extends object>(index: Index<T>, name: string, id: string): void {
  const found = index.get(name)
  if (!(found instanceof Map)) index.delete(name)
  else {
    found.delete(id)
    if (found.size === 0) index.delete(name)
  }
}

function allOf<T extends object>(index: Index<T>, name: string | null): Iterable<T> {
  const found = name === null ? undefined : index.get(name)
  return found === undefined ? [] : found instanceof Map ? found.values() : [found]
}
