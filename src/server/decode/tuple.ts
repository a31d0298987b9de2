// A row version, read from the wire's bytes when somebody asks for a column, never before.
import type { Relation, Tuple } from './change.ts'
import { columnStarts, lengthAt, textColumn, unchangedColumn, unreadable } from './pgoutput.ts'

/** One TupleData in a message's bytes. Keeps the message alive; copies nothing. */
export class WireTuple implements Tuple {
  readonly relation: Relation
  /** True for old rows of a relation without REPLICA IDENTITY FULL: Postgres sends null outside the identity, which
   *  means unknown. Taken for NULL it would satisfy `deleted_at IS NULL` and show a row to who may not see it. */
  readonly identityOnly: boolean
  readonly #bytes: Buffer
  readonly #at: number
  #starts: number[] | null = null
  #unknown = false
  #end = 0

  /** @param at where the TupleData begins: the number of columns, uint16 BE */
  constructor(relation: Relation, bytes: Buffer, at: number, identityOnly = false) {
    this.relation = relation
    this.identityOnly = identityOnly
    this.#bytes = bytes
    this.#at = at
  }

  text(column: number): string | null | undefined {
    const start = (this.#starts ?? this.#scan())[column]
    if (start === undefined || this.#outsideIdentity(column)) return undefined
    const bytes = this.#bytes
    const kind = bytes[start]
    if (kind === textColumn) return sliceText(bytes, start + 5, start + 5 + lengthAt(bytes, start + 1))
    return kind === unchangedColumn ? undefined : null
  }

  /** The value's bytes, UTF-8, as a view into the message; null and undefined as in `text`. */
  bytes(column: number): Buffer | null | undefined {
    const start = (this.#starts ?? this.#scan())[column]
    if (start === undefined || this.#outsideIdentity(column)) return undefined
    const bytes = this.#bytes
    const kind = bytes[start]
    if (kind === textColumn) return bytes.subarray(start + 5, start + 5 + lengthAt(bytes, start + 1))
    return kind === unchangedColumn ? undefined : null
  }

  /** True when some column is undefined. */
  get partial(): boolean {
    if (this.#starts === null) this.#scan()
    return this.#unknown || (this.identityOnly && this.relation.columns.some(column => !column.identity))
  }

  /** Where the TupleData ends in the message. */
  get end(): number {
    if (this.#starts === null) this.#scan()
    return this.#end
  }

  /** Whether two wire tuples hold the same bytes in a column, both known. Decodes and allocates nothing. */
  equals(other: WireTuple, column: number): boolean {
    const start = (this.#starts ?? this.#scan())[column]!
    const otherStart = (other.#starts ?? other.#scan())[column]!
    const kind = this.#bytes[start]
    if (kind !== other.#bytes[otherStart]) return false
    if (kind !== textColumn) return true
    const length = lengthAt(this.#bytes, start + 1)
    if (length !== lengthAt(other.#bytes, otherStart + 1)) return false
    const from = otherStart + 5
    return this.#bytes.compare(other.#bytes, from, from + length, start + 5, start + 5 + length) === 0
  }

  #outsideIdentity(column: number): boolean {
    return this.identityOnly && !this.relation.columns[column]!.identity
  }

  #scan(): number[] {
    const starts: number[] = []
    this.#end = columnStarts(this.#bytes, this.#at, starts)
    const { columns, schema, name } = this.relation
    if (starts.length !== columns.length)
      throw unreadable(`${starts.length} columns for ${schema}.${name}, which has ${columns.length}`, this.#bytes)
    for (const start of starts) if (this.#bytes[start] === unchangedColumn) this.#unknown = true
    this.#starts = starts
    return starts
  }
}

/** A row that a query returned: values in the relation's column order. */
export class RowTuple implements Tuple {
  readonly relation: Relation
  readonly values: readonly (string | null | undefined)[]

  constructor(relation: Relation, values: readonly (string | null | undefined)[]) {
    this.relation = relation
    this.values = values
  }

  text(column: number): string | null | undefined {
    return this.values[column]
  }
}

/** The part of a row version that the given columns cover; all others are undefined. */
export class PartialTuple implements Tuple {
  readonly relation: Relation
  readonly #tuple: Tuple
  readonly #known: (column: number) => boolean

  constructor(tuple: Tuple, known: (column: number) => boolean) {
    this.relation = tuple.relation
    this.#tuple = tuple
    this.#known = known
  }

  text(column: number): string | null | undefined {
    return this.#known(column) ? this.#tuple.text(column) : undefined
  }
}

/** What an update without an old tuple says of the old row: its identity columns are those of the new one. Under FULL
 *  Postgres always sends an old tuple, so a missing one means that nothing is known. */
export function identityView(tuple: Tuple): Tuple {
  const { columns, replicaIdentity } = tuple.relation
  if (replicaIdentity === 'full') return new PartialTuple(tuple, () => false)
  return new PartialTuple(tuple, column => columns[column]?.identity === true)
}

/** The tuple, with its undefined columns taken from another version of the same row: an unchanged TOAST value. Where
 *  the two were read under relations that differ in that column, it stays undefined. */
export function overlay(tuple: Tuple, fallback: Tuple): Tuple {
  if (tuple instanceof WireTuple && !tuple.partial) return tuple
  const sources: Tuple[] = []
  let filled = false
  for (let column = 0; column < tuple.relation.columns.length; column++) {
    const own = sourceOf(tuple, column)
    sources.push(own)
    if (own.text(column) !== undefined || !sameColumn(tuple.relation, fallback.relation, column)) continue
    const source = sourceOf(fallback, column)
    if (source.text(column) === undefined) continue
    sources[column] = source
    filled = true
  }
  return filled ? new OverlayTuple(tuple.relation, sources) : tuple
}

/** Each column from its own version. Names the versions that hold the values, never another overlay: else a row that is
 *  updated a million times in a range would keep a chain of a million tuples alive. */
class OverlayTuple implements Tuple {
  readonly relation: Relation
  readonly sources: readonly Tuple[]

  constructor(relation: Relation, sources: readonly Tuple[]) {
    this.relation = relation
    this.sources = sources
  }

  text(column: number): string | null | undefined {
    return this.sources[column]?.text(column)
  }
}

const sourceOf = (tuple: Tuple, column: number): Tuple =>
  tuple instanceof OverlayTuple ? tuple.sources[column]! : tuple

function sameColumn(a: Relation, b: Relation, column: number): boolean {
  if (a === b) return true
  const [left, right] = [a.columns[column], b.columns[column]]
  return left !== undefined && left.name === right?.name && left.typeOid === right.typeOid
}

/** Whether a column has the same value in both versions, by its text form; undefined when one of them is unknown. */
export function sameValue(a: Tuple, b: Tuple, column: number): boolean | undefined {
  const [left, right] = [sourceOf(a, column), sourceOf(b, column)]
  if (left instanceof WireTuple && right instanceof WireTuple && isKnown(left, column) && isKnown(right, column))
    return left.equals(right, column)
  const [leftText, rightText] = [left.text(column), right.text(column)]
  return leftText === undefined || rightText === undefined ? undefined : leftText === rightText
}

const isKnown = (tuple: WireTuple, column: number): boolean =>
  !tuple.identityOnly && !tuple.partial && column < tuple.relation.columns.length

/** Decodes UTF-8. A call into Node's decoder costs 50 ns whatever the length; a short ASCII value (most keys) 8 to 20. */
function sliceText(bytes: Buffer, start: number, end: number): string {
  if (end - start > 6) return bytes.toString('utf8', start, end)
  let text = ''
  for (let at = start; at < end; at++) {
    const byte = bytes[at]!
    if (byte > 0x7f) return bytes.toString('utf8', start, end)
    text += String.fromCharCode(byte)
  }
  return text
}
