// Which channels without history the database spoke in lately: whoever comes back from before that has missed something.

/** Channels remembered; past it the one that was spoken in longest ago is forgotten. */
const maxChannels = 10_000

export class ToldByStream {
  /** Commit LSN of the last message, in the order of the last. */
  readonly #last = new Map<string, bigint>()
  /** The last of any that was forgotten. */
  #forgottenLsn = 0n
  readonly #max: number

  constructor(max = maxChannels) {
    this.#max = max
  }

  told(channel: string, lsn: bigint): void {
    this.#last.delete(channel)
    this.#last.set(channel, lsn)
    if (this.#last.size <= this.#max) return
    const [oldest, forgotten] = this.#last.entries().next().value!
    this.#last.delete(oldest)
    if (forgotten > this.#forgottenLsn) this.#forgottenLsn = forgotten
  }

  /** Whether the stream may have said something in the channel after this commit. */
  mayHaveSince(channel: string, lsn: bigint): boolean {
    return lsn < (this.#last.get(channel) ?? this.#forgottenLsn)
  }
}
