// What an audience's readers hold, as keys and hashes of rows: never the rows. And what has lately changed in it, so that who
// was away for a moment can be told the difference.
import type { Row } from '../../predicate/algebra.ts'
import { type Position, WHOLE_COMMIT } from '../../protocol/position.ts'
import { stayingAmong } from '../route/staying.ts'

export type Op = 'insert' | 'update' | 'delete'

export interface Difference {
  readonly op: Op
  readonly key: string
  /** As the query returned it; null for a delete. */
  readonly row: Row | null
  /** Of a query with a limit, where it came or moved: the key of the row before it; null: it is the first. */
  readonly after?: string | null
  /** It moved, and nothing that is shown of it changed. */
  readonly isMoveOnly?: boolean
}

/** A row that the query returned. */
export interface FoundRow {
  readonly hash: string
  readonly row: Row
}

interface Told {
  readonly lsn: bigint
  /** In the order in which they were told; with the hash that was held before. */
  readonly ops: readonly { readonly key: string; readonly before: string | null }[]
}

/** Positions from here on, but the whole one, lie within what was told to one reader alone: nobody resumes from them. */
export const ownIndexes = 0x8000_0000

/** Past it the oldest is forgotten, and who stands before it is told to start over. */
const maxRemembered = 10_000

export class Answers {
  /** Hash by key. */
  readonly #held = new Map<string, string>()
  /** Of a query with a limit: the keys held, in order; null for others. */
  #sequence: readonly string[] | null
  #xor = 0n
  #told: Told[] = []
  #remembered = 0
  /** Who stands before it cannot be told the difference. */
  #floorLsn: bigint

  /** Of the rows in their order, as Postgres computes it; of a query with a limit. */
  digest: bigint | null = null

  /** @param isLimited of a query with a limit */
  constructor(lsn: bigint, isLimited = false) {
    this.#floorLsn = lsn
    this.#sequence = isLimited ? [] : null
  }

  get size(): number {
    return this.#held.size
  }

  /** Of all hashes, joined by XOR, as Postgres computes it. */
  get xor(): bigint {
    return this.#xor
  }

  has(key: string): boolean {
    return this.#held.has(key)
  }

  keys(): Iterable<string> {
    return this.#held.keys()
  }

  hashOf(key: string): string | undefined {
    return this.#held.get(key)
  }

  /** @param asked the keys that were asked for; null for all
   *  @param found the rows of those that differ, in the order in which they are to be told
   *  @param same keys that were found with the hash that is held */
  differences(
    asked: Iterable<string> | null,
    found: ReadonlyMap<string, FoundRow>,
    same: ReadonlySet<string> = new Set(),
  ): Difference[] {
    const differences: Difference[] = []
    // Retractions first: nobody holds, even halfway through, more than it may.
    for (const key of asked ?? this.#held.keys())
      if (this.#held.has(key) && !found.has(key) && !same.has(key)) differences.push({ op: 'delete', key, row: null })
    for (const [key, { hash, row }] of found) {
      const held = this.#held.get(key)
      if (held !== hash) differences.push({ op: held === undefined ? 'insert' : 'update', key, row })
    }
    return differences
  }

  /** The same of a query with a limit. @param found all of its rows, in order */
  moves(found: ReadonlyMap<string, FoundRow>): Difference[] {
    const held = new Map((this.#sequence ?? []).map((key, place) => [key, place]))
    const gone = this.#sequence!.filter(key => !found.has(key)).map(key => ({ op: 'delete' as const, key, row: null }))
    const keys = [...found.keys()]
    const places = keys.map(key => held.get(key) ?? -1)
    const stays = stayingAmong(places, at => found.get(keys[at]!)!.hash === this.#held.get(keys[at]!))
    const there = keys.flatMap((key, at): Difference[] => {
      const { hash, row } = found.get(key)!
      const isSame = this.#held.get(key) === hash
      if (stays[at]) return isSame ? [] : [{ op: 'update', key, row }]
      const after = keys[at - 1] ?? null
      return [
        places[at]! < 0 ? { op: 'insert', key, row, after } : { op: 'update', key, row, after, isMoveOnly: isSame },
      ]
    })
    return [...gone, ...there]
  }

  /** Takes the differences as told at this position. */
  tell(differences: readonly Difference[], found: ReadonlyMap<string, FoundRow>, lsn: bigint): void {
    const ops = differences.map(({ key }) => ({ key, before: this.#held.get(key) ?? null }))
    for (const { op, key } of differences) this.#hold(key, op === 'delete' ? null : found.get(key)!.hash)
    if (this.#sequence !== null) this.#sequence = [...found.keys()]
    this.#told.push({ lsn, ops })
    this.#remembered += ops.length
    while (this.#remembered > maxRemembered) {
      const oldest = this.#told.shift()!
      this.#remembered -= oldest.ops.length
      this.#floorLsn = oldest.lsn
    }
  }

  /** Takes what is there to begin with: told to nobody. */
  begin(hashes: ReadonlyMap<string, string>): void {
    for (const [key, hash] of hashes) this.#hold(key, hash)
    if (this.#sequence !== null) this.#sequence = [...hashes.keys()]
  }

  /** What changed for whoever stands at a position: by key, the hash that was held there, null where none was; null when that is
   *  forgotten, as where rows stood always is. */
  since({ lsn, index }: Position): ReadonlyMap<string, string | null> | null {
    if (lsn < this.#floorLsn || (index >= ownIndexes && index !== WHOLE_COMMIT)) return null
    const held = new Map<string, string | null>()
    const first = this.#told.findIndex(told => told.lsn >= lsn)
    if (first < 0) return index === WHOLE_COMMIT ? held : null
    if (index !== WHOLE_COMMIT && this.#told[first]!.lsn !== lsn) return null
    for (const told of this.#told.slice(first)) {
      const isOwn = told.lsn === lsn
      if (isOwn && index === WHOLE_COMMIT) continue
      for (const { key, before } of isOwn ? told.ops.slice(index) : told.ops) if (!held.has(key)) held.set(key, before)
    }
    return this.#sequence !== null && held.size > 0 ? null : held
  }

  #hold(key: string, hash: string | null): void {
    const before = this.#held.get(key)
    if (before !== undefined) this.#xor ^= BigInt.asUintN(64, BigInt(before))
    if (hash === null) this.#held.delete(key)
    else {
      this.#held.set(key, hash)
      this.#xor ^= BigInt.asUintN(64, BigInt(hash))
    }
  }
}
