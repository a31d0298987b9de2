// Lets a few snapshots run at a time and a bounded number wait, so that a thousand clients who come back at once do not
// stampede the database.
import { TidegateError } from '../../protocol/tidegate-error.ts'

export class Admission {
  readonly #limit: number
  readonly #queueLimit: number
  readonly #waiting: (() => void)[] = []
  #running = 0

  constructor(limit: number, queueLimit: number) {
    this.#limit = limit
    this.#queueLimit = queueLimit
  }

  /** @throws BUSY when the queue is full */
  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#running < this.#limit) this.#running += 1
    else {
      if (this.#waiting.length >= this.#queueLimit) {
        throw new TidegateError('BUSY', `${this.#waiting.length} snapshots are waiting already`)
      }
      // The one who leaves hands its place over, so `running` does not change.
      await new Promise<void>(resolve => this.#waiting.push(resolve))
    }
    try {
      return await work()
    } finally {
      const next = this.#waiting.shift()
      if (next !== undefined) next()
      else this.#running -= 1
    }
  }
}
