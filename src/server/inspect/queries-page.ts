// What is subscribed to, by query and audience: counted in walks over the subscriptions that take turns with other work.

import type { SubscriptionListed } from '../subscribe/listing.ts'
import type { OrderBy } from '../subscribe/subscription.ts'
import { inSlices } from './in-slices.ts'
import { Largest } from './largest.ts'
import type { InspectedAudience, InspectedQuery, QueriesPage } from './wire.ts'

const maxQueries = 200
const maxAudiences = 50

/** @param list every subscription, each time it is called; those of an audience one after the other */
export function queriesPage(list: () => Iterable<SubscriptionListed>): Promise<QueriesPage> {
  return inSlices(walk(list))
}

interface Counted {
  readonly of: SubscriptionListed
  subscribers: number
  readonly audiences: Largest<InspectedAudience>
}

const subscribersOf = ({ subscribers }: { readonly subscribers: number }): number => subscribers

/** Walks twice: to find the largest queries, holding a number for each, and to look at those. What comes and goes in between may be told
 *  or not. */
function* walk(list: () => Iterable<SubscriptionListed>): Generator<void, QueriesPage> {
  const sizes = new Map<number, number>()
  for (const { query } of list()) {
    // Who may be in a channel: no query of anybody.
    if (query.kind !== 'channel') sizes.set(query.number, (sizes.get(query.number) ?? 0) + 1)
    yield
  }
  const largest = new Largest<readonly [number: number, size: number]>(maxQueries, ([, size]) => size)
  for (const entry of sizes) {
    largest.add(entry)
    yield
  }
  const counts = new Map<number, Counted | null>(largest.items.map(([number]) => [number, null]))
  let run = new AudienceRun(null)
  for (const each of list()) {
    yield
    const { number } = each.query
    if (!counts.has(number)) continue
    const counted = counts.get(number) ?? {
      of: each,
      subscribers: 0,
      audiences: new Largest<InspectedAudience>(maxAudiences, subscribersOf),
    }
    counts.set(number, counted)
    counted.subscribers += 1
    if (run.audience !== each.audience) {
      run.end()
      run = new AudienceRun(each.audience, counted.audiences)
    }
    run.add(each)
  }
  run.end()
  const found = [...counts.values()].filter(counted => counted !== null)
  return { queries: found.sort((a, b) => b.subscribers - a.subscribers).map(queryOf), more: largest.more }
}

/** The subscriptions of one audience. Those whose roles mean the same share one: each role has its own count. */
class AudienceRun {
  readonly audience: object | null
  readonly #into: Largest<InspectedAudience> | null
  /** At most as many as JWT_ROLES names. */
  readonly #byRole = new Map<
    string,
    { role: string; isAsked: boolean; isHeld: boolean; subscribers: number; behind: number }
  >()

  constructor(audience: object | null, into: Largest<InspectedAudience> | null = null) {
    this.audience = audience
    this.#into = into
  }

  add({ role, isAsked, isHeld, isBehind }: SubscriptionListed): void {
    const counted = this.#byRole.get(role) ?? { role, isAsked, isHeld, subscribers: 0, behind: 0 }
    counted.subscribers += 1
    if (isBehind) counted.behind += 1
    this.#byRole.set(role, counted)
  }

  end(): void {
    for (const counted of this.#byRole.values()) this.#into?.add(counted)
  }
}

function queryOf({ of: { query, request }, subscribers, audiences }: Counted): InspectedQuery {
  const { table, columns, number, kind } = query
  return {
    number,
    kind: kind === 'live' ? 'live' : 'changes',
    table: `${table.schema}.${table.name}`,
    columns: columns.map(column => table.columns[column]!.name),
    filter: request.filters.length === 0 ? null : request.filters.map(([name, value]) => `${name}=${value}`).join('&'),
    order: request.order == null ? null : request.order.map(termOf).join(','),
    limit: request.limit ?? null,
    subscribers,
    audiences: audiences.items,
    moreAudiences: audiences.more,
  }
}

/** As PostgREST writes it; what goes without saying is left out. */
function termOf({ column, direction, nulls }: OrderBy): string {
  const usual = direction === 'desc' ? 'first' : 'last'
  return `${column}${direction === 'desc' ? '.desc' : ''}${nulls === usual ? '' : `.nulls${nulls}`}`
}
