// What a measurement says: both sides, their ratio, and the rounds it was taken from.

/** One line of a run. `ours` and `peer` are medians over the rounds, in `unit`; `ratio` is what the goal speaks of. */
export interface Figure {
  readonly bench: string
  readonly name: string
  readonly ours: number
  readonly peer: number
  readonly ratio: number
  readonly unit: string
  /** What the peer is. */
  readonly against: string
  /** What DESIGN asks for, and whether this run has it; null where nothing was promised. */
  readonly goal: { readonly text: string; readonly met: boolean } | null
  readonly details: Readonly<Record<string, unknown>>
}

/** A run as `--json` prints it: its first figure at the top, all of them under `figures`. */
export const jsonOf = (figures: readonly Figure[]): string => JSON.stringify({ ...figures[0], figures })

export function textOf({ name, ours, peer, ratio, unit, against, goal, details }: Figure): string {
  const verdict = goal === null ? '' : `  [goal: ${goal.text}: ${goal.met ? 'met' : 'NOT met'}]`
  const rest = Object.entries(details).map(([key, value]) => `    ${key}: ${JSON.stringify(value)}\n`)
  return `${name}\n  ours ${short(ours)} ${unit}, ${against} ${short(peer)}: ratio ${ratio.toFixed(2)}${verdict}\n${rest.join('')}`
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

export const rounded = (values: readonly number[], digits = 0): number[] =>
  values.map(value => Number(value.toFixed(digits)))

const short = (value: number): string =>
  value >= 10_000 ? `${(value / 1000).toFixed(1)} k` : value >= 100 ? value.toFixed(0) : value.toFixed(2)

/** Runs both sides `rounds` times, each round in the other order than the one before: whoever else uses the machine then
 *  slows both alike. */
export async function interleave(rounds: number, sides: readonly (() => Promise<void>)[]): Promise<void> {
  for (let round = 0; round < rounds; round++) {
    for (const side of round % 2 === 0 ? sides : sides.toReversed()) await side()
  }
}

/** Progress, on standard error: standard output holds the result only. */
export const say = (text: string): void => void process.stderr.write(`${text}\n`)
