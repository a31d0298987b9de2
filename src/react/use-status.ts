// How the client is connected, for a line in the page's corner.
import { useCallback, useSyncExternalStore } from 'react'
import type { Client, Status } from '../client/client.ts'

const idle: Status = { name: 'idle' }

/** How the client is connected.
 *  @returns the client's status; `idle` on a server, and in the first render of a page that a server rendered */
export function useStatus(tide: Pick<Client, 'status' | 'onStatus'>): Status {
  const subscribe = useCallback((wake: () => void) => tide.onStatus(wake), [tide])
  return useSyncExternalStore(
    subscribe,
    () => tide.status,
    () => idle,
  )
}
