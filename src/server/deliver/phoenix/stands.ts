// Where the channels of broken sockets stood, so that a client that comes back is given what it missed. Types, and what is
// decided alike wherever they are kept, pure: memory-stands.ts is for one node, redis-stands.ts for many.
//
// A Phoenix client does not say who it is when it comes back, nor where it stood. It joins the same topic with the same
// parameters under the same claims: that is its *owner*, and all of one owner are told exactly the same. Several tabs of one user,
// or a crowd with one anonymous key, are one owner. Their counter of `ref` tells them apart: it goes on over a reconnect, and
// begins at 1 in a fresh page. So a client can only have left a stand whose last ref is below the first that its new socket
// is heard with, and of several most likely the one with the greatest: little is sent that is never heard.
//
// Most likely is not surely: what a tab sent into a dead network may have taken its counter past another's. Given a stand that
// is ahead of its own it would miss what lies between, and nobody would know. So it is given the earliest positions of all stands
// that it may as well have left: those with the same ref, and those heard last at the same time. Where one is taken, the others
// of these take on the same earliest positions, since one of them may be its own still. That costs a few repeats, of what was sent
// in the moments between them. Stands of other times are left out: they are mostly of pages that were closed,
// and would repeat minutes.
import { createHash } from 'node:crypto'
import { comparePositions, parseQueryPositions, type QueryPosition } from '../../../protocol/position.ts'
import type { Principal } from '../../subscribe/subscription.ts'
import { lastingClaims } from '../renewal.ts'
import type { JoinConfig } from './wire.ts'

export interface Stand {
  /** See `ownerOf`. */
  readonly owner: string
  /** The largest ref that the client was heard with. */
  readonly lastRef: number
  /** How long the client has been silent, in milliseconds; left out: 0. */
  readonly silentMs?: number
  /** `position.tag` as native `since` takes them, by what was subscribed: the channel `channel`, each binding and table. */
  readonly positions: Readonly<Record<string, string>>
}

/** What is kept of a channel. */
export type Stood = Pick<Stand, 'owner' | 'positions'>

/** Holds digests, counters and positions: no token, no topic, no row. */
export interface Stands {
  /** A channel whose socket broke. Never throws; what cannot be kept is not kept. */
  keep(stand: Stand): void
  /** Takes the one that this client left, at most once.
   *  @param ref the first that its socket was heard with; of a channel that was joined over this socket before, of its join
   *  @returns null where there is none, and where that cannot be found out */
  take(owner: string, ref: string | null): Promise<Stand['positions'] | null>
  /** Waits for what is being kept. */
  close(): Promise<void>
}

export interface StandLimits {
  readonly keepMs: number
  /** Of one owner. Past it the new one joins the one that was heard last at the same time, else the oldest is forgotten. */
  readonly maxStands: number
  /** Past it the owner whose client broke off first is forgotten. */
  readonly maxOwners: number
  /** A larger one is not kept: JSON of its positions. */
  readonly maxBytes: number
  /** Clients heard last within so long of each other were cut off together. */
  readonly togetherMs: number
}

export const standLimits: StandLimits = {
  keepMs: 300_000,
  maxStands: 16,
  maxOwners: 50_000,
  // 60 for each subscription: a channel has 10 at most, mostly.
  maxBytes: 4096,
  togetherMs: 3000,
}

/** Who may take a stand: 43 characters, the same for whoever is told the same. */
export function ownerOf(principal: Principal, topic: string, config: JoinConfig): string {
  const { isPrivate, self, ack, presenceKey, presence, isLegacy } = config
  const bindings = config.bindings.map(({ event, schema, table, filter, select }) => [
    event,
    schema,
    table,
    filter,
    select,
  ])
  const joined = [topic, isPrivate, self, ack, presenceKey, presence, isLegacy, bindings]
  const owner = JSON.stringify([principal.role, lastingClaims(principal), joined], inOrder)
  return createHash('sha256').update(owner).digest('base64url')
}

/** Two tokens may say the same in another order. */
const inOrder = (_name: string, value: unknown): unknown =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
    ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
    : value

/** A stand, or a client that is silent and may have left one: anything that a new join may go on from. */
export interface Candidate {
  readonly lastRef: number
  /** When it was heard last; milliseconds of one clock for all. */
  readonly heardMs: number
}

export interface Choice<C> {
  /** The most likely. */
  readonly own: C
  /** Those that it may be as well, itself too: of their positions the earliest hold. In their order. */
  readonly alike: readonly C[]
}

/** Which of them is the client's whose socket begins with `ref`. Of equals the first. */
export function choose<C extends Candidate>(
  candidates: readonly C[],
  ref: string | null,
  togetherMs: number = standLimits.togetherMs,
): Choice<C> | null {
  const first = refOf(ref)
  if (first === null) return null
  const possible = candidates.filter(({ lastRef }) => lastRef < first)
  const own = possible.reduce<C | null>(
    (best, next) => (best === null || next.lastRef > best.lastRef ? next : best),
    null,
  )
  if (own === null) return null
  const isAlike = ({ lastRef, heardMs }: C): boolean =>
    lastRef === own.lastRef || Math.abs(heardMs - own.heardMs) <= togetherMs
  return { own, alike: possible.filter(isAlike) }
}

/** @returns null where it is no number, as of clients that are none of Phoenix's */
export function refOf(ref: string | null): number | null {
  return ref !== null && /^\d{1,13}$/.test(ref) ? Number(ref) : null
}

/** Of each subscription the earlier position. Where they are of different epochs nothing tells which it is; the first then. */
export function earliest(all: readonly Stand['positions'][]): Stand['positions'] {
  const found = new Map<string, string>()
  for (const positions of all)
    for (const [name, text] of Object.entries(positions)) {
      const before = found.get(name)
      if (before === undefined || isBefore(text, before)) found.set(name, text)
    }
  return Object.fromEntries(found)
}

function isBefore(text: string, other: string): boolean {
  const [a, b] = [positionOf(text), positionOf(other)]
  return a !== null && b !== null && a.epoch === b.epoch && comparePositions(a, b) < 0
}

function positionOf(text: string): QueryPosition | null {
  const positions = parseQueryPositions(text)
  return positions?.length === 1 ? positions[0]! : null
}

/** @returns the positions as JSON; null for one that is not kept */
export function keepable({ lastRef, positions }: Stand, { maxBytes }: StandLimits): string | null {
  const texts = Object.values(positions)
  if (refOf(String(lastRef)) === null || texts.length === 0) return null
  if (texts.some(text => positionOf(text) === null)) return null
  const json = JSON.stringify(positions)
  return Buffer.byteLength(json) > maxBytes ? null : json
}

/** What is kept of an owner, in the order in which it was kept. */
export interface Kept extends Candidate {
  readonly keptMs: number
  /** Of so many clients. */
  readonly count: number
  readonly positions: Stand['positions']
}

/** Redis does the same in redis-stands.ts. */
export function added(before: readonly Kept[], stand: Stand, now: number, limits: StandLimits): readonly Kept[] {
  const kept = lasting(before, now, limits)
  const { lastRef, silentMs = 0, positions } = stand
  const fresh: Kept = { lastRef, heardMs: now - silentMs, keptMs: now, count: 1, positions }
  if (kept.length < limits.maxStands) return [...kept, fresh]
  const apart = ({ heardMs }: Kept): number => Math.abs(heardMs - fresh.heardMs)
  const nearest = kept.reduce((best, next) => (apart(next) < apart(best) ? next : best))
  if (apart(nearest) > limits.togetherMs) return [...kept.slice(1), fresh]
  return [...kept.filter(other => other !== nearest), joined(nearest, fresh)]
}

/** Found by whoever would have found the one or the other. */
const joined = (a: Kept, b: Kept): Kept => ({
  lastRef: Math.min(a.lastRef, b.lastRef),
  heardMs: Math.min(a.heardMs, b.heardMs),
  keptMs: b.keptMs,
  count: a.count + b.count,
  positions: earliest([a.positions, b.positions]),
})

export interface Taken {
  readonly positions: Stand['positions'] | null
  /** What stays. */
  readonly kept: readonly Kept[]
}

/** Redis does the same in redis-stands.ts. */
export function taken(before: readonly Kept[], ref: string | null, now: number, limits: StandLimits): Taken {
  const kept = lasting(before, now, limits)
  const choice = choose(kept, ref, limits.togetherMs)
  if (choice === null) return { positions: null, kept }
  const { own, alike } = choice
  const positions = earliest(alike.map(other => other.positions))
  const stay = kept.flatMap(other => {
    if (!alike.includes(other)) return [other]
    const count = other === own ? other.count - 1 : other.count
    return count === 0 ? [] : [{ ...other, count, positions }]
  })
  return { positions, kept: stay }
}

const lasting = (kept: readonly Kept[], now: number, { keepMs }: StandLimits): readonly Kept[] =>
  kept.filter(({ keptMs }) => now - keptMs < keepMs)
