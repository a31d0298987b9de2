// Whoever wants an audience's window waits here until it stands at the head, and reads it where nobody does.
import { WHOLE_COMMIT } from '../../protocol/position.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Audience } from '../route/audience.ts'
import { partsOf } from '../route/encode.ts'
import { OutcomeEncoder } from '../route/outcome.ts'
import { Outgoing } from '../route/outgoing.ts'
import type { Window } from '../route/window.ts'
import type { Reader } from '../snapshot/reader.ts'
import type { FirstSnapshotRequest } from './first-snapshot.ts'
import { reached } from './reached.ts'
import { readWindow } from './read-window.ts'
import type { Stream } from './stream.ts'

export interface WantsWindow {
  readonly audience: Audience
  readonly window: Window
  readonly reader: () => Reader
  cancelled(): boolean
}

/** @param act runs in a turn in which the window stands at the head, unless it was cancelled
 *  @throws what reading it throws */
export async function atWindow(stream: Stream, wants: WantsWindow, act: () => void): Promise<void> {
  const { head, reach } = stream
  const { audience, window } = wants
  const uses = reach.usesOf(audience)
  for (;;) {
    if (wants.cancelled()) return
    if (head.ready(0n) && audience.hold === null && !reach.isPending(uses)) {
      if (window.isLoaded) {
        act()
        return
      }
      if (!window.isLoading) {
        await load(stream, wants)
        continue
      }
    }
    await head.change()
  }
}

/** The rows that it shows, of a subscriber that holds nothing. @param notBefore a commit that the subscriber has seen already */
export async function windowSnapshot(
  stream: Stream,
  window: Window,
  { audience, reader, cancelled, send, joined }: FirstSnapshotRequest,
  notBefore: bigint,
): Promise<void> {
  const { head, relay, figures } = stream
  const beganMs = performance.now()
  await stream.reader.moving()
  if (!(await reached(stream, notBefore, cancelled))) {
    if (cancelled()) return
    throw new TidegateError('UNAVAILABLE', 'the stream has not come to this position yet')
  }
  await atWindow(stream, { audience, window, reader: () => reader, cancelled }, () => {
    const position = { epoch: relay.epoch, lsn: head.lsn, index: WHOLE_COMMIT }
    const parts = partsOf(window.rows.map(({ json }) => json))
    parts.forEach((part, i) => {
      const done = i === parts.length - 1
      const json = `{"rows":[${part.join(',')}],"done":${done}}`
      send(new Outgoing('snapshot', json, done ? position : null, i > 0 ? null : 0n))
    })
    joined()
    figures.snapshots += 1
    figures.snapshotRows += window.rows.length
    figures.snapshotTiming.observe((performance.now() - beganMs) / 1000)
  })
}

/** What brings a reader from a position to the head, in a turn in which the window stands there. */
export function windowSince({ relay, head }: Stream, window: Window, lsn: bigint): readonly Outgoing[] {
  const encoder = new OutcomeEncoder(
    relay.epoch,
    { since: lsn, lsn: head.lsn },
    relay.at(head.lsn)?.committedAtMicros ?? 0n,
  )
  return encoder.deltaOf(window.since(lsn))
}

/** For all who wait, whether or not who began it still does. */
async function load(stream: Stream, { audience, window, reader }: WantsWindow): Promise<void> {
  const { head } = stream
  const { discards } = window
  window.isLoading = true
  try {
    const request = { audience, window, reader: reader(), isHeld: false, cancelled: () => audience.isClosed }
    await readWindow(stream, request, read => {
      // What was read may be of a table as it was before it was rewritten.
      if (window.discards === discards) window.load(read, head.lsn)
    })
  } finally {
    window.isLoading = false
    head.moved()
  }
}
