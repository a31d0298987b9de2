// A position names a point in one slot's life: (epoch, commit LSN, index). Opaque to clients.
// The LSN comes from Postgres, never from a counter of ours, so it cannot be issued twice.

export interface Position {
  /** One slot's life: system identifier, timeline and random slot suffix, hashed to 8 hex digits. */
  readonly epoch: string
  /** Commit LSN, bytes from the start of the WAL, 64-bit. */
  readonly lsn: bigint
  /** Raw changes of that commit already delivered; `WHOLE_COMMIT` when all are. */
  readonly index: number
}

/** A position of a stream of one or several queries: where each stands, and the tag of its snapshot. */
export interface QueryPosition extends Position {
  /** Hash of query, role, relevant claims and policies: resuming under another tag is a resync. */
  readonly tag: string
}

export const WHOLE_COMMIT = 0xffff_ffff

const positionPattern = /^([0-9a-f]{8})-([0-9a-f]{1,16})(?:-([0-9a-f]{1,8}))?$/
const queryPositionPattern = /^([0-9a-f]{8})-([0-9a-f]{1,16})(?:-([0-9a-f]{1,8}))?\.([0-9A-Za-z_-]{1,32})$/

/** `"1f2e3d4c-16b3748"`, or `"1f2e3d4c-16b3748-2"` inside a commit. */
export function formatPosition(position: Position): string {
  const whole = `${position.epoch}-${position.lsn.toString(16)}`
  return position.index === WHOLE_COMMIT ? whole : `${whole}-${position.index.toString(16)}`
}

/** @returns null when the text is no position; callers refuse with POSITION_INVALID */
export function parsePosition(text: string): Position | null {
  const match = positionPattern.exec(text)
  if (match === null) return null
  return { epoch: match[1]!, lsn: BigInt(`0x${match[2]}`), index: indexOf(match[3]) }
}

/** `"1f2e3d4c-16b3748.tagtag"`; several queries are joined by `~`, in the order the stream asked for them. */
export function formatQueryPositions(positions: readonly QueryPosition[]): string {
  return positions.map(position => `${formatPosition(position)}.${position.tag}`).join('~')
}

/** @returns null when any part is no position */
export function parseQueryPositions(text: string): QueryPosition[] | null {
  if (text.length > 8192) return null
  const positions: QueryPosition[] = []
  for (const part of text.split('~')) {
    const match = queryPositionPattern.exec(part)
    if (match === null) return null
    positions.push({ epoch: match[1]!, lsn: BigInt(`0x${match[2]}`), index: indexOf(match[3]), tag: match[4]! })
  }
  return positions
}

/** Negative when `a` is before `b`; both of one epoch. */
export function comparePositions(a: Position, b: Position): number {
  if (a.lsn !== b.lsn) return a.lsn < b.lsn ? -1 : 1
  return a.index - b.index
}

const indexOf = (hex: string | undefined): number => (hex === undefined ? WHOLE_COMMIT : Number.parseInt(hex, 16))
