// Reads one pgoutput message, protocol version 1: a table of decoders keyed by the message's letter.
// Source: PostgreSQL manual, Logical Replication Message Formats. Rows stay bytes: see tuple.ts.
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { RelationColumn } from './change.ts'

export type PgoutputMessage =
  /** `finalLsn` is the commit's LSN; micros count from 2000-01-01 UTC; xid is 32-bit, unsigned. */
  | { readonly kind: 'begin'; readonly finalLsn: bigint; readonly committedAtMicros: bigint; readonly xid: number }
  | {
      readonly kind: 'commit'
      readonly commitLsn: bigint
      readonly endLsn: bigint
      readonly committedAtMicros: bigint
    }
  | { readonly kind: 'origin'; readonly lsn: bigint; readonly name: string }
  | RelationMessage
  | { readonly kind: 'type'; readonly oid: number; readonly schema: string; readonly name: string }
  /** `newAt`, `oldAt`: where the TupleData begins in the message's bytes. */
  | { readonly kind: 'insert'; readonly relationOid: number; readonly newAt: number }
  | {
      readonly kind: 'update'
      readonly relationOid: number
      /** `K`: identity columns only. `O`: the whole old row. null: the identity is unchanged, or the row is not sent. */
      readonly oldKind: 'K' | 'O' | null
      readonly oldAt: number
      readonly newAt: number
    }
  | { readonly kind: 'delete'; readonly relationOid: number; readonly oldKind: 'K' | 'O'; readonly oldAt: number }
  | {
      readonly kind: 'truncate'
      readonly relationOids: readonly number[]
      readonly cascade: boolean
      readonly restartIdentity: boolean
    }
  | {
      readonly kind: 'message'
      readonly transactional: boolean
      readonly lsn: bigint
      readonly prefix: string
      /** A view into the message's bytes. */
      readonly content: Buffer
    }

export interface RelationMessage {
  readonly kind: 'relation'
  readonly oid: number
  readonly schema: string
  readonly name: string
  readonly replicaIdentity: 'default' | 'nothing' | 'full' | 'index'
  readonly columns: readonly RelationColumn[]
}

/** @param bytes one whole message, as one CopyData carries it, without the XLogData header
 *  @throws WAL_UNREADABLE for an unknown letter and for bytes that end too early */
export function decodeMessage(bytes: Buffer): PgoutputMessage {
  const decode = decoders.get(bytes[0] ?? 0)
  if (decode === undefined) throw unreadable(`the letter ${letterOf(bytes[0])} is unknown`, bytes)
  try {
    return decode(new Reader(bytes))
  } catch (cause) {
    if (cause instanceof TidegateError) throw cause
    throw unreadable('it ends too early', bytes, cause)
  }
}

const decoders: ReadonlyMap<number, (reader: Reader) => PgoutputMessage> = new Map(
  Object.entries({
    B: (reader: Reader): PgoutputMessage => ({
      kind: 'begin',
      finalLsn: reader.uint64(),
      committedAtMicros: reader.int64(),
      xid: reader.uint32(),
    }),

    C: (reader: Reader): PgoutputMessage => {
      reader.uint8() // flags, none defined
      const commitLsn = reader.uint64()
      return { kind: 'commit', commitLsn, endLsn: reader.uint64(), committedAtMicros: reader.int64() }
    },

    O: (reader: Reader): PgoutputMessage => ({ kind: 'origin', lsn: reader.uint64(), name: reader.string() }),

    R: (reader: Reader): PgoutputMessage => {
      const oid = reader.uint32()
      const schema = reader.string() || 'pg_catalog' // sent empty for pg_catalog
      const name = reader.string()
      const letter = reader.letter()
      const replicaIdentity = identities.get(letter)
      if (replicaIdentity === undefined) throw reader.unreadable(`replica identity '${letter}' is unknown`)
      const columns: RelationColumn[] = []
      for (let count = reader.uint16(); count > 0; count--) {
        const identity = (reader.uint8() & 1) === 1
        columns.push({ identity, name: reader.string(), typeOid: reader.uint32(), typeModifier: reader.int32() })
      }
      return { kind: 'relation', oid, schema, name, replicaIdentity, columns }
    },

    Y: (reader: Reader): PgoutputMessage => {
      const oid = reader.uint32()
      return { kind: 'type', oid, schema: reader.string() || 'pg_catalog', name: reader.string() }
    },

    I: (reader: Reader): PgoutputMessage => {
      const relationOid = reader.uint32()
      reader.expect('N')
      return { kind: 'insert', relationOid, newAt: reader.at }
    },

    U: (reader: Reader): PgoutputMessage => {
      const relationOid = reader.uint32()
      const letter = reader.letter()
      if (letter === 'N') return { kind: 'update', relationOid, oldKind: null, oldAt: -1, newAt: reader.at }
      if (letter !== 'K' && letter !== 'O') throw reader.unreadable(`an update's tuple '${letter}' is unknown`)
      const oldAt = reader.at
      reader.at = endOfTuple(reader.bytes, oldAt)
      reader.expect('N')
      return { kind: 'update', relationOid, oldKind: letter, oldAt, newAt: reader.at }
    },

    D: (reader: Reader): PgoutputMessage => {
      const relationOid = reader.uint32()
      const letter = reader.letter()
      if (letter !== 'K' && letter !== 'O') throw reader.unreadable(`a delete's tuple '${letter}' is unknown`)
      return { kind: 'delete', relationOid, oldKind: letter, oldAt: reader.at }
    },

    T: (reader: Reader): PgoutputMessage => {
      const count = reader.uint32()
      const options = reader.uint8()
      const relationOids: number[] = []
      for (let index = 0; index < count; index++) relationOids.push(reader.uint32())
      return { kind: 'truncate', relationOids, cascade: (options & 1) !== 0, restartIdentity: (options & 2) !== 0 }
    },

    M: (reader: Reader): PgoutputMessage => {
      const transactional = (reader.uint8() & 1) === 1
      const lsn = reader.uint64()
      const prefix = reader.string()
      return { kind: 'message', transactional, lsn, prefix, content: reader.slice(reader.uint32()) }
    },
  }).map(([letter, decode]) => [letter.charCodeAt(0), decode]),
)

const identities: ReadonlyMap<string, RelationMessage['replicaIdentity']> = new Map([
  ['d', 'default'],
  ['n', 'nothing'],
  ['f', 'full'],
  ['i', 'index'],
])

/** Kinds of a column in TupleData. `b` (binary) comes only when asked for, and we never ask. */
export const nullColumn = 0x6e
export const unchangedColumn = 0x75
export const textColumn = 0x74

/** Finds where each column of a TupleData begins: its kind byte, then for text a length (uint32 BE) and the value.
 *  @param starts filled with one offset per column
 *  @returns where the TupleData ends
 *  @throws WAL_UNREADABLE */
export function columnStarts(bytes: Buffer, at: number, starts: number[]): number {
  const count = (bytes[at]! << 8) | bytes[at + 1]!
  let next = at + 2
  for (let column = 0; column < count; column++) {
    starts.push(next)
    const kind = bytes[next]
    if (kind === textColumn) next += 5 + lengthAt(bytes, next + 1)
    else if (kind === nullColumn || kind === unchangedColumn) next += 1
    else throw unreadable(`column ${column} is of the unknown kind ${letterOf(kind)}`, bytes)
  }
  if (next > bytes.length) throw unreadable('its last column ends too early', bytes)
  return next
}

/** Unsigned 32 bits. Unlike `readUInt32BE` it takes missing bytes for 0, so that a short message meets the caller's own
 *  check and its error names the message. As fast: 4 ns a column. */
export const lengthAt = (bytes: Buffer, at: number): number =>
  ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0

export function unreadable(what: string, bytes: Buffer, cause?: unknown): TidegateError {
  const start = bytes.toString('hex', 0, 5)
  const message = `cannot read a replication message of ${bytes.length} bytes (${start}...): ${what}; report it with the versions of Postgres and Tidegate`
  return new TidegateError('WAL_UNREADABLE', message, { cause })
}

const endOfTuple = (bytes: Buffer, at: number): number => columnStarts(bytes, at, [])

function letterOf(byte: number | undefined): string {
  if (byte === undefined) return '(none)'
  return byte > 0x20 && byte < 0x7f ? `'${String.fromCharCode(byte)}'` : `0x${byte.toString(16)}`
}

/** A cursor over a message, past its letter. Reading past the end throws a RangeError. */
class Reader {
  readonly bytes: Buffer
  at = 1

  constructor(bytes: Buffer) {
    this.bytes = bytes
  }

  uint8(): number {
    return this.bytes.readUInt8(this.#skip(1))
  }

  uint16(): number {
    return this.bytes.readUInt16BE(this.#skip(2))
  }

  uint32(): number {
    return this.bytes.readUInt32BE(this.#skip(4))
  }

  int32(): number {
    return this.bytes.readInt32BE(this.#skip(4))
  }

  uint64(): bigint {
    return this.bytes.readBigUInt64BE(this.#skip(8))
  }

  int64(): bigint {
    return this.bytes.readBigInt64BE(this.#skip(8))
  }

  letter(): string {
    return String.fromCharCode(this.uint8())
  }

  expect(letter: string): void {
    const found = this.letter()
    if (found !== letter) throw this.unreadable(`'${found}' stands where '${letter}' should`)
  }

  /** UTF-8, ended by a zero byte. */
  string(): string {
    const end = this.bytes.indexOf(0, this.at)
    if (end < 0) throw new RangeError('no zero byte')
    const text = this.bytes.toString('utf8', this.at, end)
    this.at = end + 1
    return text
  }

  slice(length: number): Buffer {
    const start = this.#skip(length)
    if (this.at > this.bytes.length) throw new RangeError('content past the end')
    return this.bytes.subarray(start, this.at)
  }

  unreadable(what: string): TidegateError {
    return unreadable(what, this.bytes)
  }

  #skip(count: number): number {
    const start = this.at
    this.at += count
    return start
  }
}
