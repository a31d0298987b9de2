// Messages from before the join, for which Supabase's clients ask as `config.broadcast.replay`.
//
// The channel hands out the newest of its history and goes on with what is said: nothing is lost or told twice between the two. What
// stood before the join is told apart by its number, which was looked up before: clocks, the client's least of all, decide only how
// far back it goes, never whether something new is told.
import type { Position } from '../../../protocol/position.ts'
import { TidegateError } from '../../../protocol/tidegate-error.ts'
import type { Caller, ChannelDoor } from '../../channels/door.ts'
import type { ChannelName } from '../../channels/message.ts'
import type { Outgoing } from '../../subscribe/subscription.ts'
import { sentAtMsOf } from './broadcast.ts'
import type { JoinConfig } from './wire.ts'

/** As Supabase has it. */
export const maxReplayed = 25

export interface Replay {
  /** What goes into the native join. */
  readonly last: number
  /** @returns of a message of the channel: sent before the join, and asked for; sent before, and not asked for, which the client is
   *  not told; or live */
  judge(outgoing: Outgoing): 'replayed' | 'passed over' | 'live'
}

/** To be called before the channel is joined.
 *  @returns null where nothing is asked for
 *  @throws what `ChannelDoor.history` throws, and PARAMETER_INVALID or HISTORY_OFF, whose messages begin with Supabase's own code */
export async function replayOf(
  door: Pick<ChannelDoor, 'history'>,
  caller: Caller,
  channel: ChannelName,
  asked: JoinConfig['replay'],
): Promise<Replay | null> {
  if (asked === null) return null
  if (!channel.isPrivate)
    throw new TidegateError('PARAMETER_INVALID', 'UnableToReplayMessages: Replay is not allowed for public channels')
  if (asked === 'invalid')
    throw new TidegateError('PARAMETER_INVALID', 'UnableToReplayMessages: Replay params are not valid')
  const { sinceMs, limit } = asked
  const { epoch, seq } = await door.history(caller, channel, { before: null, limit: 1 }).catch(toldOff)
  const isBefore = (position: Position | null): boolean =>
    position !== null && position.epoch === epoch && position.lsn <= seq
  return {
    last: Math.min(limit, maxReplayed),
    judge: outgoing => {
      if (!isBefore(outgoing.position)) return 'live'
      return sentAtMsOf(outgoing) >= sinceMs ? 'replayed' : 'passed over'
    },
  }
}

function toldOff(error: unknown): never {
  if (!(error instanceof TidegateError) || error.code !== 'HISTORY_OFF') throw error
  throw new TidegateError(
    'HISTORY_OFF',
    `UnableToReplayMessages: ${error.message}; give the rule a history entry, {"length": 100, "age": "24h"}`,
    { cause: error },
  )
}
