// May a balancer send somebody here? The service's answer and this node's own are two: a fault that all nodes share must not
// take every one of them out of the balancer. Pure.
import type { IsolationState } from './isolation.ts'

/** What a node knows of itself and of the way of its beacons. */
export interface NodeView extends IsolationState {
  readonly draining: boolean
  /** Its window has been filled once. */
  readonly started: boolean
  /** One interval of the beacons: faults shorter than it are none. */
  readonly intervalMs: number
  readonly stale: boolean
  readonly lagMs: number
  /** WAL that Postgres had written and that had not been served here when it was last asked; null before that. */
  readonly lagBytes: number | null
  /** Since when the stream stands still, ISO 8601; null while it moves. */
  readonly since: string | null
  /** Whether this node holds the slot. */
  readonly leader: boolean
}

export type NodeFault = 'draining' | 'starting' | 'no stream' | 'no database'

export interface ReadinessBody {
  readonly ready: boolean
  readonly scope: 'service' | 'node'
  /** What makes it red. */
  readonly why: NodeFault | 'stale' | null
  readonly draining: boolean
  readonly started: boolean
  readonly stale: boolean
  readonly lagMs: number
  readonly lagBytes: number | null
  readonly since: string | null
  readonly leader: boolean
}

export function readinessOf(
  scope: 'service' | 'node',
  view: NodeView,
): { readonly ready: boolean; readonly body: ReadinessBody } {
  const { draining, started, stale, lagMs, lagBytes, since, leader } = view
  const why = faultOf(view) ?? (scope === 'service' && stale ? 'stale' : null)
  const ready = why === null
  return { ready, body: { ready, scope, why, draining, started, stale, lagMs, lagBytes, since, leader } }
}

/** What is wrong with this node alone. */
export function faultOf(view: NodeView): NodeFault | null {
  const { draining, started, intervalMs, overtakenForMs, unansweredForMs, movedAgoMs } = view
  if (draining) return 'draining'
  if (!started) return 'starting'
  if (overtakenForMs !== null && overtakenForMs > intervalMs) return 'no stream'
  // Of what Postgres had sent before it went away, some comes later: a whole interval of it is no rest.
  const isStillMoving =
    movedAgoMs <= intervalMs && unansweredForMs !== null && unansweredForMs - movedAgoMs > intervalMs
  return isStillMoving ? 'no database' : null
}
