// LIKE and ILIKE exactly as Postgres matches: `_` is one character (not one UTF-16 unit), `\` escapes, and no regular
// expression that a client could make explode: pieces between `%` are searched from the left, once each.
import type { SqlType } from './algebra.ts'
import { rememberLong } from './remember-long.ts'
import { ValueError } from './value-error.ts'

export type Matcher = (text: string) => boolean

/** One piece between two `%`: code points, with `anyCharacter` for `_`. */
interface Piece {
  readonly points: readonly number[]
  /** The piece as text when it has no `_`, for `indexOf`. */
  readonly literal: string | null
  /** How many `_` it begins and ends with. */
  readonly leading: number
  readonly trailing: number
  /** What stands between them, when no `_` does. */
  readonly core: string | null
  /** Made when it is first looked for. */
  bits?: Bits
}

const anyCharacter = -1

/** @param fold applied to pattern and text before matching (ILIKE)
 *  @throws ValueError when the pattern ends in an escape: Postgres raises on it */
export function likeMatcher(pattern: string, fold: ((text: string) => string) | null): Matcher {
  const pieces = piecesOf(fold === null ? pattern : fold(pattern))
  if (fold === null) return text => matches(text, pieces)
  return text => matches(fold(text), pieces)
}

type Fold = (text: string) => string

const folds = new WeakMap<ReadonlyMap<string, string>, Fold>()

/** lower() of a collation, or null when only Postgres knows it. */
export function foldOf(type: SqlType): Fold | null {
  const lower = type.lower
  if (lower === undefined) return type.collation === 'c' ? foldAscii : null
  let fold = folds.get(lower)
  if (fold === undefined) {
    fold = rememberLong(text => Array.from(text, char => lower.get(char) ?? char).join(''))
    folds.set(lower, fold)
  }
  return fold
}

/** Whether each letter of ASCII folds to that of the other case alone, as in C; not in Turkish. False where only Postgres knows. */
export function foldsAsciiAsC({ lower, collation }: SqlType): boolean {
  if (lower === undefined) return collation === 'c'
  return Array.from('ABCDEFGHIJKLMNOPQRSTUVWXYZ').every(letter => lower.get(letter) === letter.toLowerCase())
}

const foldAscii = rememberLong(text => text.replace(/[A-Z]+/g, letters => letters.toLowerCase()))

function piecesOf(pattern: string): Piece[] {
  const pieces: Piece[] = []
  let points: number[] = []
  const finish = (): void => {
    pieces.push(pieceOf(points))
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

function pieceOf(points: readonly number[]): Piece {
  const first = points.findIndex(point => point !== anyCharacter)
  const leading = first < 0 ? points.length : first
  const trailing = first < 0 ? 0 : points.length - 1 - points.findLastIndex(point => point !== anyCharacter)
  const inner = points.slice(leading, points.length - trailing)
  const core = inner.includes(anyCharacter) ? null : String.fromCodePoint(...inner)
  return { points, literal: leading + trailing === 0 ? core : null, leading, trailing, core }
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
  const start = forward(text, from, piece.leading)
  if (start < 0) return -1
  const end = piece.core === null ? findScattered(text, start, piece) : findLiteral(text, start, piece.core)
  return end < 0 ? -1 : forward(text, end, piece.trailing)
}

function findLiteral(text: string, from: number, core: string): number {
  const at = text.indexOf(core, from)
  return at < 0 ? -1 : at + core.length
}

// `_` between other characters: bit i of the state is set while the piece's first i + 1 characters match what was just
// read (Shift-And, Baeza-Yates and Gonnet 1992), so that each character of the text is looked at once. Trying the piece
// at every place took a second for 250 characters over a value of 1 MB, for each subscription and row.
function findScattered(text: string, from: number, piece: Piece): number {
  piece.bits ??= bitsOf(piece.points.slice(piece.leading, piece.points.length - piece.trailing))
  const { masks, others, last } = piece.bits
  const words = others.length
  const state = new Uint32Array(words)
  for (let at = from; at < text.length; ) {
    const point = text.codePointAt(at)!
    at += point > 0xffff ? 2 : 1
    const mask = masks.get(point) ?? others
    let carry = 1
    for (let word = 0; word < words; word++) {
      const bits = state[word]!
      state[word] = ((bits << 1) | carry) & mask[word]!
      carry = bits >>> 31
    }
    if ((state[words - 1]! & last) !== 0) return at
  }
  return -1
}

interface Bits {
  /** Where each character of the piece may stand. */
  readonly masks: ReadonlyMap<number, Uint32Array>
  /** Where any other may: at the `_`. */
  readonly others: Uint32Array
  /** The bit of the piece's end, in the last word. */
  readonly last: number
}

function bitsOf(points: readonly number[]): Bits {
  const others = new Uint32Array(Math.ceil(points.length / 32))
  const set = (mask: Uint32Array, bit: number): void => {
    mask[bit >>> 5]! |= 1 << (bit & 31)
  }
  for (const [bit, point] of points.entries()) if (point === anyCharacter) set(others, bit)
  const masks = new Map<number, Uint32Array>()
  for (const [bit, point] of points.entries()) {
    if (point === anyCharacter) continue
    if (!masks.has(point)) masks.set(point, others.slice())
    set(masks.get(point)!, bit)
  }
  return { masks, others, last: 1 << ((points.length - 1) & 31) }
}

/** Where the next `count` characters end, or -1 when there are fewer. */
function forward(text: string, from: number, count: number): number {
  let at = from
  for (let i = 0; i < count; i++) {
    if (at >= text.length) return -1
    at += widthAt(text, at)
  }
  return at
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
