// What all nodes of a deployment have in presence, in Redis.
import { createHash, randomBytes } from 'node:crypto'
import type { Log } from '../../log/log.ts'
import { repeated } from '../../log/log-repeated.ts'
import { isRedisAway, type RedisClient } from '../../redis/redis.ts'
import { defineScript, type Script } from '../../redis/redis-script.ts'
import { ChannelNames } from '../relay/redis-keys.ts'
import type { PresenceDraft, PresenceEntry, PresenceList } from './presence.ts'
import {
  type Applied,
  NotSent,
  type PresenceLedger,
  type PresenceOp,
  type PresenceStanding,
} from './presence-ledger.ts'
import type { EndedLife, PresenceLease } from './redis-presence-lease.ts'
import { applyLua, listLua } from './redis-presence-scripts.ts'

/** Calls on their way. Each may hold half a megabyte; of a room there is one at a time, and the others wait here. */
const maxCalls = 32

export interface RedisLedgerOptions {
  readonly client: RedisClient
  /** TIDEGATE_NAME. */
  readonly name: string
  readonly lease: PresenceLease
  readonly log: Log
}

export class RedisLedger implements PresenceLedger {
  readonly #client: RedisClient
  readonly #names: ChannelNames
  readonly #lease: PresenceLease
  readonly #log: Log
  readonly #apply: Script
  readonly #list: Script
  /** Calls of this object are told by it and their turn, over all its lives. */
  readonly #caller = randomBytes(8).toString('hex')
  #turn = 0
  #calls = 0
  /** One of each room, and of the sweeper's. */
  readonly #queue: (() => void)[] = []

  constructor({ client, name, lease, log }: RedisLedgerOptions) {
    this.#client = client
    this.#names = new ChannelNames(name, client)
    this.#lease = lease
    this.#log = log
    this.#apply = defineScript(client, applyLua)
    this.#list = defineScript(client, listLua)
  }

  async apply(channel: string, ops: readonly PresenceOp[], known: PresenceStanding | null): Promise<Applied> {
    const values: (string | number)[] = []
    for (const op of ops) values.push(...valuesOf(op))
    const entered = ops.some(op => op.kind === 'put')
    const { applied, refs } = await this.#call(async () => {
      this.#turn += 1
      const head = [this.#turn, newEpoch(), known?.epoch ?? '', String(known?.seq ?? 0n), '', 0]
      const calls = [
        entered ? this.#lease.enter([channel]) : null,
        this.#run(channel, '', [...head, ...values]),
      ] as const
      const [, answer] = await Promise.all(calls)
      return answer
    })
    let at = 0
    return { ...applied, refs: ops.map(op => (op.kind === 'put' ? refs[at++]! : null)) }
  }

  /** Of a life that is over: its entries leave, now or when their grace is over.
   *  @returns when the next broken entry of the channel must leave, in milliseconds; null: none is broken */
  async sweep(channel: string, { life, heardMs }: EndedLife): Promise<number | null> {
    for (;;) {
      const { applied, more } = await this.#call(() =>
        this.#run(channel, life, [0, newEpoch(), '', '0', life, heardMs]),
      )
      if (more === 0) return applied.dueMs
    }
  }

  async list(channel: string, page?: { readonly after: string | null; readonly limit: number }): Promise<PresenceList> {
    const keys = [this.#key(channel, 'here'), this.#key(channel, 'here:order'), this.#key(channel, 'here:head')]
    const values = [newEpoch(), page?.after ?? '', page?.limit ?? -1]
    const answer = await this.#call(() => this.#list(keys, values))
    const [epoch, seq, count, entries] = answer as [Buffer, Buffer, number, Buffer]
    return {
      epoch: String(epoch),
      seq: BigInt(String(seq)),
      count,
      // What `restOf` wrote, and the script put together.
      entries: JSON.parse(String(entries)) as PresenceEntry[],
    }
  }

  /** @param swept life, or '' */
  async #run(
    channel: string,
    swept: string,
    values: readonly (string | number)[],
  ): Promise<{ readonly applied: Omit<Applied, 'refs'>; readonly more: number; readonly refs: readonly string[] }> {
    const { life } = this.#lease
    const parts = ['here', 'here:order', 'here:head', 'here:broken', 'here:back'] as const
    const keys = [
      ...parts.map(part => this.#key(channel, part)),
      this.#key(channel, `here:of:${life}`),
      this.#key(channel, `here:turn:${this.#caller}`),
      this.#key(channel, `here:of:${swept}`),
    ]
    const answer = await this.#apply(keys, [this.#names.live(channel), life, ...values])
    const [epoch, seq, due, more, ...refs] = answer as [Buffer, Buffer, number, number, ...Buffer[]]
    const dueMs = due < 0 ? null : due
    return { applied: { epoch: String(epoch), seq: BigInt(String(seq)), dueMs }, more, refs: refs.map(String) }
  }

  #key(channel: string, part: 'here' | `here:${string}`): string {
    return this.#names.key(channel, part)
  }

  async #call<T>(call: () => Promise<T>): Promise<T> {
    if (this.#calls >= maxCalls) await new Promise<void>(resolve => this.#queue.push(resolve))
    else this.#calls += 1
    try {
      if (this.#client.status !== 'ready') throw new NotSent('not connected to Redis')
      return await call()
    } catch (error) {
      if (!(error instanceof NotSent) && !isRedisAway(error))
        repeated(this.#log).error({ err: error }, 'presence failed in Redis')
      throw error
    } finally {
      const next = this.#queue.shift()
      if (next === undefined) this.#calls -= 1
      else next()
    }
  }
}

function valuesOf(op: PresenceOp): (string | number)[] {
  if (op.kind === 'leave') return ['l', op.connection, op.unsent ? backOf(op.unsent) : '']
  if (op.kind === 'break') return ['b', op.connection, Math.ceil(op.graceMs)]
  const { draft, graceMs } = op.place
  return ['p', draft.connection, backOf(draft), graceMs, op.sinceMs, op.ref ?? '', newRef(op.sinceMs), restOf(draft)]
}

/** Whoever has the same may take over what broke. */
const backOf = ({ key, user }: PresenceDraft): string =>
  createHash('sha256')
    .update(JSON.stringify([key, user]))
    .digest('base64url')
    .slice(0, 22)

const restOf = ({ key, user, connection, meta }: PresenceDraft): string =>
  JSON.stringify({ key, user, connection, meta }).slice(1, -1)

/** About in the order in which they came. */
const newRef = (sinceMs: number): string =>
  Math.floor(sinceMs).toString(36).padStart(9, '0') + randomBytes(6).toString('base64url')

const newEpoch = (): string => randomBytes(4).toString('hex')
