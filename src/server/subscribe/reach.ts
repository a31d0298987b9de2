// What connected readers reach of the tables in the middle of chains, and how it comes to be held.
//
// A hop's rows are asked for from the reader's side: the keys of one set ("teams of this user") name partitions of the next
// ("projects of this team"), whose rows name partitions of the one after it. Such a *link* from a set to a hop follows the set
// as the stream moves it: a key that comes asks for a partition, a key that goes lets it go. Partitions asked for in one
// turn of the event loop are read together, for all readers, and spliced into the stream like a snapshot. Until one is there, whoever
// reaches it waits (`isPending`): it is never judged by half a hop.
import type { SemiJoin } from '../../predicate/algebra.ts'
import { innerColumnsOf } from '../../predicate/columns.ts'
import { fingerprint } from '../../predicate/fingerprint.ts'
import { cover, coverToRead } from '../../predicate/keys.ts'
import { pinsOf } from '../../predicate/pins.ts'
import { timeBoundsOf } from '../../predicate/time.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { Hop, type Partition } from '../authorize/hop.ts'
import type { InnerSet } from '../authorize/inner-set.ts'
import type { MembershipWriter } from '../authorize/membership-history.ts'
import { flipsOf } from '../authorize/membership-history.ts'
import { shapeOf, type Table } from '../catalog/table.ts'
import type { Audience } from '../route/audience.ts'
import { type BoundAnchor, getOrInsert } from '../route/row-index.ts'
import { type HopUse, type Link, pendingOf, type Way } from './hop-use.ts'
import { failureOf, readableFamilies, tableChanged } from './inner-reads.ts'
import { PartitionLoads } from './partition-loads.ts'
import type { StreamParts } from './stream-parts.ts'
import type { Times } from './times.ts'

interface Held {
  readonly hop: Hop
  readonly anchors: readonly BoundAnchor[] | null
  users: number
}

export class Reach {
  readonly #stream: StreamParts
  readonly #times: Times
  /** One per table, columns and local condition in use. */
  readonly #held = new Map<string, Held>()
  readonly #links = new Map<string, Link>()
  readonly #linksOf = new Map<InnerSet, Set<Link>>()
  /** Partitions that nobody needs, until the grace ends. */
  #unused = new Map<Partition, Hop>()
  #dropping: NodeJS.Timeout | null = null
  readonly #usesOf = new WeakMap<Audience, readonly HopUse[]>()
  /** By the audience's own semi-join. */
  readonly #useOf = new WeakMap<SemiJoin, HopUse>()
  readonly #loads: PartitionLoads
  /** The commit that is being counted in. */
  #counting: MembershipWriter | null = null

  constructor(stream: StreamParts, times: Times) {
    this.#stream = stream
    this.#times = times
    this.#loads = new PartitionLoads(stream, {
      isHeld: hop => this.#isHeld(hop),
      anchorsOf: hop => this.#held.get(hop.name)?.anchors ?? null,
      came: (hop, { name, values }) => this.#rowMoved(hop, name, values, true),
    })
  }

  get size(): number {
    return this.#held.size
  }

  /** The hop of a bound semi-join, asked to hold what the audience reaches. `settled` tells when it does. Release it when done.
   *  @param sets those of the semi-joins within it */
  acquire(join: SemiJoin, table: Table, sets: ReadonlyMap<SemiJoin, InnerSet>): HopUse {
    const pins = pinsOf(join)
    const columns = [...innerColumnsOf(join)].sort((a, b) => a - b)
    const name = `${shapeOf(table)}(${columns.join(',')}) ${fingerprint(pins.local)}`
    const held = getOrInsert(this.#held, name, () => {
      const { indexSize: index, limits } = this.#stream
      const bounds = { maxRows: index.maxRows, partitionMaxRows: limits.membershipMaxRows, index }
      const hop = new Hop({ name, table, local: pins.local, columns, limits: bounds })
      const made = { hop, anchors: cover(pins.local) as BoundAnchor[] | null, users: 0 }
      this.#stream.router.addSet(hop, made.anchors)
      return made
    })
    held.users += 1
    const { hop } = held
    hop.lookupOf(join)
    this.#times.followHop(hop, timeBoundsOf(join.where))
    const partitions: Partition[] = []
    const ways: Way[] = []
    const use: HopUse = { hop, partitions, ways }
    this.#useOf.set(join, use)
    if (pins.columns.length > 0) {
      partitions.push(this.demand(hop, pins.columns, pins.key, pins.values))
      return use
    }
    const anchors = demandsOf(join, table)
    if (anchors === null) partitions.push(this.demand(hop, [], '', []))
    for (const anchor of anchors ?? []) {
      if (anchor.kind === 'const') {
        for (const key of anchor.keys) partitions.push(this.demand(hop, [anchor.column], key, [key]))
      } else {
        const link = this.#link(sets.get(anchor.join)!, anchor.join, hop, anchor.columns)
        ways.push({ link, from: this.#useOf.get(anchor.join) ?? null })
      }
    }
    return use
  }

  release({ hop, ways, partitions }: HopUse): void {
    for (const { link } of ways) this.#unlink(link)
    for (const partition of partitions) this.letGo(hop, partition)
    const held = this.#held.get(hop.name)
    if (held?.hop !== hop) return
    held.users -= 1
    if (held.users > 0) return
    this.#held.delete(hop.name)
    this.#drop(held)
  }

  /** Asks for rows of a hop by the values of columns. Let go of them when done.
   *  @param key the values' canonical text */
  demand(hop: Hop, columns: readonly number[], key: string, values: readonly (string | null)[]): Partition {
    const partition = hop.partition(columns, key, values)
    partition.uses += 1
    this.#unused.delete(partition)
    if (!partition.isLoaded) this.#loads.ask(hop)
    return partition
  }

  letGo(hop: Hop, partition: Partition): void {
    partition.uses -= 1
    if (partition.uses > 0) return
    // The next who asks for it has it read anew.
    if (partition.failure !== null) {
      hop.drop(partition)
      return
    }
    this.#unused.set(partition, hop)
    this.#dropping ??= setTimeout(() => this.#dropUnused(), this.#stream.limits.audienceGraceMs).unref()
  }

  /** A commit is about to be counted in, perhaps in slices: whoever comes or goes amid it, does so as of before it, and
   *  `follow` has the rest. */
  begin(writer: MembershipWriter): void {
    this.#counting = writer
  }

  /** Follows what a commit changed, once it has been counted in: keys that came ask for what they reach. */
  follow(writer: MembershipWriter): void {
    this.#counting = null
    if (this.#links.size === 0) return
    for (const [set, before] of writer.before.sets) {
      const links = this.#linksOf.get(set)
      if (links === undefined) continue
      for (const { name, values, granted } of flipsOf(set, before)) {
        for (const link of links) this.#moved(link, name, values, granted)
      }
    }
  }

  /** The audience stands, with these hops. */
  attach(audience: Audience, uses: readonly HopUse[]): void {
    this.#usesOf.set(audience, uses)
  }

  usesOf(audience: Audience): readonly HopUse[] {
    return this.#usesOf.get(audience) ?? noUses
  }

  /** Whether something that these semi-joins reach is not there yet.
   *  @throws MEMBERSHIP_TOO_LARGE, INDEX_NOT_READABLE when it cannot be had; UNSUBSCRIBED_TABLE_CHANGED */
  isPending(uses: readonly HopUse[]): boolean {
    let result = false
    for (const use of uses) {
      if (use.hop.failure !== null) throw failureOf(use.hop)
      if (use.hop.loading.size === 0) continue
      if (!this.#isHeld(use.hop)) throw tableChanged(use.hop.table)
      for (const partition of pendingOf(use)) {
        if (partition.failure !== null) throw partition.failure
        result = true
      }
    }
    return result
  }

  /** Why something that the audience reaches cannot be had; null: it is there, or on its way. */
  failureFor(audience: Audience): TidegateError | null {
    try {
      this.isPending(this.usesOf(audience))
      return null
    } catch (error) {
      if (error instanceof TidegateError) return error
      throw error
    }
  }

  /** Gives up the partitions of a hop that are not exact any more. Those who reach them must be ended too. */
  breakOff(hop: Hop): void {
    const { failing, table } = hop
    for (const [partition, failure] of failing)
      for (const row of hop.breakOff(partition, failureOf({ failure, table })))
        this.#rowMoved(hop, row.name, row.values, false)
    failing.clear()
    this.#stream.head.moved()
  }

  /** Resolves when everything that these semi-joins reach is held. @throws as `isPending` */
  async settled(uses: readonly HopUse[]): Promise<void> {
    while (this.isPending(uses)) await this.#stream.head.change()
  }

  /** A set is about to be forgotten: what it reached is let go. */
  unlinkFrom(source: InnerSet): void {
    for (const link of this.#linksOf.get(source) ?? []) {
      link.users = 1
      this.#unlink(link)
    }
  }

  /** Forgets the hops of a table (or all): what they hold is no longer true. Their audiences must be retired too. */
  forget(oid?: number): void {
    for (const [name, held] of this.#held) {
      if (oid !== undefined && held.hop.table.oid !== oid) continue
      this.#held.delete(name)
      this.#drop(held)
    }
  }

  forgetFailed(hop: Hop): void {
    const held = this.#held.get(hop.name)
    if (held?.hop !== hop) return
    this.#held.delete(hop.name)
    this.#drop(held)
  }

  #drop({ hop, anchors }: Held): void {
    this.unlinkFrom(hop)
    this.#times.forgetHop(hop)
    this.#stream.router.removeSet(hop, anchors)
    for (const partition of hop.partitions.values()) this.#unused.delete(partition)
    hop.clear()
    this.#stream.head.moved()
  }

  #isHeld(hop: Hop): boolean {
    return this.#held.get(hop.name)?.hop === hop
  }

  #link(source: InnerSet, join: SemiJoin, hop: Hop, columns: readonly number[]): Link {
    const name = linkName(source, join, hop, columns)
    let link = this.#links.get(name)
    if (link === undefined) {
      link = { name, source, join, hop, columns, users: 0 }
      this.#links.set(name, link)
      getOrInsert(this.#linksOf, source, () => new Set<Link>()).add(link)
      this.#allMoved(link, true)
    }
    link.users += 1
    return link
  }

  #unlink(link: Link): void {
    link.users -= 1
    if (link.users > 0 || this.#links.get(link.name) !== link) return
    this.#links.delete(link.name)
    const links = this.#linksOf.get(link.source)
    links?.delete(link)
    if (links?.size === 0) this.#linksOf.delete(link.source)
    this.#allMoved(link, false)
  }

  /** By all that the source had when it was last followed. */
  #allMoved(link: Link, granted: boolean): void {
    const before = this.#counting?.before.get(link.source)
    for (const [name, { count, values }] of link.source.entries()) {
      const was = before?.entries.get(name)?.count ?? count
      if (was > 0) this.#moved(link, name, values, granted)
    }
  }

  #rowMoved(hop: Hop, name: string, values: readonly (string | null)[], granted: boolean): void {
    for (const link of this.#linksOf.get(hop) ?? []) this.#moved(link, name, values, granted)
  }

  #moved(link: Link, name: string, values: readonly (string | null)[], granted: boolean): void {
    const { source, join, hop, columns } = link
    if (!this.#isHeld(hop)) return
    let key: string | null = name
    let keyValues = values
    if (source instanceof Hop) {
      const row = source.rowOf(name, values)
      if (!source.isPinned(join, row)) return
      key = source.lookupOf(join).joined.keyOf(row)
      keyValues = join.keys.map(({ inner }) => row.text(inner.column) ?? null)
    }
    if (key === null) return
    if (granted) this.demand(hop, columns, key, keyValues)
    else {
      const partition = hop.partitionOf(columns, key)
      if (partition !== undefined) this.letGo(hop, partition)
    }
  }

  /** Between two commits: what a commit took is looked for by those who saw it. */
  #dropUnused(): void {
    this.#dropping = null
    const { head } = this.#stream
    if (!head.resting) {
      this.#dropping = setTimeout(() => this.#dropUnused(), 10).unref()
      return
    }
    const unused = this.#unused
    this.#unused = new Map()
    for (const [partition, hop] of unused) {
      if (partition.uses > 0 || !this.#isHeld(hop)) continue
      for (const row of hop.drop(partition)) this.#rowMoved(hop, row.name, row.values, false)
    }
  }
}

const noUses: readonly HopUse[] = []

/** The partitions of a hop that a condition can name; null when it names none, and all rows are held. */
function demandsOf(join: SemiJoin, table: Table): ReturnType<typeof cover> {
  const anchors = coverToRead(join.where)
  if (anchors === null) return null
  const isReadable = (column: number): boolean => readableFamilies.has(table.columns[column]!.type.family)
  return anchors.every(anchor =>
    anchor.kind === 'const' ? isReadable(anchor.column) : anchor.columns.every(isReadable),
  )
    ? anchors
    : null
}

const linkName = (source: InnerSet, join: SemiJoin, hop: Hop, columns: readonly number[]): string =>
  `${numberOf(source)} ${pinsOf(join).key} ${join.keys.map(({ inner }) => inner.column).join(',')} ${hop.name} ${columns.join(',')}`

let sets = 0
const numbers = new WeakMap<InnerSet, number>()

function numberOf(set: InnerSet): number {
  let number = numbers.get(set)
  if (number === undefined) {
    number = ++sets
    numbers.set(set, number)
  }
  return number
}
