// Puts the parts of channels together: in memory for one node, over Redis for many.
import type { Asker } from '../ask/asker.ts'
import { Channels } from '../channels/channels.ts'
import { Guards, type GuardsOptions } from '../channels/guards/guards.ts'
import type { ChannelGuards } from '../channels/guards/permission.ts'
import { MemoryPresence } from '../channels/presence/memory-presence.ts'
import { RedisPresence } from '../channels/presence/redis-presence.ts'
import { MemoryChannelRelays } from '../channels/relay/memory-relays.ts'
import { RedisChannelRelay } from '../channels/relay/redis-relay.ts'
import { ChannelRules } from '../channels/rules.ts'
import type { Config } from '../config/config.ts'
import type { NodeMail } from '../nodes/node-mail.ts'
import { answered, type Lane } from '../postgres/database.ts'
import type { RedisClient } from '../redis/redis.ts'
import { steadyNow } from '../steady-clock.ts'
import type { Audiences } from '../subscribe/audiences.ts'
import type { Stream } from '../subscribe/stream.ts'
import type { StreamParts } from '../subscribe/stream-parts.ts'
import type { Subscriptions } from '../subscribe/subscription.ts'
import type { Beacon } from '../wal/heartbeat.ts'
import { parseLsn } from '../wal/lsn.ts'

export interface ChannelSetup {
  readonly config: Config
  readonly stream: StreamParts
  readonly guards: ChannelGuards
  readonly subscriptions: Subscriptions
  readonly beacon: Beacon
  readonly pool: Lane
  /** The epoch in which the deployment is. */
  readonly epochNow: () => Promise<string>
  /** This node holds the slot. */
  readonly isLeading: () => boolean
  /** Null: one node. `subscriber` hears what is published, and nothing else goes over it. */
  readonly redis: { readonly client: RedisClient; readonly subscriber: RedisClient } | null
  readonly nodeId: string
}

export interface GuardSetup {
  readonly config: Config
  readonly stream: Stream
  readonly audiences: Audiences
  readonly catalog: GuardsOptions['catalog']
  readonly gate: { admit(role: string): Promise<void> }
  readonly settingsOf: GuardsOptions['settingsOf']
  readonly asker: Asker
  readonly pool: Lane
}

export function openGuards({ config, gate, ...parts }: GuardSetup): Guards {
  const { askedMaxAudiencesPerTable, recheckMs, audienceGraceMs } = config
  return new Guards({
    ...parts,
    admit: role => gate.admit(role),
    limits: { maxGuards: askedMaxAudiencesPerTable, recheckMs, graceMs: audienceGraceMs },
    random: Math.random,
  })
}

/** How long a message waits for the transaction that its `after` names. */
const afterTimeoutMs = 10_000

/** @returns `mail` is how this node reaches others; null where it is alone */
export function openChannels(setup: ChannelSetup): { readonly channels: Channels; readonly mail: NodeMail | null } {
  const { config, stream, guards, subscriptions, beacon, pool, epochNow, isLeading } = setup
  const { head, reader, relay: window, log } = stream
  const { relay, presence, mail } = sharedOf(setup)
  const channels = new Channels({
    relay,
    presence,
    guards,
    rules: new ChannelRules(config.channels),
    window,
    head,
    caughtUp: async () => {
      const { rows } = await answered(pool.query<{ lsn: string }>('SELECT pg_current_wal_insert_lsn()::text AS lsn'))
      await reader.passed(parseLsn(rows[0]!.lsn))
    },
    epochNow,
    nudge: () => beacon.emit('fence'),
    isLeading,
    isPublicOpen: !config.supabasePrivateOnly,
    waitForTransaction: xid64 => subscriptions.waitForTransaction(xid64, afterTimeoutMs),
    log,
    now: steadyNow,
    wallNow: Date.now,
  })
  return { channels, mail }
}

function sharedOf({ config, stream, redis, nodeId }: ChannelSetup) {
  const { log } = stream
  if (redis === null) {
    const relay = new MemoryChannelRelays({ now: steadyNow, random: Math.random })
    const presence = new MemoryPresence({ tell: (channel, diff) => relay.tellPresence(channel, diff) })
    return { relay, presence, mail: null }
  }
  const { tidegateName: name } = config
  const { client, subscriber } = redis
  const relay = new RedisChannelRelay({ client, subscriber, name, nodeId, log, random: Math.random })
  return { relay, presence: new RedisPresence({ client, name, log }), mail: relay }
}
