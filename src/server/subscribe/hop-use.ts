// What one semi-join of an audience reaches of a hop: by constants, or along links from its other semi-joins. The hop and the
// links are everybody's; what this audience reaches by them is only what its own chain leads to.
import type { Row, SemiJoin } from '../../predicate/algebra.ts'
import { joinText } from '../../predicate/join-key.ts'
import { Hop, type HopRow, type Partition } from '../authorize/hop.ts'
import type { InnerSet } from '../authorize/inner-set.ts'
import { MembershipSet } from '../authorize/membership.ts'

/** From the keys of a set to partitions of the hop around it. */
export interface Link {
  readonly name: string
  readonly source: InnerSet
  /** The semi-join that the source answers: its keys are compared with `columns` of the hop. */
  readonly join: SemiJoin
  readonly hop: Hop
  readonly columns: readonly number[]
  users: number
}

export interface HopUse {
  readonly hop: Hop
  readonly partitions: readonly Partition[]
  readonly ways: readonly Way[]
}

export interface Way {
  readonly link: Link
  /** What the audience reaches of the link's source, where that is a hop too. */
  readonly from: HopUse | null
}

/** Partitions that the use asks for and that are not there. By the smaller side: of a thousand readers who come at once each
 *  looks at its own. */
export function* pendingOf(use: HopUse): Generator<Partition, void> {
  const { hop, partitions, ways } = use
  const { loading } = hop
  for (const partition of partitions) if (loading.has(partition)) yield partition
  for (const way of ways) {
    const { columns } = way.link
    let looked = 0
    for (const key of keysOf(way)) {
      looked += 1
      if (looked > loading.size) break
      const partition = hop.partitionOf(columns, key)
      if (partition !== undefined && loading.has(partition)) yield partition
    }
    if (looked <= loading.size) continue
    const name = columns.join(',')
    for (const partition of loading)
      if (partition.columns.join(',') === name && reachesKey(way, partition.key)) yield partition
  }
}

/** Keys that lead along the way; some of them perhaps more than once. */
function* keysOf({ link, from }: Way): Generator<string, void> {
  const { source, join } = link
  if (source instanceof MembershipSet) {
    for (const key of source.keys) if (source.countOf(key) > 0) yield key
    return
  }
  if (from === null) return
  const { joined } = from.hop.lookupOf(join)
  for (const row of rowsOf(from)) {
    const key = row.count > 0 && from.hop.isPinned(join, row) ? joined.keyOf(row) : null
    if (key !== null) yield key
  }
}

/** Rows of the hop that the use leads to. */
function* rowsOf({ hop, partitions, ways }: HopUse): Generator<HopRow, void> {
  for (const { columns, key } of partitions) yield* hop.indexOfColumns(columns).byKey.get(key) ?? []
  for (const way of ways) {
    const { byKey } = hop.indexOfColumns(way.link.columns)
    for (const key of keysOf(way)) yield* byKey.get(key) ?? []
  }
}

function reachesKey({ link, from }: Way, key: string): boolean {
  const { source, join } = link
  if (!(source instanceof Hop)) return source.countOf(key) > 0
  const { pinned, both } = source.lookupOf(join)
  const rows = both.byKey.get(pinned === null ? key : joinText([key, pinned.key])) ?? []
  for (const row of rows) if (row.count > 0 && from !== null && reachesRow(from, row)) return true
  return false
}

function reachesRow({ hop, partitions, ways }: HopUse, row: Row): boolean {
  if (partitions.some(({ columns, key }) => hop.keyOfColumns(columns, row) === key)) return true
  return ways.some(way => {
    const key = hop.keyOfColumns(way.link.columns, row)
    return key !== null && reachesKey(way, key)
  })
}
