// Which transactions a snapshot sees: the exact question that joins a query's rows to the stream, and that says which
// commits may be acknowledged. The WAL runs ahead of what SQL can see, so a log position cannot answer it.

/** A snapshot as `pg_current_snapshot()` prints it. */
export interface Snapshot {
  /** 64-bit transaction ids, as the text has them. */
  readonly xmin: bigint
  readonly xmax: bigint
  /** @param xid 32-bit and unsigned, as Begin carries it, of a transaction that has committed */
  sees(xid: number): boolean
}

/** Parses `xmin:xmax:xip,...`; every number is 64-bit, epoch included.
 *
 *  A committed transaction is visible if it is below xmax and not in xip. Never ask `xid < xmin`: one idle writer holds
 *  xmin back for hours, while commits above it are visible all along.
 *
 *  The WAL carries 32 bits only, so xids are compared modulo 2^32: Postgres keeps all transactions that can still matter
 *  within 2^31 of each other, hence the sign of the 32-bit difference tells which came first, also when one of them is
 *  on the other side of a wrap.
 *  @throws RangeError on any other text. Source: PostgreSQL manual, pg_snapshot Components */
export function parseSnapshot(text: string): Snapshot {
  const parts = /^(\d+):(\d+):((?:\d+(?:,\d+)*)?)$/.exec(text)
  if (parts === null) throw new RangeError(`not a snapshot: ${JSON.stringify(text)}`)
  const xmin = BigInt(parts[1]!)
  const xmax = BigInt(parts[2]!)
  const xmaxLow = low32(xmax)
  const running = new Set(parts[3] === '' ? [] : parts[3]!.split(',').map(xid => low32(BigInt(xid))))
  return { xmin, xmax, sees: xid => isBefore(xid, xmaxLow) && !running.has(xid) }
}

/** True if `a` was assigned before `b`, both 32-bit. */
export const isBefore = (a: number, b: number): boolean => ((a - b) | 0) < 0

/** The 64-bit transaction id of a 32-bit one, given a 64-bit one less than 2^31 transactions away.
 *  @example widen(4294967295, (1n << 32n) + 5n) === 4294967295n // just before the wrap, not 2^32 after it */
export const widen = (xid: number, near: bigint): bigint => near + BigInt((xid - low32(near)) | 0)

export const low32 = (xid: bigint): number => Number(xid & 0xffffffffn)
