// The ordered log of whole commits, for one node, in memory: what is coming, what may be resumed from, and what some
// snapshot may not see yet.
//
// Three questions are answered from one list of commits:
//   - the window: everything after a client's position, so that it may resume. Bounded by bytes, age and WAL distance.
//   - the ring: commits that a snapshot taken now may not see although they are in the stream (WAL order runs ahead of
//     visibility). A commit leaves it when a snapshot sampled later sees it and no open splice began before that sample.
//   - the acknowledgement: the longest prefix that left the window and is visible. Postgres then keeps the rest, so that
//     after a restart the window and the ring are refilled from the slot.
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Commit } from '../decode/change.ts'
import type { Snapshot } from '../wal/visibility.ts'

export interface MemoryRelayOptions {
  readonly maxBytes: number
  readonly maxAgeMs: number
  /** Bytes of WAL, tracked or not, that the window may span: a quarter of the slot's limit. */
  readonly maxWalBytes: number
  /** Milliseconds since 1970. */
  readonly now: () => number
}

/** Held while a snapshot is read and spliced: commits that it may not see stay. */
export interface Pin {
  readonly sample: number
  release(): void
}

/** What came since the last look. */
export interface RelayBatch {
  /** Of the window, when it was looked at. */
  readonly life: number
  readonly commits: readonly Commit[]
  /** Everything that commits before this LSN is in this batch or an earlier one. */
  readonly passedLsn: bigint
}

interface Entry {
  readonly commit: Commit
  readonly arrivedAtMs: number
  /** Number of the first sampled snapshot that saw it. */
  visibleAt: number
  inWindow: boolean
  inRing: boolean
}

/** A stretch of the evicted prefix: one commit that is not visible yet, or all the visible ones up to the next such. Of
 *  those only where they end is kept: behind one commit that stays invisible for hours, the commits themselves must go. */
interface Straggler {
  /** null: visible. */
  readonly entry: Entry | null
  /** End of the last commit of the stretch, and of the one before it, if it has one. */
  endLsn: bigint
  endBeforeLsn: bigint | null
}

/** Larger than any sample, and a small integer: an infinity would be an object of its own for each commit. */
const never = 2 ** 30 - 1

/** From 1970 to 2000, where Postgres counts from. */
export const microsTo2000 = 946_684_800_000_000n

const unservedBytesLimit = 16 * 1024 * 1024

export class MemoryRelay {
  readonly #options: MemoryRelayOptions
  #epoch = ''
  #life = 0
  #window: Entry[] = []
  #windowBytes = 0
  /** Entries that some snapshot may not see: in commit order, a few seconds' worth. */
  #recent: Entry[] = []
  /** What holds the acknowledgement back, in commit order, from the first evicted commit that is not visible yet. At most
   *  two for each such commit, and Postgres has one backend for each: their number is bounded by max_connections. */
  #stragglers: Straggler[] = []
  #floorLsn = 0n
  /** Up to here commits are to be known to be visible, before a snapshot may be joined to the window; null when they are. */
  #unsettledLsn: bigint | null = null
  /** The greatest commit timestamp before the window, since 2000 as in the WAL. */
  #evictedMicros = 0n
  #headLsn = 0n
  #passedLsn = 0n
  #acknowledgeable: bigint | null = null
  #lastEvictedEnd: bigint | null = null
  #sample = 0
  readonly #pins = new Set<Pin>()
  #unserved: Commit[] = []
  #unservedBytes = 0
  /** What the follower took last and may still be walking. */
  #serving: readonly Commit[] = []
  #wake: (() => void) | null = null
  #room: (() => void)[] = []

  constructor(options: MemoryRelayOptions) {
    this.#options = options
  }

  get epoch(): string {
    return this.#epoch
  }

  /** Counts how often the window began anew: with each epoch, and within one where commits are missing. */
  get life(): number {
    return this.#life
  }

  /** Commit LSN of the newest commit appended, or the floor of the epoch. */
  get headLsn(): bigint {
    return this.#headLsn
  }

  /** Everything that commits before it has been appended. */
  get passedLsn(): bigint {
    return this.#passedLsn
  }

  /** Oldest position that may be resumed from. */
  get floorLsn(): bigint {
    return this.#floorLsn
  }

  /** `now()` at a position: the greatest commit timestamp up to it, in microseconds since 1970. Looked for in the window; before
   *  it, what had left it. */
  nowMicrosAt(lsn: bigint): bigint {
    let micros = this.#evictedMicros
    for (const { commit } of this.#window) {
      if (commit.commitLsn > lsn) break
      if (commit.committedAtMicros > micros) micros = commit.committedAtMicros
    }
    return micros === 0n ? 0n : micros + microsTo2000
  }

  /** End of the newest commit appended; null before the first. What a slot must not have been acknowledged past. */
  get headEndLsn(): bigint | null {
    return this.#window.length > 0 ? this.#window.at(-1)!.commit.endLsn : this.#lastEvictedEnd
  }

  get retainedBytes(): number {
    return this.#windowBytes
  }

  /** Splices under way. */
  get pins(): number {
    return this.#pins.size
  }

  get retainedCommits(): number {
    return this.#window.length
  }

  /** Begins anew, with an epoch or after a gap: nothing at or before `floorLsn` is known, everything after it will come.
   *  @param isSettled whether all that came before is visible to every snapshot taken from now on: the slot is only ever
   *    acknowledged so far. Else `settled` will say so, and until then nobody may pin */
  begin(epoch: string, floorLsn: bigint, isSettled = true): void {
    for (const entry of this.#window) entry.commit.release()
    for (const entry of this.#recent) if (!entry.inWindow) entry.commit.release()
    this.#epoch = epoch
    this.#life += 1
    this.#window = []
    this.#windowBytes = 0
    this.#recent = []
    this.#stragglers = []
    this.#unserved = []
    this.#unservedBytes = 0
    this.#floorLsn = floorLsn
    this.#unsettledLsn = isSettled ? null : floorLsn
    this.#evictedMicros = 0n
    this.#headLsn = floorLsn
    this.#passedLsn = floorLsn
    this.#acknowledgeable = null
    this.#lastEvictedEnd = null
  }

  /** Takes a commit. One at or below the head came before (a slot may step back over a restart) and is dropped. */
  append(commit: Commit): void {
    if (commit.commitLsn <= this.#headLsn) {
      commit.release()
      return
    }
    const entry: Entry = {
      commit,
      arrivedAtMs: this.#options.now(),
      visibleAt: never,
      inWindow: true,
      inRing: true,
    }
    this.#window.push(entry)
    this.#windowBytes += windowBytesOf(commit)
    this.#recent.push(entry)
    this.#headLsn = commit.commitLsn
    if (commit.endLsn > this.#passedLsn) this.#passedLsn = commit.endLsn
    this.#unserved.push(commit)
    this.#unservedBytes += commit.bytes
    this.#wakeUp()
  }

  /** Everything that commits before `lsn` has been appended. */
  passed(lsn: bigint): void {
    if (lsn <= this.#passedLsn) return
    this.#passedLsn = lsn
    this.#wakeUp()
  }

  /** Resolves when what was appended but not yet followed is below its bound: the backpressure on the reader. */
  async room(): Promise<void> {
    while (this.#unservedBytes > unservedBytesLimit) await new Promise<void>(resolve => this.#room.push(resolve))
  }

  /** Commits as they come, in order, each once. One follower. */
  async *follow(signal: AbortSignal): AsyncIterable<RelayBatch> {
    const onAbort = () => this.#wakeUp()
    signal.addEventListener('abort', onAbort)
    let told = -1n
    try {
      while (!signal.aborted) {
        this.#serving = []
        if (this.#unserved.length === 0 && this.#passedLsn === told) {
          await new Promise<void>(resolve => {
            this.#wake = resolve
          })
          continue
        }
        const commits = this.#unserved
        this.#unserved = []
        this.#unservedBytes = 0
        told = this.#passedLsn
        this.#serving = commits
        for (const resolve of this.#room.splice(0)) resolve()
        yield { life: this.#life, commits, passedLsn: told }
      }
    } finally {
      this.#serving = []
      signal.removeEventListener('abort', onAbort)
    }
  }

  /** Whether every commit after this position is still here. */
  covers(lsn: bigint): boolean {
    return lsn >= this.#floorLsn
  }

  /** Commits with `after < commitLsn <= upTo`, in order. */
  between(after: bigint, upTo: bigint): Commit[] {
    const commits: Commit[] = []
    for (let i = this.#firstAfter(after); i < this.#window.length; i++) {
      const { commit } = this.#window[i]!
      if (commit.commitLsn > upTo) break
      commits.push(commit)
    }
    return commits
  }

  /** The commit at exactly this position. */
  at(lsn: bigint): Commit | null {
    const commit = this.#window[this.#firstAfter(lsn - 1n)]?.commit
    return commit?.commitLsn === lsn ? commit : null
  }

  /** The newest retained commit of a transaction. @param xid 32-bit */
  find(xid: number): Commit | null {
    for (let i = this.#window.length - 1; i >= 0; i--) {
      if (this.#window[i]!.commit.xid === xid) return this.#window[i]!.commit
    }
    return null
  }

  /** Everything up to here is visible to every snapshot taken from now on, by the word of who holds the slot. */
  settled(lsn: bigint): void {
    if (this.#unsettledLsn !== null && lsn >= this.#unsettledLsn) this.#unsettledLsn = null
  }

  /** Call before the snapshot is taken; release when its splice is done.
   *  @param like one still held: as if this were as old
   *  @throws BUSY while commits from before the window may be invisible still: what a snapshot misses would not be here */
  pin(like: Pin | null = null): Pin {
    if (this.#unsettledLsn !== null)
      throw new TidegateError('BUSY', 'commits from before this node took part are not visible in the database yet', {
        retryAfterMs: 1000,
      })
    const pin: Pin = {
      sample: like?.sample ?? this.#sample,
      release: () => {
        if (this.#pins.delete(pin)) this.#prune()
      },
    }
    this.#pins.add(pin)
    return pin
  }

  /** Commits up to `upTo` that the snapshot, taken under a pin still held, does not see; in commit order. */
  unseen(snapshot: Snapshot, upTo: bigint): Commit[] {
    const commits: Commit[] = []
    for (const { commit } of this.#recent) {
      if (commit.commitLsn <= upTo && !snapshot.sees(commit.xid)) commits.push(commit)
    }
    return commits
  }

  /** Bytes kept only because some snapshot may not see them. New snapshots are refused past a bound; the stream goes on. */
  ringBytes(): number {
    let bytes = 0
    for (const entry of this.#recent) if (!entry.inWindow) bytes += entry.commit.bytes
    return bytes
  }

  /** Takes a snapshot sampled just now: what it sees, every later one will see. */
  sampled(snapshot: Snapshot): void {
    this.#sample += 1
    for (const entry of this.#recent) {
      if (entry.visibleAt === never && snapshot.sees(entry.commit.xid)) entry.visibleAt = this.#sample
    }
    this.#prune()
  }

  /** Lets go of what is past the window's bounds. Call after `sampled`. */
  evict(): void {
    const { maxBytes, maxAgeMs, maxWalBytes, now } = this.#options
    const oldest = now() - maxAgeMs
    let evicted = 0
    for (const entry of this.#window) {
      const tooOld = entry.arrivedAtMs < oldest
      const tooFar = this.#passedLsn - entry.commit.commitLsn > BigInt(maxWalBytes)
      if (!(this.#windowBytes > maxBytes || tooOld || tooFar)) break
      // What has not been served yet, or is being served, cannot leave: the file of a large commit is walked for seconds.
      const unserved = this.#serving[0] ?? this.#unserved[0]
      if (unserved !== undefined && entry.commit.commitLsn >= unserved.commitLsn) break
      evicted += 1
      if (entry.commit.committedAtMicros > this.#evictedMicros) this.#evictedMicros = entry.commit.committedAtMicros
      this.#windowBytes -= windowBytesOf(entry.commit)
      this.#floorLsn = entry.commit.commitLsn
      entry.inWindow = false
      if (isVisible(entry) && this.#stragglers.length === 0) this.#advance(entry.commit.endLsn, null)
      else this.#straggle(entry)
      if (!entry.inRing) entry.commit.release()
    }
    // At once: an entry left in front of the window would keep its commit's memory, which may be tens of megabytes.
    if (evicted > 0) this.#window.splice(0, evicted)
    for (let next = this.#stragglers[0]; next !== undefined; next = this.#stragglers[0]) {
      if (next.entry !== null && !isVisible(next.entry)) break
      this.#stragglers.shift()
      this.#advance(next.endLsn, next.endBeforeLsn)
    }
  }

  /** Up to where the slot may be acknowledged, or null when nowhere yet. */
  acknowledgeable(): bigint | null {
    return this.#acknowledgeable
  }

  /** One commit behind the evicted prefix: a client that stands exactly at the newest evicted commit can then still be
   *  told from one that stands before it, after a restart. */
  #advance(endLsn: bigint, endBeforeLsn: bigint | null): void {
    this.#acknowledgeable = endBeforeLsn ?? this.#lastEvictedEnd ?? this.#acknowledgeable
    this.#lastEvictedEnd = endLsn
  }

  #straggle(entry: Entry): void {
    const { endLsn } = entry.commit
    const last = this.#stragglers.at(-1)
    if (last?.entry === null && isVisible(entry)) {
      last.endBeforeLsn = last.endLsn
      last.endLsn = endLsn
    } else this.#stragglers.push({ entry: isVisible(entry) ? null : entry, endLsn, endBeforeLsn: null })
  }

  #prune(): void {
    let oldestSample = this.#sample
    for (const pin of this.#pins) if (pin.sample < oldestSample) oldestSample = pin.sample
    this.#recent = this.#recent.filter(entry => {
      entry.inRing = entry.visibleAt > oldestSample
      if (!entry.inRing && !entry.inWindow) entry.commit.release()
      return entry.inRing
    })
  }

  /** Index in the window of the first commit after `lsn`. */
  #firstAfter(lsn: bigint): number {
    let low = 0
    let high = this.#window.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.#window[middle]!.commit.commitLsn <= lsn) low = middle + 1
      else high = middle
    }
    return low
  }

  #wakeUp(): void {
    this.#wake?.()
    this.#wake = null
  }
}

const isVisible = (entry: Entry): boolean => entry.visibleAt !== never

/** A spooled commit takes no memory, only disk; it leaves with its age. */
const windowBytesOf = (commit: Commit): number => (commit.spooled ? 1024 : commit.bytes + 200)
