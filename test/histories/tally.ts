// How often what was drawn really happened.

export type Group = 'changes' | 'policies' | 'readers' | 'compared'

/** What is drawn a little of: it is not what the histories are for. */
const seldom = ['resyncs', 'told what Postgres was asked', 'PL/pgSQL function']

export class Tally {
  readonly #counts = new Map<Group, Map<string, number>>()

  count(group: Group, kind: string, times = 1): void {
    const counts = this.#counts.get(group) ?? new Map<string, number>()
    this.#counts.set(group, counts.set(kind, (counts.get(kind) ?? 0) + times))
  }

  add(other: Tally): void {
    for (const [group, counts] of other.#counts) for (const [kind, times] of counts) this.count(group, kind, times)
  }

  of(group: Group, kind: string): number {
    return this.#counts.get(group)?.get(kind) ?? 0
  }

  /** Kinds that came less often than this. */
  rare(least: number): string[] {
    return [...this.#counts].flatMap(([group, counts]) =>
      [...counts]
        .filter(([kind, times]) => times < least && !seldom.includes(kind))
        .map(([kind, times]) => `${group}: ${kind} ${times}`),
    )
  }

  toString(): string {
    return [...this.#counts]
      .map(([group, counts]) => {
        const sorted = [...counts].sort(([, a], [, b]) => b - a)
        return `${group}\n${sorted.map(([kind, times]) => `  ${String(times).padStart(8)}  ${kind}`).join('\n')}`
      })
      .join('\n')
  }
}
