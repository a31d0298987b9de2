// What a channel gives its members: types only.
import type { Batch } from '../route/batch.ts'
import type { Outgoing } from '../route/outgoing.ts'
import type { Draft } from './message.ts'
import type { Standing } from './relay/channel-relay.ts'

/** An event on its way to members. */
export interface ChannelEvent {
  readonly outgoing: Outgoing
  /** Name of the event, for those who keep the newest of each. */
  readonly event: string
  readonly seq: bigint
  /** The message, by which members are told apart: its sender, and whom it is for. Null: everybody gets it. */
  readonly message: Draft | null
  /** Of a gap: how many it tells of. */
  readonly missed?: number | null
}

/** Events of one turn, in order. */
export interface ChannelTurn {
  readonly events: readonly ChannelEvent[]
  /** All of them, for who gets all. */
  readonly batch: Batch
  /** One of them is not for all. */
  readonly hasTarget: boolean
  /** Connections that sent one of them. */
  readonly senders: ReadonlySet<string>
}

/** Who is in a channel. Nothing here may throw. */
export interface ChannelReceiver {
  receive(turn: ChannelTurn): void
  /** Numbers began anew: what it holds leads to nothing. */
  startOver(): void
  /** Numbers of this epoch go on in another one. */
  enterEpoch(epoch: string, now: Standing): void
}
