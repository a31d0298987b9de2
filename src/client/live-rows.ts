// The rows of one live query as the client holds them. Strict: what does not fit the rows held is an error, because an
// upsert that shrugs would hide a lost or repeated change from everybody.
import type { DeltaEvent, JsonRow, RowChange, SnapshotEvent } from '../protocol/messages.ts'

export interface Delta {
  readonly changes: readonly RowChange[]
  /** Commit time of the last commit folded in, ISO 8601 with microseconds. */
  readonly committedAt: string
}

/** The server sent what cannot follow from the rows held. The holder clears and asks for a fresh snapshot. */
export class ProtocolError extends Error {
  override readonly name = 'ProtocolError'
}

/** Holds what the query selects and nothing else: its size is the query's, plus the parts of one unfinished delta. */
export class LiveRows {
  readonly #rows = new Map<string, JsonRow>()
  #key: readonly string[] = []
  #parts: RowChange[] = []
  #exact = false
  #list: readonly JsonRow[] | null = null

  /** False from the start, or from `expectSnapshot`, to the last part of a snapshot. */
  get exact(): boolean {
    return this.#exact
  }

  /** The rows in the order they came; a new array after every change. */
  get rows(): readonly JsonRow[] {
    this.#list ??= [...this.#rows.values()]
    return this.#list
  }

  /** Forgets the rows: a snapshot follows. */
  expectSnapshot(): void {
    this.#rows.clear()
    this.#parts = []
    this.#exact = false
    this.#list = null
  }

  /** Names the primary key's columns, before the first event of a (new) subscription. Rows stay. */
  setKey(columns: readonly string[]): void {
    this.#key = columns
    // Parts of a delta that the lost connection did not finish come again, whole.
    this.#parts = []
  }

  /** @returns true when the snapshot is whole */
  snapshot(event: SnapshotEvent): boolean {
    if (this.#exact) throw new ProtocolError('a snapshot came that nobody asked for')
    for (const key of event.gone ?? []) this.#rows.delete(this.#name(key))
    for (const row of event.rows) this.#rows.set(this.#name(row), row)
    this.#list = null
    this.#exact = event.done
    return event.done
  }

  /** @returns the delta once its last part is here, not yet applied; else null */
  collect(event: DeltaEvent): Delta | null {
    this.#parts.push(...event.changes)
    if (!event.done) return null
    const changes = this.#parts
    this.#parts = []
    return { changes, committedAt: event.committedAt }
  }

  /** @throws ProtocolError when a change does not fit; the rows are then worth nothing */
  apply(delta: Delta): void {
    if (!this.#exact) throw new ProtocolError('a delta came before the snapshot was whole')
    this.#list = null
    for (const change of delta.changes) this.#apply(change)
  }

  #apply(change: RowChange): void {
    if (change.op === 'truncate') {
      this.#rows.clear()
      return
    }
    const name = this.#name(change.key)
    const held = this.#rows.get(name)
    switch (change.op) {
      case 'insert':
        if (held !== undefined) throw new ProtocolError(`insert of the known key ${name}`)
        this.#rows.set(name, change.row)
        return
      case 'update':
        if (held === undefined) throw new ProtocolError(`update of the unknown key ${name}`)
        this.#rows.set(name, { ...held, ...change.set })
        return
      case 'delete':
        if (held === undefined) throw new ProtocolError(`delete of the unknown key ${name}`)
        this.#rows.delete(name)
        return
      default:
        throw new ProtocolError(`a change with the unknown op ${JSON.stringify((change as { op: unknown }).op)}`)
    }
  }

  #name(row: JsonRow): string {
    return JSON.stringify(
      this.#key.map(column => {
        const value = row[column]
        if (value === undefined) throw new ProtocolError(`a row without its key column "${column}"`)
        return value
      }),
    )
  }
}
