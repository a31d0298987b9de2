// What a session is, what happens to it, and what it asks to be done: types only. session.ts decides, session-connection.ts does.
import type { ClientFrame, ServerFrame } from '../../protocol/messages.ts'
import type { Position } from '../../protocol/position.ts'
import type { ChannelName } from '../channels/message.ts'
import type { Principal } from '../subscribe/subscription.ts'
import type { Accepted } from './accepted.ts'
import type { Answer, Ask } from './ask.ts'
import type { MemberRequest } from './membership.ts'

export type Session =
  | { readonly state: 'handshake'; readonly deadlineAt: number }
  /** The first token is being checked. `waiting`: frames the client sent after it; at most one read of the socket, which
   *  is paused meanwhile. */
  | { readonly state: 'authenticating'; readonly deadlineAt: number; readonly waiting: readonly ClientFrame[] }
  | OpenSession
  | { readonly state: 'closed' }

export interface OpenSession {
  readonly state: 'open'
  readonly principal: Principal
  /** A new token is being checked. */
  readonly isRenewing: boolean
  /** At most `maxSubscriptions`. A list: most have one, and a map of one takes 184 bytes. */
  readonly members: readonly Member[]
  /** Numbers every attempt to join, so that a late answer to an id that was used again is told apart. */
  readonly lastJoin: number
  /** Transactions that are waited for: at most `maxWaits`. */
  readonly waits: number
}

export interface Member {
  /** The client's id. */
  readonly id: number
  readonly join: number
  readonly request: MemberRequest
  /** Number of the query or channel; null until it is accepted. */
  readonly query: number | null
}

export type SessionEvent =
  | { readonly type: 'frame'; readonly frame: ClientFrame }
  /** A token was verified and its role may be taken. */
  | { readonly type: 'admitted'; readonly principal: Principal }
  | { readonly type: 'notAdmitted'; readonly error: unknown }
  | { readonly type: 'joined'; readonly id: number; readonly join: number; readonly accepted: Accepted }
  /** A subscription was refused, or has ended. */
  | { readonly type: 'ended'; readonly id: number; readonly join: number; readonly error: unknown }
  /** What a channel was asked has been done, or refused. */
  | { readonly type: 'answered'; readonly id: number; readonly ref: number | null; readonly answer: Answer }
  | {
      readonly type: 'notAnswered'
      readonly id: number
      readonly ref: number | null
      readonly ask: Ask
      readonly error: unknown
    }
  /** Everything up to the commit of a transaction has been handed out, or it could not be waited for. */
  | { readonly type: 'waited'; readonly ref: number; readonly position: Position }
  | { readonly type: 'notWaited'; readonly ref: number; readonly error: unknown }
  /** `now` on the steady clock, `wallNow` on that by which tokens expire. */
  | { readonly type: 'tick'; readonly now: number; readonly wallNow: number }
  /** The connection must end: a broken frame, a limit, a shutdown. */
  | { readonly type: 'broken'; readonly error: unknown }
  /** @param how whether its client said that it goes */
  | { readonly type: 'disconnected'; readonly how: 'gone' | 'broken' }

export type Effect =
  | { readonly do: 'authenticate'; readonly token: string }
  | { readonly do: 'send'; readonly frame: ServerFrame }
  /** Tells the client that it is welcome: the performer knows the connection's name. */
  | { readonly do: 'welcome'; readonly expiresAt: number | null }
  | {
      readonly do: 'join'
      readonly id: number
      readonly join: number
      readonly principal: Principal
      readonly request: MemberRequest
    }
  /** Leaves `from` and joins anew from where it stood. */
  | {
      readonly do: 'rejoin'
      readonly id: number
      readonly join: number
      readonly from: number
      readonly principal: Principal
      readonly request: MemberRequest
    }
  /** The client knows of the subscription now: its events may flow. */
  | { readonly do: 'open'; readonly join: number }
  | { readonly do: 'leave'; readonly join: number }
  /** The client leaves a channel: it is told when what it asked before has been done. */
  | { readonly do: 'leaveInTurn'; readonly id: number; readonly join: number; readonly channel: ChannelName }
  | {
      readonly do: 'ask'
      readonly id: number
      readonly join: number
      readonly channel: ChannelName
      readonly ref: number | null
      readonly ask: Ask
    }
  | { readonly do: 'wait'; readonly ref: number; readonly xid64: bigint }
  /** A heartbeat, at once. */
  | { readonly do: 'beat' }
  /** An error frame; the connection stays. @param ref left out: the subscription itself is refused, or has ended */
  | {
      readonly do: 'refuse'
      readonly id: number | null
      readonly ref?: number | null
      /** Of ALREADY_SUBSCRIBED: the subscription that is there. */
      readonly same?: number
      readonly error: unknown
    }
  /** An error frame, then the close frame of its code; every subscription ends. */
  | { readonly do: 'close'; readonly error: unknown }
  | { readonly do: 'abandon'; readonly how: 'gone' | 'broken' }

export interface Step {
  readonly session: Session
  readonly effects: readonly Effect[]
}
