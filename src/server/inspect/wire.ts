// What the inspector's page is told: JSON, once a second or on request, all of this node unless said otherwise. Beside an operator's own
// watched table no value of a row is in it.
import type { CommitTrace } from '../figures/commit-trace.ts'
import type { Stage } from '../figures/stage.ts'

/** `GET /v1/inspect/stream`, as server-sent events read with fetch: `overview` at once and every second, `commits` at most four times
 *  a second. An `error`, `{code, message, retry, retryAfterMs}`, is the last. Whoever takes too slowly is told less often. */
export type InspectEvent =
  | { readonly event: 'overview'; readonly data: Overview }
  | { readonly event: 'commits'; readonly data: CommitsSeen }

export interface StageFigures {
  readonly stage: Stage
  /** Commits that passed it within the last second. */
  readonly perSecond: number
  /** Of those of the last ten seconds that were timed; null: none. */
  readonly p50Ms: number | null
  readonly p99Ms: number | null
}

export interface Overview {
  /** ISO 8601. */
  readonly at: string
  readonly release: string
  readonly node: string
  readonly leads: boolean
  readonly stale: boolean
  readonly lagMs: number
  readonly lagBytes: number | null
  /** Held back by the slot; null until asked. */
  readonly retainedWalBytes: number | null
  readonly slotMaxBytes: number
  readonly connections: number
  readonly subscriptions: number
  readonly audiences: number
  readonly queuedBytes: number
  readonly commitsPerSecond: number
  readonly changesPerSecond: number
  readonly deliveriesPerSecond: number
  readonly bytesPerSecond: number
  readonly stages: readonly StageFigures[]
  /** The most frequent of the last minute, by code. */
  readonly refusals: readonly { readonly code: string; readonly count: number }[]
  readonly resyncs: readonly { readonly code: string; readonly count: number }[]
}

export interface CommitsSeen {
  /** At most 25 of those since the event before, the newest last. */
  readonly traces: readonly CommitTrace[]
  /** Those that are not among them. */
  readonly skipped: number
}

/** `GET /v1/inspect/queries`: the largest first. Of queries that somebody is subscribed to. */
export interface QueriesPage {
  readonly queries: readonly InspectedQuery[]
  /** Past 200 of them. */
  readonly more: number
}

export interface InspectedQuery {
  /** As frames carry it. */
  readonly number: number
  readonly kind: 'live' | 'changes'
  readonly table: string
  readonly columns: readonly string[]
  /** In PostgREST's grammar, as the client wrote it; null: none. */
  readonly filter: string | null
  readonly order: string | null
  readonly limit: number | null
  readonly subscribers: number
  readonly audiences: readonly InspectedAudience[]
  /** Past 50 of them. */
  readonly moreAudiences: number
}

export interface InspectedAudience {
  readonly role: string
  /** Whether Postgres is asked. */
  readonly isAsked: boolean
  readonly subscribers: number
  /** Those behind the head of the stream. */
  readonly behind: number
  /** Its frames wait for rows that a grant or revocation names. */
  readonly isHeld: boolean
}

/** `GET /v1/inspect/channels`: the largest first. */
export interface ChannelsPage {
  readonly channels: readonly InspectedChannel[]
  /** Past 200 of them. */
  readonly more: number
}

export interface InspectedChannel {
  readonly topic: string
  readonly isPrivate: boolean
  /** Of this node. */
  readonly members: number
  /** Of all nodes; null where this node keeps no list. */
  readonly present: readonly { readonly key: string; readonly connections: number }[] | null
  /** Keys past 50 of them. */
  readonly morePresent: number
  /** `100 messages, 3600 s`; null: none is kept. */
  readonly history: string | null
}

/** `GET /v1/inspect/nodes`: of the whole deployment. */
export interface NodesPage {
  readonly nodes: readonly InspectedNode[]
}

export interface InspectedNode {
  readonly id: string
  readonly address: string
  readonly release: string
  readonly leads: boolean
  readonly connections: number
  readonly lagMs: number
  readonly isThis: boolean
}

/** `GET /v1/inspect/watch?table=public.messages&role=authenticated&claims={...}&filter=...`: server-sent events `subscribed`, `snapshot`,
 *  `delta`, `resync`, `heartbeat` and `error` as `GET /v1/live` sends them, of what such a user would see. A row that is missing is
 *  explained by `GET /v1/explain`. */
export interface WatchRequest {
  readonly table: string
  readonly role: string
  /** A JSON object; null or left out: the role alone. */
  readonly claims: string | null
  /** In PostgREST's grammar, `room_id=eq.42&body=like.*x*`; null or left out: all rows that are visible. */
  readonly filter: string | null
  /** As of `GET /v1/live`. */
  readonly order: string | null
  readonly limit: string | null
}
