// The journal in Redis: a node follows the Stream into its own window, and appends to it while it holds the slot.
//
// What can happen to the Stream, and what follows:
//   - it is emptied, or comes back as it was a while ago: whoever leads finds another end than it left, lets the slot go, and
//     begins again from the slot, which was acknowledged some seconds behind. What it appends then overlaps what readers have;
//     they skip it. Only a reader that was further behind finds a gap.
//   - the slot is past what is stored (more was lost than was held back): the Stream begins anew at the slot's position. Those
//     who had read so far miss nothing.
//   - a gap: a block's predecessor is past this node's head. The window begins anew there, and whoever reads here starts over.
//   - another epoch: the same, for everybody.
import { setTimeout as sleep } from 'node:timers/promises'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Log } from '../log/log.ts'
import type { Trouble } from '../log/trouble.ts'
import { isRedisAway, type RedisClient } from '../redis/redis.ts'
import { steadyNow } from '../steady-clock.ts'
import { formatLsn } from '../wal/lsn.ts'
import type { Held, SlotState } from '../wal/wal-source.ts'
import { BlockReader } from './block-reader.ts'
import type { Feed, Inlet, Journal } from './journal.ts'
import { type Durability, RedisInlet } from './redis-inlet.ts'
import { beforeAll, type Entry, entriesOf, formatId, parseId, RedisLog } from './redis-log.ts'
import { RetainedEntries } from './retained-entries.ts'
import { StoredPrefix } from './stored-prefix.ts'

export interface RedisJournalOptions {
  /** The deployment. */
  readonly name: string
  readonly nodeId: string
  /** For commands that answer at once, with a timeout. */
  readonly client: RedisClient
  /** For reads that block, of this journal alone. */
  readonly reader: RedisClient
  readonly log: Log
  readonly trouble: Trouble
  /** Whether Postgres has this slot: an epoch ends with its slot, and a Redis that comes back as it was may name one that is
   *  over. @throws when Postgres does not answer */
  readonly hasSlot: (slotName: string) => Promise<boolean>
  readonly spoolBytes: number
  readonly maxBytes: number
  readonly maxAgeMs: number
  readonly durability: Durability
  /** Commits stay in the slot this long after they were stored. */
  readonly holdMs: number
}

/** Between two looks at what is the current epoch; a takeover waits for the read before as long. */
const blockMs = 250
const readEntries = 32
const lookEveryMs = 1000
/** Past this the acknowledgement moves on, whatever its age: the slot must not hold back much WAL. */
const holdBytes = 64 * 1024 * 1024
const now = (): number => performance.now()

export class RedisJournal implements Journal {
  readonly #options: RedisJournalOptions
  readonly #redis: RedisLog
  readonly #retained: RetainedEntries
  readonly #blocks: BlockReader
  /** The epoch followed; '' before the first. */
  #epoch = ''
  /** ID of the entry read last, and of the last with which a commit was whole. */
  #lastText = beforeAll
  #wholeText = beforeAll
  /** Everything up to it is visible, by the leader's word. */
  #settledLsn = 0n
  /** When the hash of the epoch was looked at last, and when it showed a living leader. */
  #lookedAtMs = Number.NEGATIVE_INFINITY
  #leaderSeenAtMs: number | null = null
  /** The last look found no epoch. */
  #isAbsent = true
  /** Set while this node leads; the follower stands. */
  #leading: Promise<void> | null = null
  #isParked = true
  #whenParked: () => void = () => {}
  #failures = 0

  constructor(options: RedisJournalOptions) {
    this.#options = options
    this.#redis = new RedisLog(options.client, options.name)
    this.#retained = new RetainedEntries({ maxBytes: options.maxBytes, maxAgeMs: options.maxAgeMs, now })
    this.#blocks = new BlockReader({ spoolBytes: options.spoolBytes })
  }

  async run(feed: Feed, signal: AbortSignal): Promise<void> {
    await Promise.all([connected(this.#options.client), connected(this.#options.reader)])
    while (!signal.aborted) {
      if (this.#leading !== null) {
        this.#park()
        await Promise.race([this.#leading, aborted(signal)])
        continue
      }
      this.#isParked = false
      const beganMs = steadyNow()
      try {
        await this.#read(feed)
        this.#failures = 0
      } catch (error) {
        if (signal.aborted) break
        this.#failures += 1
        this.#options.trouble.noticed(asTrouble(error), beganMs)
        this.#goBack()
        await sleep(Math.min(50 * 2 ** Math.min(this.#failures, 5), 1000), undefined, { signal }).catch(() => {})
      }
    }
    this.#park()
  }

  async mayLead(): Promise<boolean> {
    try {
      await this.#look()
      return true
    } catch {
      return false
    }
  }

  leaderSilentMs(): number | null {
    const sinceMs = now()
    if (this.#leaderSeenAtMs === null || sinceMs - this.#lookedAtMs > 2 * lookEveryMs) return null
    return sinceMs - this.#leaderSeenAtMs
  }

  /** The current epoch. @throws when Redis or Postgres does not answer, or Redis names none whose slot there is */
  async epochNow(): Promise<string> {
    const standing = await this.#redis.standing()
    if (standing === null || !(await this.#options.hasSlot(standing.slotName)))
      throw new Error('Redis does not know the current epoch')
    return standing.epoch
  }

  /** What the Stream holds of a slot's epoch, for whoever asks whether a promoted standby has it all.
   *  @throws when Redis does not answer */
  async held(slotName: string): Promise<Held | null> {
    const standing = await this.#redis.standing()
    if (standing?.slotName !== slotName) return null
    const end = await this.#endOf(standing.epoch)
    return end === null ? null : { epoch: standing.epoch, timeline: standing.timeline, headEndLsn: end.endLsn }
  }

  async lead(slot: SlotState, feed: Feed): Promise<Inlet> {
    const done = Promise.withResolvers<void>()
    this.#leading = done.promise
    try {
      if (!this.#isParked) await new Promise<void>(resolve => (this.#whenParked = resolve))
      return await this.#lead(slot, feed, done.resolve)
    } catch (error) {
      this.#leading = null
      done.resolve()
      throw error instanceof TidegateError ? error : asTrouble(error)
    }
  }

  async #lead(slot: SlotState, feed: Feed, release: () => void): Promise<Inlet> {
    const { epoch, slotName, systemId, timeline, confirmedFlushLsn } = slot
    const standing = await this.#redis.standing()
    const pointer = { epoch, slotName, systemId, timeline }
    if (!(await this.#redis.begin(standing?.epoch ?? '', pointer)))
      throw new TidegateError('RELAY_MOVED', 'another node began an epoch meanwhile')
    if (this.#epoch !== epoch) this.#turnTo(epoch)
    if (standing?.epoch === epoch) await this.#readOn(feed, standing.settledLsn)

    const last = (await this.#redis.last(epoch))?.text ?? beforeAll
    // It was emptied, or rolled back.
    if (last !== this.#lastText) this.#retained.clear()
    const end = last === beforeAll ? null : await this.#endOf(epoch)
    // Everything after here comes from the slot; what the Stream holds beyond it comes twice.
    const floorLsn = confirmedFlushLsn - 1n
    const isWhole = end !== null && end.endLsn >= confirmedFlushLsn
    if (end !== null && !isWhole)
      this.#options.log.warn(
        { stored: formatLsn(end.lsn), slot: formatLsn(confirmedFlushLsn) },
        'Redis lost more than the slot still has: nodes that had not read so far begin anew, and their clients start over',
      )
    const prevLsn = isWhole ? end.lsn : floorLsn
    // What is acknowledged is visible.
    if (feed.epoch !== epoch || feed.headLsn < prevLsn) feed.begin(epoch, prevLsn, true)
    this.#lastText = this.#wholeText = last
    return new RedisInlet({
      log: this.#redis,
      nodeId: this.#options.nodeId,
      epoch,
      feed,
      retained: this.#retained,
      prefix: new StoredPrefix({ settledLsn: floorLsn, holdMs: this.#options.holdMs, holdBytes, now }),
      durability: this.#options.durability,
      last,
      storedLsn: isWhole ? end.lsn : null,
      prevLsn,
      onStored: (text, isWhole) => {
        this.#lastText = text
        if (isWhole) this.#wholeText = text
      },
      onClosed: () => {
        // Parts stored so far are no commit: another leader's may have the same IDs.
        this.#goBack()
        this.#leading = null
        release()
      },
    })
  }

  /** One read of what comes next. */
  async #read(feed: Feed): Promise<void> {
    if (this.#isAbsent || now() - this.#lookedAtMs > lookEveryMs) {
      const standing = await this.#look()
      this.#isAbsent = standing === null
      if (standing === null) {
        // No epoch yet, or Redis is empty: whoever holds the slot will write one.
        await sleep(blockMs)
        return
      }
      if (standing.epoch !== this.#epoch) {
        this.#isAbsent = !(await this.#options.hasSlot(standing.slotName))
        if (this.#isAbsent) {
          await sleep(blockMs)
          return
        }
        this.#turnTo(standing.epoch)
      }
      feed.settled(standing.settledLsn)
      this.#settledLsn = standing.settledLsn
    }
    if (this.#epoch === '') return
    const key = this.#redis.keyOf(this.#epoch)
    const { reader } = this.#options
    const answer = (await reader.callBuffer(
      ...['XREAD', 'COUNT', String(readEntries), 'BLOCK', String(blockMs), 'STREAMS', key, this.#lastText],
    )) as [[Buffer, unknown]] | [Buffer, unknown] | null
    // A map of one Stream: as a pair under RESP3, as a list of pairs under RESP2.
    if (answer !== null) await this.#take(entriesOf(Buffer.isBuffer(answer[0]) ? answer[1] : answer[0][1]), feed)
  }

  /** Everything there is, without waiting for more. */
  async #readOn(feed: Feed, settledLsn: bigint): Promise<void> {
    this.#settledLsn = settledLsn
    for (;;) {
      const entries = await this.#redis.after(this.#epoch, this.#lastText, readEntries)
      if (entries.length === 0) return
      await this.#take(entries, feed)
    }
  }

  async #take(entries: readonly Entry[], feed: Feed): Promise<void> {
    for (const { id, text, block } of entries) {
      const read = this.#blocks.push(id, block)
      this.#lastText = text
      this.#retained.add(text, id, block.length)
      if (read === null) continue
      if (feed.epoch !== read.epoch) feed.begin(read.epoch, read.prevLsn, this.#settledLsn >= read.prevLsn)
      else if (feed.headLsn < read.prevLsn) {
        this.#options.log.warn(
          { head: formatLsn(feed.headLsn), next: formatLsn(read.prevLsn) },
          'commits are missing from the journal: this node begins anew, and its clients start over',
        )
        feed.begin(read.epoch, read.prevLsn, this.#settledLsn >= read.prevLsn)
      }
      for (const commit of read.commits) feed.append(commit)
      this.#wholeText = text
      await feed.room()
    }
  }

  async #look() {
    const standing = await this.#redis.standing()
    this.#lookedAtMs = now()
    // Before the first look nobody knows how long it has been away.
    if (standing?.hasLeader || this.#leaderSeenAtMs === null) this.#leaderSeenAtMs = this.#lookedAtMs
    return standing
  }

  #turnTo(epoch: string): void {
    this.#epoch = epoch
    this.#lastText = this.#wholeText = beforeAll
    this.#settledLsn = 0n
    this.#retained.clear()
    this.#blocks.reset()
  }

  /** A block could not be read, or its commits not kept, or Redis may be another one now, without the parts of a commit that
   *  were read: again from the last with which a commit was whole. */
  #goBack(): void {
    this.#lastText = this.#wholeText
    this.#blocks.reset()
  }

  /** The newest whole commit of the Stream. Parts without an end, of a leader that died, are passed over. */
  async #endOf(epoch: string): Promise<{ lsn: bigint; endLsn: bigint } | null> {
    let entry = await this.#redis.last(epoch)
    while (entry !== null) {
      const { lsn, attempt } = entry.id
      const first = formatId({ lsn, attempt, part: 0 })
      const blocks = new BlockReader({ spoolBytes: this.#options.spoolBytes })
      try {
        for (let from = first; ; ) {
          const entries = await this.#redis.from(epoch, from, readEntries)
          let end: { lsn: bigint; endLsn: bigint } | null = null
          for (const each of entries) {
            const commits = blocks.push(each.id, each.block)?.commits ?? []
            const last = commits.at(-1)
            if (last !== undefined) end = { lsn: last.commitLsn, endLsn: last.endLsn }
            for (const commit of commits) commit.release()
          }
          if (end !== null) return end
          if (entries.length < readEntries) break
          const { lsn, attempt, part } = parseId(entries.at(-1)!.text)
          from = formatId({ lsn, attempt, part: part + 1 })
        }
      } finally {
        blocks.reset()
      }
      entry = await this.#redis.lastBefore(epoch, first)
    }
    return null
  }

  #park(): void {
    this.#isParked = true
    this.#whenParked()
    this.#whenParked = () => {}
  }
}

const asTrouble = (error: unknown): unknown =>
  isRedisAway(error)
    ? new TidegateError('RELAY_UNREACHABLE', `Redis does not answer: ${(error as Error).message}`, { cause: error })
    : error

/** Resolves when a client that was just opened is connected, or after a second: then that is news. */
const connected = (client: RedisClient): Promise<void> =>
  new Promise(resolve => {
    if (client.status === 'ready') resolve()
    client.once('ready', () => resolve())
    setTimeout(resolve, 1000).unref()
  })

const aborted = (signal: AbortSignal): Promise<void> =>
  new Promise(resolve => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
