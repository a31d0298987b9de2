// One subscription of a query, or one place in a channel, without the wire: what feeds.ts hands frames to.
import type { ClientFrame, ServerFrame } from '../protocol/messages.ts'
import type { FeedStatus, Refusal } from './status.ts'

export type FrameOf<T extends ServerFrame['type']> = Extract<ServerFrame, { type: T }>
export type Entry = Extract<ClientFrame, { type: 'subscribe' | 'join' }>

/** What a channel is asked; `feeds.ts` puts in its id. */
export type Ask =
  | Omit<Extract<ClientFrame, { type: 'send' }>, 'id'>
  | Omit<Extract<ClientFrame, { type: 'track' }>, 'id'>
  | Omit<Extract<ClientFrame, { type: 'untrack' }>, 'id'>

/** The frame that subscribes, without what feeds.ts puts in. */
export type FeedRequest = Omit<Extract<ClientFrame, { type: 'subscribe' }>, 'type' | 'id' | 'since'>

export interface Feed {
  /** What it was entered for has been taken up: from now on nothing is lost. True as well when it has ended. */
  readonly isLive: boolean
  /** It has all that was committed up to there, as far as it may; also when it has ended, or is no query. */
  hasReached(position: string): boolean
  /** The frame that enters it from where it stands: with `since`, unless it begins fresh. */
  entry(id: number): Entry
  accepted(frame: FrameOf<'subscribed' | 'joined'>): void
  /** @param shared another subscription of this client has the same query number: frames may be for that one
   *  @throws ProtocolError when the frame cannot follow from the state held */
  received(frame: FrameOf<'snapshot' | 'delta' | 'change' | 'message' | 'presence' | 'gap'>, shared: boolean): void
  /** What was asked of a channel has been done, or refused. */
  answered(frame: FrameOf<'sent' | 'tracked' | 'error'>): void
  resync(frame: FrameOf<'resync'>): void
  /** @param since what to resume from, when the server says so: position and tag */
  heartbeat(stale: boolean, since: string | undefined): void
  /** Without an answer of the server: on the way to it, away from it, or never to come back. */
  moved(status: FeedStatus, error: Refusal | null): void
  /** The server takes it for the same query as another: it is to have what that has. @returns false when it cannot */
  follow?(other: Feed): boolean
  /** What is held is worth nothing: the next entry begins fresh. */
  restart(error: Refusal): void
}

/** A feed's side of the connection. */
export interface FeedHandle {
  /** Asks its channel. @returns false when the feed is not in it now: nothing was sent */
  ask(ask: Ask): boolean
  /** Ends the subscription, or leaves the channel. */
  remove(): void
}
