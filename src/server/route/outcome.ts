// What a commit (or several, folded) is for an audience, in bytes. Each distinct list of (row, op) of one query is encoded
// once: every audience with the same list gets the same Outgoing.

import type { Row } from '../../predicate/algebra.ts'
import { type Position, WHOLE_COMMIT } from '../../protocol/position.ts'
import type { Op } from '../authorize/visibility.ts'
import {
  deleteJson,
  insertJson,
  isoOf,
  isWhole,
  keyJson,
  objectJson,
  partsOf,
  truncateJson,
  updateJson,
} from './encode.ts'
import { Outgoing } from './outgoing.ts'
import type { Query } from './query.ts'

/** A row's two ends: a FoldedRow, or one that moved into or out of view untouched. */
export interface RowEnds {
  readonly key: string
  readonly old: Row | null
  readonly new: Row | null
  readonly lastIndex: number
  readonly carried: boolean
}

export interface Outcome {
  readonly op: Op
  readonly row: RowEnds
}

/** Whether the reader holds none of the values that the WAL left out: it sees the row for the first time, or another row
 *  took the key over. They must be read first. */
export const lacksValues = (query: Query, { op, row }: Outcome): boolean =>
  (op === 'insert' || (op === 'update' && row.carried)) && !isWhole(query, row.new!)

export class OutcomeEncoder {
  readonly #epoch: string
  readonly #lsn: bigint
  readonly #sinceLsn: bigint
  readonly #committedAt: string
  readonly #ordinals = new Map<RowEnds, number>()
  readonly #deltas = new Map<string, readonly Outgoing[]>()
  readonly #rows = new Map<string, string | null>()
  /** What was encoded last: of a row's audiences, most have one query and share a list. */
  #last: {
    readonly query: Query
    readonly truncated: boolean
    readonly outcomes: readonly Outcome[]
    readonly events: readonly Outgoing[]
  } | null = null

  /** @param span commit LSNs: after `since`, up to `lsn`
   *  @param committedAtMicros as the wire has it, of the last commit folded in */
  constructor(epoch: string, span: { readonly since: bigint; readonly lsn: bigint }, committedAtMicros: bigint) {
    this.#epoch = epoch
    this.#lsn = span.lsn
    this.#sinceLsn = span.since
    this.#committedAt = isoOf(committedAtMicros)
  }

  get lsn(): bigint {
    return this.#lsn
  }

  /** What the query's readers are told; see `delta` and `changes`. */
  encode(query: Query, truncated: boolean, outcomes: readonly Outcome[]): readonly Outgoing[] {
    const last = this.#last
    if (last?.outcomes === outcomes && last.query === query && last.truncated === truncated) return last.events
    const events =
      query.kind === 'live' ? this.delta(query, truncated, outcomes) : this.changes(query, truncated, outcomes)
    this.#last = { query, truncated, outcomes, events }
    return events
  }

  /** The delta of a live query; empty when nothing that it shows has changed. */
  delta(query: Query, truncated: boolean, outcomes: readonly Outcome[]): readonly Outgoing[] {
    const signature = this.#signature(query, truncated, outcomes)
    let delta = this.#deltas.get(signature)
    if (delta === undefined) {
      const items = truncated ? [truncateJson] : []
      // Retractions first: nobody holds, even halfway through a delta, more than it may.
      for (const isDelete of [true, false]) {
        for (const outcome of outcomes) {
          if ((outcome.op === 'delete') !== isDelete) continue
          const json = this.#changeJson(query, outcome)
          if (json !== null) items.push(json)
        }
      }
      delta = this.deltaOf(items)
      this.#deltas.set(signature, delta)
    }
    return delta
  }

  /** A part of a delta whose rest follows; `position` only with the last. */
  part(items: readonly string[], done: boolean, isFirst: boolean): Outgoing {
    const json = `{"done":${done},"changes":[${items.join(',')}],"committedAt":"${this.#committedAt}"}`
    return new Outgoing('delta', json, done ? this.#position(WHOLE_COMMIT) : null, isFirst ? this.#sinceLsn : null)
  }

  /** One event each, in the order of the commit's raw changes. */
  changes(query: Query, truncated: boolean, outcomes: readonly Outcome[]): readonly Outgoing[] {
    const signature = this.#signature(query, truncated, outcomes)
    let events = this.#deltas.get(signature)
    if (events === undefined) {
      // Rows are folded in the order of their first change. By the last, positions rise from event to event: else who is
      // cut after one would resume past another.
      const wanted = outcomes.filter(({ op }) => query.events === null || query.events.has(op)).sort(byOrdinal)
      events = wanted.map(outcome => this.change(query, outcome))
      if (truncated) events = [this.#event(query, 'truncate', '', 0), ...events]
      this.#deltas.set(signature, events)
    }
    return events
  }

  change(query: Query, { op, row }: Outcome): Outgoing {
    const { table, columns } = query
    let fields = `,"key":${keyJson(table, row.new !== null && op !== 'delete' ? row.new : row.old!)}`
    if (op !== 'delete') fields += `,"new":${objectJson(table, columns, row.new!)}`
    if (op !== 'insert') fields += `,"old":${objectJson(table, columns, row.old!)}`
    return this.#event(query, op, fields, ordinalOfEvent(row), op === 'insert' && (row.old !== null || row.carried))
  }

  #signature(query: Query, truncated: boolean, outcomes: readonly Outcome[]): string {
    let signature = `${query.number}${truncated ? 't' : ':'}`
    for (const { op, row } of outcomes) signature += `${this.#ordinalOf(row)}${op[0]}`
    return signature
  }

  #event(query: Query, op: string, fields: string, ordinal: number, existed = false): Outgoing {
    const { schema, name } = query.table
    const where = `"schema":${JSON.stringify(schema)},"table":${JSON.stringify(name)}`
    const json = `{"op":"${op}",${where}${fields},"committedAt":"${this.#committedAt}"}`
    return new Outgoing('change', json, this.#position(ordinal + 1), null, existed)
  }

  #changeJson(query: Query, outcome: Outcome): string | null {
    const name = `${query.number}:${this.#ordinalOf(outcome.row)}${outcome.op[0]}`
    let json = this.#rows.get(name)
    if (json === undefined) {
      json = changeJson(query, outcome)
      this.#rows.set(name, json)
    }
    return json
  }

  /** The delta of these changes, as JSON; empty when there are none. */
  deltaOf(changes: readonly string[]): readonly Outgoing[] {
    if (changes.length === 0) return []
    const parts = partsOf(changes)
    return parts.map((part, i) => this.part(part, i === parts.length - 1, i === 0))
  }

  /** The same of a window, whose readers are few and whose neighbours often show the same. */
  windowDelta(query: Query, changes: readonly string[]): readonly Outgoing[] {
    if (changes.length === 0) return []
    const signature = `${query.number}${changes.join()}`
    let delta = this.#deltas.get(signature)
    if (delta === undefined) {
      delta = this.deltaOf(changes)
      this.#deltas.set(signature, delta)
    }
    return delta
  }

  /** A row as the query shows it, made once for all whose windows take it. */
  rowJson(query: Query, row: RowEnds): string {
    const name = `${query.number}:${this.#ordinalOf(row)}`
    let json = this.#rows.get(name)
    if (json == null) {
      json = objectJson(query.table, query.columns, row.new!)
      this.#rows.set(name, json)
    }
    return json
  }

  #ordinalOf(row: RowEnds): number {
    let ordinal = this.#ordinals.get(row)
    if (ordinal === undefined) {
      ordinal = this.#ordinals.size
      this.#ordinals.set(row, ordinal)
    }
    return ordinal
  }

  #position(index: number): Position {
    return { epoch: this.#epoch, lsn: this.#lsn, index }
  }
}

/** null when nothing that the query shows has changed. */
export function changeJson(query: Query, { op, row }: Outcome): string | null {
  if (op === 'insert') return insertJson(query, row.new!)
  if (op === 'delete') return deleteJson(query, row.old!)
  return updateJson(query, row.old!, row.new!)
}

/** Numbers the events of a commit so that each has its own: a changed key is two events of one raw change, the delete of
 *  the old key before the insert of the new. */
export const ordinalOfEvent = (row: RowEnds): number => row.lastIndex * 2 + 1 + (row.new === null ? 0 : 1)

const byOrdinal = (a: Outcome, b: Outcome): number => ordinalOfEvent(a.row) - ordinalOfEvent(b.row)
