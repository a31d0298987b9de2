// The channels with members here, and who is present in them.
import type { Channel } from '../channels/channel.ts'
import { inSlices } from './in-slices.ts'
import { Largest } from './largest.ts'
import type { ChannelsPage, InspectedChannel } from './wire.ts'

/** What is looked at of a channel. */
export interface ChannelListed {
  readonly name: Channel['name']
  readonly members: { readonly size: number }
  readonly rule: Pick<Channel['rule'], 'history'>
  readonly here: { readonly entries: readonly { readonly key: string }[] | null } | null
}

const maxChannels = 200
const maxPresent = 50

export function channelsPage(listed: Iterable<ChannelListed>): Promise<ChannelsPage> {
  return inSlices(walk(listed))
}

function* walk(listed: Iterable<ChannelListed>): Generator<void, ChannelsPage> {
  const largest = new Largest<{ readonly channel: ChannelListed; readonly members: number }>(
    maxChannels,
    ({ members }) => members,
  )
  for (const channel of listed) {
    largest.add({ channel, members: channel.members.size })
    yield
  }
  const channels: InspectedChannel[] = []
  for (const { channel, members } of largest.items) {
    const { name, rule, here } = channel
    const keys = here?.entries ?? null
    const present = keys === null ? null : yield* presentOf(keys)
    channels.push({
      topic: name.topic,
      isPrivate: name.isPrivate,
      members,
      present: present?.items ?? null,
      morePresent: present?.more ?? 0,
      history: rule.history === null ? null : `${rule.history.length} messages, ${rule.history.ageMs / 1000} s`,
    })
  }
  return { channels, more: largest.more }
}

interface Present {
  readonly key: string
  connections: number
}

/** @param entries at most as many as the channel's rule lists */
function* presentOf(entries: readonly { readonly key: string }[]): Generator<void, Largest<Present>> {
  const byKey = new Map<string, Present>()
  for (const { key } of entries) {
    const present = byKey.get(key)
    if (present === undefined) byKey.set(key, { key, connections: 1 })
    else present.connections += 1
    yield
  }
  const largest = new Largest<Present>(maxPresent, ({ connections }) => connections)
  for (const present of byKey.values()) {
    largest.add(present)
    yield
  }
  return largest
}
