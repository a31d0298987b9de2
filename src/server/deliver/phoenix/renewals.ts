// The join of a channel and the changes of its token, one after the other.

export class Renewals {
  #turn: Promise<void> = Promise.resolve()
  #isDue = false

  /** @param join never rejects */
  begin(join: Promise<void>): void {
    this.#turn = join
  }

  /** Another token has come. While one waits, more make no difference: whoever sends many waits for two at most.
   *  @param renew takes the last token that there is; never rejects */
  ask(renew: () => Promise<void>): void {
    if (this.#isDue) return
    this.#isDue = true
    this.#turn = this.#turn.then(() => {
      this.#isDue = false
      return renew()
    })
  }
}
