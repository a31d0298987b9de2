// A strict reader of one query: it applies what it is told, refuses what does not fit, and keeps a record of it all for
// the verdict. An upsert would hide a repeated or lost change; here an insert of a known key is a failure.
import type { ChangeEvent, DeltaEvent, JsonRow, RowChange, SnapshotEvent } from '../../src/protocol/messages.ts'
import { parseQueryPositions, WHOLE_COMMIT } from '../../src/protocol/position.ts'
import type { Random } from './random.ts'
import type { WireCounts } from './tally.ts'
import type { Asked, Transport, WireEvent } from './wires.ts'
import { type CheckedQuery, nameOf, policies, type TableName } from './world.ts'

/** Something a reader was told, and when. */
export interface Sighting {
  readonly what: 'subscribed' | 'snapshot' | 'delta' | 'change' | 'position' | 'resync'
  /** Null where no position came with it. */
  readonly lsn: bigint | null
  readonly index: number
  /** Of the position: the how manieth that any reader met. */
  readonly epoch: number | null
  /** performance.now() */
  readonly at: number
  /** How far the node had come, at least, when this connection began. */
  readonly floor: bigint
  /** The same a few seconds before. */
  readonly longBefore: bigint
  readonly changes?: readonly RowChange[]
  readonly change?: ChangeEvent
  /** Who told it. */
  readonly node: string
  /** Its connection began without a position. */
  readonly beganFresh: boolean
  /** Rows of a snapshot that came before its last part. */
  readonly early?: readonly JsonRow[]
  /** All it holds after this event, for some of the events. */
  readonly rows?: ReadonlyMap<string, JsonRow>
  readonly code?: string
  /** Of a resync: some of a snapshot or delta had come, and not the rest. */
  readonly isHalfTold?: boolean
}

export interface SubscriberOptions {
  readonly name: string
  readonly transport: Transport | 'hopping'
  readonly kind: 'live' | 'changes'
  readonly query: CheckedQuery
  readonly user: string
  readonly random: Random
  readonly counts: WireCounts
  /** How far the node had come at that moment, at least: the greatest position that it had told any reader. */
  floor(longBefore: boolean, node: string, at: number): bigint
  /** @returns the number of the position's epoch, in the order in which they were met */
  told(epoch: string, lsn: bigint | null, node: string): number
  /** One event in this many, besides the first few of a connection, is compared row by row. */
  readonly sampleOneIn?: number
}

const sampleOneIn = 8

export class Subscriber {
  readonly options: SubscriberOptions
  readonly rows = new Map<string, JsonRow>()
  /** What the verdict has not looked at yet. */
  sightings: Sighting[] = []
  /** The last events, for the report. At most `maxHistory`. */
  readonly history: string[] = []
  failure: string | null = null
  /** Where it may come back, as text; null for a fresh beginning. */
  since: string | null = null
  lsn: bigint | null = null
  /** Whether a connection carries it. */
  attached = false
  /** Its client let go of it, and takes it up again when it likes. */
  isLetGo = false
  exact = false
  #parts: RowChange[] = []
  #early: JsonRow[] = []
  #floor = 0n
  /** The position that it came with: a node that is behind repeats it, and says nothing of itself by that. */
  #cameWith = 0n
  #longBefore = 0n
  #fresh = 0
  #beganFresh = true
  #node = 'node'

  constructor(options: SubscriberOptions) {
    this.options = options
  }

  /** A connection takes it up. @returns what to ask for */
  begin(): Asked {
    const { kind, query, counts } = this.options
    this.#stream(performance.now())
    this.#fresh = 3
    this.#log(`-- comes, since ${this.since}, the stream is past ${this.#floor.toString(16)}`)
    this.#drop()
    if (this.since !== null) counts.resumes += 1
    this.#beganFresh = this.since === null
    this.attached = true
    this.isLetGo = false
    return { kind, query, since: this.since }
  }

  /** It is known which node this connection leads to. */
  reached(node: string, askedAt: number): void {
    if (node !== this.#node) this.#log(`-- at ${node}`)
    this.#node = node
    this.#beganFresh = this.since === null
    this.#stream(askedAt)
  }

  #stream(at: number): void {
    this.#cameWith = this.since === null ? 0n : parseQueryPositions(this.since)![0]!.lsn
    const { floor } = this.options
    this.#floor = floor(false, this.#node, at)
    this.#longBefore = floor(true, this.#node, at)
  }

  end(why: string): void {
    if (!this.attached) return
    this.attached = false
    this.note(`ended: ${why}`)
  }

  /** A line of its own in the history. */
  note(line: string): void {
    this.#log(`-- ${line}`)
  }

  fail(message: string): void {
    if (this.failure !== null) return
    this.failure = message
    this.#log(`FAILED ${message}`)
  }

  /** What came of an event whose last part did not. */
  #drop(): void {
    this.#parts = []
    this.#early = []
    if (this.options.kind === 'changes' || this.exact) return
    this.rows.clear()
    this.since = null
    this.lsn = null
  }

  #void(): void {
    this.exact = false
    this.rows.clear()
    this.#parts = []
    this.#early = []
    this.since = null
    this.lsn = null
  }

  take(event: WireEvent): void {
    this.#log(`${event.position ?? ''} ${event.event} ${inShort(event.data)}`)
    try {
      this.#apply(event)
    } catch (error) {
      this.fail(error instanceof Error ? error.message : String(error))
    }
  }

  #apply({ event, position, data }: WireEvent): void {
    if (event === 'subscribed') {
      const { resumed } = data as { resumed: boolean }
      if (resumed && this.since === null) throw new Error('resumed without a position')
      // After a resync in a poll of its own, the position before says nothing.
      if (this.options.kind === 'live') {
        if (position !== null && resumed) this.#see('subscribed', position)
      } else if (resumed || this.since === null) this.#see('subscribed', position)
    } else if (event === 'resync') {
      const { code } = data as { code: string }
      const isHalfTold = this.#early.length > 0 || this.#parts.length > 0
      this.#sighting({ what: 'resync', lsn: this.lsn, index: 0, epoch: null, code, isHalfTold })
      this.#void()
    } else if (event === 'snapshot') {
      const part = data as SnapshotEvent
      if (this.exact) throw new Error('a snapshot nobody asked for')
      for (const key of part.gone ?? []) this.rows.delete(this.#name(key))
      for (const row of part.rows) this.rows.set(this.#name(row), row)
      if (!part.done) {
        this.#early.push(...part.rows)
        return
      }
      this.exact = true
      const early = this.#early
      this.#early = []
      this.#see('snapshot', position, { early })
    } else if (event === 'delta') {
      const delta = data as DeltaEvent
      if (!this.exact) throw new Error('a delta before the snapshot was whole')
      this.#parts.push(...delta.changes)
      if (!delta.done) return
      const changes = this.#parts
      this.#parts = []
      for (const change of changes) this.#change(change)
      this.#see('delta', position, { changes })
    } else if (event === 'change') {
      this.#see('change', position, { change: data as ChangeEvent })
    } else if ((event === 'heartbeat' || event === 'position') && position !== null) {
      if (this.options.kind === 'live' && !this.exact) {
        if (parseQueryPositions(position)![0]!.lsn !== 0n) throw new Error('a position before the state was whole')
      } else this.#see('position', position)
    }
  }

  #see(what: Sighting['what'], position: string | null, more: Partial<Sighting> = {}): void {
    if (position === null) {
      if (what !== 'subscribed') throw new Error(`a ${what} without a position`)
      return
    }
    const { epoch: name, lsn, index } = parseQueryPositions(position)![0]!
    if (lsn === 0n) return
    this.since = position
    this.lsn = lsn
    const passed = index === WHOLE_COMMIT ? lsn : lsn - 1n
    const epoch = this.options.told(name, passed > this.#cameWith ? passed : null, this.#node)
    const { kind, random } = this.options
    const oneIn = this.options.sampleOneIn ?? sampleOneIn
    const sampled = kind === 'live' && (this.#fresh-- > 0 || random.once(oneIn))
    this.#sighting({ what, lsn, index, epoch, ...more, ...(sampled ? { rows: new Map(this.rows) } : {}) })
  }

  #sighting(sighting: Omit<Sighting, 'at' | 'floor' | 'longBefore' | 'beganFresh' | 'node'>): void {
    this.sightings.push({
      ...sighting,
      at: performance.now(),
      floor: this.#floor,
      longBefore: this.#longBefore,
      beganFresh: this.#beganFresh,
      node: this.#node,
    })
  }

  #change(change: RowChange): void {
    if (change.op === 'truncate') {
      this.rows.clear()
      return
    }
    const name = this.#name(change.key)
    const row = this.rows.get(name)
    if (change.op === 'insert') {
      if (row !== undefined) throw new Error(`insert of the known key ${name}`)
      this.rows.set(name, change.row)
    } else if (row === undefined) throw new Error(`${change.op} of the unknown key ${name}`)
    else if (change.op === 'delete') this.rows.delete(name)
    else this.rows.set(name, { ...row, ...change.set })
  }

  #name(row: JsonRow): string {
    return nameOf(this.options.query.table, row)
  }

  #log(line: string): void {
    this.history.push(`${Math.round(performance.now())} ${line}`)
    if (this.history.length > maxHistory) this.history.splice(0, this.history.length - maxHistory)
  }

  /** The tables whose changes may void what it holds. */
  get inputs(): ReadonlySet<TableName> {
    return new Set(policies[this.options.query.table].inputs)
  }
}

const maxHistory = 2000

/** The beginning of an event, as a text of its own: a slice would keep the whole in memory. */
function inShort(data: unknown): string {
  const text = JSON.stringify(data)
  return text.length <= 400 ? text : Buffer.from(text.slice(0, 400)).toString()
}
