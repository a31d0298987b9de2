// Reads what a client asks of a channel, in frames and bodies, into what the door of channels takes. Pure.
import type { Join, Send, Track } from '../../protocol/messages.ts'
import { parseQueryPositions } from '../../protocol/position.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { ChannelRequest, SendRequest, TrackRequest } from '../channels/door.ts'
import { withoutProof } from './stream-position.ts'
import { transactionIdOf } from './transaction-id.ts'

/** @throws POSITION_INVALID */
export function channelRequestOf(join: Join): ChannelRequest {
  const { topic, self = false, presence = false, track, last = null } = join
  return {
    kind: 'channel',
    channel: { topic, isPrivate: join.private ?? true },
    self,
    presence,
    track: track === undefined ? null : trackRequestOf(track),
    last,
    since: join.since === undefined ? null : sinceOf(join.since),
  }
}

function sinceOf(text: string): ChannelRequest['since'] {
  const positions = parseQueryPositions(withoutProof(text))
  if (positions?.length === 1) return positions[0]!
  throw new TidegateError(
    'POSITION_INVALID',
    `${JSON.stringify(text.slice(0, 80))} is no position of a channel; leave since out`,
  )
}

/** A message without payload and binary has the payload null. @throws BAD_FRAME, TXID_INVALID */
export function sendRequestOf(send: Send): SendRequest {
  const { event, payload = null, binary, to = null, idempotencyKey = null, after } = send
  if (binary !== undefined && send.payload !== undefined) {
    throw new TidegateError('BAD_FRAME', 'the message has payload and binary; send one of them')
  }
  return {
    event,
    payload: JSON.stringify(binary ?? payload),
    isBinary: binary !== undefined,
    to,
    idempotencyKey,
    after: after === undefined ? null : transactionIdOf(after),
  }
}

export const trackRequestOf = ({ meta, key }: Track): TrackRequest => ({ meta: JSON.stringify(meta), key: key ?? null })
