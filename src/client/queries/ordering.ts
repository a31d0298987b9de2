// How rows compare. The code is fetched with the first query that has an order and no limit: no other needs it.
import type { compareRows } from '../../protocol/order.ts'

let compare: typeof compareRows | null = null

export const isOrderingLoaded = (): boolean => compare !== null

export async function loadOrdering(): Promise<void> {
  compare = (await import('../../protocol/order.ts')).compareRows
}

/** See `compareRows` of order.ts. @returns null before the code is there */
export const comparing: (...terms: Parameters<typeof compareRows>) => ReturnType<typeof compareRows> | null = terms =>
  compare === null ? null : compare(terms)
