import type { Stream } from './stream.ts'

/** After a restart the relay is refilled from the slot: a position may lie ahead of what has come again.
 *  @returns false when the stream does not get there in time */
export async function reached(stream: Stream, lsn: bigint, cancelled: () => boolean): Promise<boolean> {
  const { head, limits } = stream
  if (head.lsn >= lsn) return true
  const deadline = AbortSignal.timeout(limits.resumeWaitMs)
  const late = new Promise<void>(resolve => deadline.addEventListener('abort', () => resolve(), { once: true }))
  while (head.lsn < lsn) {
    if (deadline.aborted || cancelled()) return false
    await Promise.race([head.change(), late])
  }
  return true
}
