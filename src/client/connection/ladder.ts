// Which transport to try next: down a rung when one does not carry, and up again when a better one does. Pure.
import type { Refusal } from '../status.ts'

export interface Ladder {
  /** The transport in use, or tried next: 0 is the first choice. */
  readonly rung: number
  /** Failures on this rung in a row that speak against the transport rather than the server. */
  readonly failures: number
  /** Every rung has been tried since something carried: one failure is enough then to go on. */
  readonly hasTurned: boolean
  /** Why the first choice was left; null on it. */
  readonly reason: Refusal | null
  /** Times that a better rung was probed from this one. */
  readonly probes: number
}

export const firstRung: Ladder = { rung: 0, failures: 0, hasTurned: false, reason: null, probes: 0 }

/** What carried before, in an earlier life of the page. A better one is probed soon. */
export const rememberedRung = (rung: number, reason: Refusal): Ladder => ({ ...firstRung, rung, reason })

/** A connection without a hint broke twice before it was held against the transport: a server that restarts does the same. */
const failuresToLeave = 2

/** The transport did not get as far as a welcome, or carried nothing after it.
 *  @param silent nothing came back: a proxy may swallow or hold back what this transport sends. A link that broke at once may as well be a
 *  server that is down, which a lesser transport would not find either. */
export function failed(
  ladder: Ladder,
  { silent, error, rungs }: { silent: boolean; error: Refusal; rungs: number },
): Ladder {
  const failures = ladder.failures + 1
  const isLast = ladder.rung === rungs - 1
  if (rungs === 1) return ladder
  if (ladder.rung === 0 && !silent && !ladder.hasTurned && failures < failuresToLeave) return { ...ladder, failures }
  if (isLast || (ladder.rung > 0 && !silent)) return { ...firstRung, hasTurned: true }
  return { ...ladder, rung: ladder.rung + 1, failures: 0, reason: ladder.reason ?? error, probes: 0 }
}

/** It has carried for a while. */
export const carried = (ladder: Ladder): Ladder => ({ ...ladder, failures: 0, hasTurned: false })

const firstProbeMs = 10_000
const lastProbeMs = 3_600_000

/** When to look whether a better rung carries by now: after 10 s, then three times as long each time, up to an hour.
 *  @param random 0 to 1: takes off up to half, so that a crowd does not come at once. @returns null on the first rung */
export const probeAfterMs = ({ rung, probes }: Ladder, random: number): number | null =>
  rung === 0 ? null : Math.min(lastProbeMs, firstProbeMs * 3 ** Math.min(probes, 9)) * (1 - random / 2)

/** Which one to probe: the first choice, and in turn those between. */
export const probedRung = ({ rung, probes }: Ladder): number => probes % rung

/** A probe was answered: up there. If it does not carry after all, one failure leads down again. */
export const risen = (ladder: Ladder, rung: number): Ladder => ({
  ...ladder,
  rung,
  failures: failuresToLeave - 1,
  reason: rung === 0 ? null : ladder.reason,
})
