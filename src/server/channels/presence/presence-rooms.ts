// The channels in which this node has entries.
import { TidegateError } from '../../../protocol/tidegate-error.ts'
import type { PresenceRule } from '../rules.ts'
import type { PresenceDraft } from './presence.ts'
import type { PresenceLedger } from './presence-ledger.ts'
import { PresenceRoom } from './presence-room.ts'

export interface PresenceRoomsOptions {
  readonly ledger: PresenceLedger
  /** Milliseconds since 1970, steady. */
  readonly now: () => number
  /** Nothing of this node is in the channel any more, nor owed to it. */
  readonly onLeft?: (channel: string) => void
}

export class PresenceRooms {
  readonly #options: PresenceRoomsOptions
  /** As many as channels in which connections of this node are, or were within the grace. */
  readonly #rooms = new Map<string, PresenceRoom>()
  #isClosed = false

  constructor(options: PresenceRoomsOptions) {
    this.#options = options
  }

  get channels(): Iterable<string> {
    return this.#rooms.keys()
  }

  has(channel: string): boolean {
    return this.#rooms.has(channel)
  }

  get size(): number {
    return this.#rooms.size
  }

  /** Of any of them, entries are broken that must be taken out in time. */
  get isExpecting(): boolean {
    for (const room of this.#rooms.values()) if (room.isExpecting) return true
    return false
  }

  /** Of one of them something could not be stored. */
  get isAway(): boolean {
    for (const room of this.#rooms.values()) if (room.isAway) return true
    return false
  }

  track(channel: string, draft: PresenceDraft, rule: PresenceRule): Promise<void> {
    if (!this.#isClosed) return this.#room(channel).track(draft, rule)
    return Promise.reject(new TidegateError('UNAVAILABLE', 'this server is going away'))
  }

  untrack(channel: string, connection: string, how: 'gone' | 'broken'): Promise<void> {
    return this.#rooms.get(channel)?.untrack(connection, how) ?? Promise.resolve()
  }

  /** Looks after entries there that another node left behind. */
  expect(channel: string, dueMs: number): void {
    if (!this.#isClosed) this.#room(channel).expect(dueMs)
  }

  restore(): void {
    for (const room of this.#rooms.values()) room.restore()
  }

  retry(): void {
    for (const room of this.#rooms.values()) room.retry()
  }

  async close(): Promise<void> {
    this.#isClosed = true
    await Promise.all(Array.from(this.#rooms.values(), room => room.close()))
  }

  #room(channel: string): PresenceRoom {
    let room = this.#rooms.get(channel)
    if (room === undefined) {
      const { ledger, now, onLeft } = this.#options
      const onIdle = (): void => {
        this.#rooms.delete(channel)
        onLeft?.(channel)
      }
      room = new PresenceRoom({ channel, ledger, now, onIdle })
      this.#rooms.set(channel, room)
    }
    return room
  }
}
