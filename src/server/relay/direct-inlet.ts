// Without other nodes there is nothing between the slot and the window: what the slot gives is the window's at once, and the
// slot keeps it until it has left the window.
import type { Commit } from '../decode/change.ts'
import type { SlotState } from '../wal/wal-source.ts'
import type { Feed, Inlet } from './journal.ts'
import type { MemoryRelay } from './memory-relay.ts'

export class DirectInlet implements Inlet {
  readonly failed: Promise<void> = new Promise(() => {})
  readonly #feed: Feed
  readonly #relay: MemoryRelay

  constructor(slot: SlotState, feed: Feed, relay: MemoryRelay) {
    this.#feed = feed
    this.#relay = relay
    if (slot.epoch !== feed.epoch) feed.begin(slot.epoch, slot.confirmedFlushLsn - 1n, true)
  }

  append(commit: Commit): void {
    this.#feed.append(commit)
  }

  flush(): void {}

  passed(lsn: bigint): void {
    this.#feed.passed(lsn)
  }

  room(): Promise<void> {
    return this.#feed.room()
  }

  /** The window has taken it already. */
  sampled(): void {}

  async acknowledgeable(): Promise<bigint | null> {
    return this.#relay.acknowledgeable()
  }

  async close(): Promise<void> {}
}
