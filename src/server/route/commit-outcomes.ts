// What one commit is for whom, in the order in which audiences were found.
//
// Nearly all commits change one row, and what that is for one audience it is for most: those share a list, and the encoder
// knows it again without looking inside.
import type { Op } from '../authorize/visibility.ts'
import type { Audience } from './audience.ts'
import type { Outcome, RowEnds } from './outcome.ts'

export class CommitOutcomes {
  readonly #audiences: Audience[] = []
  readonly #lists: Outcome[][] = []
  /** Where an audience stands in both; made with the second row, because each row finds an audience once. */
  #places: Map<Audience, number> | null = null
  #rows = 0
  #row: RowEnds | null = null
  /** Lists of the row at hand alone, by operation. */
  #alone: { [op in Op]?: Outcome[] } = {}

  get size(): number {
    return this.#audiences.length
  }

  get audiences(): readonly Audience[] {
    return this.#audiences
  }

  /** By the audience's place. */
  get lists(): readonly (readonly Outcome[])[] {
    return this.#lists
  }

  /** What is added next is of this row. */
  turnTo(row: RowEnds): void {
    this.#rows += 1
    this.#row = row
    this.#alone = {}
    if (this.#rows === 2) this.#placed()
  }

  /** At most once for each row and audience. */
  add(audience: Audience, op: Op): void {
    this.#alone[op] ??= [{ op, row: this.#row! }]
    const alone = this.#alone[op]
    const place = this.#places?.get(audience)
    if (place === undefined) this.#append(audience, alone)
    else {
      const list = this.#lists[place]!
      // A list of one may be others' too; a longer one is this audience's own.
      if (list.length === 1) this.#lists[place] = [list[0]!, alone[0]!]
      else list.push(alone[0]!)
    }
  }

  /** Names audiences that must be told something though no row of theirs is there. */
  addEmpty(audiences: Iterable<Audience>): void {
    const places = this.#placed()
    for (const audience of audiences) if (!places.has(audience)) this.#append(audience, [])
  }

  #append(audience: Audience, list: Outcome[]): void {
    this.#places?.set(audience, this.#audiences.length)
    this.#audiences.push(audience)
    this.#lists.push(list)
  }

  #placed(): Map<Audience, number> {
    this.#places ??= new Map(this.#audiences.map((audience, place) => [audience, place]))
    return this.#places
  }
}
