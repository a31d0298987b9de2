// The life of a change, from the WAL to the outlets of those who may see it: the only file that knows the order.
//
//   ingest  on the node that holds the slot: replication session -> assembler -> journal -> relay
//   follow  on all others: journal -> relay
//   serve   on every node: relay -> memberships -> rows -> audiences -> judge -> encode -> subscribers
import { MembershipsBefore, MembershipWriter } from './authorize/membership-history.ts'
import { judge } from './authorize/visibility.ts'
import type { Channels } from './channels/channels.ts'
import type { Guards } from './channels/guards/guards.ts'
import type { Commit } from './decode/change.ts'
import { TransactionAssembler } from './decode/transaction.ts'
import { Arrivals } from './figures/arrivals.ts'
import { CommitClock } from './figures/commit-clock.ts'
import type { CommitTraces } from './figures/commit-trace.ts'
import type { Figures } from './figures/figures.ts'
import { wallNow } from './figures/wall-clock.ts'
import type { Trouble } from './log/trouble.ts'
import type { Orders } from './orders/orders.ts'
import { DirectInlet } from './relay/direct-inlet.ts'
import type { Head } from './relay/head.ts'
import type { Feed, Inlet, Journal } from './relay/journal.ts'
import { type MemoryRelay, microsTo2000 } from './relay/memory-relay.ts'
import type { Audience } from './route/audience.ts'
import { Outbox } from './route/batch.ts'
import { CommitOutcomes } from './route/commit-outcomes.ts'
import { Found } from './route/found.ts'
import { lacksValues, type Outcome, OutcomeEncoder } from './route/outcome.ts'
import type { Outgoing } from './route/outgoing.ts'
import type { Router } from './route/router.ts'
import { Slice } from './route/slice.ts'
import { ViewsBefore } from './route/views-before.ts'
import type { Holds } from './subscribe/holds.ts'
import { serveLargeCommit } from './subscribe/large-commit.ts'
import type { Reach } from './subscribe/reach.ts'
import type { SubscriptionDoor } from './subscribe/subscribe.ts'
import type { Times } from './subscribe/times.ts'
import type { Replication } from './wal/replication.ts'
import type { WalStream } from './wal/wal-source.ts'

export interface PipelineOptions {
  readonly replication: Replication
  readonly relay: MemoryRelay
  /** Shared with other nodes; null: there are none. */
  readonly journal: Journal | null
  readonly head: Head
  readonly router: Router
  readonly reach: Reach
  readonly times: Times
  readonly holds: Holds
  readonly door: SubscriptionDoor
  /** Who may be in channels. */
  readonly guards: Pick<Guards, 'flipped' | 'moved'>
  readonly spoolBytes: number
  /** A commit has been served. */
  readonly onServed: (commit: Commit) => void
  /** The stream is at this commit: what it changed of policies, privileges and columns holds for its own rows. Null when there
   *  is nothing to wait for. @param isDescribed the WAL describes a table anew that is followed */
  readonly rulesAt: (commit: Commit, isDescribed: boolean) => Promise<void> | null
  /** What operators order by commits. */
  readonly orders: Pick<Orders, 'begin' | 'concerns' | 'serve'>
  /** What commits say in channels. */
  readonly channels: Pick<Channels, 'concerns' | 'serve' | 'room' | 'lead'>
  readonly trouble: Trouble
  readonly figures: Figures
  readonly traces: CommitTraces
}

export class Pipeline {
  readonly #options: PipelineOptions
  readonly #arrivals = new Arrivals()
  readonly #clock: CommitClock
  /** Empty whenever the turn of the event loop ends. */
  readonly #outbox: Outbox
  /** `now()` before the commit being served. */
  #microsBefore = 0n
  /** The session of this life, to acknowledge to, and what says how far; null while this node does not hold the slot. */
  leading: { readonly stream: WalStream; readonly inlet: Inlet } | null = null
  /** The slot whose epoch the relay holds, as far as this node has held it. */
  slotName: string | null = null
  readonly #lettingGo = new AbortController()

  constructor(options: PipelineOptions) {
    this.#options = options
    this.#clock = new CommitClock({ ...options, arrivals: this.#arrivals })
    this.#outbox = new Outbox(this.#clock)
  }

  /** Runs until the signal aborts. @throws what an operator must mend before the first life, or a defect of ours */
  async run(signal: AbortSignal): Promise<void> {
    const { journal } = this.#options
    const following = journal === null ? null : journal.run(this.#feed, signal)
    await Promise.all([this.ingest(signal), following, this.serve(signal)])
  }

  /** Lets the slot go for good, for another node to take: this one follows, and serves what it has. */
  letGo(): void {
    this.#lettingGo.abort()
  }

  /** Reads the slot into the journal, and from there into the relay, life after life. */
  async ingest(stopping: AbortSignal): Promise<void> {
    const { replication, journal, spoolBytes, trouble, figures } = this.#options
    const signal = AbortSignal.any([stopping, this.#lettingGo.signal])
    for await (const { slot, stream } of replication.lives(signal)) {
      const assembler = new TransactionAssembler({ spoolBytes })
      let inlet: Inlet | null = null
      try {
        inlet =
          journal === null
            ? new DirectInlet(slot, this.#feed, this.#options.relay)
            : await journal.lead(slot, this.#feed)
        this.leading = { stream, inlet }
        this.slotName = slot.slotName
        this.#options.channels.lead()
        // Nothing may come for a while that would show it.
        void inlet.failed.then(() => stream.close())
        this.#arrivals.clear()
        for await (const gulp of stream.gulps()) {
          const cameAtMs = wallNow()
          let messages = 0
          let bytes = 0
          let lastLsn = 0n
          for (const message of gulp) {
            if (message.data === null) inlet.passed(message.walEnd)
            else {
              messages += 1
              bytes += message.data.length
              const commit = assembler.push(message.data)
              if (commit === null) continue
              lastLsn = commit.commitLsn
              inlet.append(commit)
            }
          }
          figures.walMessages += messages
          figures.walBytes += bytes
          if (lastLsn !== 0n) this.#arrivals.note(lastLsn, cameAtMs)
          inlet.flush()
          await inlet.room()
        }
        if (!signal.aborted) await inlet.room()
      } catch (error) {
        if (!signal.aborted) trouble.noticed(error)
      } finally {
        this.leading = null
        assembler.reset()
        await inlet?.close()
      }
    }
  }

  /** The relay's window and the head begin anew together, and whoever followed starts over. */
  get #feed(): Feed {
    const { relay, head, door, orders } = this.#options
    return {
      get headLsn() {
        return relay.headLsn
      },
      get epoch() {
        return relay.epoch
      },
      begin: (epoch, floorLsn, isSettled) => {
        const isFirst = relay.epoch === ''
        relay.begin(epoch, floorLsn, isSettled)
        head.begin(floorLsn)
        if (isFirst) return
        door.endEpoch()
        orders.begin()
      },
      append: commit => relay.append(commit),
      passed: lsn => relay.passed(lsn),
      settled: lsn => relay.settled(lsn),
      room: () => relay.room(),
    }
  }

  /** Follows the relay: each commit whole, in order, judged by the memberships of its own position. */
  async serve(signal: AbortSignal): Promise<void> {
    const { relay, head, orders, figures } = this.#options
    const clock = this.#clock
    for await (const { life, commits, passedLsn } of relay.follow(signal)) {
      const slice = new Slice()
      clock.look()
      for (const commit of commits) {
        // The window began anew while this batch was served: what is left of it belongs to nobody.
        if (life !== relay.life) break
        figures.commits += 1
        figures.commitBytes += commit.bytes
        figures.changes += commit.changeCount
        clock.begin(commit)
        const rules = this.#options.rulesAt(commit, this.#isDescribed(commit))
        if (rules !== null) {
          this.#outbox.handOut()
          head.moved()
          await rules
          if (life !== relay.life) break
        }
        // Whoever is shut out by a commit sees nothing of it.
        if (orders.concerns(commit)) {
          this.#outbox.handOut()
          const walk = orders.serve(commit)
          if (walk !== null) await walk
          if (life !== relay.life) break
        }
        this.#passTime(commit)
        if (commit.spooled && this.#options.router.concerns(commit)) {
          this.#outbox.handOut()
          head.resting = false
          try {
            await serveLargeCommit(this.#options, commit, this.#microsBefore)
          } finally {
            head.resting = true
          }
          // It began anew meanwhile: the head is where that begins.
          if (life !== relay.life) break
        } else {
          const work = this.serveCommit(commit)
          if (work.next().done !== true) {
            head.resting = false
            try {
              await this.#inSlices(work, slice, life)
            } finally {
              // Here, where the head moves in the same turn: whoever was woken in between would join without this commit.
              head.resting = true
            }
          }
          if (life !== relay.life) break
        }
        if (this.#options.channels.concerns(commit)) {
          await this.#speak(commit, slice, life)
          if (life !== relay.life) break
        }
        clock.served(this.#outbox.isTimed)
        this.#options.onServed(commit)
        head.lsn = commit.commitLsn
        head.passedLsn = commit.endLsn
        // A batch may hold 100,000 small commits: timers and sockets take their turn in between.
        if (slice.over()) {
          this.#outbox.handOut()
          head.moved()
          await slice.next()
        }
      }
      this.#outbox.handOut()
      clock.rest()
      if (life === relay.life && passedLsn > head.passedLsn) head.passedLsn = passedLsn
      head.moved()
      // Timers, sockets and whoever waited for this position take their turn between two batches.
      await new Promise<void>(resolve => setImmediate(resolve))
    }
  }

  /** What a commit says in channels comes behind its rows. */
  async #speak(commit: Commit, slice: Slice, life: number): Promise<void> {
    const { relay, channels } = this.#options
    this.#outbox.handOut()
    if (this.#clock.isServing) this.#clock.handingOut()
    const said = channels.serve(commit)
    while (life === relay.life && said.next().done !== true) {
      await channels.room()
      if (slice.over()) await slice.next()
    }
    await channels.room()
    if (this.#clock.isServing) this.#clock.handedOut()
  }

  /** `now()` is the greatest commit timestamp: where it passes what changes an answer, those concerned step on like after a
   *  grant, and this commit is part of the step. */
  #passTime(commit: Commit): void {
    const { head, times, holds, guards } = this.#options
    const nowMicros = commit.committedAtMicros + microsTo2000
    this.#microsBefore = head.nowMicros
    if (nowMicros <= head.nowMicros) return
    const concerned = times.isFollowed && times.isDue(nowMicros) ? times.pass(nowMicros) : []
    head.nowMicros = nowMicros
    if (concerned.length === 0) return
    this.#outbox.handOut()
    for (const audience of concerned) {
      if (audience.query.kind === 'channel') guards.moved(audience)
      else holds.timePassed(audience, head.lsn, this.#microsBefore)
    }
  }

  #isDescribed(commit: Commit): boolean {
    const { router } = this.#options
    return commit.announced.some(({ oid }) => router.routeOf(oid) !== undefined)
  }

  /** The rest of a commit that is much work: 10,000 rows that 100 filters without a key look at are a million decisions.
   *  Nobody stands between two slices: the head moves when it is done. */
  async #inSlices(work: Iterator<void>, slice: Slice, life: number): Promise<void> {
    const { relay } = this.#options
    do {
      if (slice.over()) {
        this.#outbox.handOut()
        await slice.next()
      }
    } while (life === relay.life && work.next().done !== true)
  }

  /** One commit, held in memory. What it tells may wait in the outbox for the commits that follow in the same turn, unless it
   *  ends or holds subscriptions. Yields now and then, so that whoever runs it may let others have their turn: hardly ever
   *  for a small commit. */
  *serveCommit(commit: Commit): Generator<void, void> {
    const { router, relay, head, holds, times, door, guards, figures } = this.#options
    if (!router.concerns(commit)) return
    const outbox = this.#outbox
    const clock = this.#clock
    const changed = router.changedTables(commit)
    if (changed.size > 0) {
      outbox.handOut()
      door.retire(changed)
    }

    // First the memberships, keeping the state before: old rows are judged by it, new rows by the state after.
    clock.turnTo('authorize')
    const writer = router.movesMemberships(commit) ? this.#moveMemberships(commit) : null
    if (writer !== null) guards.flipped(writer)
    const { isFollowed: isTimed } = times
    const before =
      writer === null && !isTimed ? null : new ViewsBefore(writer?.before ?? new MembershipsBefore(this.#microsBefore))

    let decisions = 0
    const outcomes = new CommitOutcomes()
    let truncated = nobody
    clock.turnTo('decode')
    const touched = router.fold(commit)
    clock.count('decode', commit.changeCount)
    clock.turnTo('authorize')
    for (const { route, fold } of touched) {
      if (fold.unkeyed > 0 || fold.truncated) outbox.handOut()
      if (fold.unkeyed > 0) door.retire(new Set([route.table.oid]))
      if (fold.truncated) {
        door.truncated(route.table.oid)
        truncated = truncated.union(route.members)
      }
      for (const row of fold.rows.values()) {
        if (isTimed && row.new !== null) times.seen(route.table.oid, row.new)
        const found = new Found<Audience>()
        router.collect(route, row, found)
        outcomes.turnTo(row)
        for (const audience of found.items) {
          if (!audience.isFed) continue
          const was = before === null ? audience.now : before.of(audience)
          const op = judge(audience.visible, row.truncated ? null : row.old, row.new, was, audience.now)
          if (op !== null) outcomes.add(audience, op)
          decisions += 1
          if (decisions % decisionsAtOnce === 0) yield
        }
      }
    }
    if (truncated.size > 0) outcomes.addEmpty(truncated)
    figures.decisionsCompiled += decisions
    clock.count('authorize', decisions)

    // Then grants and revocations: what they move was not touched by the commit and must be read. Until then nothing is
    // sent to those whom they concern.
    if (writer !== null) holds.flipped(writer, head.lsn)
    // 99 commits of 100 concern nobody here; what follows would cost them 0.6 µs each.
    if (outcomes.size > 0) {
      clock.turnTo('route')
      clock.concerned(outcomes.size)
      for (let place = 0; place < outcomes.size; place++) {
        const audience = outcomes.audiences[place]!
        if (audience.query.kind !== 'live' || audience.window !== null || audience.hold !== null) continue
        if (!outcomes.lists[place]!.some(outcome => lacksValues(audience.query, outcome))) continue
        outbox.handOut()
        holds.begin(audience, head.lsn, null)
      }
      const span = { since: head.lsn, lsn: commit.commitLsn }
      const encoder = new OutcomeEncoder(relay.epoch, span, commit.committedAtMicros)
      for (let place = 0; place < outcomes.size; place++) {
        const audience = outcomes.audiences[place]!
        if (!audience.isFed) continue
        const list = outcomes.lists[place]!
        // Its older versions must not come after it has gone from view. Who would have to start over for that, keeps them: a row
        // that leaves a filter is no revocation.
        if (audience.query.kind === 'live' && list.some(leavesView)) audience.members.retract('gently')
        const events = this.#eventsOf(audience, truncated.has(audience), list, encoder)
        const readers = audience.members.size
        if (events.length > 0 && readers > 0) {
          figures.batches += 1
          figures.decisionsCached += list.length * (readers - 1)
          clock.count('route', 1)
          outbox.add(audience, events, commit.commitLsn)
        }
        decisions += list.length
        if (decisions >= decisionsAtOnce) {
          decisions = 0
          yield
        }
      }
    }
    writer?.settle()
  }

  /** What a commit is for an audience. A window that it leaves without an answer is read again, and nothing is sent till then. */
  #eventsOf(
    audience: Audience,
    truncated: boolean,
    list: readonly Outcome[],
    encoder: OutcomeEncoder,
  ): readonly Outgoing[] {
    const { query, window } = audience
    if (window === null) return encoder.encode(query, truncated, list)
    const changes = window.isLoaded
      ? window.apply(truncated, list, encoder.lsn, row => encoder.rowJson(query, row))
      : null
    if (changes !== null) return encoder.windowDelta(query, changes)
    this.#outbox.handOut()
    this.#options.holds.begin(audience, this.#options.head.lsn, null)
    return []
  }

  #moveMemberships(commit: Commit): MembershipWriter {
    const { router, reach, door } = this.#options
    this.#outbox.handOut()
    const writer = new MembershipWriter(this.#microsBefore)
    for (const change of commit.changes()) router.applyMembership(change, writer)
    reach.follow(writer)
    if (writer.failed.size > 0) door.endFailed(writer.failed)
    for (const { table } of writer.truncated) door.truncated(table.oid)
    return writer
  }
}

const leavesView = ({ op, row }: Outcome): boolean => op === 'delete' && row.new !== null

/** A decision takes 1 to 50 µs. */
const decisionsAtOnce = 256

const nobody: ReadonlySet<Audience> = new Set()
