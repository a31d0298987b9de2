// How channels are entered and sent to, for the transports: types only.
import type { QueryPosition } from '../../protocol/position.ts'
import type { Outlet, Principal, Subscription } from '../subscribe/subscription.ts'
import type { ChannelName, Published, Target } from './message.ts'
import type { PresenceList } from './presence/presence.ts'
import type { HistoryPage, HistoryRange } from './relay/channel-relay.ts'

export interface ChannelRequest {
  readonly kind: 'channel'
  readonly channel: ChannelName
  readonly self: boolean
  /** Wants presence events. */
  readonly presence: boolean
  readonly track: TrackRequest | null
  readonly last: number | null
  /** Of a channel with history: epoch and number of the last message that the client has. Of one without: where the stream stood,
   *  and in `index` the mark of the number. */
  readonly since: QueryPosition | null
}

export interface TrackRequest {
  /** JSON text. */
  readonly meta: string
  readonly key: string | null
}

export interface SendRequest {
  readonly event: string
  /** JSON text; of a binary payload a JSON string of base64. */
  readonly payload: string
  readonly isBinary: boolean
  readonly to: Target | null
  readonly idempotencyKey: string | null
  /** `pg_current_xact_id()` */
  readonly after: bigint | null
}

/** Who is at the door: a connection, or one request. */
export interface Caller {
  readonly principal: Principal
  /** The connection's name; null for a POST. */
  readonly connection: string | null
  /** Whether it comes by a wire whose public channels are open: true, to every topic, and its presence keys there are its own choice;
   *  false, to none (PRIVATE_ONLY). Left out: a rule opens them. */
  readonly isPublicOpen?: boolean | undefined
}

/** Whom an order concerns; what is null, is any. */
export interface Whom {
  readonly sub: string | null
  readonly topic: string | null
  readonly connection: string | null
}

export interface ChannelSubscription extends Subscription {
  readonly kind: 'channel'
  readonly hasHistory: boolean
  readonly maySend: boolean
  /** How long the channel knows an idempotency key, where its rule says something else than the default. */
  readonly idempotencyMs?: number | undefined
  /** Whether all that was there when it was joined has been handed to the outlet: messages, a gap or a resync, and who is there.
   *  A poll waits for it. */
  readonly hasCaughtUp: boolean
  /** @throws SEND_REFUSED, RATE_LIMITED, PAYLOAD_TOO_LARGE, TXID_INVALID, WAIT_TIMEOUT, UNAVAILABLE */
  send(request: SendRequest): Promise<Published>
  /** @throws SEND_REFUSED, PRESENCE_OFF, PAYLOAD_TOO_LARGE, UNAVAILABLE */
  track(request: TrackRequest): Promise<void>
  untrack(): Promise<void>
}

/** What a caller may see of a part of a history. */
export interface HistoryPart extends HistoryPage {
  /** Numbers of the first and the last message that were looked at: those for others alone are not in `messages`. Null when
   *  there were none. */
  readonly looked: { readonly first: bigint; readonly last: bigint } | null
}

export interface ChannelDoor {
  /** Events come through the outlet, never before this resolves.
   *  @throws CHANNEL_REFUSED, PRIVATE_ONLY, TOPIC_INVALID, PRESENCE_OFF, HISTORY_OFF, CHANNELS_OFF, UNAVAILABLE */
  join(caller: Caller, request: ChannelRequest, outlet: Outlet): Promise<ChannelSubscription>
  /** As `ChannelSubscription.send`, without being there. */
  publish(caller: Caller, channel: ChannelName, request: SendRequest): Promise<Published>
  /** @throws CHANNEL_REFUSED, HISTORY_OFF */
  history(caller: Caller, channel: ChannelName, range: HistoryRange): Promise<HistoryPart>
  /** @throws CHANNEL_REFUSED, PRESENCE_OFF */
  present(caller: Caller, channel: ChannelName, page: { after: string | null; limit: number }): Promise<PresenceList>
}
