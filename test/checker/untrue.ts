// What must not be, by the promise that it breaks.

export type Harm = 'lost' | 'repeated' | 'leaked' | 'resync without a cause' | 'wrong'

export class Untrue extends Error {
  readonly harm: Harm = 'wrong'
  readonly lsn: bigint
  /** The row it is about. */
  readonly row: string | null

  constructor(message: string, lsn: bigint, row: string | null = null) {
    super(message)
    this.lsn = lsn
    this.row = row
  }
}

export class Lost extends Untrue {
  override readonly harm = 'lost'
}

export class Repeated extends Untrue {
  override readonly harm = 'repeated'
}

export class Leaked extends Untrue {
  override readonly harm = 'leaked'
}

export class Causeless extends Untrue {
  override readonly harm = 'resync without a cause'
}

/** What a strict reader refused by itself. @param lsn where it stands */
export function refused(message: string, lsn: bigint): Untrue {
  const row = /\[.*\]/.exec(message)?.[0] ?? null
  if (message.includes('of the known key')) return new Repeated(message, lsn, row)
  return message.includes('of the unknown key') ? new Lost(message, lsn, row) : new Untrue(message, lsn, row)
}
