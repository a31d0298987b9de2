// All live queries and changes of one client, shared by name, and the user whose rows they are.

import type { Feed, FeedRequest } from '../feed.ts'
import type { StoredQueries } from '../store/stored-queries.ts'
import { userOf } from '../store/user-of.ts'
import { ChangeFeed, type ChangeListeners, type ShareChanges } from './change-feed.ts'
import type { ChangesDoor } from './changes.ts'
import { LiveFeed, type LiveState, type Share } from './live-feed.ts'
import type { LiveDoor } from './live-query.ts'
import { isOrderingLoaded, loadOrdering } from './ordering.ts'
import { SharedFeeds } from './shared-feeds.ts'

export interface LiveQueriesOptions {
  /** Enters a feed; returns what removes it. */
  readonly add: (feed: Feed) => () => void
  /** The token that was fetched is another user's than what is connected. */
  readonly leave: () => void
  readonly report: (error: Error) => void
  /** Null: rows are not kept over a reload. */
  readonly stored: StoredQueries | null
  /** Names the user where the token is no JWT. */
  readonly user?: string | undefined
}

/** When code could not be fetched: in a while, as the page is perhaps offline. */
const loadAgainMs = 2000

/** Holds what somebody listens to, or did a moment ago. */
export class LiveQueries implements LiveDoor, ChangesDoor {
  readonly #options: LiveQueriesOptions
  readonly #live: SharedFeeds<LiveFeed>
  readonly #changes: SharedFeeds<ChangeFeed>
  #user: string | null = null

  constructor(options: LiveQueriesOptions) {
    this.#options = options
    this.#live = new SharedFeeds<LiveFeed>(feed => this.#add(feed))
    this.#changes = new SharedFeeds<ChangeFeed>(options.add)
  }

  state(name: string): LiveState | undefined {
    return this.#live.get(name)?.state
  }

  listen(name: string, request: FeedRequest, listener: (state: LiveState) => void): () => void {
    const { report, stored } = this.#options
    const share: Share = (other, each) => this.listen(JSON.stringify(other), other, each)
    const make = (): LiveFeed => new LiveFeed(request, { report, stored: stored?.slot(name) ?? null, share })
    return this.#live.listen(name, make, feed => feed.listen(listener))
  }

  changes(name: string, request: FeedRequest, listeners: ChangeListeners): () => void {
    const share: ShareChanges = (other, each) => this.changes(JSON.stringify(other), other, each)
    const make = (): ChangeFeed => new ChangeFeed(request, this.#options.report, share)
    return this.#changes.listen(name, make, feed => feed.listen(listeners))
  }

  /** A query that the client has to sort is entered once it can. */
  #add(feed: LiveFeed): () => void {
    const { add, report } = this.#options
    const { order, limit } = feed.request
    if (order === undefined || limit !== undefined || isOrderingLoaded()) return add(feed)
    let isOver = false
    let remove = (): void => {
      isOver = true
    }
    const enter = (): void => {
      if (!isOver && !feed.hasEnded) remove = add(feed)
    }
    const load = (): Promise<void> =>
      loadOrdering().then(enter, (error: Error) => {
        report(error)
        if (!isOver && !feed.hasEnded) setTimeout(load, loadAgainMs)
      })
    void load()
    return () => remove()
  }

  /** A token was fetched. Rows of another user are forgotten, and those that are kept of this one are there when it resolves. */
  async signedIn(token: string): Promise<void> {
    const { stored, report } = this.#options
    const user = userOf(token) ?? this.#options.user
    if (user === this.#user) return
    if (user === undefined) {
      if (stored !== null) report(new Error('rows are not stored: the token is no JWT, and there is no option `user`'))
      return
    }
    if (this.#user !== null) {
      this.#options.leave()
      const error = { code: 'QUERY_CHANGED', message: 'the token is another user’s' }
      for (const feed of this.#live) if (!feed.hasEnded) feed.restart(error)
    }
    this.#user = user
    if (stored === null) return
    await stored.signedIn(user, () => {
      for (const feed of this.#live) feed.restoreStored()
    })
  }

  /** The user leaves: nothing of theirs stays in the store. */
  async signedOut(): Promise<void> {
    this.#user = null
    const forgotten = this.#options.stored?.forgetUser()
    this.#end()
    await forgotten
  }

  close(): Promise<void> {
    this.#end()
    return this.#options.stored?.close() ?? Promise.resolve()
  }

  /** Also those that wait for their code, and are entered nowhere yet. */
  #end(): void {
    for (const feed of this.#live) if (!feed.hasEnded) feed.moved('closed', null)
  }
}
