// Many histories on one site: schemas are made for a batch at a time, because every one of them changes the catalog, and several
// histories are played at once.
import { generate } from './generate.ts'
import type { History } from './history.ts'
import { type Played, play } from './play.ts'
import type { Site } from './site.ts'
import { Tally } from './tally.ts'

export interface RunOptions {
  readonly seed: number
  readonly count: number
  /** The number of the first. */
  readonly first?: number
  readonly maxDepth?: number
  readonly atOnce?: number
  readonly batch?: number
  /** How long the node may take to bring everybody to where they should be. */
  readonly patienceMs?: number
  /** Makes of a history as it is drawn another. */
  readonly alter?: (history: History) => History
  /** Told after each batch. */
  readonly onProgress?: (played: number) => void
}

export interface Failed {
  readonly history: History
  readonly played: Played
}

export interface Ran {
  readonly passed: number
  readonly failed: Failed | null
  readonly tally: Tally
}

/** Stops at the first failure. */
export async function runHistories(site: Site, options: RunOptions): Promise<Ran> {
  const { seed, count, first = 0, maxDepth = 3, atOnce = 8, batch = 16, onProgress = () => {} } = options
  const { alter = history => history } = options
  const tally = new Tally()
  let passed = 0
  let failed: Failed | null = null
  for (let from = first; from < first + count && failed === null; from += batch) {
    const size = Math.min(batch, first + count - from)
    const histories = Array.from({ length: size }, (_, i) => alter(generate(seed, from + i, maxDepth)))
    const schemas = await site.build(histories)
    const waiting = [...histories.keys()]
    const work = async (): Promise<void> => {
      for (let i = waiting.shift(); i !== undefined && failed === null; i = waiting.shift()) {
        const played = await play(site, schemas[i]!, histories[i]!, options.patienceMs)
        if (played.failure !== null) failed ??= { history: histories[i]!, played }
        else passed += 1
        tally.add(played.tally)
      }
    }
    await Promise.all(Array.from({ length: atOnce }, work))
    await site.drop(schemas)
    onProgress(from + size - first)
  }
  return { passed, failed, tally }
}
