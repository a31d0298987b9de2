// Feeds that several listeners share: one subscription for one query, however many listen to it.
import type { Feed } from '../feed.ts'

export interface SharedFeed extends Feed {
  readonly listenerCount: number
  /** Refused, or closed: whoever comes next begins anew. */
  readonly hasEnded: boolean
  /** Nobody listens any more, and it is about to be removed. */
  left(): void
}

/** A subscription that nobody listens to is kept so long: a page that draws itself anew, and React's StrictMode, leave and
 *  come back at once. */
const lingerMs = 1000

interface Held<F> {
  readonly feed: F
  remove: () => void
  timer: ReturnType<typeof setTimeout> | undefined
}

/** Holds the feeds that somebody listens to, or did a moment ago. */
export class SharedFeeds<F extends SharedFeed> {
  readonly #add: (feed: F) => () => void
  readonly #held = new Map<string, Held<F>>()

  /** @param add enters a feed; returns what removes it */
  constructor(add: (feed: F) => () => void) {
    this.#add = add
  }

  get(name: string): F | undefined {
    const feed = this.#held.get(name)?.feed
    return feed?.hasEnded ? undefined : feed
  }

  *[Symbol.iterator](): Iterator<F> {
    for (const { feed } of this.#held.values()) yield feed
  }

  /** @param make where the query has no feed yet
   *  @param listen adds the listener, before a new feed is entered; returns what takes it away
   *  @returns ends the listening */
  listen(name: string, make: () => F, listen: (feed: F) => () => void): () => void {
    const known = this.get(name)
    const feed = known ?? make()
    const held: Held<F> = known === undefined ? { feed, remove: () => {}, timer: undefined } : this.#held.get(name)!
    clearTimeout(held.timer)
    this.#held.set(name, held)
    const unlisten = listen(feed)
    if (known === undefined) held.remove = this.#add(feed)
    return () => {
      unlisten()
      if (this.#held.get(name) !== held || feed.listenerCount > 0) return
      clearTimeout(held.timer)
      held.timer = setTimeout(() => this.#drop(name, held), feed.hasEnded ? 0 : lingerMs)
      // Node alone: a process does not stay up for a subscription that nobody listens to.
      const timer: unknown = held.timer
      if (typeof timer === 'object') (timer as { unref?: () => void }).unref?.()
    }
  }

  #drop(name: string, held: Held<F>): void {
    if (this.#held.get(name) === held) this.#held.delete(name)
    held.feed.left()
    held.remove()
  }
}
