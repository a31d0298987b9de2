// Reads by key that many ask for at once, made together: a thousand readers who come back after a restart each ask for
// their own memberships, and a transaction that makes a thousand people members of a room moves the same rows for each.
//
// What is asked for while nothing is being read goes out at the end of the turn of the event loop; what is asked for while a
// read of the same table by the same columns is under way waits for it, and then goes out together.
import { keyFunctionOf } from '../../predicate/compare.ts'
import { joinText } from '../../predicate/join-key.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Table } from '../catalog/table.ts'
import type { TextRow } from '../postgres/database.ts'
import type { FencedRows, RowMatch, SnapshotReader } from './reader.ts'

interface Request {
  readonly keys: readonly (readonly (string | null)[])[]
  readonly limit: number
  readonly resolve: (rows: FencedRows) => void
  readonly reject: (error: unknown) => void
}

interface Lane {
  readonly table: Table
  readonly columns: readonly number[]
  readonly keyOf: (values: readonly (string | null)[]) => string | null
  waiting: Request[]
  isReading: boolean
}

/** Keys of one query. */
const maxKeys = 5000
/** Rows of one query, unless somebody alone may have more. */
const maxRowsTogether = 200_000

export class SharedReads {
  readonly #reader: SnapshotReader
  readonly #lanes = new Map<Table, Map<string, Lane>>()

  constructor(reader: SnapshotReader) {
    this.#reader = reader
  }

  /** As `SnapshotReader.asLogin`, perhaps together with what others ask for. The rows and no others are given. */
  asLogin(table: Table, match: RowMatch | null, limit: number): Promise<FencedRows> {
    const keyOf = match === null || match.columns.length === 0 ? null : keyingOf(table, match.columns)
    if (match === null || keyOf === null || match.keys.length > maxKeys)
      return this.#reader.asLogin(table, match, limit)
    return new Promise((resolve, reject) => {
      const lane = this.#laneOf(table, match.columns, keyOf)
      lane.waiting.push({ keys: match.keys, limit, resolve, reject })
      if (!lane.isReading) {
        lane.isReading = true
        setImmediate(() => void this.#read(lane))
      }
    })
  }

  #laneOf(table: Table, columns: readonly number[], keyOf: Lane['keyOf']): Lane {
    let lanes = this.#lanes.get(table)
    if (lanes === undefined) {
      lanes = new Map()
      this.#lanes.set(table, lanes)
    }
    let lane = lanes.get(columns.join(','))
    if (lane === undefined) {
      lane = { table, columns, keyOf, waiting: [], isReading: false }
      lanes.set(columns.join(','), lane)
    }
    return lane
  }

  async #read(lane: Lane): Promise<void> {
    while (lane.waiting.length > 0) await this.#readTogether(lane, takeBatch(lane))
    lane.isReading = false
    const lanes = this.#lanes.get(lane.table)
    lanes?.delete(lane.columns.join(','))
    if (lanes?.size === 0) this.#lanes.delete(lane.table)
  }

  async #readTogether({ table, columns, keyOf }: Lane, requests: readonly Request[]): Promise<void> {
    const limits = requests.map(request => request.limit)
    const limit = Math.min(
      limits.reduce((sum, each) => sum + each),
      Math.max(...limits, maxRowsTogether),
    )
    const keys = new Map<string, readonly (string | null)[]>()
    try {
      for (const request of requests)
        for (const values of request.keys) {
          const key = keyOf(values)
          if (key !== null) keys.set(key, values)
        }
      const read = await this.#reader.asLogin(table, { columns, keys: [...keys.values()] }, limit)
      if (read.rows.length >= limit && requests.length > 1) {
        // Cut short: nobody can tell whose rows are missing.
        for (const request of requests) await this.#readAlone(table, columns, request)
        return
      }
      const byKey = new Map<string, TextRow[]>()
      for (const row of read.rows) {
        const key = keyOf(columns.map(column => row[column] ?? null))!
        const rows = byKey.get(key)
        if (rows === undefined) byKey.set(key, [row])
        else rows.push(row)
      }
      for (const request of requests) {
        const wanted = new Set(request.keys.map(keyOf))
        const rows = [...wanted].flatMap(key => (key === null ? [] : (byKey.get(key) ?? [])))
        request.resolve({ ...read, rows })
      }
    } catch (error) {
      // What one of them asks for may be what fails.
      if (requests.length > 1 && !isCommon(error))
        for (const request of requests) await this.#readAlone(table, columns, request)
      else for (const request of requests) request.reject(error)
    }
  }

  async #readAlone(table: Table, columns: readonly number[], { keys, limit, resolve, reject }: Request): Promise<void> {
    await this.#reader.asLogin(table, { columns, keys }, limit).then(resolve, reject)
  }
}

const isCommon = (error: unknown): boolean =>
  error instanceof TidegateError && ['INDEX_NOT_READABLE', 'UNAVAILABLE', 'BUSY'].includes(error.code)

function takeBatch(lane: Lane): Request[] {
  const batch: Request[] = []
  let keys = 0
  for (const request of lane.waiting) {
    keys += request.keys.length
    if (batch.length > 0 && keys > maxKeys) break
    batch.push(request)
  }
  lane.waiting = lane.waiting.slice(batch.length)
  return batch
}

/** Null for types whose equality only Postgres knows. */
function keyingOf(table: Table, columns: readonly number[]): Lane['keyOf'] | null {
  try {
    const functions = columns.map(column => keyFunctionOf(table.columns[column]!.type))
    return values => {
      const parts: string[] = []
      for (const [i, value] of values.entries()) {
        if (value === null) return null
        parts.push(functions[i]!(value))
      }
      return joinText(parts)
    }
  } catch (error) {
    if (error instanceof TidegateError) return null
    throw error
  }
}
