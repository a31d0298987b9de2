// Puts the parts together: one node, from configuration to a listening gateway.
import { randomBytes } from 'node:crypto'
import { hostname } from 'node:os'
import { RealtimeWatch } from './admin/realtime-watch.ts'
import { trackAtStart } from './admin/track.ts'
import { createCatalog } from './authorize/policy-catalog.ts'
import { Announcements } from './catalog/announcement.ts'
import type { Channels } from './channels/channels.ts'
import type { GuardHoldings, Guards } from './channels/guards/guards.ts'
import type { ChannelHoldings } from './channels/holdings.ts'
import { MessageSweep } from './channels/sql/message-sweep.ts'
import { type Config, sessionUrlOf } from './config/config.ts'
import { TrustedProxies } from './config/trusted-proxies.ts'
import { createGateway, type Gateway, type GatewayOptions } from './deliver/gateway.ts'
import { NodePeers } from './deliver/node-peers.ts'
import { RedisStands } from './deliver/phoenix/redis-stands.ts'
import { RedisTickets } from './deliver/redis-tickets.ts'
import { warnAtStart } from './doctor/at-start.ts'
import { readOpenFilesLimit } from './doctor/machine-look.ts'
import { Figures } from './figures/figures.ts'
import { openInspector } from './inspect/inspector.ts'
import type { Log } from './log/log.ts'
import { repeated } from './log/log-repeated.ts'
import { Trouble } from './log/trouble.ts'
import { readGauges } from './metrics/read-gauges.ts'
import { metricsRoute } from './metrics/route.ts'
import { NodeRegistry } from './nodes/registry.ts'
import { release } from './nodes/release.ts'
import { explainRoute, ordersRoute } from './operator/routes.ts'
import { createOrderGiver } from './orders/give-order.ts'
import { Orders } from './orders/orders.ts'
import { Pipeline } from './pipeline.ts'
import { endServer } from './server-end.ts'
import { openChannels, openGuards } from './setup/channel-setup.ts'
import { openDoor, openExplainer } from './setup/door-setup.ts'
import { authenticatorOptions, gatewayLimits, supabaseOptions } from './setup/gateway-options.ts'
import { assertOneDatabase, openLanes } from './setup/lanes.ts'
import { openOperators } from './setup/operator-setup.ts'
import { checkRedis, openShared } from './setup/shared-redis.ts'
import { openJournal, openStream } from './setup/stream-setup.ts'
import { steadyNow } from './steady-clock.ts'
import type { Holdings } from './subscribe/audiences.ts'
import { createAuthenticator } from './subscribe/authenticate.ts'
import { Holds } from './subscribe/holds.ts'
import { openRolesOf, refuseUnbound } from './subscribe/roles.ts'
import type { Subscriptions } from './subscribe/subscription.ts'
import { openTracing } from './tracing/tracing.ts'
import { CatalogWatch } from './upkeep/catalog-watch.ts'
import { drain } from './upkeep/drain.ts'
import { readinessOf } from './upkeep/readiness.ts'
import { Upkeep } from './upkeep/upkeep.ts'
import { reach } from './wal/preflight.ts'
import { Replication, type ReplicationOptions } from './wal/replication.ts'

export { type Config, loadConfig } from './config/config.ts'
export { createLog, type Log } from './log/log.ts'

export interface ServerDependencies {
  readonly log: Log
  /** Serves pages besides the wire's addresses: `tidegate dev` shows its example so. */
  readonly routes?: NonNullable<GatewayOptions['extraRoutes']>
  /** Makes the replication session: measurements hold theirs until a backlog stands. */
  readonly replicate?: (options: ReplicationOptions) => Replication
}

export interface TidegateServer {
  readonly port: number
  /** The operators' own; null without ADMIN_PORT. */
  readonly adminPort: number | null
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
  /** What it has counted since it began. */
  readonly figures: Figures
  /** Never resolves. @throws what stops the server for good, before it is ready or later: nothing comes any more */
  ended(): Promise<never>
  /** Tells clients when to come back, lets the slot go, closes. */
  stop(): Promise<void>
}

/** Starts a node: tracks the tables of TRACK, listens, and is ready when changes stream.
 *  @throws what an operator must mend: of TRACK at once (PRIVILEGE_MISSING, TABLE_UNKNOWN ...), the rest (WAL_LEVEL,
 *    PUBLICATION_MISSING ...) through `ready` */
export async function startServer(config: Config, dependencies: ServerDependencies): Promise<TidegateServer> {
  const { log, routes, replicate = options => new Replication(options) } = dependencies
  const out = { write: (text: string) => log.info(text.trim()) }
  const sessionUrl = sessionUrlOf(config)
  warnAtStart(config, log)
  await assertOneDatabase(config)
  await trackAtStart({ databaseUrl: sessionUrl, name: config.tidegateName, tables: config.track }, out)
  const stopping = new AbortController()
  const nodeId = randomBytes(8).toString('hex')
  const limits = gatewayLimits(config, readOpenFilesLimit(), log)
  const figures = new Figures()
  const tracing = await openTracing({ config, figures, nodeId, log })
  const lanes = openLanes(config)
  const catalog = createCatalog({
    pool: lanes.catalog,
    lookPool: lanes.look,
    publication: config.tidegateName,
    roles: config.jwtRoles,
    log,
  })
  const { stream, beacon } = openStream({ config, lanes, log, isStale: () => upkeep.pulse().stale, figures })
  const { relay, head, reader } = stream
  const trouble = new Trouble(log, steadyNow, figures.troubles)
  const redis = config.redisUrl === null ? null : openShared(config.redisUrl, config.tidegateName)
  const journal = redis === null ? null : openJournal({ config, lanes, log, redis, nodeId, trouble })
  const epochNow = async () => (journal === null ? relay.epoch : await journal.epochNow())
  const { door, asker, gate, settingsOf } = openDoor({
    ...{ config, lanes, stream, catalog, figures, epochNow },
    pulse: () => upkeep.pulse(),
  })
  const guards = openGuards({
    config,
    stream,
    audiences: door.audiences,
    catalog,
    gate,
    settingsOf,
    asker,
    pool: lanes.catalog,
  })
  const { channels, mail } = openChannels({
    config,
    stream,
    guards,
    subscriptions: door,
    beacon,
    pool: lanes.reads,
    epochNow,
    isLeading: () => pipeline.leading !== null,
    redis,
    nodeId,
  })
  const explain = openExplainer({ config, lanes, gate, settingsOf })
  const watch = new CatalogWatch({
    look: sees => catalog.look(sees),
    announcements: new Announcements(lanes.look),
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
    pool: lanes.upkeep,
    name: config.tidegateName,
    relay,
    head,
    beacon,
    beaconMs: config.beaconMs,
    leading: () => pipeline.leading,
    watch,
    messageSweep: new MessageSweep(lanes.reads),
    realtimeWatch: new RealtimeWatch({ pool: lanes.reads, publication: config.tidegateName, log }),
    log,
    trouble,
    now: steadyNow,
  })
  const orders = new Orders({
    relay,
    head,
    reader,
    reads: lanes.reads,
    upkeep: lanes.upkeep,
    publication: config.tidegateName,
    targets: () => ({ connections: gateway.ordered, channels }),
    leads: () => pipeline.leading !== null,
    log,
    now: steadyNow,
  })
  const replication = replicate({
    databaseUrl: sessionUrl,
    pool: lanes.slotUpkeep,
    turns: lanes.slotTurns,
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
    times: stream.times,
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
    figures,
    traces: tracing.traces,
  })
  /** When a balancer, or somebody else, last asked whether this node is ready. */
  let probedAtMs: number | null = null
  let stopped: Promise<void> | null = null
  let nodes: NodeRegistry | null = null
  const ready = (scope: 'service' | 'node') => {
    probedAtMs = steadyNow()
    return readinessOf(scope, { ...upkeep.view(), draining: stopped !== null })
  }
  const gauges = () =>
    readGauges({
      ...{ upkeep, trouble, relay, door, channels, gateway, lanes },
      isReady: () => readinessOf('node', { ...upkeep.view(), draining: stopped !== null }).ready,
      isDraining: () => stopped !== null,
      limits: {
        slotMaxBytes: config.slotMaxBytes,
        maxConnections: limits.maxConnections,
        maxDatabaseConnections: config.databasePool,
      },
    })
  let address = hostname()
  const inspector =
    config.operatorToken === null
      ? null
      : openInspector({
          figures,
          traces: tracing.traces,
          gauges,
          nodeId,
          release,
          address: () => address,
          listSubscriptions: () => door.listing(),
          listChannels: () => channels.listing(),
          nodes: () => nodes?.nodes ?? null,
          subscriptions: door,
          roleClaim: config.jwtRoleClaim,
          limits,
          log,
        })
  const operators = openOperators({
    config,
    log,
    probes: { health: () => ({ ok: true }), ready },
    routes: [
      ...(inspector?.routes ?? []),
      metricsRoute({ figures, gauges }),
      explainRoute(explain),
      ordersRoute(
        createOrderGiver({ pool: lanes.upkeep, served: xid => door.waitForTransaction(xid, 5000) }),
        config.maxFrameBytes,
      ),
    ],
  })
  const gateway: Gateway = createGateway({
    subscriptions: door,
    channels,
    peers: mail === null ? null : new NodePeers(mail, log),
    authenticator: createAuthenticator({ ...authenticatorOptions(config, log), now: Date.now }),
    orders,
    log,
    limits,
    supabase: supabaseOptions(config),
    allowedOrigins: config.allowedOrigins,
    trustedProxies: new TrustedProxies(config.trustedProxies.flat()),
    ready,
    figures,
    ...(redis === null
      ? {}
      : {
          tickets: limits =>
            new RedisTickets({ redis: redis.client, name: config.tidegateName, limits, now: Date.now }),
          stands: () => new RedisStands({ redis: redis.client, name: config.tidegateName, log }),
        }),
    ...(routes === undefined ? {} : { extraRoutes: routes }),
    ...(operators.publicDoor === null ? {} : { operator: operators.publicDoor }),
  })
  const bound = reach(sessionUrl, () => refuseUnbound(lanes.catalog, openRolesOf(config), stopping.signal))
  const running = Promise.all([
    ...[pipeline.run(stopping.signal), upkeep.run(stopping.signal), orders.run(stopping.signal), bound],
  ])
  running.catch(error => log.error({ err: error }, 'the stream ended'))
  const leave = async (): Promise<void> => {
    const probedAgoMs = probedAtMs === null ? null : steadyNow() - probedAtMs
    // Beside the rest: a Redis that does not answer must not keep clients waiting.
    const offTheList = nodes?.leave()
    const letGo = (): void => {
      inspector?.close()
      operators.drain()
      pipeline.letGo()
    }
    await drain({ settings: config, probedAgoMs, letGo, gateway })
    await offTheList
    await Promise.all([operators.close(), tracing.close()])
    await endServer({ stopping, running, gateway, door, channels, redis, lanes })
    repeated(log).flush()
  }
  const stop = (): Promise<void> => {
    stopped ??= leave()
    return stopped
  }
  try {
    if (redis !== null) await checkRedis(redis.client, config, log)
    const port = await gateway.listen(config.host, config.port)
    const adminPort = await operators.listen()
    address = `${hostname()}:${port}`
    nodes =
      redis === null
        ? null
        : new NodeRegistry({
            id: nodeId,
            redis: redis.client,
            name: config.tidegateName,
            state: () => ({
              address,
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
      adminPort,
      ready: () => Promise.race([Promise.all([upkeep.ready, bound]), running]).then(() => {}),
      subscriptions: door,
      channels,
      guards,
      holdings: () => ({ ...door.holdings, ...channels.holdings, ...guards.holdings, listed: gateway.listed() }),
      connections: () => gateway.connections(),
      figures,
      ended: () => running.then(() => new Promise<never>(() => {})),
      stop,
    }
  } catch (error) {
    await stop()
    throw error
  }
}
