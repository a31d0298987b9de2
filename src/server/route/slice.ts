// Long work in slices, so that the event loop's other work, the neighbours', waits for milliseconds only.
const sliceMs = 10

export class Slice {
  #end = performance.now() + sliceMs

  /** Whether it is the others' turn. */
  over(): boolean {
    return performance.now() > this.#end
  }

  /** Gives them their turn. Whoever comes back looks again at what may have changed meanwhile. */
  async next(): Promise<void> {
    await new Promise<void>(resolve => setImmediate(resolve))
    this.#end = performance.now() + sliceMs
  }
}
