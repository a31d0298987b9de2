// Where a stream of one or several queries stands: the `id:` of SSE and the `position` of long-poll. Pure.

import { formatQueryPositions, parseQueryPositions, type QueryPosition } from '../../protocol/position.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'

/** Stands for a query whose first snapshot is not complete: coming back, it begins fresh while the others resume. */
const fresh = '-'

/** What the ids of a stream that a ticket opened end in: `!` and its proof. */
const proofPattern = /!([\w-]{22})$/

/** @param proof of the ticket that opened the stream. @returns null when no query of the stream can be resumed yet */
export function formatStreamPosition(
  positions: readonly (QueryPosition | null)[],
  proof: string | null = null,
): string | null {
  if (positions.every(position => position === null)) return null
  const text = positions.map(position => (position === null ? fresh : formatQueryPositions([position]))).join('~')
  return proof === null ? text : `${text}!${proof}`
}

export const proofOf = (text: string): string | null => proofPattern.exec(text)?.[1] ?? null

/** The position alone: where it leads does not depend on who was given it. */
export const withoutProof = (text: string): string => text.replace(proofPattern, '')

/** @param count how many queries the URL asks for. @throws POSITION_INVALID */
export function parseStreamPosition(text: string, count: number): (QueryPosition | null)[] {
  const positions = readStreamPosition(text, count)
  if (positions !== null) return positions
  const queries = count === 1 ? 'one query' : `the ${count} queries of this URL`
  throw new TidegateError(
    'POSITION_INVALID',
    `${JSON.stringify(text.slice(0, 80))} is no position of ${queries}; leave it out to begin fresh`,
  )
}

/** @returns null when the text is no position of so many queries */
export function readStreamPosition(text: string, count: number): (QueryPosition | null)[] | null {
  if (text.length > 8192) return null
  const parts = withoutProof(text).split('~')
  if (parts.length !== count) return null
  const positions: (QueryPosition | null)[] = []
  for (const part of parts) {
    const position = part === fresh && count > 1 ? null : parseQueryPositions(part)?.[0]
    if (position === undefined) return null
    positions.push(position)
  }
  return positions
}
