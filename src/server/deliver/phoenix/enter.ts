// Enters all that a join asks for by one session: the channel itself, and each table of each binding.
import type { ErrorEvent } from '../../../protocol/messages.ts'
import type { Principal } from '../../subscribe/subscription.ts'
import type { Place } from '../connections.ts'
import type { Refusal } from '../refusal.ts'
import { ChannelSession, type EntryFrame, errorOf, type Line, type SessionOwner } from './channel-session.ts'
import { channelEntry, channelId, entriesOf, nameOf, type Refused } from './entries.ts'
import { canComeLater } from './reasons.ts'
import { replayOf } from './replay.ts'
import type { Stand } from './stands.ts'
import type { JoinConfig } from './wire.ts'

export interface Asked {
  readonly line: Line
  readonly owner: SessionOwner
  readonly place: Place
  readonly principal: Principal
  /** Of the topic, without its prefix. */
  readonly name: string
  readonly config: JoinConfig
  /** Where its client goes on from; null: it begins. */
  readonly stood: Stand['positions'] | null
}

export interface Entered {
  readonly session: ChannelSession
  /** Bindings that can never stand. */
  readonly refused: readonly Refused[]
  /** False where the service has no channels: its client hears changes alone. */
  readonly isInChannel: boolean
  /** Its client is told who is there. */
  readonly showsPresence: boolean
}

/** @throws what refuses the join as a whole: its user has too many connections, the channel is refused, or what may stand later */
export async function enter(asked: Asked): Promise<Entered> {
  const { line, owner, place, principal, config } = asked
  const { subscriptions, limits } = line.services
  // The channel itself is one of them, and all are asked for at once.
  const max = Math.min(limits.maxSubscriptions, limits.frameBurst) - 1
  const entries = await entriesOf(subscriptions, principal, config.bindings, { firstId: channelId + 1, max })
  place.admit(principal)
  const session = new ChannelSession(line, owner, place, principal, entries)
  try {
    const join = await joinOf(asked, session)
    const subscribes = Array.from(entries, entry => ({ ...entry.frame, ...sinceOf(asked, nameOf(entry)) }))
    let refused = await session.enter(join === null ? subscribes : [join, ...subscribes])
    let showsPresence = join?.presence === true
    // Whoever may hear broadcasts and not who is there, is in the channel all the same.
    const outside = refused.find(({ id, error }) => id === channelId && isAboutPresence(error))
    if (outside !== undefined && join !== null && showsPresence) {
      showsPresence = false
      const again = await session.enter([{ ...join, presence: false }])
      refused = [...refused.filter(one => one !== outside), ...again]
    }
    const fatal = refused.find(({ id, error }) => id === channelId || canComeLater(error.code as Refusal['code']))
    if (fatal !== undefined) throw errorOf(fatal.error)
    return { session, refused: [...entries.refused, ...refused], isInChannel: join !== null, showsPresence }
  } catch (error) {
    session.leave('gone')
    throw error
  }
}

async function joinOf(asked: Asked, session: ChannelSession): Promise<Extract<EntryFrame, { type: 'join' }> | null> {
  const { line, principal, name, config } = asked
  const { channels } = line.services
  if (channels === null) return null
  const { isPrivate, self, presence } = config
  const since = sinceOf(asked, channelEntry)
  // Whoever comes back is given what came since, and what it asked for before its first join no second time.
  if (since.since === undefined) {
    const caller = { principal, connection: session.connection.name, isPublicOpen: true as const }
    session.replay = await replayOf(channels, caller, { topic: name, isPrivate }, config.replay)
  }
  const last = session.replay === null ? {} : { last: session.replay.last }
  return { type: 'join', id: channelId, topic: name, private: isPrivate, self, presence, ...last, ...since }
}

function sinceOf({ stood }: Asked, name: string): { since?: string } {
  const since = stood?.[name]
  return since === undefined ? {} : { since }
}

const isAboutPresence = ({ code }: ErrorEvent): boolean => code === 'CHANNEL_REFUSED' || code === 'PRESENCE_OFF'
