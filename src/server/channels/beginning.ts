// Where a member begins: with what is published from now on, where it was, or with being told what it missed.
import type { Position } from '../../protocol/position.ts'
import type { MemoryRelay } from '../relay/memory-relay.ts'
import type { Channel } from './channel.ts'
import type { Beginning } from './channel-member.ts'
import type { ChannelRelay } from './channel-relay.ts'
import type { ChannelRequest } from './door.ts'
import { goesOn } from './message.ts'
import type { ToldByStream } from './told-by-stream.ts'

export interface BeginningSources {
  readonly relay: Pick<ChannelRelay, 'read'>
  readonly window: Pick<MemoryRelay, 'epoch' | 'floorLsn'>
  readonly toldByStream: ToldByStream
}

/** A difference of numbers beyond it comes from a counter that began anew. */
const maxCredible = 1_000_000

/** As far as what the request wants can be had. @throws UNAVAILABLE */
export async function beginningOf(
  channel: Channel,
  { since, last }: Pick<ChannelRequest, 'since' | 'last'>,
  sources: BeginningSources,
): Promise<Beginning> {
  if (since === null) return last === null ? { kind: 'now' } : lastOf(channel, last, sources)
  if (since.tag !== channel.tag) return channel.hasHistory ? { kind: 'resync', code: 'QUERY_CHANGED' } : unknownGap
  if (!channel.hasHistory) return sinceInStream(channel, since, sources)
  if (!goesOn({ epoch: since.epoch, seq: since.lsn }, channel.told)) return { kind: 'resync', code: 'HISTORY_LOST' }
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

/** Of a channel without history: whether anything was said in it since. */
function sinceInStream(channel: Channel, since: Position, { window, toldByStream }: BeginningSources): Beginning {
  if (since.epoch !== window.epoch || since.lsn < window.floorLsn) return unknownGap
  if (toldByStream.mayHaveSince(channel.key, since.lsn)) return unknownGap
  const behind = Number(BigInt.asUintN(32, channel.told.seq - BigInt(since.index)))
  // More than half of all numbers behind is ahead: its client was at a node that had heard more.
  if (behind === 0 || behind >= 2 ** 31) return { kind: 'now' }
  return behind > maxCredible ? unknownGap : { kind: 'gap', missed: behind }
}

const unknownGap: Beginning = { kind: 'gap', missed: null }
