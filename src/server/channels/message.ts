// What travels through a channel, and where a channel stands.
import type { Position } from '../../protocol/position.ts'

/** A channel: a topic, and whether policies guard it. Private and public ones of the same topic are two channels. */
export interface ChannelName {
  readonly topic: string
  readonly isPrivate: boolean
}

/** Equal for equal channels; names its keys in Redis. */
export const channelKey = ({ topic, isPrivate }: ChannelName): string => `${isPrivate ? 'private' : 'public'}/${topic}`

/** Who sent: set by the server, never by the client. Null for both where the database did. */
export interface Sender {
  /** The token's `sub`. */
  readonly user: string | null
  /** The connection's name, as its `welcome` said; null for HTTP. */
  readonly connection: string | null
}

/** Whom a message is for, where it is not for all: members of the channel of this user, or on this connection. */
export type Target = { readonly user: string } | { readonly connection: string }

/** Where the stream of the publishing node stood: whoever delivers has applied at least as much, so that a revocation
 *  before it holds. */
export type Stamp = Pick<Position, 'epoch' | 'lsn'>

/** Of a message that waits for nothing: every node has passed it. */
export const noStamp: Stamp = { epoch: '', lsn: 0n }

/** A message before it has a number. */
export interface Draft {
  readonly channel: ChannelName
  /** UUID; the client may tell its own messages by it. */
  readonly id: string
  readonly event: string
  /** JSON text; of a binary payload a JSON string of base64. No line breaks. */
  readonly payload: string
  readonly isBinary: boolean
  readonly sender: Sender
  /** Milliseconds since 1970. */
  readonly sentAtMs: number
  readonly to: Target | null
  readonly stamp: Stamp
  /** Of one that came through the WAL, its place there: `stamp` names the commit, this the raw change in it. Else null. */
  readonly walIndex: number | null
}

/** Of a channel in which nothing was published, and whose counter nobody began: with the number 0. */
export const noEpoch = '00000000'

/** An epoch that is over, and the number at which it ended. */
export interface Former {
  readonly epoch: string
  readonly seq: bigint
}

/** A message as the relay hands it on. Numbers of a channel count up by one, each once in an epoch. */
export interface ChannelMessage extends Draft {
  /** 8 hex digits. */
  readonly epoch: string
  readonly seq: bigint
  /** Epochs whose numbers this one goes on with, the newest first; none: its numbers began anew. */
  readonly before?: readonly Former[]
}

/** Whether who has all up to a number of an epoch, missed nothing but what came after it. Each time Redis restarts or another server
 *  takes over, some of its newest numbers may be lost and given again: then a channel goes into another epoch, in which its numbers
 *  go on where they are found. Who has more than that, has what was lost. */
export const goesOn = (
  at: { readonly epoch: string; readonly seq: bigint },
  now: { readonly epoch: string; readonly before?: readonly Former[] },
): boolean => at.epoch === now.epoch || (now.before ?? []).some(({ epoch, seq }) => epoch === at.epoch && at.seq <= seq)

/** What came of publishing. */
export interface Published {
  readonly id: string
  readonly epoch: string
  readonly seq: bigint
  /** The same idempotency key was used before: this is what came of it then, and nothing was sent now. */
  readonly isDuplicate: boolean
}
