// The life of one session, over whatever carries it: a total function from (session, event) to (session, effects). It opens no socket
// and reads no clock; session-connection.ts does what the effects say and comes back with what happened.
//
//   handshake ─auth frame─▶ authenticating ─admitted─▶ open ─▶ closed
//        (a Bearer token or a ticket was verified before the upgrade: the session starts open)
//
// Members of it are subscriptions of queries and places in channels.
//
// An error that names a subscription leaves the connection. Any other closes it: what a peer sends is then not ours to
// guess at.
import type { ClientFrame } from '../../protocol/messages.ts'
import { formatPosition } from '../../protocol/position.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { channelKey } from '../channels/message.ts'
import type { Principal } from '../subscribe/subscription.ts'
import { acceptedFrame } from './accepted.ts'
import { type Ask, type AskFrame, answerFrame, askOf, withTrack } from './ask.ts'
import { channelRequestOf } from './channel-request.ts'
import type { MemberRequest } from './membership.ts'
import { canRenew, hasSameClaims } from './renewal.ts'
import type { Effect, Member, OpenSession, Session, SessionEvent, Step } from './session-parts.ts'
import { transactionIdOf } from './transaction-id.ts'
import { requestOfFrame } from './url.ts'

/** Transactions that one connection may wait for at once: each is asked about four times a second. Past it: RATE_LIMITED. */
export const maxWaits = 16

export interface SessionLimits {
  readonly maxSubscriptions: number
  readonly handshakeMs: number
}

/** @param principal verified before the upgrade, or null when the first frame must bring the token */
export function startSession(principal: Principal | null, now: number, limits: SessionLimits): Step {
  return principal === null
    ? { session: { state: 'handshake', deadlineAt: now + limits.handshakeMs }, effects: [] }
    : welcome(principal)
}

export function step(session: Session, event: SessionEvent, limits: SessionLimits): Step {
  if (session.state === 'closed') return stay(session)
  if (event.type === 'disconnected')
    return { session: { state: 'closed' }, effects: [{ do: 'abandon', how: event.how }] }
  if (event.type === 'broken') return close(event.error)
  switch (session.state) {
    case 'handshake':
      return inHandshake(session, event)
    case 'authenticating':
      return whileAuthenticating(session, event, limits)
    case 'open':
      return whileOpen(session, event, limits)
  }
}

/** Whether a tick would do anything. Asked of every connection four times a second, so it makes no garbage: ticks of 5,500
 *  idle sockets made 5 MB/s. */
export function isDue(session: Session, now: number, wallNow: number): boolean {
  switch (session.state) {
    case 'handshake':
    case 'authenticating':
      return now >= session.deadlineAt
    case 'open':
      return session.principal.expiresAt !== null && wallNow >= session.principal.expiresAt
    case 'closed':
      return false
  }
}

type Ongoing = Exclude<SessionEvent, { type: 'disconnected' | 'broken' }>

function inHandshake(session: Extract<Session, { state: 'handshake' }>, event: Ongoing): Step {
  switch (event.type) {
    case 'frame':
      if (event.frame.type === 'heartbeat') return stay(session)
      if (event.frame.type !== 'auth') return close(tokenMissing(`the first frame is ${event.frame.type}, not auth`))
      return {
        session: { state: 'authenticating', deadlineAt: session.deadlineAt, waiting: [] },
        effects: [{ do: 'authenticate', token: event.frame.token }],
      }
    case 'tick':
      return event.now < session.deadlineAt ? stay(session) : close(tokenMissing('no auth frame came in time'))
    default:
      return stay(session)
  }
}

function whileAuthenticating(
  session: Extract<Session, { state: 'authenticating' }>,
  event: Ongoing,
  limits: SessionLimits,
): Step {
  switch (event.type) {
    case 'frame':
      return { session: { ...session, waiting: [...session.waiting, event.frame] }, effects: [] }
    case 'admitted': {
      let { session: next, effects } = welcome(event.principal)
      for (const frame of session.waiting) {
        const after = step(next, { type: 'frame', frame }, limits)
        next = after.session
        effects = [...effects, ...after.effects]
      }
      return { session: next, effects }
    }
    case 'notAdmitted':
      return close(event.error)
    case 'tick':
      if (event.now < session.deadlineAt) return stay(session)
      return close(new TidegateError('UNAVAILABLE', 'the token could not be checked in time'))
    default:
      return stay(session)
  }
}

function whileOpen(session: OpenSession, event: Ongoing, limits: SessionLimits): Step {
  switch (event.type) {
    case 'frame':
      return takeFrame(session, event.frame, limits)
    case 'admitted':
      return renew(session, event.principal)
    case 'notAdmitted':
      return keepsConnection(event.error)
        ? { session: { ...session, isRenewing: false }, effects: [{ do: 'refuse', id: null, error: event.error }] }
        : close(event.error)
    case 'joined':
      return joined(session, event)
    case 'ended':
      if (memberOf(session, event.id)?.join !== event.join) return stay(session)
      return {
        session: { ...session, members: without(session.members, event.id) },
        effects: [
          { do: 'leave', join: event.join },
          { do: 'refuse', id: event.id, error: event.error },
        ],
      }
    case 'answered':
      return answered(session, event)
    case 'notAnswered':
      return {
        session: { ...session, members: withTrack(session.members, event.id, event.ask, 'undo') },
        effects: [{ do: 'refuse', id: event.id, ref: event.ref, error: event.error }],
      }
    case 'waited':
      return {
        session: { ...session, waits: session.waits - 1 },
        // Before the answer, so that its client knows which of its subscriptions are past the commit.
        effects: [
          { do: 'beat' },
          { do: 'send', frame: { type: 'waited', ref: event.ref, position: formatPosition(event.position) } },
        ],
      }
    case 'notWaited':
      return refuseAsked({ ...session, waits: session.waits - 1 }, event.ref, event.error)
    case 'tick': {
      const { expiresAt } = session.principal
      if (expiresAt === null || event.wallNow < expiresAt) return stay(session)
      return close(new TidegateError('TOKEN_EXPIRED', 'the token has expired; renew it ahead of time in an auth frame'))
    }
  }
}

function takeFrame(session: OpenSession, frame: ClientFrame, limits: SessionLimits): Step {
  switch (frame.type) {
    case 'heartbeat':
      return stay(session)
    case 'auth':
      if (session.isRenewing) return close(badFrame('an auth frame came while the one before it was being checked'))
      return {
        session: { ...session, isRenewing: true },
        effects: [{ do: 'authenticate', token: frame.token }],
      }
    case 'subscribe':
      return enter(session, frame.id, () => requestOfFrame(frame), limits)
    case 'join':
      return enter(session, frame.id, () => channelRequestOf(frame), limits)
    case 'send':
    case 'track':
    case 'untrack':
      return ask(session, frame)
    case 'wait':
      return wait(session, frame)
    case 'unsubscribe': {
      const member = memberOf(session, frame.id)
      const unsubscribed: Effect = { do: 'send', frame: { type: 'unsubscribed', id: frame.id } }
      // A subscription may have ended by itself while this was on its way: then the answer is the same.
      if (member === undefined) return { session, effects: [unsubscribed] }
      const { join, request } = member
      return {
        session: { ...session, members: without(session.members, frame.id) },
        effects:
          request.kind === 'channel'
            ? [{ do: 'leaveInTurn', id: frame.id, join, channel: request.channel }]
            : [{ do: 'leave', join }, unsubscribed],
      }
    }
  }
}

function enter(session: OpenSession, id: number, requestOf: () => MemberRequest, limits: SessionLimits): Step {
  // An error frame with this id would speak of the subscription that holds it already.
  if (memberOf(session, id) !== undefined)
    return close(badFrame(`subscription id ${id} is in use; unsubscribe it first`))
  if (session.members.length >= limits.maxSubscriptions) {
    const message = `this connection holds ${session.members.length} subscriptions; unsubscribe some`
    return refuse(session, id, new TidegateError('TOO_MANY_SUBSCRIPTIONS', message))
  }
  let request: MemberRequest
  try {
    request = requestOf()
  } catch (error) {
    return refuse(session, id, error)
  }
  const twin = twinOf(session, request)
  if (twin !== undefined) {
    const message = `subscription ${twin.id} of this connection is in the same channel; share it`
    return refuse(session, id, new TidegateError('ALREADY_SUBSCRIBED', message))
  }
  const join = session.lastJoin + 1
  return {
    session: { ...session, lastJoin: join, members: [...session.members, { id, join, request, query: null }] },
    effects: [{ do: 'join', id, join, principal: session.principal, request }],
  }
}

/** Its place in a channel is the connection's: two of them could not be told apart, and the first to leave would end both. */
function twinOf(session: OpenSession, request: MemberRequest): Member | undefined {
  if (request.kind !== 'channel') return undefined
  const key = channelKey(request.channel)
  return session.members.find(({ request: other }) => other.kind === 'channel' && channelKey(other.channel) === key)
}

function ask(session: OpenSession, frame: AskFrame): Step {
  const { id, ref = null } = frame
  const member = memberOf(session, id)
  if (member === undefined || member.request.kind !== 'channel') {
    const error = new TidegateError('NOT_JOINED', `this connection is in no channel under the id ${id}`)
    return { session, effects: [{ do: 'refuse', id, ref, error }] }
  }
  let asked: Ask
  try {
    asked = askOf(frame, member.request.track)
  } catch (error) {
    return { session, effects: [{ do: 'refuse', id, ref, error }] }
  }
  return {
    session: { ...session, members: withTrack(session.members, id, asked, 'do') },
    effects: [{ do: 'ask', id, join: member.join, channel: member.request.channel, ref, ask: asked }],
  }
}

function wait(session: OpenSession, { ref, txid }: Extract<ClientFrame, { type: 'wait' }>): Step {
  if (session.waits >= maxWaits) {
    const message = `this connection waits for ${session.waits} transactions; wait for one of them first`
    return refuseAsked(session, ref, new TidegateError('RATE_LIMITED', message))
  }
  let xid64: bigint
  try {
    xid64 = transactionIdOf(txid)
  } catch (error) {
    return refuseAsked(session, ref, error)
  }
  return { session: { ...session, waits: session.waits + 1 }, effects: [{ do: 'wait', ref, xid64 }] }
}

function answered(session: OpenSession, { id, ref, answer }: Extract<SessionEvent, { type: 'answered' }>): Step {
  return ref === null ? stay(session) : { session, effects: [{ do: 'send', frame: answerFrame(id, ref, answer) }] }
}

function joined(session: OpenSession, event: Extract<SessionEvent, { type: 'joined' }>): Step {
  const { id, join, accepted } = event
  const member = memberOf(session, id)
  // A channel is left in turn.
  if (member?.join !== join)
    return accepted.kind === 'channel' ? stay(session) : { session, effects: [{ do: 'leave', join }] }
  const query = accepted.kind === 'channel' ? accepted.channel : accepted.query
  for (const { id: other, query: otherQuery, request } of session.members) {
    if (otherQuery !== query || other === id || accepted.kind === 'channel' || request.kind === 'channel') continue
    // Deltas name the query alone: the client could not tell for which of the two they are.
    const message = `subscription ${other} of this connection is the same query; share it`
    return {
      session: { ...session, members: without(session.members, id) },
      effects: [
        { do: 'leave', join },
        { do: 'refuse', id, same: other, error: new TidegateError('ALREADY_SUBSCRIBED', message) },
      ],
    }
  }
  return {
    session: { ...session, members: session.members.map(one => (one === member ? { ...one, query } : one)) },
    effects: [
      { do: 'send', frame: acceptedFrame(id, accepted) },
      { do: 'open', join },
    ],
  }
}

function renew(session: OpenSession, principal: Principal): Step {
  if (!canRenew(session.principal, principal)) {
    const message = 'the new token names another role or subject; open another connection for it'
    return close(new TidegateError('TOKEN_INVALID', message))
  }
  const authenticated: Effect = { do: 'send', frame: { type: 'authenticated', expiresAt: principal.expiresAt } }
  if (hasSameClaims(session.principal, principal)) {
    return { session: { ...session, principal, isRenewing: false }, effects: [authenticated] }
  }
  // Policies may read what has changed: each subscription joins anew under the new claims, from where it stands. It
  // resumes if they do not matter to it, and is told to resync if they do.
  const members: Member[] = []
  const effects: Effect[] = [authenticated]
  let lastJoin = session.lastJoin
  for (const { id, join: from, request } of session.members) {
    lastJoin += 1
    members.push({ id, join: lastJoin, request, query: null })
    effects.push({ do: 'rejoin', id, join: lastJoin, from, principal, request })
  }
  return { session: { ...session, principal, isRenewing: false, members, lastJoin }, effects }
}

const welcome = (principal: Principal): Step => ({
  session: { state: 'open', principal, isRenewing: false, members: noMembers, lastJoin: 0, waits: 0 },
  effects: [{ do: 'welcome', expiresAt: principal.expiresAt }],
})

const noMembers: readonly Member[] = []

const memberOf = (session: OpenSession, id: number): Member | undefined =>
  session.members.find(member => member.id === id)

const stay = (session: Session): Step => ({ session, effects: [] })

const close = (error: unknown): Step => ({ session: { state: 'closed' }, effects: [{ do: 'close', error }] })

const refuse = (session: OpenSession, id: number, error: unknown): Step => ({
  session,
  effects: [{ do: 'refuse', id, error }],
})

/** What was asked under a `ref` and no subscription's id. */
const refuseAsked = (session: OpenSession, ref: number, error: unknown): Step => ({
  session,
  effects: [{ do: 'refuse', id: null, ref, error }],
})

const badFrame = (message: string): TidegateError => new TidegateError('BAD_FRAME', message)

const tokenMissing = (why: string): TidegateError =>
  new TidegateError('TOKEN_MISSING', `${why}; send Authorization: Bearer, a ticket, or an auth frame first`)

/** Keys that cannot be fetched right now are no fault of the peer, whose old token still holds. */
const keepsConnection = (error: unknown): boolean =>
  !(error instanceof TidegateError) || error.code === 'UNAVAILABLE' || error.code === 'BUSY'

const without = (members: readonly Member[], id: number): readonly Member[] =>
  members.filter(member => member.id !== id)
