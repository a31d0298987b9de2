// What one connection asks of its channels: joining, sending, telling of itself, leaving. For each channel one after the other, in
// the order in which it was asked; channels do not wait for each other.
//
// A channel that takes messages slower than they come delays them here. Past a bound the socket is not read, so that the client
// notices, and nothing piles up.

/** What may wait or be under way before the socket is not read. What had been read then comes on top, at most one read of it. */
export const maxTasks = 64
export const maxChars = 256 * 1024

interface Line {
  readonly waiting: Task[]
  /** Under way. */
  running: number
  /** What is under way lets nothing begin beside it. */
  isAlone: boolean
  /** Resolves when all that has begun was answered. */
  answered: Promise<void>
}

export interface Task {
  /** How much it holds in memory. */
  readonly chars: number
  /** The next of the same channel may begin when this one has begun, if it too may: messages are numbered in the order in which
   *  they are given to the channel, and a round trip to Redis for each would be one write for each to every member. */
  readonly isSend: boolean
  /** Begins it. Never rejects. @returns what answers it, called behind the answers to all before it */
  run(): Promise<() => void> | void
}

export class ChannelLines {
  /** Those with something under way, by channel: at most the subscriptions of the connection, and those it has just left. Null while there
   *  are none: mostly, and of every connection with a channel. */
  #lines: Map<string, Line> | null = null
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

  /** Begins in this turn if nothing of the channel is under way that it must wait for. */
  add(key: string, task: Task): void {
    this.#count(task, 1)
    this.#lines ??= new Map()
    let line = this.#lines.get(key)
    if (line === undefined) {
      line = { waiting: [], running: 0, isAlone: false, answered: Promise.resolve() }
      this.#lines.set(key, line)
    }
    line.waiting.push(task)
    this.#begin(key, line)
  }

  /** Drops what has not begun. */
  drop(): void {
    for (const { waiting } of this.#lines?.values() ?? []) {
      for (const task of waiting.splice(0)) this.#count(task, -1)
    }
  }

  #begin(key: string, line: Line): void {
    for (let next = line.waiting[0]; next !== undefined; next = line.waiting[0]) {
      if (line.isAlone || (line.running > 0 && !next.isSend)) return
      line.waiting.shift()
      const task = next
      const running = task.run()
      if (running === undefined) {
        this.#end(task)
        continue
      }
      line.running += 1
      line.isAlone = !task.isSend
      line.answered = line.answered
        .then(() => running)
        .then(answer => {
          answer()
          line.running -= 1
          line.isAlone = false
          this.#end(task)
          this.#begin(key, line)
        })
    }
    if (line.running > 0 || this.#lines?.get(key) !== line) return
    this.#lines.delete(key)
    if (this.#lines.size === 0) this.#lines = null
  }

  #end(task: Task): void {
    const wasFull = this.isFull
    this.#count(task, -1)
    if (wasFull && !this.isFull) this.#onRoom()
  }

  #count({ chars }: Task, by: 1 | -1): void {
    this.#tasks += by
    this.#chars += by * chars
  }
}
