// Presence of one node, in its memory.
import { randomBytes } from 'node:crypto'
import { steadyNow } from '../../steady-clock.ts'
import type { PresenceRule } from '../rules.ts'
import type { PresenceDiff, PresenceDraft, PresenceEntry, PresenceList, PresenceStore } from './presence.ts'
import type { Applied, Place, PresenceLedger, PresenceOp } from './presence-ledger.ts'
import { PresenceRooms } from './presence-rooms.ts'

export interface MemoryPresenceOptions {
  /** Hands a diff to those who listen to the channel. Must not throw. */
  readonly tell: (channel: string, diff: PresenceDiff) => void
  /** Milliseconds since 1970, steady. */
  readonly now?: () => number
}

export class MemoryPresence implements PresenceStore {
  readonly #ledger: MemoryLedger
  readonly #rooms: PresenceRooms

  constructor({ tell, now = steadyNow }: MemoryPresenceOptions) {
    this.#ledger = new MemoryLedger(tell, now)
    this.#rooms = new PresenceRooms({ ledger: this.#ledger, now })
  }

  track(channel: string, draft: PresenceDraft, rule: PresenceRule): Promise<void> {
    return this.#rooms.track(channel, draft, rule)
  }

  untrack(channel: string, connection: string, how: 'gone' | 'broken'): Promise<void> {
    return this.#rooms.untrack(channel, connection, how)
  }

  async list(channel: string, page?: { readonly after: string | null; readonly limit: number }): Promise<PresenceList> {
    return this.#ledger.list(channel, page)
  }

  get rooms(): number {
    return this.#rooms.size
  }

  close(): Promise<void> {
    return this.#rooms.close()
  }
}

interface Kept {
  entry: PresenceEntry
  graceMs: number
  /** When it leaves, of one that broke. */
  untilMs: number | null
}

interface Channel {
  readonly epoch: string
  seq: bigint
  /** By connection, in order of `ref`: a new one is the greatest, and one that is taken over goes on in its place of `refs`. */
  readonly byConnection: Map<string, Kept>
  readonly refs: Map<string, Kept>
  /** In the order in which their grace ends: all of a channel have the same. */
  readonly broken: Set<Kept>
  /** By key and user. */
  readonly brokenOf: Map<string, Set<Kept>>
}

/** Channels that are empty are kept for whoever looks on, so that the numbers of their diffs go on. Past it the oldest is let go. */
const maxEmpty = 10_000

class MemoryLedger implements PresenceLedger {
  readonly #tell: (channel: string, diff: PresenceDiff) => void
  readonly #now: () => number
  /** Those with entries, and `maxEmpty`. */
  readonly #channels = new Map<string, Channel>()
  readonly #empty = new Set<string>()
  #lastRef = 0

  constructor(tell: (channel: string, diff: PresenceDiff) => void, now: () => number) {
    this.#tell = tell
    this.#now = now
  }

  async apply(name: string, ops: readonly PresenceOp[]): Promise<Applied> {
    const channel = this.#channel(name)
    const joined: PresenceEntry[] = []
    const updated: PresenceEntry[] = []
    const left: PresenceEntry[] = []
    const refs = ops.map(op => {
      if (op.kind === 'put') return this.#put(channel, op, { joined, updated })
      const [old] = (op.kind === 'leave' && op.unsent && channel.brokenOf.get(placeOf(op.unsent))) || []
      const kept = channel.byConnection.get(op.connection) ?? old
      if (kept !== undefined && op.kind === 'leave') left.push(remove(channel, kept))
      else if (kept !== undefined && op.kind === 'break') fail(channel, kept, this.#now() + op.graceMs)
      return null
    })
    for (const kept of channel.broken) {
      if (kept.untilMs! > this.#now()) break
      left.push(remove(channel, kept))
    }
    if (joined.length + updated.length + left.length > 0) {
      channel.seq += 1n
      const { epoch, seq } = channel
      this.#tell(name, { epoch, seq, joined, updated, left, count: channel.refs.size })
    }
    this.#keep(name, channel)
    const [first] = channel.broken
    const dueMs = first === undefined ? null : Math.max(0, first.untilMs! - this.#now())
    return { epoch: channel.epoch, seq: channel.seq, refs, dueMs }
  }

  list(name: string, page?: { readonly after: string | null; readonly limit: number }): PresenceList {
    const channel = this.#channel(name)
    this.#keep(name, channel)
    const { after, limit } = page ?? { after: null, limit: Number.POSITIVE_INFINITY }
    const entries: PresenceEntry[] = []
    for (const [ref, { entry }] of channel.refs) {
      if (entries.length >= limit) break
      if (after === null || ref > after) entries.push(entry)
    }
    return { epoch: channel.epoch, seq: channel.seq, count: channel.refs.size, entries }
  }

  #put(
    channel: Channel,
    { place, sinceMs }: PresenceOp & { kind: 'put' },
    told: { readonly joined: PresenceEntry[]; readonly updated: PresenceEntry[] },
  ): string {
    const { draft, graceMs } = place
    const [back] = channel.brokenOf.get(placeOf(draft)) ?? []
    const kept = channel.byConnection.get(draft.connection) ?? back
    if (kept === undefined) {
      this.#lastRef += 1
      const entry = { ...draft, ref: this.#lastRef.toString(36).padStart(10, '0'), sinceMs }
      const kept: Kept = { entry, graceMs, untilMs: null }
      channel.refs.set(entry.ref, kept)
      channel.byConnection.set(draft.connection, kept)
      told.joined.push(entry)
      return entry.ref
    }
    mend(channel, kept)
    const { entry } = kept
    if (!isSame(entry, place)) {
      channel.byConnection.delete(entry.connection)
      kept.entry = { ...draft, ref: entry.ref, sinceMs: entry.sinceMs }
      channel.byConnection.set(draft.connection, kept)
      told.updated.push(kept.entry)
    }
    kept.graceMs = graceMs
    return entry.ref
  }

  #channel(name: string): Channel {
    return (
      this.#channels.get(name) ?? {
        epoch: randomBytes(4).toString('hex'),
        seq: 0n,
        byConnection: new Map(),
        refs: new Map(),
        broken: new Set(),
        brokenOf: new Map(),
      }
    )
  }

  #keep(name: string, channel: Channel): void {
    this.#channels.set(name, channel)
    this.#empty.delete(name)
    if (channel.refs.size > 0) return
    this.#empty.add(name)
    if (this.#empty.size <= maxEmpty) return
    const [oldest] = this.#empty
    this.#empty.delete(oldest!)
    this.#channels.delete(oldest!)
  }
}

const placeOf = ({ key, user }: PresenceDraft): string => JSON.stringify([key, user])

const isSame = (entry: PresenceEntry, { draft }: Place): boolean =>
  entry.connection === draft.connection &&
  entry.meta === draft.meta &&
  entry.key === draft.key &&
  entry.user === draft.user

function remove(channel: Channel, kept: Kept): PresenceEntry {
  mend(channel, kept)
  channel.refs.delete(kept.entry.ref)
  channel.byConnection.delete(kept.entry.connection)
  return kept.entry
}

function fail(channel: Channel, kept: Kept, untilMs: number): void {
  mend(channel, kept)
  kept.untilMs = untilMs
  channel.broken.add(kept)
  const place = placeOf(kept.entry)
  const others = channel.brokenOf.get(place)
  if (others === undefined) channel.brokenOf.set(place, new Set([kept]))
  else others.add(kept)
}

/** It is no longer broken. */
function mend(channel: Channel, kept: Kept): void {
  if (!channel.broken.delete(kept)) return
  kept.untilMs = null
  const place = placeOf(kept.entry)
  const others = channel.brokenOf.get(place)
  others?.delete(kept)
  if (others?.size === 0) channel.brokenOf.delete(place)
}
