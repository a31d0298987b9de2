// What Supabase's clients are told of a refusal: `<Code>: <text>`, by the name and in the words of Supabase Realtime where it knows the
// case (its ERROR_CODES.md), else by our code. What ours says beyond that stands behind it, in brackets.
import { type PeerCode, peerCodes } from '../../../protocol/codes.ts'
import type { Refusal } from '../refusal.ts'

type Told = Pick<Refusal, 'code' | 'message'>

/** Why a join is refused, one of its bindings, or what is sent.
 *  @param topic without the prefix `realtime:` */
export function reasonOf({ code, message }: Told, topic: string): string {
  // Named where it is refused.
  if (message.startsWith('UnableToReplayMessages: ')) return message
  return reasons[code]?.(message, topic) ?? `${code}: ${message}`
}

/** Why a channel that was joined ends: the message of its `system` error. */
export function endingOf(told: Told, topic: string): string {
  return endings[told.code]?.(told.message, topic) ?? reasonOf(told, topic)
}

/** Whether the same may be granted when it is asked for again, as the client does after a join error and after `phx_error`. A binding
 *  of which it may not is told of once, and its channel stays open without it. */
export const canComeLater = (code: PeerCode): boolean => peerCodes[code].retry !== 'never'

type Words = { readonly [code in PeerCode]?: (message: string, topic: string) => string }

const tooMany = (message: string): string => `ConnectionRateLimitReached: Too many connected users (${message})`

const reasons: Words = {
  TOKEN_EXPIRED: () => 'InvalidJWTToken: Token has expired',
  TOKEN_INVALID: message =>
    message.includes('signature') || message.includes('signed by')
      ? `JwtSignatureError: Failed to validate JWT signature (${message})`
      : `MalformedJWT: The token provided is not a valid JWT (${message})`,
  TOPIC_INVALID: (message, topic) =>
    topic === '' ? 'TopicNameRequired: You must provide a topic name' : `TOPIC_INVALID: ${message}`,
  CHANNEL_REFUSED: (_, topic) => `Unauthorized: You do not have permissions to read from this Channel topic: ${topic}`,
  CHANNEL_CLOSED: (_, topic) => `Unauthorized: You no longer have permission to read from this Channel topic: ${topic}`,
  PRIVATE_ONLY: () => 'PrivateOnly: This project only allows private channels',
  // Of its bindings: that a socket has too many channels, it says itself.
  TOO_MANY_SUBSCRIPTIONS: message => `ChannelRateLimitReached: ${message}`,
  TOO_MANY_CONNECTIONS: message => tooMany(message),
  ADDRESS_TOO_MANY: message => tooMany(message),
  USER_TOO_MANY: message => tooMany(message),
  UNAVAILABLE: message =>
    `UnableToConnectToProject: Realtime was unable to connect to the project database (${message})`,
  POLICY_SLOW: message => `QueryCanceled: ${message}`,
  SNAPSHOT_SLOW: message => `QueryCanceled: ${message}`,
  GOING_AWAY: () => 'RealtimeRestarting: Realtime is restarting, please standby',
  REBALANCED: () => 'RealtimeRestarting: Realtime is restarting, please standby',
}

/** In these Supabase writes no code. */
const endings: Words = {
  TOKEN_EXPIRED: () => 'Token has expired',
  CHANNEL_CLOSED: (_, topic) => `You no longer have permission to read from this Channel topic: ${topic}`,
  RATE_LIMITED: message => `Too many messages per second (${message})`,
}
