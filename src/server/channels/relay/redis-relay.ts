// The relay of many nodes over Redis: one script numbers a message, keeps it and publishes it; every node with listeners hears it.
import type { TidegateError } from '../../../protocol/tidegate-error.ts'
import type { Log } from '../../log/log.ts'
import type { NodeMail } from '../../nodes/node-mail.ts'
import { isRedisAway, type RedisClient, slotOf } from '../../redis/redis.ts'
import { defineScript, type Script } from '../../redis/redis-script.ts'
import { type ChannelMessage, type Draft, noEpoch, type Published } from '../message.ts'
import type {
  ChannelListener,
  ChannelRelay,
  HistoryPage,
  HistoryRange,
  Listening,
  PublishOptions,
  Standing,
} from './channel-relay.ts'
import { channelOf, hexOf } from './memory-relay.ts'
import { decodeMessage, parseFormers } from './redis-envelope.ts'
import { ChannelNames } from './redis-keys.ts'
import { corkTurn } from './redis-relay-cork.ts'
import { awayText, firstNumber, isOutOfMemory, RelayPublisher, unavailable } from './redis-relay-publisher.ts'
import { probeScript, readScript, standingScript, touchScript } from './redis-relay-scripts.ts'
import { RelaySubscriber } from './redis-relay-subscriber.ts'

export interface RedisChannelRelayOptions {
  /** Answers or fails within its command timeout. */
  readonly client: RedisClient
  /** Nothing else is asked over it. Closed by whoever opened it, as `client`. */
  readonly subscriber: RedisClient
  /** TIDEGATE_NAME. */
  readonly name: string
  /** Random, another after each start. */
  readonly nodeId: string
  readonly log: Log
  /** From 0 to below 1. */
  readonly random: () => number
  readonly graceMs?: number
  readonly readyMs?: number
  /** How long the counter of a channel lives after its last message while nobody listens: of a private one, and of a public one. */
  readonly counterMs?: number
  readonly publicCounterMs?: number
}

const dayMs = 86_400_000
/** Anybody may enter public channels, under as many topics as they like: a counter for each would fill Redis in a day. Whoever comes
 *  back later than that is told that messages may be missing. */
const publicMs = 1_800_000
/** Of one page, whatever is asked for. */
const maxLimit = 1000
const touchedAtOnce = 500

export class RedisChannelRelay implements ChannelRelay, NodeMail {
  readonly #options: RedisChannelRelayOptions
  readonly #names: ChannelNames
  /** Of private and of public channels. */
  readonly #counterMs: readonly [number, number]
  readonly #publisher: RelayPublisher
  readonly #subscriber: RelaySubscriber
  readonly #standing: Script
  readonly #read: Script
  readonly #touch: Script
  readonly #tell: Script
  readonly #touching: readonly NodeJS.Timeout[]
  /** Kinds of failures that the log was told, until something succeeds. */
  readonly #told = new Set<string>()

  constructor(options: RedisChannelRelayOptions) {
    const { client, subscriber, name, nodeId, log, random, graceMs = 5000, readyMs = 2500 } = options
    this.#options = options
    this.#names = new ChannelNames(name, client)
    const counterMs = options.counterMs ?? dayMs
    this.#counterMs = [counterMs, options.publicCounterMs ?? Math.min(counterMs, publicMs)]
    this.#tell = defineScript(client, probeScript)
    this.#publisher = new RelayPublisher({
      client,
      names: this.#names,
      random,
      counterMsOf: channel => this.#counterMsOf(channel),
      refusal: error => this.#refusal(error),
    })
    this.#subscriber = new RelaySubscriber({
      subscriber,
      names: this.#names,
      nodeId,
      probe: (to, text) => this.#tell([to], [text]),
      log,
      graceMs,
      readyMs,
    })
    this.#standing = defineScript(client, standingScript)
    this.#read = defineScript(client, readScript)
    this.#touch = defineScript(client, touchScript)
    this.#touching = this.#counterMs.map((ms, isPublic) =>
      setInterval(() => void this.#touchAll(isPublic === 1), ms / 8).unref(),
    )
  }

  get isHearing(): boolean {
    return this.#subscriber.isHearing
  }

  get subscribed(): number {
    return this.#subscriber.size
  }

  async publish(draft: Draft, options: PublishOptions): Promise<Published> {
    const published = await this.#publisher.publish(draft, options)
    this.#worked()
    return published
  }

  publishAll(drafts: readonly Draft[], options: (draft: Draft) => PublishOptions): Promise<readonly Published[]> {
    return this.#publisher.publishAll(drafts, options)
  }

  listen(channel: string, listener: ChannelListener): Listening {
    return this.#subscriber.listen(channel, listener)
  }

  get nodeId(): string {
    return this.#options.nodeId
  }

  hear(heard: (text: string) => void): void {
    this.#subscriber.hear(`:${this.nodeId}`, text => heard(text.toString()))
  }

  async tell(nodeId: string, text: string): Promise<number> {
    try {
      return Number(await this.#tell([this.#names.live(`:${nodeId}`)], [text]))
    } catch (error) {
      throw this.#refusal(error)
    }
  }

  async standing(channel: string, begin?: { readonly hasHistory: boolean }): Promise<Standing> {
    const { random } = this.#options
    const start = begin === undefined ? '' : firstNumber(begin.hasHistory, random)
    const [epoch, seq, before] = await this.#ask(this.#standing, channel, [
      ...[hexOf(random), start, this.#counterMsOf(channel)],
    ])
    return epoch === undefined ? { epoch: noEpoch, seq: 0n } : standingOf(epoch, seq!, before!)
  }

  async read(channel: string, range: HistoryRange): Promise<HistoryPage> {
    const limit = Math.max(0, Math.min(range.limit, maxLimit))
    const [direction, number] = boundOf(range)
    const answer = await this.#ask(this.#read, channel, [hexOf(this.#options.random), direction, number, limit])
    const [epoch, seq, before, first, ...entries] = answer
    if (epoch === undefined) return { epoch: noEpoch, seq: 0n, first: 1n, messages: [] }
    const standing = standingOf(epoch, seq!, before!)
    const messages = this.#messagesOf(channel, standing, entries)
    if (direction === 'before') messages.reverse()
    const firstText = first!.toString('latin1')
    return { ...standing, first: firstText === '' ? standing.seq + 1n : BigInt(firstText), messages }
  }

  async close(): Promise<void> {
    for (const touching of this.#touching) clearInterval(touching)
    this.#publisher.close()
    this.#subscriber.close()
  }

  /** Answers what the script does, all of it texts. @throws UNAVAILABLE */
  async #ask(script: Script, channel: string, values: readonly (string | number)[]): Promise<readonly Buffer[]> {
    const { client } = this.#options
    corkTurn(client)
    try {
      const answer = await script([this.#names.key(channel, 'meta'), this.#names.key(channel, 'log')], values)
      this.#worked()
      return answer as readonly Buffer[]
    } catch (error) {
      throw this.#refusal(error)
    }
  }

  #messagesOf(channel: string, standing: Standing, entries: readonly Buffer[]): ChannelMessage[] {
    const name = channelOf(channel)
    const messages: ChannelMessage[] = []
    const { epoch, before = [] } = standing
    for (let at = 0; at + 1 < entries.length; at += 2) {
      const seq = BigInt(entries[at]!.toString('latin1').split('-', 1)[0]!)
      try {
        messages.push(decodeMessage(entries[at + 1]!, 0, { channel: name, epoch, seq, before }))
      } catch (error) {
        this.#tellOnce('damaged', error, 'a message of a history cannot be read, and is left out')
      }
    }
    return messages
  }

  /** What whoever asked is told of a failure. */
  #refusal(error: unknown): TidegateError {
    if (isOutOfMemory(error)) {
      this.#tellOnce(
        'RELAY_FULL',
        error,
        'Redis is out of memory: messages of channels are refused. Raise maxmemory, or keep shorter histories.',
      )
      return unavailable('Redis, which joins the nodes, is out of memory', error)
    }
    if (!isRedisAway(error))
      this.#tellOnce('failed', error, 'Redis refused what a channel needs; report it with the version of Redis.')
    return unavailable(awayText(error), error)
  }

  #tellOnce(code: string, error: unknown, text: string): void {
    if (this.#told.has(code)) return
    this.#told.add(code)
    this.#options.log.warn({ code, err: error }, text)
  }

  #worked(): void {
    if (this.#told.size > 0) this.#told.clear()
  }

  #counterMsOf(channel: string): number {
    return this.#counterMs[channelOf(channel).isPrivate ? 0 : 1]
  }

  /** Counters of channels that somebody listens to go on, however long nothing is published. */
  async #touchAll(ofPublic: boolean): Promise<void> {
    const bySlot = new Map<number, string[]>()
    const counterMs = this.#counterMs[ofPublic ? 1 : 0]
    for (const channel of this.#subscriber.listened()) {
      if (channelOf(channel).isPrivate === ofPublic) continue
      const key = this.#names.key(channel, 'meta')
      const slot = 'slots' in this.#options.client ? slotOf(key) : 0
      const keys = bySlot.get(slot) ?? []
      bySlot.set(slot, keys)
      keys.push(key)
    }
    for (const keys of bySlot.values())
      for (let at = 0; at < keys.length; at += touchedAtOnce)
        await this.#touch(keys.slice(at, at + touchedAtOnce), [counterMs]).catch((error: unknown) =>
          this.#options.log.debug({ err: error }, 'could not keep the counters of channels; trying again later'),
        )
  }
}

function standingOf(epoch: Buffer, seq: Buffer, before: Buffer): Standing {
  const formers = parseFormers(before.toString('latin1'))
  return { epoch: epoch.toString('latin1'), seq: BigInt(seq.toString('latin1')), before: formers }
}

/** Numbers of Redis end at 64 bits, and a range before the first is no range. */
function boundOf(range: HistoryRange): [direction: 'after' | 'before', number: string] {
  const most = 2n ** 64n - 2n
  const within = (seq: bigint, least: bigint): string => String(seq < least ? least : seq > most ? most : seq)
  if ('after' in range) return ['after', within(range.after, 0n)]
  return ['before', range.before === null ? '' : within(range.before, 1n)]
}
