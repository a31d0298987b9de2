// Partitions whose rows went without a word in the stream: TRUNCATE of a partition under its own name says nothing when
// changes are published through the root. The catalog shows it, as another file under the partition. Whoever follows the
// table reads it anew, and nobody resumes from before.
import type { Catalog, Table } from '../catalog/table.ts'

export class Rewrites {
  readonly #catalog: Pick<Catalog, 'tableByOid'>
  /** Per partitioned table that was ever followed here: its partitions' files when last looked at. */
  readonly #files = new Map<number, { files: readonly string[]; truncations: number }>()
  /** Truncations of the whole table, which the stream did tell, since the start. */
  readonly #truncations = new Map<number, number>()
  readonly #voidBefore = new Map<number, bigint>()

  constructor(catalog: Pick<Catalog, 'tableByOid'>) {
    this.#catalog = catalog
  }

  /** The stream told that the table was truncated: all its files are new, and everybody knows. */
  truncated(oid: number): void {
    this.#truncations.set(oid, (this.#truncations.get(oid) ?? 0) + 1)
  }

  /** Somebody follows this table from now on. @param headLsn where the stream stands */
  followed(table: Table, headLsn: bigint): void {
    const { oid, files } = table
    if (files === undefined) return
    const known = this.#files.get(oid)
    if (known === undefined) this.#files.set(oid, { files, truncations: this.#truncations.get(oid) ?? 0 })
    // The next look at the catalog tells those who follow it; who comes back meanwhile must not resume.
    else if (rewritten(known.files, files) === 'some') this.#voidBefore.set(oid, headLsn)
  }

  /** Whether a client at this position may hold rows that went unsaid. */
  isVoid(oid: number, lsn: bigint): boolean {
    return lsn < (this.#voidBefore.get(oid) ?? 0n)
  }

  /** Looks at every table known here, after the catalog was forgotten.
   *  @param headLsn where the stream stands, once it has passed what the catalog shows
   *  @returns those with rows that went unsaid */
  async look(headLsn: () => Promise<bigint>): Promise<ReadonlySet<number>> {
    const found = new Set<number>()
    for (const [oid, known] of this.#files) {
      const files = await this.#catalog.tableByOid(oid).then(
        table => table.files,
        () => undefined,
      )
      // Dropped or no longer tracked: its subscriptions end for that.
      if (files === undefined) {
        this.#files.delete(oid)
        continue
      }
      const changed = rewritten(known.files, files)
      if (changed === 'none') continue
      const lsn = await headLsn()
      const truncations = this.#truncations.get(oid) ?? 0
      this.#files.set(oid, { files, truncations })
      if (changed === 'all' && truncations > known.truncations) continue
      this.#voidBefore.set(oid, lsn)
      found.add(oid)
    }
    return found
  }
}

/** Partitions that came or went are another matter: they make another table of it. */
function rewritten(before: readonly string[], now: readonly string[]): 'none' | 'some' | 'all' {
  const fileOf = (entry: string): readonly string[] => entry.split(':')
  const held = new Map(before.map(entry => [fileOf(entry)[0], fileOf(entry)[1]]))
  const same = now.filter(entry => held.has(fileOf(entry)[0]))
  const changed = same.filter(entry => held.get(fileOf(entry)[0]) !== fileOf(entry)[1])
  if (changed.length === 0) return 'none'
  return changed.length === same.length ? 'all' : 'some'
}
