// Holds: from a grant or revocation on, an audience's frames wait until the rows that it moved were read; then everything
// since goes out as one delta. Retractions are part of the same delta and come first. Nobody else waits.
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { MembershipsBefore, type MembershipWriter } from '../authorize/membership-history.ts'
import { repeated } from '../log/log-repeated.ts'
import type { Audience, Hold } from '../route/audience.ts'
import { Batch } from '../route/batch.ts'
import { Found } from '../route/found.ts'
import type { Member } from '../route/members.ts'
import { OutcomeEncoder } from '../route/outcome.ts'
import type { Window } from '../route/window.ts'
import { type Advanced, advance } from './advance.ts'
import { changedKeysOf } from './changed-keys.ts'
import { ChangesSubscription } from './changes-subscription.ts'
import { lasting } from './inner-reads.ts'
import { LiveSubscription } from './live-subscription.ts'
import { couldConcern } from './moved-rows.ts'
import { readWindow } from './read-window.ts'
import type { Stream } from './stream.ts'

export class Holds {
  readonly #stream: Stream

  constructor(stream: Stream) {
    this.#stream = stream
  }

  /** Takes what a commit changed in the memberships. @param lsn of the commit before it */
  flipped(writer: MembershipWriter, lsn: bigint): void {
    const { router } = this.#stream
    const concerned = new Found<Audience>()
    router.movedBy(writer.before, concerned)
    for (const audience of concerned.items) {
      const { members } = audience
      const isMoved = !members.isDeserted && moves(this.#stream, audience, writer.before)
      // What waits for slow readers may be hidden now: they are told anew, from where they stand.
      if (isMoved) members.retract('firmly')
      if (audience.window !== null && members.size === 0 && audience.hold === null) audience.window.interrupt(lsn)
      if (audience.hold !== null) audience.hold.before.merge(writer.before, set => reads(audience, set))
      else if (members.size === 0) continue
      else if (audience.query.kind === 'live') {
        if (isMoved) this.begin(audience, lsn, only(audience, writer.before))
      } else if (this.#isPending(audience)) {
        // What it reaches now is not held yet: it takes this commit's events from the relay when it is.
        for (const member of [...members]) if (member instanceof ChangesSubscription) member.catchUp()
      }
    }
  }

  /** The time has passed what changes an answer. @param beforeMicros the time at `lsn` */
  timePassed(audience: Audience, lsn: bigint, beforeMicros: bigint): void {
    audience.members.retract('firmly')
    if (audience.hold === null && audience.members.size === 0) audience.window?.interrupt(lsn)
    if (audience.hold === null && audience.query.kind === 'live' && audience.members.size > 0)
      this.begin(audience, lsn, new MembershipsBefore(beforeMicros))
  }

  /** @param lsn where the audience stands
   *  @param before null when no membership moved: only large values must be read, or a window */
  begin(audience: Audience, lsn: bigint, before: MembershipsBefore | null): void {
    audience.window?.interrupt(lsn)
    // Whoever comes back reads it.
    if (audience.members.size === 0) return
    audience.hold = { since: lsn, before: before ?? new MembershipsBefore(this.#stream.head.nowMicros) }
    void this.#release(audience)
  }

  /** What the readers reach now cannot be had. */
  #end(audience: Audience, error: TidegateError): void {
    audience.hold = null
    for (const member of [...audience.members]) if (member instanceof LiveSubscription) member.end(error)
    this.#stream.head.moved()
  }

  #isPending(audience: Audience): boolean {
    const { reach } = this.#stream
    try {
      return reach.isPending(reach.usesOf(audience))
    } catch {
      // It is told when it catches up.
      return true
    }
  }

  async #release(audience: Audience): Promise<void> {
    const hold = audience.hold!
    const { head, limits } = this.#stream
    const finish = (result: Advanced): void => {
      if (audience.hold !== hold) return
      audience.hold = null
      const members = [...audience.members]
      const batch = result.resync === null ? new Batch(audience, result.outgoing, head.lsn) : null
      for (const member of members) {
        if (batch !== null) member.deliver(batch)
        else if (member instanceof LiveSubscription) member.resync(result.resync!)
      }
      head.moved()
    }
    // A read may wait for a lock or for its turn far longer than anybody should be held: it is overtaken, not awaited.
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<void>(resolve => {
      timer = setTimeout(resolve, limits.maxHeldMs)
    })
    await Promise.race([this.#fetch(audience, hold, finish), late])
    clearTimeout(timer)
    if (audience.hold !== hold) return
    // Too long: everybody reads anew.
    while (!head.resting) await head.change()
    finish({ resync: 'INPUTS_CHANGED', outgoing: null })
  }

  /** A window is read whole: whatever moved is part of the difference. */
  async #refill(audience: Audience, window: Window, hold: Hold, finish: (result: Advanced) => void): Promise<void> {
    const { relay, head } = this.#stream
    const cancelled = (): boolean => audience.hold !== hold
    // All its readers see the same.
    const reader = [...audience.members].find(isReader)?.reader()
    if (reader === undefined) {
      finish({ resync: null, outgoing: [] })
      return
    }
    const { discards } = window
    await readWindow(this.#stream, { audience, window, reader, isHeld: true, cancelled }, read => {
      // The table was rewritten meanwhile: it is read once more.
      if (window.discards !== discards) return
      const changes = window.load(read, head.lsn)
      const span = { since: hold.since, lsn: head.lsn }
      const encoder = new OutcomeEncoder(relay.epoch, span, relay.at(head.lsn)?.committedAtMicros ?? 0n)
      finish({ resync: null, outgoing: encoder.deltaOf(changes) })
    })
  }

  /** Reads what moved and ends the hold with it, unless that ended otherwise. */
  async #fetch(audience: Audience, hold: Hold, finish: (result: Advanced) => void): Promise<void> {
    const { log } = this.#stream
    const cancelled = (): boolean => audience.hold !== hold
    // The commit that began the hold is being served in this very turn: look at the stream after it.
    await new Promise<void>(resolve => setImmediate(resolve))
    for (let attempt = 0; !cancelled(); attempt++) {
      try {
        if (audience.window === null)
          await advance(this.#stream, { audience, from: hold.since, held: hold.before, cancelled }, finish)
        else await this.#refill(audience, audience.window, hold, finish)
      } catch (error) {
        if (error instanceof TidegateError && (lasting.has(error.code) || error.code === 'SNAPSHOT_TOO_LARGE')) {
          if (!cancelled()) this.#end(audience, error)
          return
        }
        if (attempt === 0 && !cancelled())
          repeated(log).warn(
            { err: error, table: audience.query.table.name },
            'rows that a grant moved could not be read; trying again',
          )
        await new Promise(resolve => setTimeout(resolve, Math.min(100 * 2 ** attempt, 2000)))
      }
    }
  }
}

const isReader = (member: Member): member is LiveSubscription => member instanceof LiveSubscription

const reads = (audience: Audience, set: object): boolean => {
  for (const each of audience.sets.values()) if (each === set) return true
  return false
}

/** Whether a change of the memberships may move rows in or out of this audience's view. */
function moves(stream: Stream, audience: Audience, before: MembershipsBefore): boolean {
  const { byJoin, missing } = changedKeysOf(stream, audience, before, false)
  if (byJoin === null || missing.length > 0) return true
  for (const [join, keys] of byJoin) {
    if (keys.some(key => couldConcern(audience, join, key))) return true
  }
  return false
}

/** A copy of what concerns this audience: the hold goes on adding to it. */
function only(audience: Audience, before: MembershipsBefore): MembershipsBefore {
  const result = new MembershipsBefore(before.nowMicros)
  result.merge(before, set => reads(audience, set))
  return result
}
