// What Supabase's clients are told of a refusal: `<Code>: <text>`, by its own name where it has one, else by ours.
import { type PeerCode, peerCodes } from '../../../protocol/codes.ts'
import type { Refusal } from '../refusal.ts'

/** @param topic without the prefix `realtime:` */
export function reasonOf({ code, message }: Refusal, topic: string): string {
  return names[code]?.(message, topic) ?? `${code}: ${message}`
}

/** A reason in Supabase's words, followed by ours where ours says more. */
type Named = (message: string, topic: string) => string

const names: { readonly [code in PeerCode]?: Named } = {
  TOKEN_EXPIRED: () => 'InvalidJWTToken: Token has expired',
  TOKEN_INVALID: message =>
    /signature/.test(message)
      ? 'JwtSignatureError: Failed to validate JWT signature'
      : `MalformedJWT: The token provided is not a valid JWT (${message})`,
  CHANNEL_REFUSED: (_, topic) => `Unauthorized: You do not have permissions to read from this Channel topic: ${topic}`,
  PRIVATE_ONLY: () => 'PrivateOnly: This project only allows private channels',
  TOO_MANY_SUBSCRIPTIONS: message => `ChannelRateLimitReached: Too many channels (${message})`,
  TOO_MANY_CONNECTIONS: () => 'ConnectionRateLimitReached: Too many connected users',
  RATE_LIMITED: message => `ClientJoinRateLimitReached: Too many joins per second (${message})`,
  GOING_AWAY: () => 'RealtimeRestarting: Realtime is restarting, please standby',
}

/** Whether the same may be granted when it is asked for again, as the client does after a join error and after `phx_error`. Where it
 *  may not, what is left of the channel stays open, and is told of it once. */
export const canComeLater = (code: PeerCode): boolean => peerCodes[code].retry !== 'never'
