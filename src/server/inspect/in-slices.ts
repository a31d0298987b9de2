// A long walk in short turns: a node that holds 100,000 subscriptions goes on serving them while it is looked at.

const turnMs = 4
const stepsAtOnce = 64

/** Runs a generator to its end, some milliseconds a turn. What it walks may change between two turns. @returns what it returns */
export async function inSlices<T>(work: Generator<void, T>): Promise<T> {
  for (let endMs = performance.now() + turnMs; ; ) {
    for (let steps = 0; steps < stepsAtOnce; steps += 1) {
      const { done, value } = work.next()
      if (done) return value as T
    }
    if (performance.now() < endMs) continue
    await new Promise<void>(resolve => setImmediate(resolve))
    endMs = performance.now() + turnMs
  }
}
