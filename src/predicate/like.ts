// LIKE and ILIKE exactly as Postgres matches: `_` is one character (not one UTF-16 unit), `\` escapes, and no regular
// expression that a client could make explode: pieces between `%` are searched from the left, once each.
import type { SqlType } from './algebra.ts'
import { ValueError } from './value-error.ts'

export type Matcher = (text: string) => boolean

/** One piece between two `%`: code points, with `anyCharacter` for `_`. */
interface Piece {
  readonly points: readonly number[]
  /** The piece as text when it has no `_`, for `indexOf`. */
  readonly literal: string | null
}

const anyCharacter = -1

/** @param fold applied to pattern and text before matching (ILIKE)
 *  @throws ValueError when the pattern ends in an escape: Postgres raises on it */
export function likeMatcher(pattern: string, fold: ((text: string) => string) | null): Matcher {
  const pieces = piecesOf(fold === null ? pattern : fold(pattern))
  if (fold === null) return text => matches(text, pieces)
  return text => matches(fold(text), pieces)
}

/** lower() of a collation, or null when only Postgres knows it. */
export function foldOf(type: SqlType): ((text: string) => string) | null {
  const lower = type.lower
  if (lower !== undefined) return text => Array.from(text, char => lower.get(char) ?? char).join('')
  return type.collation === 'c' ? text => text.replace(/[A-Z]+/g, letters => letters.toLowerCase()) : null
}

function piecesOf(pattern: string): Piece[] {
  const pieces: Piece[] = []
  let points: number[] = []
  const finish = (): void => {
    const literal = points.includes(anyCharacter) ? null : points.map(point => String.fromCodePoint(point)).join('')
    pieces.push({ points, literal })
    points = []
  }
  const chars = Array.from(pattern)
  for (let i = 0; i < chars.length; i++) {
    const char = chars[i]!
    if (char === '%') finish()
    else if (char === '_') points.push(anyCharacter)
    else if (char !== '\\') points.push(char.codePointAt(0)!)
    else {
      i++
      if (i === chars.length) throw new ValueError('a LIKE pattern ends in its escape character')
      points.push(chars[i]!.codePointAt(0)!)
    }
  }
  finish()
  return pieces
}

function matches(text: string, pieces: readonly Piece[]): boolean {
  const first = pieces[0]!
  let at = matchAt(text, 0, first)
  if (pieces.length === 1) return at === text.length
  if (at < 0) return false
  for (let i = 1; i < pieces.length - 1; i++) {
    at = find(text, at, pieces[i]!)
    if (at < 0) return false
  }
  const last = pieces[pieces.length - 1]!
  const start = fromEnd(text, last.points.length)
  return start >= at && matchAt(text, start, last) === text.length
}

/** The end of the leftmost match at or after `from`, or -1. Leftmost is enough: what follows a `%` only gains room. */
function find(text: string, from: number, piece: Piece): number {
  if (piece.literal !== null) {
    const at = text.indexOf(piece.literal, from)
    return at < 0 ? -1 : at + piece.literal.length
  }
  for (let at = from; at <= text.length; at += widthAt(text, at)) {
    const end = matchAt(text, at, piece)
    if (end >= 0) return end
  }
  return -1
}

function matchAt(text: string, from: number, piece: Piece): number {
  if (piece.literal !== null) return text.startsWith(piece.literal, from) ? from + piece.literal.length : -1
  let at = from
  for (const point of piece.points) {
    const found = text.codePointAt(at)
    if (found === undefined || (point !== anyCharacter && point !== found)) return -1
    at += found > 0xffff ? 2 : 1
  }
  return at
}

const widthAt = (text: string, at: number): number => ((text.codePointAt(at) ?? 0) > 0xffff ? 2 : 1)

/** Where the last `count` characters begin, or -1 when there are fewer. */
function fromEnd(text: string, count: number): number {
  let at = text.length
  for (let i = 0; i < count; i++) {
    if (at <= 0) return -1
    const unit = text.charCodeAt(at - 1)
    at -= unit >= 0xdc00 && unit <= 0xdfff ? 2 : 1
  }
  return at
}
