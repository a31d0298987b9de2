// What a client asks of a channel that it is in, and how that is answered. Pure.
import type { ClientFrame, ServerFrame } from '../../protocol/messages.ts'
import { formatPosition, WHOLE_COMMIT } from '../../protocol/position.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { ChannelSubscription, SendRequest, TrackRequest } from '../channels/door.ts'
import type { Published } from '../channels/message.ts'
import { sendRequestOf, trackRequestOf } from './channel-request.ts'
import type { MemberRequest } from './membership.ts'

export type AskFrame = Extract<ClientFrame, { type: 'send' | 'track' | 'untrack' }>

export type Ask =
  | { readonly type: 'send'; readonly request: SendRequest }
  /** @param request null: not there any more
   *  @param before what was asked before it, which holds again if this is refused */
  | { readonly type: 'track'; readonly request: TrackRequest | null; readonly before: TrackRequest | null }

export type Answer = { readonly type: 'sent'; readonly published: Published } | { readonly type: 'tracked' }

/** @throws BAD_FRAME, TXID_INVALID */
export function askOf(frame: AskFrame, before: TrackRequest | null): Ask {
  if (frame.type === 'send') return { type: 'send', request: sendRequestOf(frame) }
  return { type: 'track', request: frame.type === 'track' ? trackRequestOf(frame) : null, before }
}

/** @throws what `ChannelSubscription.send` and `track` throw; NOT_JOINED where the channel was refused or has ended */
export async function doAsk(channel: ChannelSubscription | null, ask: Ask): Promise<Answer> {
  if (channel === null) throw new TidegateError('NOT_JOINED', 'the channel was refused, or has ended')
  if (ask.type === 'send') return { type: 'sent', published: await channel.send(ask.request) }
  await (ask.request === null ? channel.untrack() : channel.track(ask.request))
  return { type: 'tracked' }
}

export function answerFrame(id: number, ref: number, answer: Answer): ServerFrame {
  if (answer.type === 'tracked') return { type: 'tracked', id, ref }
  return { type: 'sent', id, ref, ...publishedOf(answer.published) }
}

export interface PublishedAnswer {
  message: string
  position: string
  duplicate?: true
}

export const publishedOf = ({ id, epoch, seq, isDuplicate }: Published): PublishedAnswer => ({
  message: id,
  position: formatPosition({ epoch, lsn: seq, index: WHOLE_COMMIT }),
  ...(isDuplicate ? { duplicate: true as const } : {}),
})

/** A member that joins anew is there again as it was: what it asked for last goes into its request. */
export function withTrack<T extends { readonly id: number; readonly request: MemberRequest }>(
  members: readonly T[],
  id: number,
  ask: Ask,
  way: 'do' | 'undo',
): readonly T[] {
  if (ask.type !== 'track') return members
  return members.map(member => {
    const { request } = member
    if (member.id !== id || request.kind !== 'channel') return member
    if (way === 'do') return { ...member, request: { ...request, track: ask.request } }
    return request.track === ask.request ? { ...member, request: { ...request, track: ask.before } } : member
  })
}
