// How a node leaves. The order is what loses nobody: first it is not ready, and serves on until the balancer has noticed. Then
// nobody new is taken, and the slot is let go, so that the next node reads it while clients are still on their way. Each of
// them is sent what waits for it, told where it stands and when to come back. What is left at last is cut off.
import { setTimeout as sleep } from 'node:timers/promises'
import type { Config } from '../config/config.ts'
import type { DrainOptions } from '../deliver/gateway.ts'

export type DrainSettings = Pick<Config, 'drainDelayMs' | 'drainSpreadMs' | 'drainTimeoutMs'>

/** Endpoints of Kubernetes follow within a few seconds; most balancers probe every second to five. */
const noticeMs = 5000
/** A probe rarer than that is a person's. */
const probedWithinMs = 60_000

/** How long to serve on. Where nobody asks for it, nobody would notice: a server that was started by hand ends at once.
 *  @param probedAgoMs since somebody last asked whether it is ready; null: never */
export function delayOf(settings: Pick<DrainSettings, 'drainDelayMs'>, probedAgoMs: number | null): number {
  if (settings.drainDelayMs !== null) return settings.drainDelayMs
  return probedAgoMs !== null && probedAgoMs <= probedWithinMs ? noticeMs : 0
}

export interface Leaving {
  readonly settings: DrainSettings
  readonly probedAgoMs: number | null
  /** Lets the slot go. */
  letGo(): void
  readonly gateway: { drain(options: DrainOptions): Promise<void> }
}

/** Resolves when the clients have left. Call it when the node says that it is draining. */
export async function drain({ settings, probedAgoMs, letGo, gateway }: Leaving): Promise<void> {
  const delayMs = delayOf(settings, probedAgoMs)
  if (delayMs > 0) await sleep(delayMs)
  letGo()
  await gateway.drain({ spreadMs: settings.drainSpreadMs, timeoutMs: settings.drainTimeoutMs })
}
