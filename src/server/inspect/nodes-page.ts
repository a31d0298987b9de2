// The nodes of the deployment, as Redis told a second ago; this one as it is.
import type { LivingNode } from '../nodes/node-state.ts'
import type { NodesPage } from './wire.ts'

export interface NodesSeen {
  readonly nodeId: string
  readonly release: string
  readonly address: () => string
  readonly gauges: () => { readonly leads: boolean; readonly connections: number; readonly lagMs: number }
  /** Null: there is only this one. */
  readonly nodes: () => readonly LivingNode[] | null
}

/** This node first, then the others by address. */
export function nodesPage({ nodeId, release, address, gauges, nodes }: NodesSeen): NodesPage {
  const { leads, connections, lagMs } = gauges()
  const others = (nodes() ?? []).filter(({ id }) => id !== nodeId)
  return {
    nodes: [
      { id: nodeId, address: address(), release, leads, connections, lagMs, isThis: true },
      ...others
        .map(node => ({
          id: node.id,
          address: node.address,
          release: node.release,
          leads: node.leads,
          connections: node.connections,
          lagMs: node.lagMs,
          isThis: false,
        }))
        .sort((a, b) => (a.address < b.address ? -1 : 1)),
    ],
  }
}
