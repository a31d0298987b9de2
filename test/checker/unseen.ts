// What a run did not come across of what it is there for.
import type { Verdict } from './checker.ts'

export function unseen(verdict: Verdict, run: { readonly crashes: boolean; readonly stalls: boolean }): string[] {
  const { writers, tally, misfortunes } = verdict
  const { begunWhileStalled, hops: ____, givenUp: _____, ...crowd } = verdict.crowd
  const { preparedLeft: _, connectionsLost: __, stalls, stalledCommits, refused: ___, ...always } = writers
  const counts: Record<string, number> = { owed: tally.owed, ...crowd, ...always }
  if (run.stalls) Object.assign(counts, { stalls, stalledCommits, begunWhileStalled })
  if (run.crashes)
    for (const what of ['node', 'postgres', 'both', 'slot']) {
      const happened = Object.entries(misfortunes).filter(([name]) => name.startsWith(what))
      counts[`misfortune: ${what}`] = happened.length
    }
  for (const kind of ['live', 'changes'] as const) {
    for (const transport of ['websocket', 'sse', 'long-poll']) {
      const wire = tally.wires[`${transport} ${kind}`]
      const seen = kind === 'live' ? (['snapshots', 'deltas', 'compared'] as const) : (['changes'] as const)
      for (const what of [...seen, 'readers', 'shared', 'filtered', 'resumes', 'positions'] as const)
        counts[`${transport} ${kind}: ${what}`] = wire?.[what] ?? 0
    }
  }
  return Object.entries(counts).flatMap(([what, count]) => (count > 0 ? [] : [what]))
}
