// The relay of one node without Redis, in two parts with bounds of their own: into public channels anybody may send, under as many
// topics as they like, and that must not push the histories, numbers and idempotency keys of private ones out of memory.
import { channelKey, type Draft, type Published } from '../message.ts'
import type { PresenceDiff } from '../presence/presence.ts'
import type {
  ChannelListener,
  ChannelRelay,
  HistoryPage,
  HistoryRange,
  Listening,
  PublishOptions,
  Standing,
} from './channel-relay.ts'
import { channelOf, MemoryChannelRelay, type MemoryChannelRelayOptions } from './memory-relay.ts'

export class MemoryChannelRelays implements ChannelRelay {
  readonly isHearing = true
  readonly #private: MemoryChannelRelay
  readonly #public: MemoryChannelRelay

  /** The bounds hold for each of the two. */
  constructor(options: MemoryChannelRelayOptions) {
    this.#private = new MemoryChannelRelay(options)
    this.#public = new MemoryChannelRelay(options)
  }

  get subscribed(): number {
    return this.#private.subscribed + this.#public.subscribed
  }

  publish(draft: Draft, options: PublishOptions): Promise<Published> {
    return this.#of(channelKey(draft.channel)).publish(draft, options)
  }

  publishAll(drafts: readonly Draft[], options: (draft: Draft) => PublishOptions): Promise<readonly Published[]> {
    return Promise.all(drafts.map(draft => this.publish(draft, options(draft))))
  }

  listen(channel: string, listener: ChannelListener): Listening {
    return this.#of(channel).listen(channel, listener)
  }

  tellPresence(channel: string, diff: PresenceDiff): void {
    this.#of(channel).tellPresence(channel, diff)
  }

  standing(channel: string, begin?: { readonly hasHistory: boolean }): Promise<Standing> {
    return this.#of(channel).standing(channel, begin)
  }

  read(channel: string, range: HistoryRange): Promise<HistoryPage> {
    return this.#of(channel).read(channel, range)
  }

  async close(): Promise<void> {
    await Promise.all([this.#private.close(), this.#public.close()])
  }

  /** @param channel its `channelKey` */
  #of(channel: string): MemoryChannelRelay {
    return channelOf(channel).isPrivate ? this.#private : this.#public
  }
}
