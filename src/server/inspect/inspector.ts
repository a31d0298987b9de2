// The inspector of a node: the addresses of its page, and of what the page is told.
import { defaultLimits, type GatewayLimits } from '../deliver/limits.ts'
import { Turn } from '../deliver/send-queue.ts'
import type { CommitTraces } from '../figures/commit-trace.ts'
import { Figures } from '../figures/figures.ts'
import type { Log } from '../log/log.ts'
import type { LivingNode } from '../nodes/node-state.ts'
import type { OperatorRoute } from '../operator/route.ts'
import type { SubscriptionListed } from '../subscribe/listing.ts'
import type { Subscriptions } from '../subscribe/subscription.ts'
import { answersRoute } from './answers.ts'
import { type ChannelListed, channelsPage } from './channels-page.ts'
import { nodesPage } from './nodes-page.ts'
import { type InspectedGauges, Overviews } from './overviews.ts'
import { pageRoutes } from './page-files.ts'
import { queriesPage } from './queries-page.ts'
import { TableWatches } from './table-watches.ts'
import { Watchers } from './watchers.ts'

export interface InspectorOptions {
  readonly figures: Figures
  readonly traces: CommitTraces
  readonly gauges: () => InspectedGauges
  readonly nodeId: string
  readonly release: string
  /** Where it listens, for people. */
  readonly address: () => string
  /** Every subscription of this node. */
  readonly listSubscriptions: () => Iterable<SubscriptionListed>
  /** Every channel with members here. */
  readonly listChannels: () => Iterable<ChannelListed>
  /** Of the whole deployment; null: there is only this one. */
  readonly nodes: () => readonly LivingNode[] | null
  /** The door that users come through. */
  readonly subscriptions: Subscriptions
  /** JWT_ROLE_CLAIM */
  readonly roleClaim: string
  /** Of streams to clients: a watched table is one. */
  readonly limits: Partial<GatewayLimits>
  readonly log: Log
}

export interface Inspector {
  readonly routes: readonly OperatorRoute[]
  /** The node leaves: whoever watches is told GOING_AWAY, and nobody is taken. */
  close(): void
}

/** Samples the node's figures once a second from now on, so that whoever comes sees the last minute at once. */
export function openInspector(options: InspectorOptions): Inspector {
  const { figures, traces, log, subscriptions, roleClaim } = options
  const limits = { ...defaultLimits, ...options.limits }
  // Of its own: what a node counts is its clients'.
  const turn = new Turn(new Figures())
  const overviews = new Overviews(options)
  const watchers = new Watchers({ overviews, traces, figures, turn, slowConsumerMs: limits.slowConsumerMs, log })
  const tables = new TableWatches({ subscriptions, roleClaim, limits, turn, log })
  return {
    routes: [
      ...pageRoutes(),
      watchers.route,
      tables.route,
      answersRoute('/v1/inspect/queries', () => queriesPage(options.listSubscriptions)),
      answersRoute('/v1/inspect/channels', () => channelsPage(options.listChannels())),
      answersRoute('/v1/inspect/nodes', async () => nodesPage(options)),
    ],
    close: () => {
      overviews.close()
      watchers.close()
      tables.close()
    },
  }
}
