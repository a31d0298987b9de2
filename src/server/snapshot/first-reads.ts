// The reads that subscriptions begin with: users take turns, those of one audience who ask for the same at once share one read, and
// what is too slow is told to its reader.
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Lane } from '../postgres/database.ts'
import type { MemoryRelay, Pin } from '../relay/memory-relay.ts'
import type { FencedRows, Reader, SnapshotReader } from './reader.ts'
import { SlowHints } from './slow-hints.ts'
import { type Turns, Wanted } from './turns.ts'

export interface FirstReadsOptions {
  readonly reader: Pick<SnapshotReader, 'asReader'>
  readonly relay: Pick<MemoryRelay, 'life' | 'pin'>
  /** Where its queries run: with as many places as `turns` has, or more. */
  readonly lane: Lane
  readonly turns: Turns
  /** After how long Postgres ends a statement of the reader's. */
  readonly timeoutMs: number
}

/** Who reads what. */
export interface FirstRead {
  /** Only reads of the same share one. Another is made when policies or tables changed, also where they are by now as they were before. */
  readonly identity: object
  /** Equal for those who see the same rows by this query, whatever else their claims say. */
  readonly audience: string
  readonly reader: Reader
  readonly sql: string
  readonly values: readonly unknown[]
  readonly tableOid: number
  /** For messages: `public.messages`. */
  readonly tableName: string
}

interface UnderWay {
  /** As old as its snapshot, or older. */
  readonly pin: Pin
  readonly wanted: Wanted
  readonly rows: Promise<FencedRows>
}

export class FirstReads {
  readonly #options: FirstReadsOptions
  /** What is being read, or waits for it: bounded by the lines of `turns`. */
  readonly #underWay = new Map<string, UnderWay>()
  readonly #numbers = new WeakMap<object, number>()
  #lastNumber = 0
  readonly #hints = new SlowHints()

  constructor(options: FirstReadsOptions) {
    this.#options = options
  }

  get underWay(): number {
    return this.#underWay.size
  }

  /** As `SnapshotReader.asReader`.
   *  @param pins of the caller, who releases them when these rows are joined to the stream. One more comes to them where the rows are of a
   *    snapshot that may be older than they are: else commits that it does not see could be gone.
   *  @throws SNAPSHOT_SLOW, BUSY, UNAVAILABLE, CLAIM_INVALID */
  read(read: FirstRead, pins: Pin[]): Promise<FencedRows> {
    const { turns, relay } = this.#options
    const share = read.reader.user ?? read.audience
    // What was read in another life of the relay cannot be joined to this one.
    const key = JSON.stringify([relay.life, this.#numberOf(read.identity), read.sql, read.values])
    const underWay = this.#underWay.get(key)
    if (underWay !== undefined) {
      // Where it waits still, it goes with whoever's turn comes first: nobody waits behind what another has asked for.
      turns.join(underWay.wanted, share)
      pins.push(relay.pin(underWay.pin))
      return underWay.rows
    }
    const wanted = new Wanted(share)
    const pin = relay.pin()
    const rows = this.#begin(read, wanted).finally(() => {
      this.#underWay.delete(key)
      pin.release()
    })
    this.#underWay.set(key, { pin, wanted, rows })
    return rows
  }

  #numberOf(identity: object): number {
    const known = this.#numbers.get(identity)
    if (known !== undefined) return known
    this.#lastNumber += 1
    this.#numbers.set(identity, this.#lastNumber)
    return this.#lastNumber
  }

  async #begin(read: FirstRead, wanted: Wanted): Promise<FencedRows> {
    const { reader, lane, turns, timeoutMs } = this.#options
    try {
      const lent = { lane: inTurn(lane, turns, wanted), timeoutMs }
      const rows = await reader.asReader(read.reader, read.sql, read.values, read.tableOid, lent)
      this.#hints.quick(read.audience)
      return rows
    } catch (error) {
      throw isCut(error) ? this.#tooSlow(read, error) : error
    }
  }

  #tooSlow({ audience, tableName, reader }: FirstRead, cause: unknown): TidegateError {
    const message = `reading ${tableName} as ${reader.role} took Postgres longer than ${this.#options.timeoutMs} ms; filter the query, or index what it and its policies read`
    return new TidegateError('SNAPSHOT_SLOW', message, { cause, retryAfterMs: this.#hints.slow(audience) })
  }
}

/** 57014 query_canceled: by statement_timeout, or by an administrator. */
const isCut = (error: unknown): boolean =>
  error instanceof TidegateError &&
  error.code === 'UNAVAILABLE' &&
  (error.cause as { code?: unknown } | undefined)?.code === '57014'

/** The same lane, of which one has a connection when it is its turn, and for as long as it is. */
function inTurn(lane: Lane, turns: Turns, wanted: Wanted): Lane {
  const connect: Lane['connect'] = async () => {
    await turns.take(wanted)
    try {
      const client = await lane.connect()
      const release = client.release
      client.release = failed => {
        client.release = release
        release.call(client, failed)
        turns.free(wanted)
      }
      return client
    } catch (error) {
      turns.free(wanted)
      throw error
    }
  }
  return { ...lane, connect }
}
