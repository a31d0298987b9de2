// Publishing over Redis. What is published to one channel in one turn goes in one script, and the next only when that has been
// answered: so a channel keeps its order whatever a script that Redis forgot makes be sent again, and the busier a channel is, the
// more of its messages share a round trip. Channels do not wait for each other.
import { TidegateError } from '../../../protocol/tidegate-error.ts'
import { isRedisAway, type RedisClient } from '../../redis/redis.ts'
import { defineScript, type Script } from '../../redis/redis-script.ts'
import { channelKey, type Draft, type Published } from '../message.ts'
import type { PublishOptions } from './channel-relay.ts'
import { hexOf } from './memory-relay.ts'
import { encodeDraft } from './redis-envelope.ts'
import type { ChannelNames } from './redis-keys.ts'
import { corked } from './redis-relay-cork.ts'
import { publishScript, walPlace } from './redis-relay-scripts.ts'

/** One script's most drafts, and characters of them. */
const maxDrafts = 256
const maxChars = 512 * 1024
/** Waiting and under way, of all channels. Past it UNAVAILABLE: Redis takes less than comes. */
const maxWaitingChars = 64 * 1024 * 1024
const overheadChars = 300
/** How long the counter of a channel lives in which nobody has been. */
const unusedMs = 60_000

interface Waiting {
  readonly draft: Draft
  readonly text: string
  readonly options: PublishOptions
  readonly resolve: (published: Published) => void
  readonly reject: (error: Error) => void
}

export interface RelayPublisherOptions {
  readonly client: RedisClient
  readonly names: ChannelNames
  readonly random: () => number
  /** How long the counter of a channel lives after the last message. */
  readonly counterMsOf: (channel: string) => number
  /** What a command failed with, as whoever asked is told. */
  readonly refusal: (error: unknown) => TidegateError
}

export class RelayPublisher {
  readonly #options: RelayPublisherOptions
  readonly #script: Script
  /** Of channels that are published to, what waits. */
  readonly #queues = new Map<string, Waiting[]>()
  /** Channels whose turn begins at the end of this one. */
  #starting: string[] = []
  #waitingChars = 0
  #isClosed = false

  constructor(options: RelayPublisherOptions) {
    this.#options = options
    this.#script = defineScript(options.client, publishScript)
  }

  publish(draft: Draft, options: PublishOptions): Promise<Published> {
    const text = encodeDraft(draft)
    const { promise, resolve, reject } = Promise.withResolvers<Published>()
    if (this.#isClosed || this.#waitingChars > maxWaitingChars) {
      reject(unavailable(this.#isClosed ? 'the server is stopping' : 'Redis takes fewer messages than are sent'))
      return promise
    }
    this.#waitingChars += text.length + overheadChars
    const channel = channelKey(draft.channel)
    const waiting = { draft, text, options, resolve, reject }
    const queue = this.#queues.get(channel)
    if (queue !== undefined) queue.push(waiting)
    else {
      this.#queues.set(channel, [waiting])
      this.#starting.push(channel)
      if (this.#starting.length === 1) setImmediate(() => this.#start())
    }
    return promise
  }

  /** Several that must all stand, in order: of each channel the first that fails ends it. */
  async publishAll(drafts: readonly Draft[], options: (draft: Draft) => PublishOptions): Promise<readonly Published[]> {
    const outcomes = await Promise.allSettled(drafts.map(draft => this.publish(draft, options(draft))))
    return outcomes.map(outcome => {
      if (outcome.status === 'rejected') throw outcome.reason
      return outcome.value
    })
  }

  close(): void {
    this.#isClosed = true
  }

  #start(): void {
    const channels = this.#starting
    this.#starting = []
    corked(this.#options.client, () => {
      for (const channel of channels) void this.#drain(channel)
    })
  }

  async #drain(channel: string): Promise<void> {
    const queue = this.#queues.get(channel)!
    while (queue.length > 0) {
      const batch = takeBatch(queue)
      try {
        const all = await this.#send(channel, batch)
        for (const [at, { resolve }] of batch.entries()) resolve(all[at]!)
      } catch (error) {
        const refusal = this.#options.refusal(error)
        for (const { reject } of batch) reject(refusal)
        // What comes after it through the WAL would be taken for the last, and this for a duplicate when it is tried again.
        if (batch.some(({ draft }) => draft.walIndex !== null))
          for (const waiting of queue.splice(0)) {
            this.#waitingChars -= waiting.text.length + overheadChars
            waiting.reject(refusal)
          }
      } finally {
        for (const { text } of batch) this.#waitingChars -= text.length + overheadChars
      }
    }
    this.#queues.delete(channel)
  }

  async #send(channel: string, batch: readonly Waiting[]): Promise<readonly Published[]> {
    const { names, random, counterMsOf } = this.#options
    const counterMs = counterMsOf(channel)
    const { history } = batch[0]!.options
    const tag = names.tag(channel)
    const keys = [`${tag}:meta`, `${tag}:log`, names.live(channel)]
    const values: (string | number)[] = [
      hexOf(random),
      firstNumber(history !== null, random),
      history?.length ?? 0,
      history?.ageMs ?? 0,
      counterMs,
      Math.min(counterMs, unusedMs),
    ]
    for (const { draft, text, options } of batch) {
      const { idempotency } = options
      if (idempotency !== null) keys.push(`${tag}:sent:${idempotency.key}`)
      const place = draft.walIndex === null ? '' : walPlace(draft.stamp.epoch, draft.stamp.lsn, draft.walIndex)
      values.push(draft.id, idempotency === null ? '' : Math.max(1, Math.ceil(idempotency.ms)), place, text)
    }
    // What the script returns.
    const [epoch, ...numbers] = (await this.#script(keys, values)) as [Buffer, ...(number | Buffer)[]]
    return numbers.map((answer, at) =>
      typeof answer === 'number'
        ? { id: batch[at]!.draft.id, epoch: epoch.toString('latin1'), seq: BigInt(answer), isDuplicate: false }
        : duplicateOf(answer.toString()),
    )
  }
}

/** What waits of one channel, as far as it goes in one script: under one rule. */
function takeBatch(queue: Waiting[]): Waiting[] {
  const rule = queue[0]!.options.history
  let chars = 0
  let count = 0
  for (const { text, options } of queue) {
    const { history } = options
    if (history?.length !== rule?.length || history?.ageMs !== rule?.ageMs) break
    if (count > 0 && (count === maxDrafts || chars + text.length > maxChars)) break
    chars += text.length
    count += 1
  }
  return queue.splice(0, count)
}

function duplicateOf(text: string): Published {
  const [epoch = '', seq = '', id = ''] = text.split(' ')
  return { id, epoch, seq: BigInt(seq), isDuplicate: true }
}

/** The number before the first. Without a history clients know only the number: one that begins anywhere is not taken for the
 *  one before. */
export const firstNumber = (hasHistory: boolean, random: () => number): number =>
  hasHistory ? 0 : Math.floor(random() * 2 ** 32)

export const retryAfterMs = 500

export const unavailable = (why: string, cause?: unknown): TidegateError =>
  new TidegateError('UNAVAILABLE', why, { retryAfterMs, ...(cause === undefined ? {} : { cause }) })

export const isOutOfMemory = (error: unknown): boolean =>
  error instanceof Error && /(?:^|[\s:-])OOM /.test(error.message)

export const awayText = (error: unknown): string =>
  isRedisAway(error) ? 'Redis, which joins the nodes, does not answer' : 'Redis refused what a channel needs'
