// What orders do to those who are here. Opens nothing, waits for nothing.
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { isAgainst, isKicked, type Kick, type Order, type Refresh, type Revocation, tokenOf } from './order.ts'
import { because, outdated, revoked } from './orders-in-force.ts'
import type { OrderedConnection, OrderTargets } from './targets.ts'

/** Kicks and revokes. Refreshes have a time of their own: see `tellToRefresh`.
 *  @returns how many connections it ended */
export function carryOut(orders: readonly Order[], targets: OrderTargets): number {
  let ended = 0
  /** Tokens are in no index: all connections are looked at once for all of them. */
  const ofTokens = new Map<string, Kick | Revocation>()
  for (const order of orders) {
    if (order.kind === 'refresh') continue
    if (order.kind === 'kick' && order.topic !== null) {
      const { sub, connection, topic } = order
      targets.channels?.kick({ sub, connection, topic }, kicked(order))
    } else if (order.jti !== null) ofTokens.set(order.jti, order)
    else for (const connection of candidates(order, targets)) ended += end(order, connection)
  }
  if (ofTokens.size === 0) return ended
  for (const connection of targets.connections.all()) {
    const jti = connection.principal === null ? null : tokenOf(connection.principal).jti
    const order = jti === null ? undefined : ofTokens.get(jti)
    if (order !== undefined) ended += end(order, connection)
  }
  return ended
}

/** Tells those who hold older tokens that newer ones must come. */
export function tellToRefresh(order: Refresh, withinMs: number, targets: OrderTargets): void {
  for (const connection of holdersOfOlder(order, targets)) connection.refresh(withinMs)
}

/** Ends those who still hold older tokens. */
export function endOutdated(order: Refresh, targets: OrderTargets): void {
  for (const connection of holdersOfOlder(order, targets)) connection.goAway(outdated(order))
}

const holdersOfOlder = (order: Refresh, { connections }: OrderTargets): OrderedConnection[] =>
  // A list: whoever ends leaves the index that is walked.
  [...connections.ofUser(order.sub)].filter(
    ({ principal }) => principal !== null && isAgainst(order, tokenOf(principal)),
  )

function candidates(order: Kick | Revocation, { connections }: OrderTargets): OrderedConnection[] {
  if (order.kind === 'kick' && order.connection !== null) return [...connections.named(order.connection)]
  return order.sub === null ? [] : [...connections.ofUser(order.sub)]
}

/** @returns 1 if it was concerned */
function end(order: Kick | Revocation, connection: OrderedConnection): 0 | 1 {
  if (connection.principal === null) return 0
  const token = tokenOf(connection.principal)
  if (order.kind === 'revoke') {
    if (!isAgainst(order, token)) return 0
    connection.cutOff(revoked(order))
    return 1
  }
  if (!isKicked(order, token, connection.name)) return 0
  connection.cutOff(kicked(order))
  return 1
}

const kicked = ({ reason, retryAfterMs }: Kick): TidegateError =>
  new TidegateError('KICKED', `an operator ended this${because(reason)}`, retryAfterMs === null ? {} : { retryAfterMs })
