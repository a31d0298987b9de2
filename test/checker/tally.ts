// What a run counted: a checker that saw nothing of what it is there for has checked nothing.

/** Of one kind of query over one transport. */
export interface WireCounts {
  readers: number
  /** Of several queries on one connection. */
  shared: number
  filtered: number
  resumes: number
  snapshots: number
  /** Snapshots of several parts. */
  chunked: number
  deltas: number
  /** Deltas in which several commits were folded. */
  folded: number
  changes: number
  positions: number
  /** Times that all it held was compared with the state of that position. */
  compared: number
}

export interface Tally {
  /** By `transport kind`. */
  readonly wires: Record<string, WireCounts>
  /** Events that were owed and looked for. */
  owed: number
  /** By code and cause. */
  readonly resyncs: Record<string, number>
}

export const newTally = (): Tally => ({ wires: {}, owed: 0, resyncs: {} })

export function wireCounts(tally: Tally, transport: string, kind: string): WireCounts {
  tally.wires[`${transport} ${kind}`] ??= {
    readers: 0,
    shared: 0,
    filtered: 0,
    resumes: 0,
    snapshots: 0,
    chunked: 0,
    deltas: 0,
    folded: 0,
    changes: 0,
    positions: 0,
    compared: 0,
  }
  return tally.wires[`${transport} ${kind}`]!
}

export const count = (counts: Record<string, number>, what: string, by = 1): void => {
  counts[what] = (counts[what] ?? 0) + by
}

/** Deltas and changes that readers were told. */
export const deliveriesOf = ({ wires }: Tally): number =>
  Object.values(wires).reduce((sum, { deltas, changes }) => sum + deltas + changes, 0)
