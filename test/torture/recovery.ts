// How long it takes until all whom a fault concerned are told again of what was committed since.
import type { Client } from '../checker/client.ts'

export interface FaultRecord {
  readonly number: number
  /** As it is counted. */
  readonly name: string
  /** Milliseconds since the run began. */
  readonly atMs: number
  /** When nothing of it was left: all started, resumed, open. Null until then. */
  overMs: number | null
  /** Clients that it concerned. */
  affected: number
  /** From its beginning until all of them had been told of something committed after it began; null until then. */
  recoveryMs: number | null
  /** The node that it befell. */
  readonly node: string | null
  /** Of whom it took longest to be told, if that was long: who it was, and what it had been told by then, newest last. */
  slowest: readonly string[]
}

/** Longer than this after the fault was over is worth a look. */
const longMs = 10_000

interface Awaited {
  readonly record: FaultRecord
  readonly mark: bigint
  readonly clients: Set<Client>
}

export class Recovery {
  readonly records: FaultRecord[] = []
  #awaited: Awaited[] = []
  readonly #begunAt = performance.now()

  /** Milliseconds since the run began. */
  get nowMs(): number {
    return Math.round(performance.now() - this.#begunAt)
  }

  /** @param mark where the WAL ended; what is told past it, was committed after the fault began */
  begin(fault: Pick<FaultRecord, 'number' | 'name' | 'node'>, clients: Iterable<Client>, mark: bigint): FaultRecord {
    const concerned = new Set([...clients].filter(waits))
    const record: FaultRecord = {
      ...fault,
      atMs: this.nowMs,
      overMs: null,
      affected: concerned.size,
      recoveryMs: null,
      slowest: [],
    }
    this.records.push(record)
    this.#awaited.push({ record, mark, clients: concerned })
    return record
  }

  /** Call every few milliseconds. */
  look(): void {
    this.#awaited = this.#awaited.filter(({ record, mark, clients }) => {
      for (const client of clients) {
        const isTold = client.options.readers.every(({ isLetGo, lsn }) => isLetGo || (lsn !== null && lsn > mark))
        // Whoever leaves of his own or takes nothing waits for nothing.
        if (!isTold && waits(client)) continue
        clients.delete(client)
        if (isTold && clients.size === 0) record.slowest = this.#toldSlowly(record, client)
      }
      if (clients.size > 0) return true
      record.recoveryMs = this.nowMs - record.atMs
      return false
    })
  }

  #toldSlowly({ atMs, overMs }: FaultRecord, { options, transport, via }: Client): string[] {
    if (overMs === null || this.nowMs - atMs - overMs < longMs) return []
    const { history, options: reader } = options.readers.find(({ isLetGo }) => !isLetGo) ?? options.readers[0]!
    const who = `${reader.name} of ${options.name}, now over ${transport} at ${via}: ${reader.kind} ${reader.query.table}`
    return [who, ...history.slice(-20).map(line => line.slice(0, 200))]
  }
}

const waits = (client: Client): boolean => !client.isAway && !client.paused && !client.options.isLaggard

export interface Quantiles {
  readonly n: number
  readonly p50: number
  readonly p99: number
  readonly max: number
}

export function quantilesOf(values: readonly number[]): Quantiles {
  const sorted = values.toSorted((a, b) => a - b)
  const at = (share: number): number => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0
  return { n: sorted.length, p50: at(0.5), p99: at(0.99), max: sorted.at(-1) ?? 0 }
}
