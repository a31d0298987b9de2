// A client that was at a node which knows of a newer epoch may come to one that does not yet: to tell it that its epoch is over
// would be wrong, and would send it back into one that is.
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Head } from '../relay/head.ts'
import type { MemoryRelay } from '../relay/memory-relay.ts'

/** Of the stream, what a node waits by. */
export interface Awaited {
  readonly relay: Pick<MemoryRelay, 'epoch'>
  readonly head: Pick<Head, 'change'>
  readonly limits: { readonly resumeWaitMs: number }
}

/** Resolves when this node is in the epoch of the position, or knows that the position is of one that is over.
 *  @param epochNow the epoch in which the deployment is, as far as anybody knows
 *  @throws UNAVAILABLE when that cannot be asked, or this node does not follow within `resumeWaitMs` */
export async function untilEpochKnown(
  { relay, head, limits }: Awaited,
  epoch: string,
  epochNow: () => Promise<string>,
): Promise<void> {
  const late = AbortSignal.timeout(limits.resumeWaitMs)
  const ended = new Promise<void>(resolve => late.addEventListener('abort', () => resolve(), { once: true }))
  while (epoch !== relay.epoch) {
    const current = await epochNow().catch(cause => {
      throw new TidegateError('UNAVAILABLE', 'which epoch it is cannot be asked now', { retryAfterMs: 1000, cause })
    })
    if (current === relay.epoch) return
    if (late.aborted)
      throw new TidegateError('UNAVAILABLE', 'this node has not heard of the newest epoch yet', { retryAfterMs: 1000 })
    await Promise.race([head.change(), ended])
  }
}
