// How far the slot may be acknowledged when a journal holds the window: the end of the longest prefix, in the slot's order, of
// which every commit is stored there, is visible to a sampled snapshot, and has been held back a while, so that a journal
// that lost its newest part is refilled from the slot.
import type { Commit } from '../decode/change.ts'
import type { Snapshot } from '../wal/visibility.ts'

export interface StoredPrefixOptions {
  /** Where the slot begins: what commits up to here is visible. */
  readonly settledLsn: bigint
  /** Commits stay in the slot this long after they came. */
  readonly holdMs: number
  /** But not when so many bytes came after them. */
  readonly holdBytes: number
  /** Monotonic, milliseconds. */
  readonly now: () => number
}

/** Commits that came one after the other. */
interface Group {
  /** Of those that no sampled snapshot has seen yet, 32-bit. */
  unseen: number[]
  commits: number
  bytes: number
  lastLsn: bigint
  endLsn: bigint
  cameAtMs: number
}

/** One by one they would take a hundred bytes each: five seconds are half a million of them. */
const groupCommits = 1000

/** One life of the replication session. Bounded by what the slot may retain: what waits for one commit that stays invisible
 *  is one group. */
export class StoredPrefix {
  readonly #options: StoredPrefixOptions
  #groups: Group[] = []
  #bytes = 0
  #storedLsn = 0n
  #settledLsn: bigint
  #acknowledgeable: bigint | null = null
  /** Begun since the last sample: a snapshot says nothing of what came after it. */
  #open: Group | null = null

  constructor(options: StoredPrefixOptions) {
    this.#options = options
    this.#settledLsn = options.settledLsn
  }

  /** A commit came from the slot, for the first time or again. */
  came(commit: Commit): void {
    let open = this.#open
    if (open === null || open.commits === groupCommits) {
      open = { unseen: [], commits: 0, bytes: 0, lastLsn: 0n, endLsn: 0n, cameAtMs: this.#options.now() }
      this.#open = open
      this.#groups.push(open)
    }
    open.unseen.push(commit.xid)
    open.commits += 1
    open.bytes += commit.bytes
    open.lastLsn = commit.commitLsn
    open.endLsn = commit.endLsn
    this.#bytes += commit.bytes
  }

  /** The journal holds everything up to this commit, as durably as is asked of it. */
  stored(lsn: bigint): void {
    if (lsn > this.#storedLsn) this.#storedLsn = lsn
  }

  /** Takes a snapshot sampled just now. */
  sampled(snapshot: Snapshot): void {
    this.#open = null
    for (const group of this.#groups)
      if (group.unseen.length > 0) group.unseen = group.unseen.filter(xid => !snapshot.sees(xid))
    for (const group of this.#groups) {
      if (group.unseen.length > 0) break
      this.#settledLsn = group.lastLsn
    }
    this.#leave()
    this.#merge()
  }

  /** Every commit up to here is visible to snapshots taken from now on. */
  get settledLsn(): bigint {
    return this.#settledLsn
  }

  /** Up to where the slot may be acknowledged: a commit's end. Null when nowhere yet. */
  get acknowledgeable(): bigint | null {
    return this.#acknowledgeable
  }

  #leave(): void {
    const { holdMs, holdBytes, now } = this.#options
    const heldSince = now() - holdMs
    let left = 0
    for (const group of this.#groups) {
      if (group.unseen.length > 0 || group.lastLsn > this.#storedLsn) break
      if (group.cameAtMs > heldSince && this.#bytes - group.bytes < holdBytes) break
      this.#acknowledgeable = group.endLsn
      this.#bytes -= group.bytes
      left += 1
    }
    if (left > 0) this.#groups.splice(0, left)
  }

  /** Behind one commit that stays invisible for hours, thousands of groups would stand. */
  #merge(): void {
    const heldSince = this.#options.now() - this.#options.holdMs
    const merged: Group[] = []
    for (const group of this.#groups) {
      const last = merged.at(-1)
      const isDone = group.unseen.length === 0 && group.cameAtMs <= heldSince && group.lastLsn <= this.#storedLsn
      if (isDone && last?.unseen.length === 0 && merged.length > 1) {
        last.commits += group.commits
        last.bytes += group.bytes
        last.lastLsn = group.lastLsn
        last.endLsn = group.endLsn
        last.cameAtMs = group.cameAtMs
      } else merged.push(group)
    }
    this.#groups = merged
  }
}
