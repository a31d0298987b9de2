// Serves a commit too large to hold: walked from its spool in slices, judged row by row, sent in parts. Nobody stands
// between two of its parts: the head moves when it is done.
import { MembershipWriter } from '../authorize/membership-history.ts'
import { judge, type Op } from '../authorize/visibility.ts'
import type { Commit } from '../decode/change.ts'
import type { FoldedRow } from '../decode/fold.ts'
import type { Figures } from '../figures/figures.ts'
import type { Head } from '../relay/head.ts'
import type { MemoryRelay } from '../relay/memory-relay.ts'
import type { Audience } from '../route/audience.ts'
import { Batch } from '../route/batch.ts'
import { maxPartChars, truncateJson } from '../route/encode.ts'
import { Found } from '../route/found.ts'
import { changeJson, lacksValues, OutcomeEncoder } from '../route/outcome.ts'
import type { Outgoing } from '../route/outgoing.ts'
import type { Query } from '../route/query.ts'
import type { Route, Router } from '../route/router.ts'
import { Slice } from '../route/slice.ts'
import { prepareSpooled } from '../route/spooled-rows.ts'
import { ViewsBefore } from '../route/views-before.ts'
import { ChangesSubscription } from './changes-subscription.ts'
import type { Holds } from './holds.ts'
import { LiveSubscription } from './live-subscription.ts'
import type { Reach } from './reach.ts'
import { ChangeKeeper } from './spooled-memberships.ts'
import type { SubscriptionDoor } from './subscribe.ts'
import type { Times } from './times.ts'

export interface LargeCommitOptions {
  readonly router: Router
  readonly relay: MemoryRelay
  readonly head: Head
  readonly reach: Reach
  readonly times: Times
  readonly holds: Holds
  readonly door: SubscriptionDoor
  readonly figures: Figures
  /** Who may be in channels. */
  readonly guards: { flipped(writer: MembershipWriter): void }
}

/** How long one commit waits at a time for live subscribers whose queue is full: they take a part slower than it is made,
 *  though they take it. Whoever is still full then starts over, and is no member until it has caught up: a client that
 *  hangs holds its neighbours up once. In all it waits no longer than this and as long as it has worked: a client that
 *  takes at half the pace is not cut, whatever that pace is. (With a second in all, a reader of 900,000 rows was cut on a
 *  machine with four processes for each core, and had too many rows to start over. With no bound at a time, one that hung
 *  held everybody up for six.) */
const patienceMs = 2000

/** What may be gathered for all audiences together, in characters of distinct texts and one for each time one is held. Past
 *  it everybody is sent what there is: ten thousand readers of a hundred rows each would else have all of the commit's rows
 *  in memory before the first part is full. */
const maxGatheredChars = 8 * 1024 * 1024

/** @param microsBefore `now()` before it
 *  @throws SPOOL_FAILED when the file cannot be read */
export async function serveLargeCommit(
  options: LargeCommitOptions,
  commit: Commit,
  microsBefore: bigint,
): Promise<void> {
  const { relay, head, holds, door, guards } = options
  const { life } = relay
  const slice = new Slice()
  try {
    const changed = options.router.changedTables(commit)
    if (changed.size > 0) door.retire(changed)
    const writer = await applyMemberships(options, commit, microsBefore, slice)
    if (relay.life !== life) return
    if (writer.failed.size > 0) door.endFailed(writer.failed)
    for (const { table } of writer.truncated) door.truncated(table.oid)
    guards.flipped(writer)
    holds.flipped(writer, head.lsn)
    for (const oid of commit.relations) {
      const route = options.router.routeOf(oid)
      if (route !== undefined && route.audiences.size > 0)
        await new LargeTable(options, commit, route, writer, slice).serve()
    }
    writer.settle()
  } catch (error) {
    // A new epoch began, and the files of the old one are closed: what is left of it belongs to nobody.
    if (relay.life === life) throw error
  }
}

async function applyMemberships(
  { router, reach }: LargeCommitOptions,
  commit: Commit,
  microsBefore: bigint,
  slice: Slice,
): Promise<MembershipWriter> {
  const writer = new MembershipWriter(microsBefore)
  const concerned = [...commit.relations].filter(oid => (router.routeOf(oid)?.sets.size ?? 0) > 0)
  if (concerned.length === 0) return writer
  const keeper = new ChangeKeeper(commit, concerned)
  reach.begin(writer)
  try {
    for (const change of commit.passing()) {
      router.applyMembership(change, writer)
      keeper.add(change)
      if (slice.over()) await slice.next()
    }
    keeper.keep()
  } finally {
    reach.follow(writer)
  }
  return writer
}

/** What has been gathered for one live audience and not been sent. Audiences of one query share the texts. */
interface Parts {
  items: string[]
  chars: number
}

/** One table's part of the commit. */
class LargeTable {
  readonly #options: LargeCommitOptions
  readonly #commit: Commit
  readonly #route: Route
  readonly #slice: Slice
  readonly #encoder: OutcomeEncoder
  readonly #gathered = new Map<Audience, Parts>()
  readonly #before: ViewsBefore
  /** What was made of the row at hand, by query and operation: audiences of one query share it. */
  #made = new Map<string, string | Outgoing | null>()
  /** The part made last for each query: audiences that see the same rows share it. */
  readonly #lastParts = new Map<Query, { readonly items: readonly string[]; readonly part: Outgoing }>()
  /** Characters gathered since everybody was sent what there was. */
  #gatheredChars = 0
  readonly #full = new Set<LiveSubscription>()
  readonly #cut = new Set<LiveSubscription>()
  readonly #begun = performance.now()
  #waitedMs = 0

  constructor(options: LargeCommitOptions, commit: Commit, route: Route, writer: MembershipWriter, slice: Slice) {
    this.#options = options
    this.#commit = commit
    this.#route = route
    this.#before = new ViewsBefore(writer.before)
    this.#slice = slice
    this.#encoder = new OutcomeEncoder(
      options.relay.epoch,
      { since: options.head.lsn, lsn: commit.commitLsn },
      commit.committedAtMicros,
    )
  }

  async serve(): Promise<void> {
    const { relay, router, door, times } = this.#options
    const { life } = relay
    const rows = await prepareSpooled(this.#commit, this.#route.table)
    if (relay.life !== life) return
    if (rows.untold === 'unkeyed') {
      door.retire(new Set([this.#route.table.oid]))
      return
    }
    if (rows.untold === 'repeated') {
      this.#startOver()
      return
    }
    // Nothing here is ever cleared: the table that a Map's `clear` leaves behind points to its successor. Once one is old, V8
    // keeps all that follow until it collects everything, and what lay in them: a million rows moved 400 MB into the old
    // generation.
    for (const row of rows.walk(0)) {
      if (typeof row !== 'number') {
        if (row !== 'truncate' && row.new !== null && times.isFollowed) times.seen(this.#route.table.oid, row.new)
        const found = new Found<Audience>()
        if (row === 'truncate') {
          door.truncated(this.#route.table.oid)
          for (const audience of this.#route.members) found.add(audience)
        } else router.collect(this.#route, row, found)
        if (this.#made.size > 0) this.#made = new Map()
        for (const audience of found.items) {
          if (!audience.isFed) continue
          // Read again, once the commit has been served: what is judged here one by one, its window would have to take at once.
          if (audience.window !== null) this.#options.holds.begin(audience, this.#options.head.lsn, null)
          else if (row === 'truncate') this.#truncate(audience)
          else this.#judge(audience, row)
        }
      }
      if (this.#gatheredChars > maxGatheredChars) this.#sendGathered()
      if (this.#full.size > 0) await this.#waitForRoom()
      else if (this.#slice.over()) await this.#slice.next()
      if (relay.life !== life) return
    }
    for (const [audience, { items }] of this.#gathered) if (audience.hold === null) this.#send(audience, items, true)
    for (const member of this.#cut) member.resync('WINDOW_PASSED')
  }

  #truncate(audience: Audience): void {
    if (audience.query.kind === 'live') this.#gather(audience, truncateJson)
    else this.#deliver(audience, this.#encoder.changes(audience.query, true, [])[0]!)
  }

  #judge(audience: Audience, row: FoldedRow): void {
    const { query } = audience
    const old = row.truncated ? null : row.old
    this.#options.figures.decisionsCompiled += 1
    const op = judge(audience.visible, old, row.new, this.#before.of(audience), audience.now)
    if (op === null) return
    if (query.kind === 'changes') {
      if (query.events?.has(op) !== false) this.#deliver(audience, this.#eventOf(query, op, row))
    } else if (lacksValues(query, { op, row })) {
      this.#cutAll(audience)
      this.#options.holds.begin(audience, this.#options.head.lsn, null)
    } else {
      const json = this.#jsonOf(query, op, row)
      if (json !== null) this.#gather(audience, json)
    }
  }

  #jsonOf(query: Query, op: Op, row: FoldedRow): string | null {
    const name = `${query.number}${op}`
    let json = this.#made.get(name) as string | null | undefined
    if (json === undefined) {
      json = changeJson(query, { op, row })
      this.#made.set(name, json)
      this.#gatheredChars += json?.length ?? 0
    }
    return json
  }

  #eventOf(query: Query, op: Op, row: FoldedRow): Outgoing {
    const name = `${query.number}${op}`
    let event = this.#made.get(name) as Outgoing | undefined
    if (event === undefined) {
      event = this.#encoder.change(query, { op, row })
      this.#made.set(name, event)
    }
    return event
  }

  #deliver(audience: Audience, event: Outgoing): void {
    const batch = new Batch(audience, [event], this.#commit.commitLsn, true)
    for (const member of [...audience.members]) member.deliver(batch)
  }

  #gather(audience: Audience, json: string): void {
    let parts = this.#gathered.get(audience)
    if (parts === undefined) {
      parts = { items: [], chars: 0 }
      this.#gathered.set(audience, parts)
    }
    if (parts.chars > 0 && parts.chars + json.length > maxPartChars) {
      this.#send(audience, parts.items, false)
      parts.items = []
      parts.chars = 0
    }
    parts.items.push(json)
    parts.chars += json.length + 1
    this.#gatheredChars += 1
  }

  #send(audience: Audience, items: readonly string[], done: boolean): void {
    const part = this.#partOf(audience.query, items, done)
    for (const member of audience.members) {
      if (member instanceof LiveSubscription && !member.deliverPart(part, done, this.#commit.commitLsn))
        this.#full.add(member)
    }
  }

  #sendGathered(): void {
    for (const [audience, parts] of this.#gathered) {
      if (audience.hold !== null || parts.chars === 0) continue
      this.#send(audience, parts.items, false)
      parts.items = []
      parts.chars = 0
    }
    this.#gatheredChars = 0
  }

  #partOf(query: Query, items: readonly string[], done: boolean): Outgoing {
    const last = this.#lastParts.get(query)
    const isSame =
      last !== undefined && last.items.length === items.length && items.every((item, i) => item === last.items[i])
    if (isSame && (last.part.position !== null) === done) return last.part
    // Whoever stands before such a commit cannot be told of it again: where its parts begin is of no use to anybody.
    const part = this.#encoder.part(items, done, false)
    this.#lastParts.set(query, { items, part })
    return part
  }

  /** Lets sockets take what they have. Whoever has no room in the end took parts of a delta whose end it will never see:
   *  it starts over. */
  async #waitForRoom(): Promise<void> {
    const begun = performance.now()
    const workedMs = begun - this.#begun - this.#waitedMs
    for (;;) {
      await this.#slice.next()
      for (const member of this.#full) if (member.hasRoom) this.#full.delete(member)
      const waitedMs = performance.now() - begun
      if (this.#full.size === 0 || waitedMs > Math.min(patienceMs, patienceMs + workedMs - this.#waitedMs)) break
      // Sockets wake us by themselves; a turn of the event loop without an event would only spin.
      await new Promise(resolve => setTimeout(resolve, 1))
    }
    this.#waitedMs += performance.now() - begun
    for (const member of this.#full) {
      member.audience.members.delete(member)
      this.#cut.add(member)
    }
    this.#full.clear()
  }

  #cutAll(audience: Audience): void {
    for (const member of audience.members) if (member instanceof LiveSubscription) this.#cut.add(member)
  }

  /** Nothing can be told of this table's rows: everybody who could be concerned begins anew. */
  #startOver(): void {
    for (const audience of this.#route.members) {
      audience.window?.discard(this.#options.head.lsn)
      for (const member of [...audience.members]) {
        if (member instanceof LiveSubscription) member.resync('WINDOW_PASSED')
        else if (member instanceof ChangesSubscription) member.catchUp()
      }
    }
  }
}
