// A histogram of durations that costs a few nanoseconds to add to: read when somebody asks for it.

/** Upper bounds of the buckets, in seconds; what is longer falls into one more. */
export const timingBounds: readonly number[] = [
  0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5,
  5, 10, 30,
]

export class Timing {
  /** Of each bucket, not added up: one more than there are bounds. */
  readonly counts = new Float64Array(timingBounds.length + 1)
  sumSeconds = 0
  count = 0

  observe(seconds: number): void {
    let place = 0
    while (place < timingBounds.length && seconds > timingBounds[place]!) place++
    this.counts[place]! += 1
    this.sumSeconds += seconds
    this.count += 1
  }
}
