// The journal's keys in Redis, and the commands on them: one Stream of blocks per epoch, and a hash that says which epoch it is.
//
// An entry's ID is `<commit LSN of the block's last commit>-<attempt * 2^32 + part>`: it comes from Postgres, never from a
// counter in Redis, which could roll back with a lagging replica and number other commits the same. Parts belong to a commit too
// large for one block; the attempt tells the parts of two leaders apart that cut it differently.
import type { Redis } from 'ioredis'
import { connectionFor, type RedisClient } from '../redis/redis.ts'
import { defineScript, type Script } from '../redis/redis-script.ts'

export interface EntryId {
  readonly lsn: bigint
  readonly attempt: number
  readonly part: number
}

export interface Entry {
  readonly id: EntryId
  /** The ID as Redis has it. */
  readonly text: string
  readonly block: Buffer
}

/** Which Stream is the current one. */
export interface Pointer {
  readonly epoch: string
  readonly slotName: string
  readonly systemId: string
  readonly timeline: string
}

/** What a look at the hash finds beside it. */
export interface Standing extends Pointer {
  /** Everything that commits up to here is visible in the database. */
  readonly settledLsn: bigint
  readonly hasLeader: boolean
}

/** The journal is not as whoever appends believes: another node appended, or Redis lost something. */
export class JournalMovedError extends Error {}

/** Before the first entry of a Stream. */
export const beforeAll = '0-0'

const partsPerAttempt = 2 ** 32

export const formatId = ({ lsn, attempt, part }: EntryId): string => `${lsn}-${attempt * partsPerAttempt + part}`

/** @throws RangeError */
export function parseId(text: string): EntryId {
  const parts = /^(\d{1,20})-(\d{1,16})$/.exec(text)
  if (parts === null) throw new RangeError(`not an ID of the journal: ${JSON.stringify(text)}`)
  const sequence = Number(parts[2])
  return {
    lsn: BigInt(parts[1]!),
    attempt: Math.floor(sequence / partsPerAttempt),
    part: sequence % partsPerAttempt,
  }
}

/** Negative when `a` is before `b` in the Stream. */
export function compareIds(a: EntryId, b: EntryId): number {
  if (a.lsn !== b.lsn) return a.lsn < b.lsn ? -1 : 1
  return a.attempt - b.attempt || a.part - b.part
}

/** Only after the predecessor that the leader names: an append that was refused, for memory or in a failover, must not leave
 *  a hole behind the next one. Returns the Stream's last ID where it is another. */
const appendScript = `
if redis.call('HGET', KEYS[2], 'epoch') ~= ARGV[1] then return 'epoch' end
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local id = last[1] and last[1][1] or '0-0'
if id ~= ARGV[2] then return id end
redis.call('XADD', KEYS[1], ARGV[3], 'b', ARGV[4])
if ARGV[5] ~= '' then redis.call('XTRIM', KEYS[1], 'MINID', ARGV[5]) end
return 'stored'
`

/** A leader that was asleep since it looked must not put an old epoch in the place of a newer one. */
const beginScript = `
local epoch = redis.call('HGET', KEYS[1], 'epoch') or ''
if epoch ~= ARGV[1] then return 0 end
if epoch ~= ARGV[2] then redis.call('UNLINK', KEYS[2], KEYS[3]); redis.call('DEL', KEYS[1]) end
redis.call('HSET', KEYS[1], 'epoch', ARGV[2], 'slot', ARGV[3], 'system', ARGV[4], 'timeline', ARGV[5])
return 1
`

const signScript = `
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
redis.call('HSET', KEYS[1], 'settled', ARGV[4])
return 1
`

const endScript = `
if redis.call('HGET', KEYS[2], 'epoch') ~= ARGV[1] then return '' end
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
return last[1] and last[1][1] or '0-0'
`

const unsignScript = `if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0`

/** How long a leader counts as living without another sign. */
const signMs = 4000

export class RedisLog {
  readonly #client: RedisClient
  readonly #prefix: string
  readonly #append: Script
  readonly #begin: Script
  readonly #sign: Script
  readonly #end: Script
  readonly #unsign: Script

  /** @param client answers or fails within its command timeout
   *  @param name of the deployment */
  constructor(client: RedisClient, name: string) {
    this.#client = client
    this.#prefix = `{${name}}:`
    this.#append = defineScript(client, appendScript)
    this.#begin = defineScript(client, beginScript)
    this.#sign = defineScript(client, signScript)
    this.#end = defineScript(client, endScript)
    this.#unsign = defineScript(client, unsignScript)
  }

  get #pointerKey(): string {
    return `${this.#prefix}epoch`
  }

  get #leaderKey(): string {
    return `${this.#prefix}leader`
  }

  /** The Stream of an epoch. */
  keyOf(epoch: string): string {
    return `${this.#prefix}log:${epoch}`
  }

  /** @returns null where no epoch has begun, or Redis lost everything */
  async standing(): Promise<Standing | null> {
    const [fields, leader] = await Promise.all([
      this.#client.hgetall(this.#pointerKey),
      this.#client.exists(this.#leaderKey),
    ])
    const { epoch, slot, system, timeline, settled } = fields
    if (epoch === undefined) return null
    return {
      epoch,
      slotName: slot ?? '',
      systemId: system ?? '',
      timeline: timeline ?? '',
      settledLsn: BigInt(settled ?? 0),
      hasLeader: leader === 1,
    }
  }

  /** Makes an epoch the current one. The Stream before it is dropped, and a stray one of its name.
   *  @param before the epoch that `standing` told, '' for none
   *  @returns false when it is another by now */
  async begin(before: string, pointer: Pointer): Promise<boolean> {
    const { epoch, slotName, systemId, timeline } = pointer
    const keys = [this.#pointerKey, this.keyOf(before), this.keyOf(epoch)]
    return (await this.#begin(keys, [before, epoch, slotName, systemId, timeline])) === 1
  }

  /** @param after ID of the entry that must be the last one
   *  @param trimTo entries before this ID are let go; '' for none
   *  @throws JournalMovedError when another is; whatever Redis says */
  async append(epoch: string, after: string, entry: Entry, trimTo: string): Promise<void> {
    const keys = [this.keyOf(epoch), this.#pointerKey]
    const answer = String(await this.#append(keys, [epoch, after, entry.text, entry.block, trimTo]))
    if (answer === 'stored') return
    throw new JournalMovedError(
      answer === 'epoch'
        ? 'the journal is of another epoch, or lost'
        : `the journal ends at ${answer}, not at ${after}`,
    )
  }

  /** ID of the last entry, `0-0` for none; null when the current epoch is another, or Redis lost it. */
  async lastId(epoch: string): Promise<EntryId | null> {
    const answer = String(await this.#end([this.keyOf(epoch), this.#pointerKey], [epoch]))
    return answer === '' ? null : parseId(answer)
  }

  /** The last entry. */
  async last(epoch: string): Promise<Entry | null> {
    return (await this.#entriesOf('XREVRANGE', this.keyOf(epoch), '+', '-', 'COUNT', '1'))[0] ?? null
  }

  /** The last entry before this one. */
  async lastBefore(epoch: string, id: string): Promise<Entry | null> {
    return (await this.#entriesOf('XREVRANGE', this.keyOf(epoch), `(${id}`, '-', 'COUNT', '1'))[0] ?? null
  }

  /** Up to `count` entries after this one. */
  after(epoch: string, id: string, count: number): Promise<readonly Entry[]> {
    return this.#entriesOf('XRANGE', this.keyOf(epoch), `(${id}`, '+', 'COUNT', String(count))
  }

  /** Up to `count` entries from this one on. */
  from(epoch: string, id: string, count: number): Promise<readonly Entry[]> {
    return this.#entriesOf('XRANGE', this.keyOf(epoch), id, '+', 'COUNT', String(count))
  }

  /** The leader shows that it lives, and what is visible by now. @returns false when the epoch is another */
  async sign(epoch: string, nodeId: string, settledLsn: bigint): Promise<boolean> {
    const keys = [this.#pointerKey, this.#leaderKey]
    return (await this.#sign(keys, [epoch, nodeId, signMs, String(settledLsn)])) === 1
  }

  async unsign(nodeId: string): Promise<void> {
    await this.#unsign([this.#leaderKey], [nodeId])
  }

  /** Asks Redis to say that what this connection wrote is on so many replicas. @returns how many said so in time */
  async waitForReplicas(count: number, timeoutMs: number): Promise<number> {
    return Number(await this.#writer().call('WAIT', String(count), String(timeoutMs)))
  }

  /** The same for the append-only file of the server itself. Redis 7.2 and later. */
  async waitForFile(timeoutMs: number): Promise<boolean> {
    const answer = (await this.#writer().call('WAITAOF', '1', '0', String(timeoutMs))) as [number, number]
    return answer[0] >= 1
  }

  /** Of a Cluster the node that was written to: one without a key in it goes to any. */
  #writer(): Redis {
    const writer = connectionFor(this.#client, this.#pointerKey)
    if (writer === null) throw new Error('Connection is closed.')
    return writer
  }

  async #entriesOf(command: string, ...values: string[]): Promise<readonly Entry[]> {
    return entriesOf(await this.#client.callBuffer(command, ...values))
  }
}

/** @param answer of XRANGE and its like: pairs of an ID and its fields; null for none. @throws RangeError */
export function entriesOf(answer: unknown): readonly Entry[] {
  return ((answer ?? []) as [Buffer, [Buffer, Buffer]][]).map(([id, [, block]]) => {
    const text = id.toString('latin1')
    return { id: parseId(text), text, block }
  })
}
