// Which of the frames that wait for a peer can be taken back when rows in them are hidden. Pure.
//
// What a reader was sent before a revocation may still wait here, behind a slow socket. It is dropped, and the subscription
// stands again right before it: what it then catches up with is what may be seen. Nothing may be lost by that. So whatever
// names a position behind what is dropped, goes too: heartbeats, and in a stream whose ids name all its queries, the events of
// the others. A resync stays, for its cause may not come again; and so do the parts of a first snapshot that is not finished,
// because its last part takes back what is hidden by then.
//
// A message of a channel without a history cannot be had again. It is dropped where its reader may not have it, and gently never.
import { WHOLE_COMMIT } from '../../protocol/position.ts'
import type { Batch, Manner, Outgoing, Owner } from '../subscribe/subscription.ts'

/** What a frame is; null for what is no subscription's: an answer, an error, a greeting. */
export type Content = Batch | Outgoing | 'resync' | 'heartbeat' | null

export interface Waiting {
  readonly owner: Owner | null
  readonly content: Content
}

export interface TakeBack {
  readonly of: Owner
  /** Whether every position of the stream names all its queries. */
  readonly isShared: boolean
  readonly manner: Manner
}

export interface TakenBack {
  /** Which of the waiting stay. */
  readonly kept: readonly boolean[]
  /** The first event that each subscription was not given: it stands right before it. One that has been told to start over
   *  since is not named. */
  readonly first: ReadonlyMap<Owner, Outgoing>
}

/** @returns null when nothing is to be taken back */
export function takeBack(waiting: readonly Waiting[], { of, isShared, manner }: TakeBack): TakenBack | null {
  const kept = waiting.map(() => true)
  const first = new Map<Owner, Outgoing>()
  let canComeAgain = true
  /** Parts of snapshots whose last part has not come. */
  const unfinished = new Map<Owner, number[]>()
  let hasBegun = false
  waiting.forEach(({ owner, content }, place) => {
    if (content === null) return
    if (content === 'heartbeat') {
      kept[place] = !hasBegun
      return
    }
    if (owner === null || (owner !== of && (!isShared || !hasBegun))) return
    if (content === 'resync') {
      if (first.get(owner)?.event === 'message') canComeAgain = false
      // What came before it is void, and no place to stand at.
      first.delete(owner)
      unfinished.delete(owner)
      return
    }
    hasBegun = true
    kept[place] = false
    const event = eventsOf(content)[0]!
    if (eventsOf(content).some(isOnce)) canComeAgain = false
    if (event.event === 'snapshot' && event.position === null) {
      const parts = unfinished.get(owner) ?? []
      parts.push(place)
      unfinished.set(owner, parts)
    } else unfinished.delete(owner)
    if (!first.has(owner)) first.set(owner, event)
  })
  for (const [owner, parts] of unfinished) {
    for (const place of parts) kept[place] = true
    if (first.get(owner)?.event === 'snapshot') first.delete(owner)
  }
  if (!waiting.some(({ owner }, place) => owner === of && !kept[place])) return null
  if (manner === 'gently' && (!canComeAgain || [...first.values()].some(startsOver))) return null
  return { kept, first }
}

/** Whether a reader who was not given this event holds nothing that it could go on from. */
export const startsOver = ({ event, sinceLsn }: Outgoing): boolean =>
  event === 'snapshot' || (event === 'delta' && sinceLsn === null)

/** Whether it is sent once and never again: positions in a history are whole. What a channel tells beside messages follows anew
 *  when it is joined again. */
const isOnce = ({ event, position }: Outgoing): boolean => event === 'message' && position?.index !== WHOLE_COMMIT

const eventsOf = (content: Batch | Outgoing): readonly Outgoing[] => ('events' in content ? content.events : [content])
