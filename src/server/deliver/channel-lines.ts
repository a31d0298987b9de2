// What one connection asks of its channels: joining, sending, telling of itself, leaving. For each channel one after the other, in
// the order in which it was asked; channels do not wait for each other.
//
// A channel that takes messages slower than they come delays them here. Past a bound the socket is not read, so that the client
// notices, and nothing piles up.

/** What may wait or be under way before the socket is not read. What had been read then comes on top, at most one read of it. */
export const maxTasks = 64
export const maxChars = 256 * 1024

interface Line {
  /** What waits behind the task that is under way. */
  readonly waiting: Task[]
}

export interface Task {
  /** How much it holds in memory. */
  readonly chars: number
  /** Never rejects. */
  run(): Promise<void> | void
}

export class ChannelLines {
  /** Those with something under way, by channel: at most the subscriptions of the connection, and those it has just left. */
  readonly #lines = new Map<string, Line>()
  readonly #onRoom: () => void
  #tasks = 0
  #chars = 0

  /** @param onRoom called when it is not full any more */
  constructor(onRoom: () => void) {
    this.#onRoom = onRoom
  }

  /** From passing the bound until there is room again. */
  get isFull(): boolean {
    return this.#tasks >= maxTasks || this.#chars >= maxChars
  }

  /** Begins in this turn if nothing of the channel is under way. */
  add(key: string, task: Task): void {
    this.#count(task, 1)
    const line = this.#lines.get(key)
    if (line !== undefined) {
      line.waiting.push(task)
      return
    }
    const begun: Line = { waiting: [] }
    this.#lines.set(key, begun)
    void this.#run(key, begun, task)
  }

  /** Drops what has not begun. */
  drop(): void {
    for (const { waiting } of this.#lines.values()) {
      for (const task of waiting.splice(0)) this.#count(task, -1)
    }
  }

  async #run(key: string, line: Line, first: Task): Promise<void> {
    for (let task: Task | undefined = first; task !== undefined; task = line.waiting.shift()) {
      const running = task.run()
      if (running !== undefined) await running
      const wasFull = this.isFull
      this.#count(task, -1)
      if (wasFull && !this.isFull) this.#onRoom()
    }
    this.#lines.delete(key)
  }

  #count({ chars }: Task, by: 1 | -1): void {
    this.#tasks += by
    this.#chars += by * chars
  }
}
