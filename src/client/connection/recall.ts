// Which transport carried, by service: in the browser's local storage, so that the next page does not try again what a proxy swallows,
// else for as long as the process lives.

import type { Refusal } from '../status.ts'
import type { TransportName } from '../transports/transport.ts'
import { firstRung, type Ladder, rememberedRung } from './ladder.ts'

interface Memory {
  readonly transport: TransportName
  readonly reason: Refusal
  /** Milliseconds since 1970. */
  readonly until: number
}

const memoryMs = 24 * 3_600_000
/** By service: at most as many as the process has clients for. */
const memories = new Map<string, string>()

export function recall(base: URL, transports: readonly TransportName[]): Ladder {
  try {
    const memory = JSON.parse(stored(keyOf(base)) ?? 'null') as Memory | null
    const rung = memory === null || memory.until < Date.now() ? -1 : transports.indexOf(memory.transport)
    return rung > 0 ? rememberedRung(rung, memory!.reason) : firstRung
  } catch {
    return firstRung
  }
}

/** Of the first choice there is nothing to remember. */
export function remember(base: URL, transports: readonly TransportName[], { rung, reason }: Ladder): void {
  const key = keyOf(base)
  if (rung === 0 || reason === null) {
    memories.delete(key)
    tryStorage(storage => storage.removeItem(key))
    return
  }
  const text = JSON.stringify({ transport: transports[rung]!, reason, until: Date.now() + memoryMs } satisfies Memory)
  memories.set(key, text)
  tryStorage(storage => storage.setItem(key, text))
}

const keyOf = (base: URL): string => `tidegate:transport:${base.host}${base.pathname}`

const stored = (key: string): string | null => tryStorage(storage => storage.getItem(key)) ?? memories.get(key) ?? null

/** Reading `localStorage` throws where a browser forbids it, and warns in Node. */
function tryStorage<T>(use: (storage: Storage) => T): T | null {
  try {
    return typeof document === 'undefined' ? null : use(globalThis.localStorage)
  } catch {
    return null
  }
}
