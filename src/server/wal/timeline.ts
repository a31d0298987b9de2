// Whether an epoch goes on after the database moved to another line of its history.
//
// Every promotion of a standby, and every recovery to a point in time, starts a new timeline: the new one shares the WAL of
// its parent up to the switch, and from there on goes its own way. What was told of the parent beyond the switch is not in
// this database any more. So the epoch may go on only if nothing was: then every position that a client holds means the
// same on the new line, and the slot gives all that follows. To take the timeline for the epoch would be simpler, and
// every failover would make every client start over.
import { formatLsn, parseLsn } from './lsn.ts'
import { epochOf, keepStandbysUp } from './slot.ts'
import type { SystemIdentity } from './wal-plugin.ts'
import type { Held } from './wal-source.ts'

/** Where a timeline was left for the next one. */
export interface Switch {
  readonly timeline: string
  readonly lsn: bigint
}

export interface EpochQuestion {
  readonly system: SystemIdentity
  readonly slotName: string
  /** Null where nothing is held of this slot. */
  readonly held: Held | null
  /** Of the system's timeline, oldest first; empty for the first timeline, and where the server has none to show. */
  readonly history: readonly Switch[]
}

export interface EpochDecision {
  readonly epoch: string
  /** Why the epoch that was held had to end; null when it goes on, or none was. */
  readonly lost: string | null
}

/** Parses a timeline's history file: `<parent timeline>\t<switch LSN>\t<reason>`, oldest first; comments begin with `#`.
 *  Lines that are neither are left out: what they would have proved stays unproved. Source: Postgres, src/backend/access/transam/timeline.c */
export const parseHistory = (text: string): Switch[] =>
  [...text.matchAll(/^\s*(\d+)\s+([0-9A-F]{1,8}\/[0-9A-F]{1,8})(?!\S)/gim)].map(([, timeline, lsn]) => ({
    timeline: timeline!,
    lsn: parseLsn(lsn!),
  }))

/** True if the epoch cannot be told without the history of the system's timeline. */
export const needsHistory = (held: Held | null, system: SystemIdentity, slotName: string): boolean =>
  held !== null && held.epoch !== epochOf(system, slotName) && system.timeline !== '1'

/** The epoch of a life that begins. */
export function decideEpoch({ system, slotName, held, history }: EpochQuestion): EpochDecision {
  const fresh = epochOf(system, slotName)
  if (held === null || held.epoch === fresh) return { epoch: fresh, lost: null }
  const anew = (lost: string): EpochDecision => ({ epoch: fresh, lost })
  const { systemId, timeline } = system
  // An epoch that was carried over carries the hash of the timeline on which it began.
  const began = history.some(past => epochOf({ systemId, timeline: past.timeline }, slotName) === held.epoch)
  if (!began)
    return anew(`timeline ${timeline} of the database ${systemId} does not descend from the one that was read`)
  if (held.timeline === timeline) return { epoch: held.epoch, lost: null }
  const left = history.find(past => past.timeline === held.timeline)
  if (left === undefined)
    return anew(`timeline ${timeline} does not descend from timeline ${held.timeline}, which was read last`)
  if (held.headEndLsn > left.lsn)
    return anew(
      `the database left timeline ${left.timeline} at ${formatLsn(left.lsn)}, and commits up to ${formatLsn(held.headEndLsn)} had been told: those in between are not in it any more. ${keepStandbysUp}`,
    )
  return { epoch: held.epoch, lost: null }
}
