// Nodes that publish and listen, without the rest of a server.
import { randomUUID } from 'node:crypto'
import { type ChannelMessage, channelKey, type Draft, goesOn } from '../../../../src/server/channels/message.ts'
import type { PresenceDiff } from '../../../../src/server/channels/presence/presence.ts'
import type {
  ChannelListener,
  ChannelRelay,
  PublishOptions,
  Standing,
} from '../../../../src/server/channels/relay/channel-relay.ts'
import { RedisChannelRelay, type RedisChannelRelayOptions } from '../../../../src/server/channels/relay/redis-relay.ts'
import { createLog } from '../../../../src/server/log/log.ts'
import { closeRedis, openRedis, type RedisClient } from '../../../../src/server/redis/redis.ts'

export const bare: PublishOptions = { history: null, idempotency: null }
export const kept: PublishOptions = { history: { length: 1000, ageMs: 600_000 }, idempotency: null }
export const underKey = (key: string, options = kept): PublishOptions => ({
  ...options,
  idempotency: { key, ms: 60_000 },
})

export const keyOf = (topic: string): string => channelKey({ topic, isPrivate: true })

export const draftOf = (topic: string, payload = '{}', more: Partial<Draft> = {}): Draft => ({
  channel: { topic, isPrivate: true },
  id: randomUUID(),
  event: 'said',
  payload,
  isBinary: false,
  sender: { user: 'u1', connection: 'c1' },
  sentAtMs: 1_700_000_000_000,
  to: null,
  stamp: { epoch: 'e', lsn: 100n },
  walIndex: null,
  ...more,
})

/** What one listener was told. */
export class Ear implements ChannelListener {
  readonly messages: ChannelMessage[] = []
  readonly diffs: PresenceDiff[] = []
  interruptions = 0

  message(message: ChannelMessage): void {
    this.messages.push(message)
  }

  presence(diff: PresenceDiff): void {
    this.diffs.push(diff)
  }

  interrupted(): void {
    this.interruptions += 1
  }

  get payloads(): string[] {
    return this.messages.map(({ payload }) => payload)
  }

  get seqs(): bigint[] {
    return this.messages.map(({ seq }) => seq)
  }
}

export async function listen(relay: ChannelRelay, topic: string): Promise<Ear> {
  const ear = new Ear()
  await relay.listen(keyOf(topic), ear).ready
  return ear
}

/** Everything that a history holds, page by page. */
export async function readAll(relay: ChannelRelay, topic: string, after = 0n, limit = 7): Promise<ChannelMessage[]> {
  const messages: ChannelMessage[] = []
  for (let last = after; ; ) {
    const page = await relay.read(keyOf(topic), { after: last, limit })
    if (page.messages.length === 0) return messages
    messages.push(...page.messages)
    last = page.messages.at(-1)!.seq
  }
}

/** Whether who stood there then has missed nothing now. */
export const isWhole = (at: Standing, now: Standing): boolean => goesOn(at, now) && at.seq <= now.seq

/** A node over Redis. */
export class RelayNode implements AsyncDisposable {
  readonly relay: RedisChannelRelay
  readonly client: RedisClient
  readonly subscriber: RedisClient

  constructor(
    url: string,
    nodeId: string,
    options: Partial<RedisChannelRelayOptions> & { subscriberUrl?: string; commandTimeoutMs?: number } = {},
  ) {
    const { subscriberUrl = url, commandTimeoutMs = 500, ...more } = options
    this.client = openRedis(url, { connectionName: `${nodeId} commands`, commandTimeoutMs })
    this.subscriber = openRedis(subscriberUrl, { connectionName: `${nodeId} subscriber`, commandTimeoutMs })
    this.relay = new RedisChannelRelay({
      client: this.client,
      subscriber: this.subscriber,
      name: 'tide',
      nodeId,
      log: createLog('silent'),
      random: Math.random,
      ...more,
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.relay.close()
    for (const client of [this.client, this.subscriber]) closeRedis(client)
  }
}
