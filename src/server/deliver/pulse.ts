// Is a peer still there, and is it time to tell it that we are? Pure.

export interface Vitals {
  readonly nextBeatAt: number
  /** When the last frame, ping or pong came; null on a wire where the peer cannot speak. */
  readonly heardAt: number | null
  /** Since when the peer takes nothing though bytes wait for it. */
  readonly stalledSince: number | null
}

export type Pulse = 'none' | 'beat' | 'silent' | 'slow'

export function pulseOf(vitals: Vitals, now: number, heartbeatMs: number, slowConsumerMs: number): Pulse {
  if (vitals.stalledSince !== null && now - vitals.stalledSince >= slowConsumerMs) return 'slow'
  if (vitals.heardAt !== null && now - vitals.heardAt > 2 * heartbeatMs) return 'silent'
  return now >= vitals.nextBeatAt ? 'beat' : 'none'
}

/** When the next heartbeat is due; one that comes late does not make up for those it missed. */
export const nextBeat = (dueAt: number, now: number, heartbeatMs: number): number =>
  Math.max(dueAt + heartbeatMs, now + heartbeatMs / 2)
