// Serves a commit too large to hold: walked from its spool in slices, judged row by row, sent in parts. Nobody stands
// between two of its parts: the head moves when it is done.
import { type MembershipSet, MembershipWriter } from '../authorize/membership.ts'
import { judge } from '../authorize/visibility.ts'
import type { Commit } from '../decode/change.ts'
import type { Head } from '../relay/head.ts'
import type { MemoryRelay } from '../relay/memory-relay.ts'
import type { Audience } from '../route/audience.ts'
import { rowsOfCommit } from '../route/commit-rows.ts'
import { maxPartChars, truncateJson } from '../route/encode.ts'
import { changeJson, lacksValues, OutcomeEncoder } from '../route/outcome.ts'
import type { Route, Router } from '../route/router.ts'
import type { Holds } from './holds.ts'
import { LiveSubscription } from './live-subscription.ts'
import type { SubscriptionDoor } from './subscribe.ts'

export interface LargeCommitOptions {
  readonly router: Router
  readonly relay: MemoryRelay
  readonly head: Head
  readonly holds: Holds
  readonly door: SubscriptionDoor
}

const sliceMs = 10

/** What has been gathered for one live audience and not been sent. */
interface Parts {
  items: string[]
  chars: number
}

export async function serveLargeCommit(options: LargeCommitOptions, commit: Commit): Promise<void> {
  const { router, head, holds, door } = options
  const slice = new Slice()
  const changed = router.changedTables(commit)
  if (changed.size > 0) door.retire(changed)
  const writer = new MembershipWriter()
  const sets = new Set<MembershipSet>()
  for (const change of commit.changes()) {
    router.applyMembership(change, writer, sets)
    if (slice.over()) await slice.next()
  }
  if (writer.failed.size > 0) door.endFailed(writer.failed)
  holds.flipped(writer, head.lsn)
  const encoder = new OutcomeEncoder(options.relay.epoch, commit.commitLsn, commit.committedAtMicros)
  for (const oid of commit.relations) {
    const route = router.routeOf(oid)
    if (route !== undefined && route.audiences.size > 0)
      await serveTable(options, commit, route, writer, encoder, slice)
  }
  writer.settle()
}

async function serveTable(
  { router, holds, head }: LargeCommitOptions,
  commit: Commit,
  route: Route,
  writer: MembershipWriter,
  encoder: OutcomeEncoder,
  slice: Slice,
): Promise<void> {
  const gathered = new Map<Audience, Parts>()
  const found = new Set<Audience>()
  const cut = new Set<LiveSubscription>()
  const send = (audience: Audience, items: readonly string[], done: boolean): void => {
    const part = encoder.part(items, done)
    for (const member of [...audience.members]) {
      // Whoever had no room took a part of a delta that it will never see the end of: it starts over.
      if (member instanceof LiveSubscription && !member.deliverPart(part, done, commit.commitLsn)) cut.add(member)
    }
  }
  const add = (audience: Audience, json: string): void => {
    let parts = gathered.get(audience)
    if (parts === undefined) {
      parts = { items: [], chars: 0 }
      gathered.set(audience, parts)
    }
    if (parts.chars > 0 && parts.chars + json.length > maxPartChars) {
      send(audience, parts.items, false)
      parts.items = []
      parts.chars = 0
    }
    parts.items.push(json)
    parts.chars += json.length + 1
  }
  for (const row of rowsOfCommit(commit, route.table)) {
    found.clear()
    if (row === 'truncate') for (const audience of route.members) found.add(audience)
    else router.collect(route, row, found)
    for (const audience of found) {
      const { query } = audience
      if (audience.members.size === 0 || audience.hold !== null) continue
      if (row === 'truncate') {
        if (query.kind === 'live') add(audience, truncateJson)
        else
          for (const member of [...audience.members]) member.deliver(encoder.changes(query, true, []), commit.commitLsn)
        continue
      }
      const before = writer.before.size === 0 ? audience.now : audience.at(writer.before)
      const op = judge(audience.visible, row.truncated ? null : row.old, row.new, before, audience.now)
      if (op === null) continue
      if (query.kind === 'changes') {
        const events = encoder.changes(query, false, [{ op, row }])
        for (const member of [...audience.members]) member.deliver(events, commit.commitLsn)
      } else if (lacksValues(query, { op, row })) {
        for (const member of [...audience.members]) if (member instanceof LiveSubscription) cut.add(member)
        holds.begin(audience, head.lsn, null)
      } else {
        const json = changeJson(query, { op, row })
        if (json !== null) add(audience, json)
      }
    }
    if (slice.over()) await slice.next()
  }
  for (const [audience, parts] of gathered) if (audience.hold === null) send(audience, parts.items, true)
  for (const member of cut) member.resync('WINDOW_PASSED')
}

/** Gives the event loop to the neighbours every few milliseconds. */
class Slice {
  #end = performance.now() + sliceMs

  over(): boolean {
    return performance.now() > this.#end
  }

  async next(): Promise<void> {
    await new Promise<void>(resolve => setImmediate(resolve))
    this.#end = performance.now() + sliceMs
  }
}
