// What a heartbeat says of where each subscription stands. Pure.
import type { ServerFrame } from '../../protocol/messages.ts'
import {
  comparePositions,
  formatPosition,
  formatQueryPositions,
  type Position,
  type QueryPosition,
} from '../../protocol/position.ts'
import type { MemberRequest, Membership } from './membership.ts'
import type { Member } from './session-parts.ts'

export interface Standing {
  /** The client's number for it. */
  readonly id: number
  readonly kind: MemberRequest['kind']
  /** Where its client may resume; null while it holds nothing complete. */
  readonly position: QueryPosition | null
}

/** @param asked what the session knows of them @param members those of them that were entered */
export const standingsOf = (asked: readonly Member[], members: readonly Membership[]): readonly Standing[] =>
  asked.map(({ id, join, request: { kind } }) => {
    const member = members.find(one => one.join === join)
    // Of a channel that still reads what was missed, its messages say where its client stands.
    const isBehind = kind === 'channel' && member?.isWhole === false
    return { id, kind, position: isBehind ? null : (member?.position() ?? null) }
  })

/** @param head where the stream stands */
export function heartbeatFrame(
  standings: readonly Standing[],
  head: { readonly position: Position; readonly stale: boolean; readonly lagMs: number },
): ServerFrame {
  const positions: { [id: string]: string } = {}
  let lowest: QueryPosition | null = null
  for (const { id, kind, position } of standings) {
    if (position === null) continue
    positions[id] = formatQueryPositions([position])
    if (kind === 'channel') continue
    if (lowest === null || isBefore(position, lowest, head.position.epoch)) lowest = position
  }
  const position = lowest === null ? null : formatPosition(lowest)
  return { type: 'heartbeat', position, positions, stale: head.stale, lagMs: head.lagMs }
}

/** Whether every query that came back has what was committed up to `owed`. One that still reads its first snapshot says so itself. */
export const haveCaughtUp = (standings: readonly Standing[], owed: Position): boolean =>
  standings.every(
    ({ kind, position }) =>
      kind === 'channel' || position === null || position.epoch !== owed.epoch || comparePositions(position, owed) >= 0,
  )

/** Positions of two epochs have no order among them: the one that is not the head's is older. */
const isBefore = (a: QueryPosition, b: QueryPosition, epoch: string): boolean =>
  a.epoch === b.epoch ? comparePositions(a, b) < 0 : b.epoch === epoch
