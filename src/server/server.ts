// Puts the parts together: one node, from configuration to a listening gateway.
import { randomBytes } from 'node:crypto'
import { hostname } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { RealtimeWatch } from './admin/realtime-watch.ts'
import { trackAtStart } from './admin/track.ts'
import { Asker } from './ask/asker.ts'
import { IndexSize } from './authorize/inner-set.ts'
import { createCatalog } from './authorize/policy-catalog.ts'
import { settingsList } from './authorize/settings.ts'
import { Announcements } from './catalog/announcement.ts'
import { CatalogWatch } from './catalog-watch.ts'
import { openChannels, openGuards } from './channel-setup.ts'
import type { Channels } from './channels/channels.ts'
import type { GuardHoldings, Guards } from './channels/guards/guards.ts'
import type { ChannelHoldings } from './channels/holdings.ts'
import { MessageSweep } from './channels/sql/message-sweep.ts'
import type { Config } from './config.ts'
import { askedPlaces, Connections } from './connections.ts'
import { createGateway, type Gateway, type GatewayOptions } from './deliver/gateway.ts'
import { NodePeers } from './deliver/node-peers.ts'
import { RedisStands } from './deliver/phoenix/redis-stands.ts'
import { RedisTickets } from './deliver/redis-tickets.ts'
import { drain } from './drain.ts'
import { createExplainer } from './explain/operator.ts'
import { authenticatorOptions, gatewayLimits, supabaseOptions } from './gateway-options.ts'
import { createLog, type Log } from './log.ts'
import { NodeRegistry } from './nodes/registry.ts'
import { release } from './nodes/release.ts'
import { createOrderGiver } from './orders/give-order.ts'
import { Orders } from './orders/orders.ts'
import { Pipeline } from './pipeline.ts'
import { readinessOf } from './readiness.ts'
import { Head } from './relay/head.ts'
import { MemoryRelay } from './relay/memory-relay.ts'
import { RedisJournal } from './relay/redis-journal.ts'
import { Router } from './route/router.ts'
import { checkRedis, closeShared, openShared, type SharedRedis } from './shared-redis.ts'
import { SnapshotReader } from './snapshot/reader.ts'
import { SharedReads } from './snapshot/shared-reads.ts'
import { steadyNow } from './steady-clock.ts'
import type { Holdings } from './subscribe/audiences.ts'
import { createAuthenticator } from './subscribe/authenticate.ts'
import { Holds } from './subscribe/holds.ts'
import { Reach } from './subscribe/reach.ts'
import { createRoleGate } from './subscribe/roles.ts'
import type { Stream } from './subscribe/stream.ts'
import type { StreamParts } from './subscribe/stream-parts.ts'
import { SubscriptionDoor } from './subscribe/subscribe.ts'
import type { Principal, Subscriptions } from './subscribe/subscription.ts'
import { Times } from './subscribe/times.ts'
import { Trouble } from './trouble.ts'
import { Upkeep } from './upkeep.ts'
import { Beacon } from './wal/heartbeat.ts'
import { Replication, type ReplicationOptions } from './wal/replication.ts'
import { slotExists } from './wal/slot.ts'

export { type Config, loadConfig } from './config.ts'
export { createLog, type Log } from './log.ts'

/** How long one snapshot's statement, or its wait for the stream, may take. */
const snapshotTimeoutMs = 30_000

export interface ServerDependencies {
  readonly log: Log
  /** Serves pages besides the wire's addresses: `tidegate dev` shows its example so. */
  readonly routes?: NonNullable<GatewayOptions['extraRoutes']>
  /** Makes the replication session: measurements hold theirs until a backlog stands. */
  readonly replicate?: (options: ReplicationOptions) => Replication
}

export interface TidegateServer {
  readonly port: number
  /** Resolves when the heartbeat's way through the WAL works. @throws what stops the server for good */
  ready(): Promise<void>
  /** The door behind the transports, for whoever reads in this process. */
  readonly subscriptions: Subscriptions
  /** The door of channels, likewise. */
  readonly channels: Channels
  /** Who may be in channels, for whoever asks in this process. */
  readonly guards: Guards
  /** What it holds for its subscribers now. */
  holdings(): Holdings & ChannelHoldings & GuardHoldings & { readonly listed: number }
  /** WebSockets, event streams and requests held open. */
  connections(): number
  /** Tells clients when to come back, lets the slot go, closes. */
  stop(): Promise<void>
}

/** Starts a node: tracks the tables of TRACK, listens, and is ready when changes stream.
 *  @throws what an operator must mend: of TRACK at once (PRIVILEGE_MISSING, TABLE_UNKNOWN ...), the rest (WAL_LEVEL,
 *    PUBLICATION_MISSING ...) through `ready` */
export async function startServer(config: Config, dependencies: ServerDependencies): Promise<TidegateServer> {
  const { log, routes, replicate = options => new Replication(options) } = dependencies
  const out = { write: (text: string) => log.info(text.trim()) }
  await trackAtStart({ databaseUrl: config.databaseUrl, name: config.tidegateName, tables: config.track }, out)
  const stopping = new AbortController()
  const nodeId = randomBytes(8).toString('hex')
  const connections = new Connections(config.databaseUrl, {
    connections: config.databasePool,
    snapshots: config.snapshotConcurrency,
    asked: config.askedConcurrency,
  })
  const waits = { queryTimeoutMs: 10_000, waitMs: 10_000 }
  const upkeepLane = connections.lane('upkeep', waits)
  const lookLane = connections.lane('look', waits)
  const catalogLane = connections.lane('catalog', waits)
  // Past the statement's own limit only a dead network is left.
  const snapshotWaits = { queryTimeoutMs: snapshotTimeoutMs + 5000 }
  const readLane = connections.lane('reads', snapshotWaits)
  const catalog = createCatalog({
    pool: catalogLane,
    lookPool: lookLane,
    publication: config.tidegateName,
    roles: config.jwtRoles,
    log,
  })
  const beacon = new Beacon({ pool: upkeepLane, prefix: config.tidegateName, secret: randomBytes(32) })
  const head = new Head()
  const relay = new MemoryRelay({
    maxBytes: config.windowMaxBytes,
    maxAgeMs: config.windowMaxAgeMs,
    maxWalBytes: Math.floor(config.slotMaxBytes / 4),
    now: steadyNow,
  })
  const reader = new SnapshotReader({
    snapshots: connections.lane('snapshots', snapshotWaits),
    reads: readLane,
    head,
    beacon,
    timeoutMs: snapshotTimeoutMs,
    isStale: () => upkeep.pulse().stale,
  })
  const parts: StreamParts = {
    relay,
    head,
    router: new Router(),
    reader,
    sharedReads: new SharedReads(reader),
    indexSize: new IndexSize(config.membershipIndexMaxRows),
    log,
    limits: {
      snapshotMaxRows: config.snapshotMaxRows,
      snapshotChunkRows: config.snapshotChunkRows,
      membershipMaxRows: config.membershipMaxRows,
      ringMaxBytes: config.ringMaxBytes,
      windowsMaxBytes: config.windowsMaxBytes,
      maxHeldMs: config.maxHeldMs,
      audienceGraceMs: config.audienceGraceMs,
      resumeWaitMs: config.resumeWaitMs,
    },
  }
  const times = new Times(parts, beacon)
  const stream: Stream = { ...parts, times, reach: new Reach(parts, times) }
  const settingsOf = (principal: Principal) => settingsList(principal, { claimSettings: config.claimSettings })
  const asker = new Asker({
    pool: connections.lane('asked', { ...waits, queryTimeoutMs: config.askedTimeoutMs + 5000 }),
    relay,
    head,
    reader,
    timeoutMs: config.askedTimeoutMs,
    concurrency: askedPlaces({ connections: config.databasePool, asked: config.askedConcurrency }),
  })
  const gate = createRoleGate({ pool: catalogLane, allowed: config.jwtRoles })
  const trouble = new Trouble(log, steadyNow)
  const redis = config.redisUrl === null ? null : openShared(config.redisUrl, config.tidegateName)
  const journal =
    redis === null
      ? null
      : new RedisJournal({
          ...redis,
          name: config.tidegateName,
          nodeId,
          log,
          trouble,
          spoolBytes: config.spoolBytes,
          maxBytes: config.relayMaxBytes,
          maxAgeMs: config.windowMaxAgeMs,
          durability: config.relayDurability,
          hasSlot: slotName => slotExists(upkeepLane, slotName),
          holdMs: config.relayHoldMs,
        })
  const epochNow = async () => (journal === null ? relay.epoch : await journal.epochNow())
  const door = new SubscriptionDoor({
    stream,
    pool: readLane,
    random: Math.random,
    pulse: () => upkeep.pulse(),
    epochNow,
    asked: {
      asker,
      pool: catalogLane,
      limits: {
        maxAudiencesPerTable: config.askedMaxAudiencesPerTable,
        maxRows: config.askedMaxRows,
        recheckMs: config.recheckMs,
        graceMs: config.audienceGraceMs,
      },
    },
    prepare: {
      catalog,
      admit: role => gate.admit(role),
      settingsOf,
      maxLimit: config.limitMaxRows,
      filterLimits: {
        maxLength: config.maxFilterLength,
        maxDepth: config.maxFilterDepth,
        maxTerms: config.maxFilterTerms,
      },
    },
  })
  const guards = openGuards({
    config,
    stream,
    audiences: door.audiences,
    catalog,
    gate,
    settingsOf,
    asker,
    pool: catalogLane,
  })
  const { channels, mail } = openChannels({
    config,
    stream,
    guards,
    subscriptions: door,
    beacon,
    pool: readLane,
    epochNow,
    isLeading: () => pipeline.leading !== null,
    redis,
    nodeId,
  })
  const explain = createExplainer(
    {
      pool: connections.lane('explain', { ...waits, queryTimeoutMs: 15_000 }),
      catalog: () => createCatalog({ pool: catalogLane, publication: config.tidegateName, log: createLog('silent') }),
      publication: config.tidegateName,
      admit: role => gate.admit(role),
      settingsOf,
      maxRows: config.membershipMaxRows,
      timeoutMs: 10_000,
    },
    config.jwtRoleClaim,
  )
  const watch = new CatalogWatch({
    look: sees => catalog.look(sees),
    announcements: new Announcements(lookLane),
    passed: fence => reader.passed(fence),
    onChange: async () => {
      catalog.invalidate()
      gate.invalidate()
      await door.recheck()
      await guards.recheck()
    },
    onAnnounced: () => door.announced(),
    onUnreadable: () => {
      door.shut()
      guards.shut()
    },
    onReadAgain: () => {
      door.reopen()
      guards.reopen()
    },
    log,
    trouble,
    now: steadyNow,
  })
  const upkeep: Upkeep = new Upkeep({
    pool: upkeepLane,
    name: config.tidegateName,
    relay,
    head,
    beacon,
    beaconMs: config.beaconMs,
    leading: () => pipeline.leading,
    watch,
    messageSweep: new MessageSweep(readLane),
    realtimeWatch: new RealtimeWatch({ pool: readLane, publication: config.tidegateName, log }),
    log,
    trouble,
    now: steadyNow,
  })
  const orders = new Orders({
    relay,
    head,
    reader,
    reads: readLane,
    upkeep: upkeepLane,
    publication: config.tidegateName,
    targets: () => ({ connections: gateway.ordered, channels }),
    leads: () => pipeline.leading !== null,
    log,
    now: steadyNow,
  })
  const slotWaits = { queryTimeoutMs: 5000, waitMs: 10_000 }
  const replication = replicate({
    databaseUrl: config.databaseUrl,
    pool: connections.lane('upkeep', slotWaits),
    turns: connections.lane('slot', slotWaits),
    name: config.tidegateName,
    publication: config.tidegateName,
    log,
    trouble,
    slotMaxBytes: config.slotMaxBytes,
    // Of another slot's epoch the relay holds nothing that counts. A journal that lost its end is refilled from where the slot is.
    resumeFrom: slotName => (journal === null && slotName === pipeline.slotName ? relay.headEndLsn : null),
    ...(journal === null
      ? {}
      : {
          held: (slotName: string) => journal.held(slotName),
          mayLead: () => journal.mayLead(),
          leaderSilentMs: () => journal.leaderSilentMs(),
        }),
  })
  const pipeline: Pipeline = new Pipeline({
    replication,
    relay,
    journal,
    head,
    router: stream.router,
    reach: stream.reach,
    times,
    holds: new Holds(stream),
    door,
    guards,
    channels,
    spoolBytes: config.spoolBytes,
    onServed: commit => {
      upkeep.received(commit)
      door.served(commit)
      guards.served(commit)
    },
    rulesAt: (commit, isDescribed) => watch.reached(commit, isDescribed),
    orders,
    trouble,
  })
  /** When a balancer, or somebody else, last asked whether this node is ready. */
  let probedAtMs: number | null = null
  let stopped: Promise<void> | null = null
  let nodes: NodeRegistry | null = null
  const gateway: Gateway = createGateway({
    subscriptions: door,
    channels,
    peers: mail === null ? null : new NodePeers(mail, log),
    authenticator: createAuthenticator({ ...authenticatorOptions(config), now: Date.now }),
    orders,
    log,
    limits: gatewayLimits(config),
    supabase: supabaseOptions(config),
    allowedOrigins: config.allowedOrigins,
    ready: scope => {
      probedAtMs = steadyNow()
      return readinessOf(scope, { ...upkeep.view(), draining: stopped !== null })
    },
    ...(redis === null
      ? {}
      : {
          tickets: limits =>
            new RedisTickets({ redis: redis.client, name: config.tidegateName, limits, now: Date.now }),
          stands: () => new RedisStands({ redis: redis.client, name: config.tidegateName, log }),
        }),
    ...(routes === undefined ? {} : { extraRoutes: routes }),
    ...(config.operatorToken === null
      ? {}
      : {
          operator: {
            token: config.operatorToken,
            explain,
            order: createOrderGiver({ pool: upkeepLane, served: xid => door.waitForTransaction(xid, 5000) }),
          },
        }),
  })
  const running = Promise.all([pipeline.run(stopping.signal), upkeep.run(stopping.signal), orders.run(stopping.signal)])
  running.catch(error => log.error({ err: error }, 'the stream ended'))
  const leave = async (): Promise<void> => {
    const probedAgoMs = probedAtMs === null ? null : steadyNow() - probedAtMs
    // Beside the rest: a Redis that does not answer must not keep clients waiting.
    const offTheList = nodes?.leave()
    await drain({ settings: config, probedAgoMs, letGo: () => pipeline.letGo(), gateway })
    await offTheList
    await endServer({ stopping, running, gateway, door, channels, redis, connections })
  }
  const stop = (): Promise<void> => {
    stopped ??= leave()
    return stopped
  }
  try {
    if (redis !== null) await checkRedis(redis.client, config, log)
    const port = await gateway.listen(config.host, config.port)
    nodes =
      redis === null
        ? null
        : new NodeRegistry({
            id: nodeId,
            redis: redis.client,
            name: config.tidegateName,
            state: () => ({
              address: `${hostname()}:${port}`,
              release,
              leads: pipeline.leading !== null,
              connections: gateway.connections(),
              lagMs: upkeep.pulse().lagMs,
              moving: gateway.moving(),
            }),
            onAsked: order => gateway.sendSurplusAway(order),
            log,
          })
    void nodes?.run(stopping.signal)
    return {
      port,
      ready: () => Promise.race([upkeep.ready, running.then(() => {})]),
      subscriptions: door,
      channels,
      guards,
      holdings: () => ({ ...door.holdings, ...channels.holdings, ...guards.holdings, listed: gateway.listed() }),
      connections: () => gateway.connections(),
      stop,
    }
  } catch (error) {
    await stop()
    throw error
  }
}

interface Parts {
  readonly stopping: AbortController
  readonly running: Promise<unknown>
  readonly gateway: Gateway
  readonly door: SubscriptionDoor
  readonly channels: Channels
  readonly redis: SharedRedis | null
  readonly connections: Connections
}

/** A Postgres that does not answer must not keep a process that its clients have left: questions to it hang for ten seconds. */
const endMs = 3000

async function endServer({ stopping, running, gateway, door, channels, redis, connections }: Parts): Promise<void> {
  await gateway.close()
  stopping.abort()
  const end = async (): Promise<void> => {
    await running.catch(() => {})
    await channels.close()
    door.close()
    if (redis !== null) closeShared(redis)
    await connections.end()
  }
  await Promise.race([end(), sleep(endMs, undefined, { ref: false })])
}
