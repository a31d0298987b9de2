// What a node says of itself to the others, once a second.

export interface NodeState {
  /** For people: where it runs. */
  readonly address: string
  /** Version of Tidegate. */
  readonly release: string
  /** It holds the slot. */
  readonly leads: boolean
  readonly connections: number
  /** How far its stream is behind the database. */
  readonly lagMs: number
  /** What came of the last request to send connections away; null before the first. */
  readonly moving: Moving | null
}

export interface LivingNode extends NodeState {
  /** Random, another after each start. */
  readonly id: string
}

/** Asks a node to send connections away, evenly over a time, until it holds no more than `keep`. */
export interface MoveOrder {
  /** The rebalancing that this is a part of. */
  readonly rebalancing: string
  readonly keep: number
  readonly overMs: number
  /** Whoever is sent away may come back to the same node: one of so many. */
  readonly nodes: number
  /** How long ago the rebalancing began: whoever came since may have been sent away by it, and stays. */
  readonly ageMs: number
}

export interface Moving {
  readonly rebalancing: string
  /** Connections sent away so far. */
  readonly moved: number
  readonly isOver: boolean
}
