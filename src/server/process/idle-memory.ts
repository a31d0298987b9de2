// Gives memory back to the system when a crowd has come and the process has little to do.
//
// V8 means to do so itself: its memory reducer waits for quiet, then collects incrementally, shrinks the young generation
// and frees the pages it had pooled. Under Node 24 it waits for ever: it asks that each of three heaps allocates slowly, and
// the third, the embedder's, never counts as slow (--trace-memory-reducer --trace-mutator-utilization: "Embedder mutator
// utilization = 0.000 (mutator_speed=0, gc_speed=1)"). With `optimize-for-size` set it does not ask. 5,500 idle WebSockets:
// 365 MB resident before, 222 MB after; five collections by gc() had given nothing back.
//
// The price is two collections that compact, once after a crowd has come: they held the event loop up to 78 ms with 5,500
// sockets, 390 ms with 10,000 on two processors that had four times as much to do, where any full collection took 266. And
// while the flag is set the heap grows more cautiously. So it is set for moments only, when there is hardly anything to do,
// and not soon again.
import { performance } from 'node:perf_hooks'
import { getHeapStatistics, setFlagsFromString } from 'node:v8'

export type Rest =
  /** `quietSince`: milliseconds as `now`; null while there is work. */
  | { readonly state: 'working'; readonly quietSince: number | null }
  | { readonly state: 'asking'; readonly until: number }
  /** `heapBytes`: what was left. Nothing is asked for again before the heap has grown well past it, and before `until`. */
  | { readonly state: 'rested'; readonly heapBytes: number; readonly until: number }

export interface Activity {
  readonly now: number
  /** Part of the time that the event loop was busy, 0 to 1, since it was last looked at. */
  readonly utilization: number
  /** Heap that V8 has taken. */
  readonly heapBytes: number
}

export interface RestLimits {
  /** Below this part of the time there is little to do: 10,000 idle sockets with their heartbeats need a fiftieth. While V8
   *  is asked, half the time: its collections count too. */
  readonly busyFrom: number
  readonly quietMs: number
  /** V8's reducer looks every 8 s, begins within 2 s, and collects once more half a second later. */
  readonly askMs: number
  /** What is not worth two collections. */
  readonly worthBytes: number
  /** The least time from one rest to the next. */
  readonly againMs: number
}

export const defaultRestLimits: RestLimits = {
  busyFrom: 0.1,
  quietMs: 10_000,
  askMs: 12_000,
  worthBytes: 32 * 1024 * 1024,
  againMs: 300_000,
}

export function nextRest(rest: Rest, { now, utilization, heapBytes }: Activity, limits: RestLimits): Rest {
  const isBusy = utilization >= limits.busyFrom
  switch (rest.state) {
    case 'working': {
      if (isBusy) return { state: 'working', quietSince: null }
      const quietSince = rest.quietSince ?? now
      return now - quietSince < limits.quietMs
        ? { state: 'working', quietSince }
        : { state: 'asking', until: now + limits.askMs }
    }
    case 'asking':
      if (utilization >= 0.5) return { state: 'working', quietSince: null }
      return now < rest.until ? rest : { state: 'rested', heapBytes, until: now + limits.againMs }
    case 'rested':
      if (now < rest.until || heapBytes <= rest.heapBytes + limits.worthBytes) return rest
      return { state: 'working', quietSince: null }
  }
}

/** Of the whole process: for one that runs a server and nothing else. */
export class IdleMemory {
  readonly #limits: RestLimits
  readonly #timer: NodeJS.Timeout
  #utilization = performance.eventLoopUtilization()
  #rest: Rest = { state: 'working', quietSince: null }

  constructor(limits: Partial<RestLimits> = {}) {
    this.#limits = { ...defaultRestLimits, ...limits }
    this.#timer = setInterval(() => this.#look(), Math.min(1000, this.#limits.quietMs))
    this.#timer.unref()
  }

  get isRested(): boolean {
    return this.#rest.state === 'rested'
  }

  stop(): void {
    clearInterval(this.#timer)
    this.#move({ state: 'working', quietSince: null })
  }

  #look(): void {
    const utilization = performance.eventLoopUtilization()
    const activity: Activity = {
      now: performance.now(),
      utilization: performance.eventLoopUtilization(utilization, this.#utilization).utilization,
      heapBytes: getHeapStatistics().total_heap_size,
    }
    this.#utilization = utilization
    this.#move(nextRest(this.#rest, activity, this.#limits))
  }

  #move(next: Rest): void {
    const wasAsking = this.#rest.state === 'asking'
    this.#rest = next
    if (wasAsking === (next.state === 'asking')) return
    setFlagsFromString(wasAsking ? '--no-optimize-for-size' : '--optimize-for-size')
  }
}
