// Who is in a channel, as this node knows it: a list as of a number, and the diffs behind it. One for each channel that has members
// here who want to know.
//
// Diffs come over pub/sub, which may lose some: one that is not the next is a hole, and the list is asked for again. What comes
// meanwhile waits, and is laid over the list where it is newer. Whoever looks on is told the difference between the two lists, as if
// nothing had been lost.
import { steadyNow } from '../../steady-clock.ts'
import type { PresenceRule } from '../rules.ts'
import type { PresenceDiff, PresenceEntry, PresenceList, PresenceStore } from './presence.ts'

export type MirroredChange =
  /** All who are here: the first time, and when they are few enough again. */
  | { readonly kind: 'here'; readonly here: readonly PresenceEntry[]; readonly count: number }
  | {
      readonly kind: 'changed'
      readonly joined: readonly PresenceEntry[]
      readonly updated: readonly PresenceEntry[]
      readonly left: readonly PresenceEntry[]
      readonly count: number
    }
  /** More than the rule lists. */
  | { readonly kind: 'counted'; readonly count: number }

export interface PresenceMirrorOptions {
  readonly store: Pick<PresenceStore, 'list'>
  readonly channel: string
  readonly rule: Pick<PresenceRule, 'listUpTo'>
  /** Called in order, within `take` or when a list came. Must not throw. */
  readonly onChange: (change: MirroredChange) => void
  /** Milliseconds, steady. */
  readonly now?: () => number
  /** From 0 to 1. */
  readonly random?: () => number
  /** @returns what calls it off */
  readonly later?: (run: () => void, ms: number) => () => void
}

/** Diffs that wait for a list. Past it they are let go, and the list is asked for once more. */
const maxWaiting = 1000
/** Between the beginnings of two lists: losses that go on must not make every node list all the time. */
const pauseMs = 250
/** The same, where a channel has shrunk below what is listed: it may be above in a moment. */
const shrunkPauseMs = 1000
const maxBackoffMs = 8000

export class PresenceMirror {
  readonly #options: PresenceMirrorOptions
  readonly #now: () => number
  readonly #random: () => number
  readonly #later: (run: () => void, ms: number) => () => void
  /** Null: not known yet. */
  #standing: { readonly epoch: string; readonly seq: bigint; readonly count: number } | null = null
  /** By ref, at most `listUpTo`. Null: not known yet, or too many. */
  #entries: Map<string, PresenceEntry> | null = null
  /** Diffs since the list was asked for; null while none is. */
  #waiting: PresenceDiff[] | null = null
  /** What waited was too much, or an interruption came while a list was on its way. */
  #isListOld = false
  #listedAtMs = Number.NEGATIVE_INFINITY
  #failures = 0
  #callOff: (() => void) | null = null
  #isClosed = false

  constructor(options: PresenceMirrorOptions) {
    this.#options = options
    this.#now = options.now ?? steadyNow
    this.#random = options.random ?? Math.random
    this.#later = options.later ?? inTime
  }

  /** For who comes later than the first `here`. Entries are null where they are more than the rule lists; null before anything is
   *  known: then `onChange` will tell. */
  here(): { readonly entries: readonly PresenceEntry[] | null; readonly count: number } | null {
    if (this.#standing === null) return null
    return { entries: this.#entries === null ? null : [...this.#entries.values()], count: this.#standing.count }
  }

  /** In the order in which they come; work in proportion to the diff. */
  take(diff: PresenceDiff): void {
    if (this.#isClosed) return
    if (this.#waiting !== null) {
      if (this.#waiting.length >= maxWaiting) {
        this.#waiting = []
        this.#isListOld = true
      }
      this.#waiting.push(diff)
      // Between a list that is too long and one that is not, counts go on.
      if (this.#entries === null && this.#standing !== null) this.#recount(diff)
      return
    }
    if (this.#standing !== null && !this.#apply(diff)) this.#list(pauseMs)
  }

  /** Something may have been missed. Also how it begins: once the channel is listened to, so that no diff is lost in between. */
  interrupted(): void {
    if (this.#isClosed) return
    if (this.#waiting !== null) this.#isListOld = true
    else this.#list(pauseMs)
  }

  close(): void {
    this.#isClosed = true
    this.#callOff?.()
    this.#entries = this.#waiting = null
  }

  /** @returns whether it fits: false means that the list must be asked for */
  #apply(diff: PresenceDiff): boolean {
    const standing = this.#standing!
    if (diff.epoch !== standing.epoch) return false
    if (diff.seq <= standing.seq) return true
    if (this.#entries === null) {
      this.#recount(diff)
      if (diff.count <= this.#options.rule.listUpTo) this.#list(shrunkPauseMs)
      return true
    }
    if (diff.seq !== standing.seq + 1n) return false
    const { joined, updated, left, count } = diff
    const before = new Map(updated.map(({ ref }) => [ref, this.#entries!.get(ref)]))
    for (const { ref } of left) this.#entries.delete(ref)
    for (const entry of joined) this.#entries.set(entry.ref, entry)
    for (const entry of updated) this.#entries.set(entry.ref, entry)
    this.#standing = { epoch: diff.epoch, seq: diff.seq, count }
    // Told of something else than was listed.
    const isTrue = this.#entries.size === count
    if (count > this.#options.rule.listUpTo) {
      this.#entries = null
      this.#options.onChange({ kind: 'counted', count })
      return true
    }
    this.#tell({ joined, updated, left, count }, before)
    return isTrue
  }

  /** Whoever is listed under another key has left as the one and come as the other: lists are by key.
   *  @param before what was told of those that were updated, by ref */
  #tell(
    { joined, updated, left, count }: Omit<MirroredChange & { kind: 'changed' }, 'kind'>,
    before: ReadonlyMap<string, PresenceEntry | undefined>,
  ): void {
    const formerOf = ({ ref, key }: PresenceEntry): PresenceEntry[] => {
      const old = before.get(ref)
      return old === undefined || old.key === key ? [] : [old]
    }
    const renamed = updated.filter(entry => formerOf(entry).length > 0)
    const tell = this.#options.onChange
    if (renamed.length === 0) {
      tell({ kind: 'changed', joined, updated, left, count })
      return
    }
    const gone = renamed.flatMap(formerOf)
    // Apart from the coming, as the ref is the same.
    tell({
      kind: 'changed',
      joined: [],
      updated: [],
      left: [...left, ...gone],
      count: count - joined.length - gone.length,
    })
    const others = updated.filter(entry => !renamed.includes(entry))
    tell({ kind: 'changed', joined: [...joined, ...renamed], updated: others, left: [], count })
  }

  /** Nothing but the count is kept: what was lost in between does not matter. */
  #recount({ epoch, seq, count }: PresenceDiff): void {
    const standing = this.#standing!
    if (epoch === standing.epoch && seq <= standing.seq) return
    this.#standing = { epoch, seq, count }
    if (count !== standing.count) this.#options.onChange({ kind: 'counted', count })
  }

  #list(atLeastMs: number): void {
    this.#waiting = []
    this.#isListOld = false
    const pause = Math.max(this.#backoffMs(), this.#listedAtMs + atLeastMs - this.#now(), 0)
    if (pause === 0) void this.#ask()
    else this.#callOff = this.#later(() => void this.#ask(), pause)
  }

  #backoffMs(): number {
    if (this.#failures === 0) return 0
    return Math.min(pauseMs * 2 ** (this.#failures - 1), maxBackoffMs) * (0.5 + this.#random() / 2)
  }

  async #ask(): Promise<void> {
    this.#callOff = null
    // What came before now is in the list.
    this.#waiting = []
    this.#isListOld = false
    this.#listedAtMs = this.#now()
    const { store, channel, rule } = this.#options
    let list: PresenceList
    try {
      list = await store.list(channel, { after: null, limit: rule.listUpTo + 1 })
    } catch {
      this.#failures += 1
      if (!this.#isClosed) this.#list(pauseMs)
      return
    }
    this.#failures = 0
    if (!this.#isClosed) this.#begin(list)
  }

  #begin({ epoch, seq, count, entries }: PresenceList): void {
    const waiting = this.#waiting ?? []
    this.#waiting = null
    const [before, counted] = [this.#entries, this.#standing?.count]
    this.#standing = { epoch, seq, count }
    if (count > this.#options.rule.listUpTo) {
      this.#entries = null
      if (before !== null || counted !== count) this.#options.onChange({ kind: 'counted', count })
    } else {
      this.#entries = new Map(entries.map(entry => [entry.ref, entry]))
      if (before === null) this.#options.onChange({ kind: 'here', here: entries, count })
      else this.#tellDifference(before, this.#entries, count)
    }
    // A diff of another epoch may be older than the list or newer.
    const isWhole = waiting.every(diff => this.#waiting !== null || this.#apply(diff))
    if (this.#waiting === null && (!isWhole || this.#isListOld)) this.#list(pauseMs)
  }

  #tellDifference(
    before: ReadonlyMap<string, PresenceEntry>,
    after: ReadonlyMap<string, PresenceEntry>,
    count: number,
  ): void {
    const left = [...before.values()].filter(({ ref }) => !after.has(ref))
    const joined: PresenceEntry[] = []
    const updated: PresenceEntry[] = []
    for (const entry of after.values()) {
      const old = before.get(entry.ref)
      if (old === undefined) joined.push(entry)
      else if (old.meta !== entry.meta || old.connection !== entry.connection || old.key !== entry.key)
        updated.push(entry)
    }
    if (joined.length + updated.length + left.length > 0) this.#tell({ joined, updated, left, count }, before)
  }
}

function inTime(run: () => void, ms: number): () => void {
  const timer = setTimeout(run, ms)
  return () => clearTimeout(timer)
}
