// A wait that may be cut short.

/** One at a time. */
export class Pause {
  #end: (() => void) | null = null

  /** Resolves after this time, or with `end`. */
  for(ms: number): Promise<void> {
    return new Promise(resolve => {
      const timer = setTimeout(resolve, ms)
      this.#end = () => {
        clearTimeout(timer)
        this.#end = null
        resolve()
      }
    })
  }

  /** Does nothing where nobody waits. */
  end(): void {
    this.#end?.()
  }
}
