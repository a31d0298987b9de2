// Does what a process holds grow with what it has done? Pure.

export interface Weight {
  /** Done so far. */
  readonly commits: number
  readonly bytes: number
}

/** The line of least squares through the weights of the last part of a run.
 *  @param part of all that was done, from the end: 0.8
 *  @returns the growth in per cent of what is held on average, for each `per` commits; 0 for fewer than three weights */
export function growthOf(weights: readonly Weight[], { part, per }: { part: number; per: number }): number {
  const last = weights.at(-1)?.commits ?? 0
  const counted = weights.filter(({ commits }) => commits >= last * (1 - part))
  if (counted.length < 3) return 0
  const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length
  const commits = mean(counted.map(weight => weight.commits))
  const bytes = mean(counted.map(weight => weight.bytes))
  const along = counted.reduce((sum, weight) => sum + (weight.commits - commits) ** 2, 0)
  const across = counted.reduce((sum, weight) => sum + (weight.commits - commits) * (weight.bytes - bytes), 0)
  return along === 0 ? 0 : ((across / along) * per * 100) / bytes
}
