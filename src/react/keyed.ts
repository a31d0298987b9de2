// Queries and channels are made in render, anew each time: what makes two of them the same.
import { useMemo } from 'react'

export interface Keyed {
  /** Says what is asked. */
  readonly key: string
  /** Of whom. */
  readonly client: object
}

/** The object of the first render of those since which client and key are the same. */
export function useSame<T extends Keyed>(made: T | null): T | null {
  // biome-ignore lint/correctness/useExhaustiveDependencies: another object that asks the same is the same.
  return useMemo(() => made, [made?.client, made?.key])
}
