// Is what one reader was told the truth? Looks at a reader's record once the truth is known up to where it stands.
import type { ChangeEvent, JsonRow, RowChange } from '../../src/protocol/messages.ts'
import { WHOLE_COMMIT } from '../../src/protocol/position.ts'
import { maxHeldMs } from './nodes.ts'
import type { Sighting, Subscriber } from './subscriber.ts'
import { count, type Tally, type WireCounts } from './tally.ts'
import type { Ends, Truth, TruthCommit } from './truth.ts'
import { Causeless, Leaked, Lost, Repeated, Untrue } from './untrue.ts'
import { nameOf, project } from './world.ts'

export interface JudgeOptions {
  readonly truth: Truth
  /** A position that the node had not passed before this moment of performance.now(). */
  ceiling(at: number): bigint
  /** How long commits are kept for those who are away. */
  readonly windowMs: number
  /** Commits of more bytes than this may pass through a file, and cannot be told again. */
  readonly spoolBytes: number
  /** Of a resync that the stream itself gives no cause for: what befell those who serve it; null for nothing that counts. */
  excuse?(resync: Resync, to: bigint): string | null
}

export interface Resync {
  /** Who told of it. */
  readonly node: string
  readonly code: string
  /** What could not be told lies after this position. */
  readonly from: bigint
  readonly at: number
  /** When it was told of the position that it held; null when it held none, and so cannot have been away. */
  readonly seenAt: number | null
  /** Of the position before. */
  readonly epoch: number | null
  /** How often it was told that the epoch changed. */
  readonly epochChanges: number
  /** It had been told some of a snapshot or delta, and was not told the rest. */
  readonly isHalfTold: boolean
}

interface Place {
  readonly lsn: bigint
  readonly index: number
}

export class Judge {
  readonly #reader: Subscriber
  readonly #options: JudgeOptions
  readonly #tally: Tally
  readonly #counts: WireCounts
  /** The last position that it was told; null after a resync and before the first. */
  #last: Place | null = null
  #resync: Resync | null = null
  /** Of the last position. */
  #epoch: number | null = null
  /** When it was first told of `#last`. */
  #seenAt = 0
  /** For changes: everything up to here was looked for and found. Null until it is known where the events begin. */
  #from: Place | null = null
  /** For changes: events by commit and name, of commits after `#from`. */
  readonly #received = new Map<bigint, Set<string>>()

  constructor(reader: Subscriber, options: JudgeOptions, tally: Tally) {
    this.#reader = reader
    this.#options = options
    this.#tally = tally
    this.#counts = reader.options.counts
  }

  /** What the truth must still hold for this reader. */
  get needs(): bigint | null {
    const candidates = [this.#last?.lsn, this.#from?.lsn, this.#resync?.from].filter(lsn => lsn !== undefined)
    return candidates.toSorted((a, b) => Number(a - b))[0] ?? null
  }

  /** @throws Untrue */
  look(): void {
    const { sightings } = this.#reader
    this.#reader.sightings = []
    for (const sighting of sightings) {
      if (sighting.what === 'resync') this.#resyncs(sighting)
      else {
        const before = this.#last?.lsn ?? 0n
        this.#order(sighting)
        if (this.#reader.options.kind === 'live') this.#live(sighting, before)
        else this.#changes(sighting)
      }
    }
  }

  #resyncs({ code, at, longBefore, node, isHalfTold }: Sighting): void {
    const last = this.#last
    // In the middle of a commit, the rest of that commit is what it could not be told.
    const from = last === null ? longBefore : last.index === WHOLE_COMMIT ? last.lsn : last.lsn - 1n
    const before = this.#resync
    this.#resync = {
      node,
      code: code!,
      from: before?.from ?? from,
      at,
      seenAt: before !== null ? before.seenAt : last === null ? null : this.#seenAt,
      epoch: before === null ? this.#epoch : before.epoch,
      epochChanges: (before?.epochChanges ?? 0) + (code === 'EPOCH_CHANGED' ? 1 : 0),
      isHalfTold: isHalfTold === true || before?.isHalfTold === true,
    }
    this.#last = null
    this.#from = null
    this.#received.clear()
  }

  /** Positions never step back, and a resync has a cause. */
  #order(sighting: Sighting): void {
    const { what, lsn, index, at } = sighting
    const place = { lsn: lsn!, index }
    const last = this.#last
    if (last !== null) {
      const isNew = what === 'delta' || what === 'change' || what === 'snapshot'
      const order = place.lsn === last.lsn ? place.index - last.index : place.lsn < last.lsn ? -1 : 1
      if (order < 0 || (isNew && order === 0))
        throw new Repeated(`${what} at ${text(place)} after ${text(last)}`, place.lsn)
    }
    this.#inEpoch(sighting)
    // Told again, a position is no younger.
    if (last === null || place.lsn !== last.lsn || place.index !== last.index) this.#seenAt = at
    this.#last = place
    this.#counts.positions += 1
    if (this.#resync !== null) {
      const cause = this.#cause(this.#resync, place.lsn) ?? this.#options.excuse?.(this.#resync, place.lsn) ?? null
      if (cause === null) {
        const { code, from } = this.#resync
        throw new Causeless(
          `resync ${code} without a cause between ${from.toString(16)} and ${place.lsn.toString(16)}`,
          place.lsn,
        )
      }
      count(this.#tally.resyncs, `${this.#resync.code}: ${cause}`)
    }
    this.#resync = null
  }

  /** Of each slot that was lost it was told once, and of no other. */
  #inEpoch({ epoch, lsn, beganFresh }: Sighting): void {
    const before = this.#epoch
    this.#epoch = epoch
    if (before === null) return
    const moved = epoch! - before
    // Whoever asks for nothing in particular may meet a node that has not heard of the new epoch yet.
    if (beganFresh && moved <= 0) return
    if (moved < 0) throw new Untrue('it is back in an epoch that was over', lsn!)
    const told = this.#resync?.epochChanges ?? 0
    if (told > moved) throw new Untrue(`told ${told} times of a new epoch, where ${moved} began`, lsn!)
    if (moved > 0 && told === 0 && !beganFresh) throw new Untrue('in another epoch without a resync', lsn!)
  }

  /** @returns what made it start over, of the causes that P4 knows; null when there is none */
  #cause({ code, from, at, seenAt, epochChanges, isHalfTold }: Resync, to: bigint): string | null {
    const { truth, windowMs, spoolBytes } = this.#options
    if (code === 'EPOCH_CHANGED') return epochChanges > 0 ? 'the slot was lost' : null
    const { inputs, options } = this.#reader
    const tables = [options.query.table, ...inputs]
    const commits = truth.between(from, to)
    if (code === 'INPUTS_CHANGED') {
      const isTruncated = commits.some(({ truncated }) => truncated.values().some(table => inputs.has(table)))
      if (isTruncated) return 'its memberships were truncated'
      // What waits for it is taken back when it may be hidden, and a snapshot that rests on too much that moved is begun anew: of
      // neither is there a place to go on from. Whoever held a whole state goes on from that.
      if ((isHalfTold || seenAt === null) && commits.some(commit => this.#movesMemberships(commit)))
        return 'its memberships moved while a snapshot or delta was on its way'
      // Rows that a grant or revocation moves are read; who waits for them past the bound starts over.
      const lateAt = performance.timeOrigin + at - maxHeldMs
      const isLate = commits.some(commit => commit.at <= lateAt && this.#movesMemberships(commit))
      return isLate ? 'rows that its memberships moved could not be read in time' : null
    }
    if (code !== 'WINDOW_PASSED') return null
    if (seenAt !== null) {
      const first = commits[0]?.at
      if (first !== undefined && performance.timeOrigin + at - first >= windowMs) return 'away too long'
      // Heartbeats of the stream's own are commits too: a position grows old without the writers.
      if (at - seenAt >= windowMs) return 'away too long'
    }
    const isLarge = commits.some(({ bytes, touched }) => bytes > spoolBytes && tables.some(table => touched.has(table)))
    return isLarge ? 'a commit of its tables that is not held in memory' : null
  }

  #movesMemberships({ touched }: TruthCommit): boolean {
    const { user } = this.#reader.options
    const isOwn = ({ before, after }: Ends): boolean => before?.user_id === user || after?.user_id === user
    return this.#reader.inputs.values().some(table => touched.get(table)?.values().some(isOwn) ?? false)
  }

  #live({ what, lsn: at, changes, early, rows, longBefore }: Sighting, before: bigint): void {
    const lsn = at!
    const { truth } = this.#options
    const { query, user } = this.#reader.options
    if (what === 'snapshot') this.#counts.snapshots += 1
    if (what === 'snapshot' && early!.length > 0) this.#counts.chunked += 1
    if (what === 'delta') this.#counts.deltas += 1
    if (what === 'delta' && this.#isFolded(changes!, before, lsn)) this.#counts.folded += 1
    for (const row of early ?? []) {
      const name = nameOf(query.table, row)
      const is = (shown: JsonRow): boolean => same(shown, row)
      if (!truth.wasShownWithin(query, user, name, is, longBefore, lsn))
        throw new Leaked(`a snapshot's part has ${JSON.stringify(row)}, which its reader never saw`, lsn, name)
    }
    const inserted = new Set(
      changes?.filter(({ op }) => op === 'insert').map(change => nameOf(query.table, keyOf(change))),
    )
    for (const change of changes ?? []) {
      if (change.op === 'truncate') {
        const commits = truth.between(before, lsn)
        if (!commits.some(({ truncated }) => truncated.has(query.table)))
          throw new Untrue('a truncate that never was', lsn)
        continue
      }
      const name = nameOf(query.table, change.key)
      const shown = truth.shown(query, user, name, lsn)
      if (change.op === 'delete') {
        if (shown !== null && !inserted.has(name)) throw new Lost(`${name} deleted and still visible`, lsn, name)
      } else if (shown === null) throw new Leaked(`${change.op} of ${name}, which its reader may not see`, lsn, name)
      else if (change.op === 'insert' && !same(change.row, shown))
        throw new Untrue(`insert of ${JSON.stringify(change.row)}, not ${JSON.stringify(shown)}`, lsn, name)
      else if (change.op === 'update')
        for (const [column, value] of Object.entries(change.set))
          if (shown[column] !== value)
            throw new Untrue(`update of ${name}: ${column} is not ${JSON.stringify(value)}`, lsn, name)
    }
    if (rows !== undefined) {
      this.#counts.compared += 1
      equal(rows, truth.state(query, user, lsn), lsn)
    }
  }

  /** Rows of it were touched by a commit before its last. */
  #isFolded(changes: readonly RowChange[], before: bigint, lsn: bigint): boolean {
    const { query } = this.#reader.options
    const commits = this.#options.truth.between(before, lsn - 1n)
    if (commits.length === 0) return false
    return changes.some(change => {
      if (change.op === 'truncate') return false
      const name = nameOf(query.table, change.key)
      return commits.some(({ touched }) => touched.get(query.table)?.has(name))
    })
  }

  #changes(sighting: Sighting): void {
    const { what, lsn, index, at, change } = sighting
    const place = { lsn: lsn!, index }
    const isWhole = index === WHOLE_COMMIT
    if (what === 'change') {
      const name = this.#event(sighting, change!)
      if (this.#from === null) {
        this.#from = place
        return
      }
      const names = this.#received.get(place.lsn) ?? new Set<string>()
      if (names.has(name)) throw new Repeated(`${change!.op} of ${name} came twice`, place.lsn, name)
      names.add(name)
      this.#received.set(place.lsn, names)
    } else if (this.#from === null) {
      this.#from = place
      return
    }
    const done = isWhole ? place.lsn : place.lsn - 1n
    if (done <= this.#from.lsn && !(done === this.#from.lsn && this.#from.index !== WHOLE_COMMIT)) return
    // Of the commit in whose middle it began, what it was told before is not known.
    const upTo = this.#options.ceiling(at)
    for (const commit of this.#options.truth.between(this.#from.lsn, done)) this.#owed(commit, upTo)
    this.#received.delete(this.#from.lsn)
    this.#from = { lsn: done, index: WHOLE_COMMIT }
  }

  /** @returns the row's name, once the event is known to be true */
  #event({ lsn: at, floor, at: receivedAt, node }: Sighting, event: ChangeEvent): string {
    const lsn = at!
    const { truth, ceiling } = this.#options
    const { query, user } = this.#reader.options
    this.#counts.changes += 1
    const commit = truth.commit(lsn)
    if (commit === undefined) throw new Untrue(`${event.op} at a position where nothing commits`, lsn)
    if (event.op === 'truncate') {
      if (!commit.truncated.has(query.table)) throw new Untrue('a truncate that never was', lsn)
      return 'truncate'
    }
    const name = nameOf(query.table, event.key!)
    const expected = this.#expected(commit, name)
    if (expected === null || expected.op !== event.op) throw this.#misjudged(event.op, expected?.op ?? null, lsn, name)
    for (const [told, row, label] of [
      [event.new, expected.op === 'delete' ? null : expected.after, 'new'],
      [event.old, expected.op === 'insert' ? null : expected.before, 'old'],
    ] as const) {
      if (row === null ? told !== undefined : told === undefined || !same(told, project(query, row)))
        throw new Untrue(
          `${event.op} of ${name}: ${label} is ${JSON.stringify(told)}, not ${JSON.stringify(row)}`,
          lsn,
          name,
        )
    }
    // The commit that takes a row away may take its memberships along, as a cascade does: its delete is judged by the state
    // before, and may come as long as it comes with that commit.
    const from = floor > lsn ? floor : expected.op === 'delete' ? lsn - 1n : lsn
    if (truth.allowedWithin(query, user, expected.row, from, max(from, ceiling(receivedAt))) === 'none')
      throw new Leaked(
        `${event.op} of ${name} was sent after it was hidden: told by ${node} at ${Math.round(receivedAt)}, which had passed ${floor.toString(16)} when it was asked`,
        lsn,
        name,
      )
    return name
  }

  /** Told where nothing was to be seen is a leak; another kind of event is wrong. */
  #misjudged(op: string, expected: string | null, lsn: bigint, name: string): Untrue {
    const Kind = expected === null ? Leaked : Untrue
    return new Kind(`${op} of ${name}, where ${expected ?? 'nothing'} is true`, lsn, name)
  }

  #expected(
    commit: TruthCommit,
    name: string,
  ): { op: string; before: JsonRow | null; after: JsonRow | null; row: JsonRow } | null {
    const { truth } = this.#options
    const { query, user } = this.#reader.options
    const ends = commit.touched.get(query.table)?.get(name)
    if (ends === undefined) return null
    const { before, after } = ends
    const was = before !== null && truth.allows(query, user, before, commit.lsn - 1n)
    const is = after !== null && truth.allows(query, user, after, commit.lsn)
    const op = was ? (is ? 'update' : 'delete') : is ? 'insert' : null
    if (op === null || (query.events !== undefined && !query.events.includes(op))) return null
    return { op, before, after, row: (is ? after : before)! }
  }

  /** Every event of the commit that its reader could see, and still could when it was due, has come. */
  #owed(commit: TruthCommit, upTo: bigint): void {
    const { truth } = this.#options
    const { query, user } = this.#reader.options
    const received = this.#received.get(commit.lsn)
    this.#received.delete(commit.lsn)
    if (commit.truncated.has(query.table) && !received?.has('truncate'))
      throw new Lost('a truncate never came', commit.lsn)
    for (const name of commit.touched.get(query.table)?.keys() ?? []) {
      const expected = this.#expected(commit, name)
      if (expected === null) continue
      this.#tally.owed += 1
      if (received?.has(name)) continue
      if (truth.allowedWithin(query, user, expected.row, commit.lsn, max(commit.lsn, upTo)) === 'all')
        throw new Lost(`${expected.op} of ${name} never came`, commit.lsn, name)
    }
  }
}

const max = (a: bigint, b: bigint): bigint => (a > b ? a : b)
const text = ({ lsn, index }: Place): string =>
  `${lsn.toString(16)}${index === WHOLE_COMMIT ? '' : `-${index.toString(16)}`}`
const keyOf = (change: { readonly op: string; readonly key?: JsonRow }): JsonRow => change.key!

export function same(a: JsonRow, b: JsonRow): boolean {
  const columns = Object.keys(a)
  return columns.length === Object.keys(b).length && columns.every(column => column in b && a[column] === b[column])
}

/** @throws Untrue with the first difference */
export function equal(held: ReadonlyMap<string, JsonRow>, shown: ReadonlyMap<string, JsonRow>, lsn: bigint): void {
  for (const [name, row] of held) {
    const other = shown.get(name)
    if (other === undefined) throw new Leaked(`it holds ${JSON.stringify(row)}, which is not visible`, lsn, name)
    if (!same(row, other)) throw new Untrue(`it holds ${JSON.stringify(row)}, not ${JSON.stringify(other)}`, lsn, name)
  }
  for (const [name, row] of shown) if (!held.has(name)) throw new Lost(`it lacks ${JSON.stringify(row)}`, lsn, name)
}
