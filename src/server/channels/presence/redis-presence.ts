// Presence of many nodes, in Redis. Each node writes its connections' entries once, and says every second that it lives: that keeps all
// of them. Of a node that does not say so for five seconds any other takes the entries out, as leaves that everybody hears.
//
// A node that was counted dead and was not, and one whose Redis may have lost something, which it may have whenever a connection is
// new, enters all its connections again: it remembers them. What it entered before and Redis still has stays as it is; what it took out
// and Redis has again is of a life that is over, and swept.
import { setTimeout as sleep } from 'node:timers/promises'
import { Cluster } from 'ioredis'
import { TidegateError } from '../../../protocol/tidegate-error.ts'
import type { Log } from '../../log/log.ts'
import type { RedisClient } from '../../redis/redis.ts'
import { steadyNow } from '../../steady-clock.ts'
import type { PresenceRule } from '../rules.ts'
import type { PresenceDraft, PresenceList, PresenceStore } from './presence.ts'
import { PresenceRooms } from './presence-rooms.ts'
import { type EndedLife, PresenceLease } from './redis-presence-lease.ts'
import { RedisLedger } from './redis-presence-ledger.ts'

export interface RedisPresenceOptions {
  /** For commands that answer at once, with a timeout. */
  readonly client: RedisClient
  /** TIDEGATE_NAME. */
  readonly name: string
  readonly log: Log
  /** Milliseconds since 1970, steady. */
  readonly now?: () => number
  /** For tests. */
  readonly leaseMs?: number
}

const leaseMs = 5000
const renewsPerLease = 5
/** Channels of a dead node that are swept at a time. */
const sweepsAtOnce = 16

export class RedisPresence implements PresenceStore {
  readonly #client: RedisClient
  readonly #log: Log
  readonly #renewMs: number
  readonly #lease: PresenceLease
  readonly #ledger: RedisLedger
  readonly #rooms: PresenceRooms
  readonly #closing = new AbortController()
  readonly #renewing: Promise<void>
  /** Lives that this node sweeps, one after another: as many as nodes. */
  readonly #ended: EndedLife[] = []
  #sweeping: Promise<void> | null = null
  /** The connection is another one: Redis may be, too. */
  #isDoubtful = false
  #wake: () => void = () => {}
  #isFailing = false
  #isClosed = false

  constructor(options: RedisPresenceOptions) {
    const { client, name, log, now = steadyNow } = options
    this.#client = client
    this.#log = log
    this.#renewMs = (options.leaseMs ?? leaseMs) / renewsPerLease
    this.#lease = new PresenceLease(client, name, options.leaseMs ?? leaseMs)
    this.#ledger = new RedisLedger({ client, name, lease: this.#lease, log })
    this.#rooms = new PresenceRooms({ ledger: this.#ledger, now, onLeft: channel => this.#left(channel) })
    this.#renewing = this.#live()
  }

  track(channel: string, draft: PresenceDraft, rule: PresenceRule): Promise<void> {
    return this.#rooms.track(channel, draft, rule)
  }

  untrack(channel: string, connection: string, how: 'gone' | 'broken'): Promise<void> {
    return this.#rooms.untrack(channel, connection, how)
  }

  async list(channel: string, page?: { readonly after: string | null; readonly limit: number }): Promise<PresenceList> {
    try {
      return await this.#ledger.list(channel, page)
    } catch (error) {
      throw new TidegateError('UNAVAILABLE', 'who is present cannot be read now', { cause: error })
    }
  }

  get rooms(): number {
    return this.#rooms.size
  }

  async close(): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#closing.abort()
    await this.#renewing
    await this.#rooms.close()
    try {
      // What could not be taken out, or may still be taken over.
      if (this.#rooms.isAway || this.#rooms.isExpecting || this.#sweeping !== null) await this.#lease.handOver()
      else await this.#lease.forget(this.#lease.life)
    } catch (error) {
      this.#log.debug(
        { err: error },
        'could not say that this node has nobody present any more; its lease ends by itself',
      )
    }
  }

  async #live(): Promise<void> {
    const { signal } = this.#closing
    const look = (): void => {
      // Never taken back here: a life that began, and could not be said, has entered nothing, and all of the last is still to be.
      this.#isDoubtful ||= this.#lease.hasEntered
      this.#wake()
    }
    this.#client.on('ready', look)
    if (this.#client instanceof Cluster) this.#client.on('+node', look)
    while (!signal.aborted) {
      const woken = new Promise<void>(resolve => (this.#wake = resolve))
      const isSettled = await this.#renew()
      if (!isSettled) continue
      const waited = new AbortController()
      const over = AbortSignal.any([signal, waited.signal])
      await Promise.race([sleep(this.#renewMs, undefined, { signal: over }).catch(() => {}), woken])
      waited.abort()
    }
    this.#client.off('ready', look)
    if (this.#client instanceof Cluster) this.#client.off('+node', look)
  }

  /** @returns false to be called again at once */
  async #renew(): Promise<boolean> {
    if (this.#client.status !== 'ready') return true
    const wasDoubtful = this.#isDoubtful
    this.#isDoubtful = false
    try {
      if (wasDoubtful) this.#lease.begin()
      const { goesOn, ended } = await this.#lease.renew()
      this.#sweep(ended)
      if (!goesOn) this.#log.warn('Redis does not have what this node had present: entering all of it again')
      if (wasDoubtful || !goesOn) {
        this.#rooms.restore()
        await this.#lease.enter([...this.#rooms.channels])
      }
      if (this.#isFailing) this.#log.info('presence is stored again')
      this.#isFailing = false
      this.#rooms.retry()
      return goesOn
    } catch (error) {
      this.#isDoubtful ||= wasDoubtful
      if (!this.#isFailing) this.#log.warn({ err: error }, 'presence cannot be stored; trying every second')
      this.#isFailing = true
      return true
    }
  }

  /** @param ended lives that no other node sweeps */
  #sweep(ended: readonly EndedLife[]): void {
    for (const each of ended) if (this.#ended.every(({ life }) => life !== each.life)) this.#ended.push(each)
    this.#sweeping ??= this.#sweepAll().finally(() => {
      this.#sweeping = null
    })
  }

  /** Never rejects: what fails is claimed again when the claim is over, by this node or another. */
  async #sweepAll(): Promise<void> {
    for (let next = this.#ended[0]; next !== undefined && !this.#isClosed; next = this.#ended[0]) {
      try {
        await this.#sweepLife(next)
      } catch (error) {
        this.#log.debug({ err: error }, 'could not take out all that a node had present')
      }
      this.#ended.shift()
    }
  }

  async #sweepLife(ended: EndedLife): Promise<void> {
    for (;;) {
      const channels = await this.#lease.some(ended.life)
      if (channels.length === 0) break
      // Before the dead one's word is gone that there is something: this node may die too.
      await this.#lease.enter(channels)
      for (let at = 0; at < channels.length; at += sweepsAtOnce) {
        if (this.#isClosed) return
        await Promise.all(
          channels.slice(at, at + sweepsAtOnce).map(async channel => {
            const dueMs = await this.#ledger.sweep(channel, ended)
            if (dueMs !== null) this.#rooms.expect(channel, dueMs)
          }),
        )
        await this.#lease.claim(ended)
      }
      await this.#lease.leave(ended.life, channels)
      await this.#lease.leave(
        this.#lease.life,
        channels.filter(channel => !this.#rooms.has(channel)),
      )
    }
    await this.#lease.forget(ended.life)
  }

  #left(channel: string): void {
    this.#lease.leave(this.#lease.life, [channel]).catch((error: unknown) => {
      this.#log.debug(
        { err: error },
        'could not say that nobody of this node is in a channel; it is found out when the node ends',
      )
    })
  }
}
