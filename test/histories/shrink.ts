// Makes a failing history smaller, as long as it fails in the same way: first what is cheap to leave out and takes the most with
// it, then parts of what is left, until nothing more can be left out.
import type { Condition, History, Policy, Subscriber } from './history.ts'
import { type Played, play } from './play.ts'
import type { Site } from './site.ts'

export interface Shrunk {
  readonly history: History
  readonly played: Played
}

/** Some failures need their moment: a candidate fails if one of so many copies does, played at once. */
const copies = 4

/** @param deadlineMs after which what has been reached is given back */
export async function shrink(site: Site, failed: Shrunk, deadlineMs: number): Promise<Shrunk> {
  const kind = kindOf(failed.played.failure!)
  const deadline = performance.now() + deadlineMs
  let smallest = failed
  let isSmaller = true
  const tryAll = async (candidates: (history: History) => Iterable<History>): Promise<void> => {
    let restart = true
    while (restart) {
      restart = false
      for (const candidate of candidates(smallest.history)) {
        if (performance.now() > deadline) return
        const played = await fails(site, candidate, kind)
        if (played === null) continue
        smallest = { history: candidate, played }
        isSmaller = restart = true
        break
      }
    }
  }
  while (isSmaller && performance.now() < deadline) {
    isSmaller = false
    for (const step of steps) await tryAll(step)
  }
  return smallest
}

/** @returns how it failed; null when it did not in this way, or when Postgres does not take it */
export async function fails(site: Site, history: History, kind: string | null): Promise<Played | null> {
  const schemas = await site.build(Array.from({ length: copies }, () => history)).catch(() => null)
  if (schemas === null) return null
  try {
    const all = await Promise.all(schemas.map(schema => play(site, schema, history).catch(() => null)))
    return all.find(played => played?.failure && (kind === null || kindOf(played.failure) === kind)) ?? null
  } finally {
    await site.drop(schemas)
  }
}

/** `rows`, `leak`, `event` ...: a candidate that fails in another way is another defect. */
const kindOf = (failure: string): string => failure.slice(0, failure.indexOf(':'))

const steps: readonly ((history: History) => Iterable<History>)[] = [
  subscribersAlone,
  history => fewer(history.transactions).map(transactions => ({ ...history, transactions })),
  history => fewer(history.subscribers).map(subscribers => ({ ...history, subscribers })),
  history => each(history.transactions, fewer).map(transactions => ({ ...history, transactions })),
  history => fewer(history.policies).map(policies => ({ ...history, policies })),
  history => each(history.policies, simplerPolicies).map(policies => ({ ...history, policies })),
  history => fewer(history.rows).map(rows => ({ ...history, rows })),
  history => each(history.subscribers, simplerSubscribers).map(subscribers => ({ ...history, subscribers })),
  history => fewer(history.functions).map(functions => ({ ...history, functions })),
  history => fewer(history.tables).map(tables => ({ ...history, tables })),
  history =>
    each(history.tables, table => (table.rowSecurity ? [{ ...table, rowSecurity: false }] : [])).map(tables => ({
      ...history,
      tables,
    })),
  history => each(history.tables, simplerColumns).map(tables => ({ ...history, tables })),
  history => (history.pace === 'burst' ? [{ ...history, pace: 'each' as const }] : []),
]

function* subscribersAlone(history: History): Iterable<History> {
  if (history.subscribers.length === 1) return
  for (const subscriber of history.subscribers) yield { ...history, subscribers: [subscriber] }
}

/** Without a half, a quarter, ... without each. */
function fewer<T>(items: readonly T[]): T[][] {
  const lists: T[][] = []
  for (let size = Math.ceil(items.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2))
    // From the end: what came before is needed more often.
    for (let from = items.length - size; from > -size; from -= size)
      lists.push([...items.slice(0, Math.max(0, from)), ...items.slice(from + size)])
  return lists
}

/** The list with each of its items made simpler in every way. */
const each = <T>(items: readonly T[], simpler: (item: T) => readonly T[]): T[][] =>
  items.flatMap((item, i) => simpler(item).map(other => items.with(i, other)))

const simplerPolicies = (policy: Policy): Policy[] =>
  simplerConditions(policy.using).map(using => ({ ...policy, using, shapes: [] }))

function simplerConditions(condition: Condition): Condition[] {
  if (typeof condition === 'string') return condition === 'true' ? [] : ['true']
  if ('not' in condition) return [condition.not, ...simplerConditions(condition.not).map(not => ({ not }))]
  if ('exists' in condition || 'value' in condition)
    return ['true', ...simplerConditions(condition.where).map(where => ({ ...condition, where }))]
  const parts = 'any' in condition ? condition.any : condition.all
  const wrap = (items: readonly Condition[]): Condition => ('any' in condition ? { any: items } : { all: items })
  const without = parts.length > 1 ? parts.map((_, i) => wrap(parts.toSpliced(i, 1))) : []
  return [...parts, ...without, ...each(parts, simplerConditions).map(wrap)]
}

function simplerSubscribers(subscriber: Subscriber): Subscriber[] {
  const simpler: Subscriber[] = []
  if (subscriber.filter !== '') simpler.push({ ...subscriber, filter: '', where: 'true' })
  const { window, ...unordered } = subscriber
  if (window !== undefined) simpler.push(unordered)
  if (window !== undefined && window.limit > 1) simpler.push({ ...subscriber, window: { ...window, limit: 1 } })
  if (subscriber.select !== null) simpler.push({ ...subscriber, select: null })
  if (subscriber.away.length > 0) simpler.push({ ...subscriber, away: [] })
  if (subscriber.slow.length > 0) simpler.push({ ...subscriber, slow: [] })
  if (subscriber.joins > 0) simpler.push({ ...subscriber, joins: 0 }, { ...subscriber, joins: subscriber.joins - 1 })
  // Transactions that went before shift those that are left.
  for (const name of ['away', 'slow'] as const)
    for (const [from, to] of subscriber[name]) {
      if (to > from + 1) simpler.push({ ...subscriber, [name]: [[from, to - 1]] })
      if (from > 1) simpler.push({ ...subscriber, [name]: [[from - 1, to - 1]] })
    }
  return simpler
}

type Table = History['tables'][number]

const simplerColumns = (table: Table): Table[] =>
  table.columns.flatMap((column, i) => {
    const reference = column.indexOf(' REFERENCES ')
    return reference < 0 ? [] : [{ ...table, columns: table.columns.with(i, column.slice(0, reference)) }]
  })
