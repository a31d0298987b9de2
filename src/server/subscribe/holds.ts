// Holds: from a grant or revocation on, an audience's frames wait until the rows that it moved were read; then everything
// since goes out as one delta. Retractions are part of the same delta and come first. Nobody else waits.
import {
  flipsOf,
  flipsWithoutKey,
  type MembershipsBefore,
  type MembershipWriter,
  mergeBefore,
  SetBefore,
} from '../authorize/membership.ts'
import type { Audience, Hold } from '../route/audience.ts'
import { Batch } from '../route/batch.ts'
import { type Advanced, advance } from './advance.ts'
import { LiveSubscription } from './live-subscription.ts'
import { couldConcern, outerColumns } from './moved-rows.ts'
import type { Stream } from './stream.ts'

export class Holds {
  readonly #stream: Stream

  constructor(stream: Stream) {
    this.#stream = stream
  }

  /** Takes what a commit changed in the memberships. @param lsn of the commit before it */
  flipped(writer: MembershipWriter, lsn: bigint): void {
    const concerned = new Set<Audience>()
    for (const set of writer.before.keys()) {
      for (const audience of this.#stream.router.audiencesOf(set)) concerned.add(audience)
    }
    for (const audience of concerned) {
      if (audience.hold !== null) mergeBefore(audience.hold.before, only(audience, writer.before))
      else if (audience.query.kind === 'live' && audience.members.size > 0 && moves(audience, writer.before)) {
        this.begin(audience, lsn, only(audience, writer.before))
      }
    }
  }

  /** @param lsn where the audience stands
   *  @param before null when no membership moved: only large values must be read */
  begin(audience: Audience, lsn: bigint, before: MembershipsBefore | null): void {
    audience.hold = { since: lsn, before: before ?? new Map() }
    void this.#release(audience)
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

  /** Reads what moved and ends the hold with it, unless that ended otherwise. */
  async #fetch(audience: Audience, hold: Hold, finish: (result: Advanced) => void): Promise<void> {
    const { log } = this.#stream
    const cancelled = (): boolean => audience.hold !== hold
    // The commit that began the hold is being served in this very turn: look at the stream after it.
    await new Promise<void>(resolve => setImmediate(resolve))
    for (let attempt = 0; !cancelled(); attempt++) {
      try {
        await advance(this.#stream, { audience, from: hold.since, held: hold.before, cancelled }, finish)
      } catch (error) {
        if (attempt === 0 && !cancelled())
          log.warn(
            { err: error, table: audience.query.table.name },
            'rows that a grant moved could not be read; trying again',
          )
        await new Promise(resolve => setTimeout(resolve, Math.min(100 * 2 ** attempt, 2000)))
      }
    }
  }
}

/** Whether a change of the memberships may move rows in or out of this audience's view. */
function moves(audience: Audience, before: MembershipsBefore): boolean {
  for (const [join, set] of audience.sets) {
    const was = before.get(set)
    if (was === undefined) continue
    if (flipsWithoutKey(set, was)) return true
    const columns = outerColumns(join)
    for (const { values } of flipsOf(set, was))
      if (columns === null || couldConcern(audience, columns, values)) return true
  }
  return false
}

/** A copy of what concerns this audience: the hold goes on adding to it. */
function only(audience: Audience, before: MembershipsBefore): MembershipsBefore {
  const result: MembershipsBefore = new Map()
  for (const set of audience.sets.values()) {
    const was = before.get(set)
    if (was === undefined || result.has(set)) continue
    const copy = new SetBefore(was.total, was.nulls)
    for (const [key, held] of was.keys) copy.keys.set(key, held)
    result.set(set, copy)
  }
  return result
}
