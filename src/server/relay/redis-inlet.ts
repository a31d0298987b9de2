// What the leader appends to: commits become blocks, several of them on their way at a time, and a block's commits are the
// window's once Redis has it. So nobody is ever told what another node could not tell.
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Commit } from '../decode/change.ts'
import { isRedisAway } from '../redis/redis.ts'
import type { Snapshot } from '../wal/visibility.ts'
import { blockBytesOf, encodeBlock, encodeParts } from './block.ts'
import { BlockReader } from './block-reader.ts'
import type { Feed, Inlet } from './journal.ts'
import { beforeAll, compareIds, type Entry, formatId, parseId, type RedisLog } from './redis-log.ts'
import type { RetainedEntries } from './retained-entries.ts'
import type { StoredPrefix } from './stored-prefix.ts'

export type Durability = 'none' | 'replica' | 'aof'

export interface RedisInletOptions {
  readonly log: RedisLog
  readonly nodeId: string
  readonly epoch: string
  readonly feed: Feed
  readonly retained: RetainedEntries
  readonly prefix: StoredPrefix
  readonly durability: Durability
  /** The Stream's last entry, `0-0` for none. */
  readonly last: string
  /** The newest whole commit that the Stream holds, null for none: what comes up to it is there already. */
  readonly storedLsn: bigint | null
  /** Every commit after it will come. */
  readonly prevLsn: bigint
  /** This entry is the last one by now. */
  readonly onStored: (text: string, isWhole: boolean) => void
  readonly onClosed: () => void
}

interface Outgoing {
  readonly entry: Entry
  /** The commit whose last part this is, none for another part, null for a block of whole commits. */
  readonly large: readonly Commit[] | null
  readonly bytes: number
}

/** A block of this size costs far more for its bytes than for being a command (`npm run bench -- relay`), and takes no more of Redis's
 *  memory than they are: a little more, and its allocator would round it up by a quarter. */
const blockBytes = 250 * 1024
const maxInFlight = 16
/** Below this many on their way a small block goes at once; else commits gather while Redis answers. */
const busyInFlight = 2
/** Half of what an ID has room for. */
const maxRandomAttempt = 2 ** 20
const maxPendingBytes = 16 * 1024 * 1024
/** How long Redis may be away before the slot is let go, for a node that reaches it. */
const patienceMs = 5000
const retryMs = 100
const signEveryMs = 1000
const durableWithinMs = 500

export class RedisInlet implements Inlet {
  readonly #options: RedisInletOptions
  #queue: Commit[] = []
  #queueBytes = 0
  #parts: {
    readonly commit: Commit
    readonly blocks: Iterator<Buffer>
    next: Buffer
    part: number
    attempt: number
  } | null = null
  /** What is stored, as others read it. */
  readonly #own = new BlockReader()
  readonly #inFlight: Outgoing[] = []
  #inFlightBytes = 0
  /** Answers that have not come. */
  #awaited = 0
  /** ID of the entry sent last, and of the last that is stored. */
  #sent: string
  #storedText: string
  #storedLsn: bigint
  #prevLsn: bigint
  #headLsn: bigint
  #passedLsn = 0n
  /** From a failed append until what became of it is known. */
  #isLost = false
  /** From a failed append until the next that is stored. */
  #failingSinceMs: number | null = null
  /** Why the first append failed, and why all did. */
  #cause: unknown = null
  #failure: unknown = null
  #isClosed = false
  #changed: (() => void)[] = []
  readonly #failed = Promise.withResolvers<void>()
  readonly #signs: NodeJS.Timeout

  constructor(options: RedisInletOptions) {
    this.#options = options
    this.#sent = options.last
    this.#storedText = options.last
    this.#storedLsn = options.storedLsn ?? 0n
    this.#headLsn = this.#storedLsn
    this.#prevLsn = options.prevLsn
    if (options.storedLsn !== null) options.prefix.stored(options.storedLsn)
    this.#signs = setInterval(() => this.#sign(), signEveryMs)
    this.#sign()
  }

  get failed(): Promise<void> {
    return this.#failed.promise
  }

  append(commit: Commit): void {
    this.#options.prefix.came(commit)
    if (commit.commitLsn <= this.#headLsn) {
      commit.release()
      return
    }
    this.#headLsn = commit.commitLsn
    this.#queue.push(commit)
    this.#queueBytes += commit.bytes
    if (this.#queueBytes >= blockBytes) this.#pump()
  }

  flush(): void {
    this.#pump()
  }

  passed(lsn: bigint): void {
    this.#passedLsn = lsn
    this.#tellPassed()
  }

  async room(): Promise<void> {
    while (this.#failure === null && this.#queueBytes + this.#inFlightBytes > maxPendingBytes)
      await new Promise<void>(resolve => this.#changed.push(resolve))
    if (this.#failure !== null) throw this.#failure
    await this.#options.feed.room()
  }

  sampled(snapshot: Snapshot): void {
    this.#options.prefix.sampled(snapshot)
  }

  async acknowledgeable(): Promise<bigint | null> {
    const { log, prefix, durability, epoch } = this.#options
    const storedLsn = this.#storedLsn
    const stored = parseId(this.#storedText)
    // While Redis is away, time does not count: it may come back without what it had stored.
    const last = await log.lastId(epoch).catch(error => {
      if (isRedisAway(error)) return null
      throw error
    })
    if (last === null || compareIds(last, stored) < 0) return null
    if (durability === 'replica' && (await log.waitForReplicas(1, durableWithinMs)) < 1)
      throw notDurable('no replica has said within 500 ms that it holds what was appended')
    if (durability === 'aof' && !(await log.waitForFile(durableWithinMs)))
      throw notDurable('Redis has not said within 500 ms that its append-only file holds what was appended')
    prefix.stored(storedLsn)
    return prefix.acknowledgeable
  }

  async close(): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    clearInterval(this.#signs)
    this.#fail(new Error('closed'))
    await this.#options.log.unsign(this.#options.nodeId).catch(() => {})
    this.#options.onClosed()
  }

  #pump(): void {
    if (this.#failure !== null || this.#isLost) return
    while (this.#inFlight.length < maxInFlight && this.#inFlightBytes < maxPendingBytes) {
      const outgoing = this.#next()
      if (outgoing === null) break
      this.#inFlight.push(outgoing)
      this.#inFlightBytes += outgoing.bytes
      this.#send(outgoing, this.#sent)
      this.#sent = outgoing.entry.text
    }
    this.#wake()
  }

  #next(): Outgoing | null {
    if (this.#parts !== null) return this.#nextPart()
    const [first] = this.#queue
    if (first === undefined) return null
    if (isLarge(first)) {
      this.#queue.shift()
      this.#queueBytes -= first.bytes
      return this.#begin(first)
    }
    if (this.#queueBytes < blockBytes && this.#inFlight.length >= busyInFlight) return null
    let count = 0
    let bytes = 0
    for (const commit of this.#queue) {
      if (isLarge(commit)) break
      bytes += blockBytesOf(commit)
      if (count > 0 && bytes > blockBytes) break
      count += 1
      this.#queueBytes -= commit.bytes
    }
    const commits = count === this.#queue.length ? this.#queue : this.#queue.slice(0, count)
    this.#queue = count === this.#queue.length ? [] : this.#queue.slice(count)
    const block = encodeBlock({ epoch: this.#options.epoch, prevLsn: this.#prevLsn }, commits)
    const lsn = commits.at(-1)!.commitLsn
    this.#prevLsn = lsn
    return outgoing(lsn, this.#attemptAt(lsn), 0, block, null)
  }

  /** A leader before this one may have left parts of the same commit. */
  #attemptAt(lsn: bigint): number {
    if (this.#sent === beforeAll) return 0
    const last = parseId(this.#sent)
    return last.lsn === lsn ? last.attempt + 1 : 0
  }

  #begin(commit: Commit): Outgoing {
    const blocks = encodeParts({ epoch: this.#options.epoch, prevLsn: this.#prevLsn }, commit, blockBytes)
    this.#prevLsn = commit.commitLsn
    const first = blocks.next().value as Buffer
    // Any: after a Redis that came back without the parts of a leader before this one, a reader that has those must not
    // take these for their rest.
    const attempt = Math.max(this.#attemptAt(commit.commitLsn), Math.floor(Math.random() * maxRandomAttempt))
    this.#parts = { commit, blocks, next: first, part: 0, attempt }
    return this.#nextPart()
  }

  #nextPart(): Outgoing {
    const parts = this.#parts!
    const block = parts.next
    const following = parts.blocks.next()
    const { commit, part, attempt } = parts
    if (following.done === true) this.#parts = null
    else {
      parts.next = following.value
      parts.part += 1
    }
    return outgoing(commit.commitLsn, attempt, part, block, following.done === true ? [commit] : [])
  }

  #send({ entry }: Outgoing, after: string): void {
    const { log, epoch, retained, prefix } = this.#options
    this.#awaited += 1
    log
      .append(epoch, after, entry, retained.trim(prefix.settledLsn))
      .then(
        () => {
          this.#awaited -= 1
          this.#stored(entry.text)
        },
        error => {
          this.#awaited -= 1
          this.#lost(error)
        },
      )
      .catch(error => this.#fail(error))
  }

  /** Answers come in order. */
  #stored(text: string): void {
    if (this.#failure !== null) return
    if (this.#isLost) {
      this.#lost(null)
      return
    }
    this.#failingSinceMs = null
    const outgoing = this.#inFlight.shift()!
    if (outgoing.entry.text !== text) throw new Error(`stored ${text}, not ${outgoing.entry.text}`)
    this.#confirmed(outgoing)
    this.#pump()
  }

  #confirmed({ entry, large, bytes }: Outgoing): void {
    const { feed, retained, onStored } = this.#options
    this.#inFlightBytes -= bytes
    this.#storedText = entry.text
    retained.add(entry.text, entry.id, bytes)
    // Read back from its block a commit takes a third of the memory that it takes decoded, and the collector's time with it:
    // 0.6 µs in all where it was 1.0. One in parts is what came from the slot.
    for (const commit of large === null ? this.#own.push(entry.id, entry.block)!.commits : large) {
      feed.append(commit)
      this.#storedLsn = commit.commitLsn
    }
    onStored(entry.text, large === null || large.length > 0)
    this.#tellPassed()
  }

  /** An append failed, or came after one that did: what became of it is known when all have been answered. */
  #lost(error: unknown): void {
    if (this.#failure !== null) return
    if (!this.#isLost) this.#cause = error
    this.#isLost = true
    if (this.#awaited === 0) this.#recover().catch(failure => this.#fail(failure))
  }

  /** Looks where the Stream ends, and goes on from there if that is one of ours. */
  async #recover(): Promise<void> {
    const { log, epoch } = this.#options
    const isFirst = this.#failingSinceMs === null
    this.#failingSinceMs ??= performance.now()
    for (let attempt = isFirst ? 0 : 1; ; attempt++) {
      if (attempt > 0) await new Promise(resolve => setTimeout(resolve, retryMs))
      if (this.#failure !== null) return
      if (performance.now() - this.#failingSinceMs > patienceMs) {
        this.#fail(unreachable(this.#cause))
        return
      }
      let last: string | null
      try {
        const id = await log.lastId(epoch)
        last = id === null ? null : formatId(id)
      } catch (error) {
        this.#cause = error
        continue
      }
      if (this.#failure !== null) return
      const stored = this.#inFlight.findIndex(({ entry }) => entry.text === last)
      if (stored < 0 && last !== this.#storedText) {
        const where = last === null ? 'it is of another epoch, or empty' : `it ends at ${last}`
        this.#fail(new TidegateError('RELAY_MOVED', `the journal is not as this node left it: ${where}`))
        return
      }
      for (const each of this.#inFlight.splice(0, stored + 1)) this.#confirmed(each)
      this.#isLost = false
      this.#sendAgain()
      return
    }
  }

  #sendAgain(): void {
    let after = this.#storedText
    for (const outgoing of this.#inFlight) {
      this.#send(outgoing, after)
      after = outgoing.entry.text
    }
    this.#sent = after
    this.#pump()
  }

  #fail(error: unknown): void {
    this.#failure ??= error
    // Those not stored: they come again from the slot.
    for (const { large } of this.#inFlight.splice(0)) for (const commit of large ?? []) commit.release()
    for (const commit of this.#queue.splice(0)) commit.release()
    this.#parts?.commit.release()
    this.#parts = null
    this.#failed.resolve()
    this.#wake()
  }

  #tellPassed(): void {
    const isIdle = this.#queue.length === 0 && this.#inFlight.length === 0 && this.#parts === null
    if (isIdle && this.#failure === null) this.#options.feed.passed(this.#passedLsn)
  }

  #sign(): void {
    const { log, epoch, nodeId, prefix, feed } = this.#options
    const { settledLsn } = prefix
    feed.settled(settledLsn)
    // A sign that does not arrive is what it says.
    log.sign(epoch, nodeId, settledLsn).catch(() => {})
  }

  #wake(): void {
    const waiting = this.#changed
    this.#changed = []
    for (const resolve of waiting) resolve()
  }
}

function outgoing(
  lsn: bigint,
  attempt: number,
  part: number,
  block: Buffer,
  large: readonly Commit[] | null,
): Outgoing {
  const id = { lsn, attempt, part }
  return { entry: { id, text: formatId(id), block }, large, bytes: block.length }
}

const isLarge = (commit: Commit): boolean => commit.spooled || blockBytesOf(commit) > blockBytes

const notDurable = (why: string): TidegateError => new TidegateError('RELAY_NOT_DURABLE', why)

function unreachable(cause: unknown): TidegateError {
  const { message } = cause as Error
  if (message.startsWith('OOM'))
    return new TidegateError('RELAY_FULL', `Redis refuses to store more: ${message}`, { cause })
  const what = isRedisAway(cause) ? 'Redis does not answer' : 'Redis refuses what is appended'
  return new TidegateError('RELAY_UNREACHABLE', `${what}: ${message}`, { cause })
}
