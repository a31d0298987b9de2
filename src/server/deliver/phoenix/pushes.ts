// What a client has pushed into a channel and was not answered yet. Pure.

export interface Push {
  /** Its client's own. */
  readonly ref: string | null
  readonly isAnswered: boolean
}

export class Pushes {
  /** By our number: as many as a session takes at once. Null while there are none, which is mostly so. */
  #waiting: Map<number, Push> | null = null

  add(number: number, push: Push): void {
    this.#waiting ??= new Map()
    this.#waiting.set(number, push)
  }

  take(number: number): Push | undefined {
    const push = this.#waiting?.get(number)
    if (this.#waiting?.delete(number) === true && this.#waiting.size === 0) this.#waiting = null
    return push
  }
}
