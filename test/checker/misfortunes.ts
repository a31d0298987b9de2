// What befalls node and database in a run, drawn per round: kills, crashes, restarts, lost slots.
import { type Crash, crashes } from './cluster.ts'
import { Random } from './random.ts'

export type Misfortune =
  | { readonly what: 'node killed' }
  | { readonly what: 'postgres'; readonly how: Crash }
  | { readonly what: 'both'; readonly how: Crash }
  | { readonly what: 'slot dropped while away' | 'slot dropped under the node' | 'slot invalidated' }

/** @returns in order, with the moments within the round; an invalidation is at its beginning */
export function misfortunes(seed: number, round: number, roundMs: number): { atMs: number; misfortune: Misfortune }[] {
  const random = Random.of(seed, 'misfortunes', round)
  // Every other round is calm: what a crash broke shows then.
  if (round % 2 === 0) return []
  if (random.once(6)) {
    const what = random.pick(['slot dropped while away', 'slot dropped under the node', 'slot invalidated'] as const)
    return [{ atMs: what === 'slot invalidated' ? 0 : random.below(roundMs), misfortune: { what } }]
  }
  const draw = (): Misfortune => {
    const how = random.pick(crashes)
    const what = random.pick(['node killed', 'node killed', 'postgres', 'postgres', 'both'] as const)
    return what === 'node killed' ? { what } : { what, how }
  }
  return Array.from({ length: random.pick([1, 1, 2]) }, () => ({
    atMs: random.below(roundMs),
    misfortune: draw(),
  })).sort((a, b) => a.atMs - b.atMs)
}
