// How messages and presence reach the nodes where a channel has listeners: types only. In memory for one node, over Redis for
// many.

import type { ChannelMessage, Draft, Former, Published } from '../message.ts'
import type { PresenceDiff } from '../presence/presence.ts'
import type { HistoryRule } from '../rules.ts'

export interface PublishOptions {
  /** Null: nothing is kept of the channel but its number. */
  readonly history: HistoryRule | null
  /** What is published under the same key within `ms` is published once. */
  readonly idempotency: { readonly key: string; readonly ms: number } | null
}

/** Where a channel stands: the number given last, and the life of its counter. */
export interface Standing {
  /** 8 hex digits; another one when the counter or the history was lost, or may have lost something: see `goesOn`. */
  readonly epoch: string
  readonly seq: bigint
  /** Epochs whose numbers this one goes on with, the newest first. */
  readonly before?: readonly Former[]
}

/** Messages of a history, oldest first. */
export interface HistoryPage extends Standing {
  /** Number of the oldest message that is kept; `seq + 1n` when none is. */
  readonly first: bigint
  readonly messages: readonly ChannelMessage[]
}

export type HistoryRange =
  /** Those with numbers after this one. */
  | { readonly after: bigint; readonly limit: number }
  /** The newest before this number, or of all. */
  | { readonly before: bigint | null; readonly limit: number }

/** Called in the order in which things came, each in a turn of its own or several in one. Nothing here may throw. */
export interface ChannelListener {
  message(message: ChannelMessage): void
  presence(diff: PresenceDiff): void
  /** Something may have been missed: ask where the channel stands. */
  interrupted(): void
}

export interface Listening {
  /** Resolves when everything published from now on is heard. @throws UNAVAILABLE */
  readonly ready: Promise<void>
  close(): void
}

export interface ChannelRelay {
  /** Resolves when it has a number: it is on its way to all who listen, and in the history if there is one.
   *  @throws UNAVAILABLE when that is unknown or did not happen: with an idempotency key it may be tried again */
  publish(draft: Draft, options: PublishOptions): Promise<Published>
  /** Drafts of one commit, each with its `walIndex`, in order. One that is not after the last appended is a duplicate: whoever fails
   *  may try all of them again. Wait for it before the next commit. @throws UNAVAILABLE when some may be missing */
  publishAll(drafts: readonly Draft[], options: (draft: Draft) => PublishOptions): Promise<readonly Published[]>
  /** Several of them may listen to one channel. */
  listen(channel: string, listener: ChannelListener): Listening
  /** @param begin begins the counter where there is none, of a channel with or without history: so that who comes before the first
   *  message stands somewhere @throws UNAVAILABLE */
  standing(channel: string, begin?: { readonly hasHistory: boolean }): Promise<Standing>
  /** @throws UNAVAILABLE */
  read(channel: string, range: HistoryRange): Promise<HistoryPage>
  /** Whether what others publish is heard here: false from when a probe of its own has not come back. */
  readonly isHearing: boolean
  /** Channels that are heard: those that somebody here listens to, and for a grace those that somebody did. */
  readonly subscribed: number
  close(): Promise<void>
}
