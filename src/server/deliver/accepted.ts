// What the client is told of a session that begins, and of a subscription that was accepted. Pure.
import type { OrderTerm, ServerFrame, Warning } from '../../protocol/messages.ts'
import { formatPosition } from '../../protocol/position.ts'
import type { ChannelSubscription } from '../channels/door.ts'
import type { Subscription } from '../subscribe/subscription.ts'
import type { Carrier } from './carrier.ts'
import type { GatewayLimits } from './limits.ts'
import { notesOf } from './notes.ts'

export type Accepted = AcceptedQuery | AcceptedChannel

interface AcceptedAny {
  readonly tag: string
  readonly resumed: boolean
  /** As text. */
  readonly position: string
  readonly exact?: false
  readonly warnings: readonly Warning[]
}

export interface AcceptedQuery extends AcceptedAny {
  readonly kind: 'query'
  readonly query: number
  readonly key: readonly string[]
  readonly order?: readonly OrderTerm[]
  readonly limit?: number
}

export interface AcceptedChannel extends AcceptedAny {
  readonly kind: 'channel'
  readonly channel: number
  readonly history: boolean
  readonly maySend: boolean
  readonly idempotencyMs?: number
}

export function acceptedOf(subscription: Subscription, channel: ChannelSubscription | null): Accepted {
  const { query, tag, key, resumed, warnings } = subscription
  const exact = subscription.exact === false ? { exact: false as const } : {}
  const position = formatPosition(subscription.position())
  if (channel === null) {
    const { order, limit } = subscription
    const ordering = { ...(order === undefined ? {} : { order }), ...(limit === undefined ? {} : { limit }) }
    return { kind: 'query', query, tag, key, resumed, position, ...ordering, ...exact, warnings }
  }
  return { kind: 'channel', channel: query, tag, position, ...placeOf(channel), ...exact, warnings }
}

/** @param connection its name @param carrier what it says of itself holds */
export const welcomeFrame = (
  connection: string,
  { heartbeatMs }: Pick<GatewayLimits, 'heartbeatMs'>,
  expiresAt: number | null,
  { greeting }: Pick<Carrier, 'greeting'>,
): ServerFrame => ({ type: 'welcome', connection, heartbeatMs, expiresAt, ...greeting })

export function acceptedFrame(id: number, accepted: Accepted): ServerFrame {
  const { tag, resumed, position } = accepted
  const notes = notesOf(accepted)
  if (accepted.kind === 'channel') {
    const { channel, history, maySend, idempotencyMs } = accepted
    const kept = idempotencyMs === undefined ? {} : { idempotencyMs }
    return { type: 'joined', id, channel, tag, resumed, position, history, maySend, ...kept, ...notes }
  }
  const { query, key } = accepted
  return { type: 'subscribed', id, query, tag, key: [...key], resumed, position, ...notes }
}

/** The same without numbers, for streams and polls. */
export const joinedOf = (channel: ChannelSubscription) => ({ ...placeOf(channel), ...notesOf(channel) })

const placeOf = ({ resumed, hasHistory, maySend, idempotencyMs }: ChannelSubscription) => ({
  resumed,
  history: hasHistory,
  maySend,
  ...(idempotencyMs === undefined ? {} : { idempotencyMs }),
})
