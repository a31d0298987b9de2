// Where a member begins: with what is published from now on, where it was, or with being told what it missed.
import type { Position } from '../../protocol/position.ts'
import type { MemoryRelay } from '../relay/memory-relay.ts'
import type { Channel } from './channel.ts'
import type { Beginning } from './channel-member.ts'
import type { ChannelRequest } from './door.ts'
import { goesOn } from './message.ts'
import type { ChannelRelay } from './relay/channel-relay.ts'
import { numberOf } from './relay/number-mark.ts'
import type { ToldByStream } from './sql/told-by-stream.ts'
import type { StreamStand } from './stream-stand.ts'

export interface BeginningSources {
  readonly relay: Pick<ChannelRelay, 'read'>
  readonly window: Pick<MemoryRelay, 'epoch' | 'floorLsn'>
  readonly stand: Pick<StreamStand, 'untilPassed'>
  readonly toldByStream: ToldByStream
}

/** As far as what the request wants can be had. @throws UNAVAILABLE */
export async function beginningOf(
  channel: Channel,
  { since, last }: Pick<ChannelRequest, 'since' | 'last'>,
  sources: BeginningSources,
): Promise<Beginning> {
  if (since === null) return last === null ? { kind: 'now' } : lastOf(channel, last, sources)
  if (since.tag !== channel.tag) return channel.hasHistory ? { kind: 'resync', code: 'QUERY_CHANGED' } : unknownGap
  if (!channel.hasHistory) return sinceInStream(channel, since, sources)
  const at = { epoch: since.epoch, seq: since.lsn }
  // Another node may have heard of a newer epoch.
  if (!goesOn(at, channel.told)) await channel.look()
  if (!goesOn(at, channel.told)) return { kind: 'resync', code: 'HISTORY_LOST' }
  const { page } = await channel.readAfter(since.lsn)
  if (since.lsn < channel.told.seq && page.first > since.lsn + 1n) return { kind: 'resync', code: 'HISTORY_PASSED' }
  return { kind: 'after', seq: since.lsn, resumed: true }
}

async function lastOf(channel: Channel, last: number, { relay }: BeginningSources): Promise<Beginning> {
  const { seq } = channel.told
  if (last === 0 || seq === 0n) return { kind: 'now' }
  const { first } = await relay.read(channel.key, { after: seq, limit: 1 })
  const after = seq - BigInt(last)
  return { kind: 'after', seq: after < first - 1n ? first - 1n : after, resumed: false }
}

/** Of a channel without history: whether anything was said in it since. @throws UNAVAILABLE */
async function sinceInStream(
  channel: Channel,
  since: Position,
  { window, stand, toldByStream }: BeginningSources,
): Promise<Beginning> {
  if (since.epoch !== window.epoch || since.lsn < window.floorLsn) return unknownGap
  // Its client was at a node that had come further: what is served up to there, it was told.
  await stand.untilPassed(since)
  if (numberOf(since.index, channel.told) === null) await channel.look()
  if (toldByStream.mayHaveSince(channel.key, since.lsn)) return unknownGap
  const { told } = channel
  const number = numberOf(since.index, told)
  if (number === null) return unknownGap
  if (number < told.seq) return { kind: 'gap', missed: Number(told.seq - number) }
  return number === told.seq ? { kind: 'now' } : { kind: 'now', upTo: number }
}

const unknownGap: Beginning = { kind: 'gap', missed: null }
