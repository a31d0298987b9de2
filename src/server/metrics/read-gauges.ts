// Asks the owners of what stands on a node how it stands: some microseconds, and 50 ns for each connection.
import type { Gauges, LaneUse } from '../figures/gauges.ts'

export interface GaugeOwners {
  readonly upkeep: {
    view(): Pick<Gauges, 'lagMs' | 'lagBytes'> & { readonly stale: boolean; readonly leader: boolean }
    lags(): Pick<Gauges, 'slot' | 'relayLagBytes' | 'relayLagSeconds'> | null
  }
  readonly trouble: { readonly isOpen: boolean }
  readonly relay: { readonly retainedBytes: number; readonly retainedCommits: number; readonly pins: number }
  readonly door: {
    count(): Pick<Gauges, 'subscriptions' | 'audiences'>
    readonly holdings: Pick<Gauges, 'queries'>
  }
  readonly channels: {
    readonly holdings: Pick<Gauges, 'channels' | 'members'> & { readonly rooms: number }
  }
  readonly gateway: { connections(): number; queuedBytes(): number }
  readonly lanes: { use(): readonly LaneUse[] }
  /** Whether a balancer may send somebody to this node. */
  isReady(): boolean
  isDraining(): boolean
  readonly limits: Pick<Gauges, 'slotMaxBytes' | 'maxConnections' | 'maxDatabaseConnections'>
}

export function readGauges(owners: GaugeOwners): Gauges {
  const { upkeep, trouble, relay, door, channels, gateway, lanes, limits } = owners
  const { stale, leader, lagMs, lagBytes } = upkeep.view()
  const { slot, relayLagBytes, relayLagSeconds } = upkeep.lags() ?? unasked
  const { channels: channelCount, members, rooms } = channels.holdings
  return {
    ...limits,
    ...door.count(),
    queries: door.holdings.queries,
    leads: leader,
    isReady: owners.isReady(),
    isStale: stale,
    isDraining: owners.isDraining(),
    isInTrouble: trouble.isOpen,
    slot,
    relayLagBytes,
    relayLagSeconds,
    lagBytes,
    lagMs,
    windowBytes: relay.retainedBytes,
    windowCommits: relay.retainedCommits,
    splices: relay.pins,
    connections: gateway.connections(),
    queuedBytes: gateway.queuedBytes(),
    channels: channelCount,
    members,
    presenceRooms: rooms,
    lanes: lanes.use(),
  }
}

const unasked = { slot: null, relayLagBytes: null, relayLagSeconds: null }
