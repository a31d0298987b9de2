// What an operator may order, as a row of `tidegate.orders` says it, and whom it concerns. Pure.
import type { Row } from '../../predicate/algebra.ts'
import type { Principal } from '../subscribe/subscription.ts'

interface Common {
  readonly id: string
  /** Milliseconds since 1970, by the database's clock: when its transaction committed, to the second. */
  readonly orderedAtMs: number
  /** Milliseconds since 1970; Infinity for one without an end. */
  readonly untilMs: number
  /** Told to the client. */
  readonly reason: string | null
}

/** Ends connections, or with a topic places in channels. Each of the names that is not null must fit; one at least is there. */
export interface Kick extends Common {
  readonly kind: 'kick'
  readonly sub: string | null
  readonly connection: string | null
  readonly topic: string | null
  readonly jti: string | null
  readonly retryAfterMs: number | null
}

/** Refuses one token, or all of a user that were issued up to the order. */
export interface Revocation extends Common {
  readonly kind: 'revoke'
  readonly sub: string | null
  readonly jti: string | null
}

/** Asks a user for tokens issued after it. */
export interface Refresh extends Common {
  readonly kind: 'refresh'
  readonly sub: string
  readonly withinMs: number
}

export type Order = Kick | Revocation | Refresh

/** In the order in which `orderOf` reads them. */
export const orderColumns = [
  'id',
  'kind',
  'sub',
  'connection',
  'topic',
  'jti',
  'retry_after_ms',
  'within_ms',
  'reason',
  'ordered_at',
  'until',
] as const

/** @param positions where each of `orderColumns` stands in the row; -1 for one that it lacks
 *  @returns null for a kind that this version does not know: a newer one runs beside it */
export function orderOf(row: Row, positions: readonly number[]): Order | null {
  const [id, kind, sub, connection, topic, jti, retryAfter, within, reason, orderedAt, until] = positions.map(
    position => (position < 0 ? null : (row.text(position) ?? null)),
  ) as [string, string, ...(string | null)[]]
  const common = { id, reason: reason ?? null, orderedAtMs: millisOf(orderedAt), untilMs: millisOf(until) }
  switch (kind) {
    case 'kick':
      return {
        ...common,
        kind,
        sub: sub ?? null,
        connection: connection ?? null,
        topic: topic ?? null,
        jti: jti ?? null,
        retryAfterMs: retryAfter == null ? null : Number(retryAfter),
      }
    case 'revoke':
      return { ...common, kind, sub: sub ?? null, jti: jti ?? null }
    case 'refresh':
      return { ...common, kind, sub: sub ?? '', withinMs: Number(within) }
    default:
      return null
  }
}

/** Whose token it is, and which: claims that say nothing of it are null. */
export interface Token {
  readonly sub: string | null
  readonly jti: string | null
  /** Whole seconds since 1970. A token that does not say it counts as issued at 0, before every order. */
  readonly issuedAt: number
}

export function tokenOf({ claims }: Pick<Principal, 'claims'>): Token {
  const { sub, jti, iat } = claims
  return {
    sub: nameOf(sub),
    jti: nameOf(jti),
    issuedAt: typeof iat === 'number' && Number.isFinite(iat) ? Math.floor(iat) : 0,
  }
}

/** Whether the order is against this token. `iat` is in seconds: one issued in the second of the order may have been issued
 *  before it, with what was true then, and counts as older. */
export function isAgainst(order: Revocation | Refresh, token: Token): boolean {
  if (order.kind === 'revoke' && order.jti !== null) return order.jti === token.jti
  return order.sub === token.sub && token.issuedAt <= Math.floor(order.orderedAtMs / 1000)
}

/** Whether a kick without a topic is for this connection. */
export const isKicked = (kick: Kick, token: Token, connection: string | null): boolean =>
  (kick.sub === null || kick.sub === token.sub) &&
  (kick.jti === null || kick.jti === token.jti) &&
  (kick.connection === null || kick.connection === connection)

/** How long until the second of the order is over: a token fetched before that would be as old as the order. */
export const restOfSecond = ({ orderedAtMs }: Pick<Order, 'orderedAtMs'>): number => 1000 - (orderedAtMs % 1000)

/** JSON leaves it open what they are. */
const nameOf = (claim: unknown): string | null =>
  typeof claim === 'string' ? claim : typeof claim === 'number' ? String(claim) : null

/** @param text `2026-11-22 09:33:20.123456+00`, or `infinity`; what no Date can hold lies further away than anybody waits */
function millisOf(text: string | null | undefined): number {
  const millis = Date.parse((text ?? '').replace(' ', 'T').replace(/\+00$/, 'Z'))
  return Number.isNaN(millis) ? Number.POSITIVE_INFINITY : millis
}
