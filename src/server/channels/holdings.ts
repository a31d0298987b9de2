// What a node holds for channels, to be shown and checked.
import type { Channel } from './channel.ts'
import type { PresenceStore } from './presence/presence.ts'
import type { ChannelRelay } from './relay/channel-relay.ts'

/** All 0 a grace after the last member has left. */
export interface ChannelHoldings {
  /** Those with members, or being entered. */
  readonly channels: number
  readonly members: number
  /** Lists of who is there, for those who look on. */
  readonly mirrors: number
  /** As `ChannelRelay.subscribed`. */
  readonly heard: number
  /** As `PresenceStore.rooms`. */
  readonly rooms: number
}

export const holdingsOf = (
  channels: readonly Channel[],
  { relay, presence }: { readonly relay: ChannelRelay; readonly presence: PresenceStore },
): ChannelHoldings => ({
  channels: channels.length,
  members: channels.reduce((sum, { members }) => sum + members.size, 0),
  mirrors: channels.filter(({ here }) => here?.isMirrored).length,
  heard: relay.subscribed,
  rooms: presence.rooms,
})
