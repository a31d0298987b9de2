// How far things had come at each moment, as far as it can be known from outside the nodes.
import pg from 'pg'
import { parseLsn } from '../../src/server/wal/lsn.ts'

/** What is told may be in the sockets for this long. */
const longMs = 5000

interface Moment {
  readonly at: number
  readonly lsn: bigint
}

export class Horizon {
  readonly #url: string
  /** Where the WAL ended, asked at each of these moments. */
  #polls: Moment[] = []
  /** By node: the greatest position told to any reader by then. */
  readonly #floors = new Map<string, Moment[]>()
  /** Epochs, in the order in which readers met them. */
  readonly epochs: string[] = []

  constructor(url: string) {
    this.#url = url
  }

  /** Asks every few milliseconds, through crashes of the server, until the signal aborts. */
  async poll(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const client = new pg.Client({ connectionString: this.#url })
      client.on('error', () => {})
      try {
        await client.connect()
        while (!signal.aborted) {
          this.#polls.push({ at: performance.now(), lsn: await insertLsn(client) })
          await sleep(10)
        }
      } catch {
        await sleep(50)
      } finally {
        await client.end().catch(() => {})
      }
    }
  }

  async look(client: pg.Client): Promise<bigint> {
    const lsn = await insertLsn(client)
    this.#polls.push({ at: performance.now(), lsn })
    return lsn
  }

  /** A reader was told of this position.
   *  @param lsn what the node must have passed for it; null for what says nothing of it
   *  @returns the number of the epoch */
  told(epoch: string, lsn: bigint | null, node: string): number {
    const floors = this.#floors.get(node)
    if (lsn === null) return this.#numberOf(epoch)
    if (floors === undefined) this.#floors.set(node, [{ at: performance.now(), lsn }])
    else if (lsn > floors.at(-1)!.lsn) floors.push({ at: performance.now(), lsn })
    return this.#numberOf(epoch)
  }

  #numberOf(epoch: string): number {
    const known = this.epochs.indexOf(epoch)
    if (known >= 0) return known
    this.epochs.push(epoch)
    return this.epochs.length - 1
  }

  /** A node that comes back begins before what it told last. */
  restarted(node: string): void {
    this.#floors.delete(node)
  }

  /** How far the node had come at that moment, at least; or some seconds before it. */
  floor(longBefore: boolean, node: string, at: number): bigint {
    const before = longBefore ? at - longMs : at
    return this.#floors.get(node)?.findLast(floor => floor.at <= before)?.lsn ?? 0n
  }

  /** The greatest position that each node told anybody. */
  toldByNow(): ReadonlyMap<string, bigint> {
    return new Map(this.#floors.entries().map(([node, floors]) => [node, floors.at(-1)!.lsn]))
  }

  /** Where the WAL ended when it was last asked. */
  get walEnd(): bigint {
    return this.#polls.at(-1)?.lsn ?? 0n
  }

  /** What any node had passed for so long that nothing before it can be on its way. */
  get needed(): bigint {
    let needed: bigint | null = null
    for (const node of this.#floors.keys()) {
      const floor = this.floor(true, node, performance.now())
      if (needed === null || floor < needed) needed = floor
    }
    return needed ?? 0n
  }

  /** A position that the node had not passed before that moment of performance.now(). */
  ceiling(at: number): bigint {
    let low = 0
    let high = this.#polls.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.#polls[middle]!.at < at) low = middle + 1
      else high = middle
    }
    return this.#polls[low]?.lsn ?? this.#polls.at(-1)!.lsn
  }

  /** Forgets what nobody can ask for any more. */
  forget(): void {
    const before = performance.now() - longMs
    this.#polls = this.#polls.filter(({ at }) => at >= before)
    for (const floors of this.#floors.values()) {
      const last = floors.findLastIndex(({ at }) => at <= before)
      if (last > 0) floors.splice(0, last)
    }
  }
}

async function insertLsn(client: pg.Client): Promise<bigint> {
  const { rows } = await client.query<{ lsn: string }>('SELECT pg_current_wal_insert_lsn()::text AS lsn')
  return parseLsn(rows[0]!.lsn)
}

const sleep = (ms: number): Promise<void> => new Promise(resolve => setTimeout(resolve, ms))
