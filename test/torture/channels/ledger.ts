// What was said, who was let in and out, what Redis lost: as those know it who did it, whatever a server says of it.
import type { Room } from './world.ts'

export type Harm = 'lost' | 'repeated' | 'leaked' | 'disordered' | 'resync without a cause' | 'wrong'

export interface Finding {
  readonly harm: Harm
  readonly text: string
}

/** A number of a channel, in the life of its counter. */
export interface Place {
  readonly epoch: string
  readonly seq: bigint
}

/** Of a message of SQL: its transaction. */
export interface Transaction {
  readonly number: number
}

export interface Said {
  /** Its payload. */
  readonly n: number
  readonly room: Room
  readonly way: 'socket' | 'post' | 'sql'
  /** For this user alone. */
  readonly to: string | null
  readonly transaction: Transaction | null
  /** performance.now(), when it was tried first. */
  readonly begunAt: number
  /** The last change of memberships that surely comes before it, however often it was tried. */
  bound: number
  /** `refused`: surely not sent; `unknown`: perhaps. */
  outcome: 'under way' | 'accepted' | 'refused' | 'unknown'
  /** performance.now(), when that was known. */
  settledAt: number
  /** As the server answered. */
  place: Place | null
  /** performance.now(), when somebody was told of it first. */
  heardAt: number | null
  /** As it was told. More than one: it was sent again after Redis forgot it. */
  readonly ids: Set<string>
}

/** One membership given or taken, by one who makes them one after the other: their numbers are in the order of their commits. */
export interface Change {
  readonly number: number
  readonly user: string
  readonly room: Room
  readonly isLetIn: boolean
  readonly begunAt: number
  /** performance.now(), when it was known to be committed; null: not yet, or rolled back. */
  committedAt: number | null
  isRolledBack: boolean
  xid: string
}

export interface Loss {
  /** performance.now(): what was published before is there still. */
  readonly savedAt: number
  /** What was tried first after it cannot have been lost. */
  readonly killedAt: number
}

export class Ledger {
  readonly said: Said[] = []
  readonly changes: Change[] = []
  readonly losses: Loss[] = []
  readonly findings: Finding[] = []
  /** performance.now(): who was let in before was so in a world at rest. */
  startedAt = 0
  deliveries = 0
  gaps = 0
  readonly resyncs: Record<string, number> = {}
  /** performance.now(), when Redis was up again, whether or not it had lost anything. */
  readonly restarts: number[] = []
  /** By process of a node: up to which change it had surely come, and since when that is known. */
  readonly #floors = new Map<string, { readonly at: number; readonly change: number }[]>()
  /** By room: what its numbers are. */
  readonly #byNumber = new Map<number, Map<bigint, { readonly epoch: string; readonly said: Said }>>()
  readonly #numbers = new Map<number, Place>()
  /** By room and number: for whom alone it is. */
  readonly #targets = new Map<string, string[]>()
  #transactions = 0

  find(harm: Harm, text: string): void {
    this.findings.push({ harm, text })
  }

  begin(
    said: Pick<Said, 'room' | 'way'> & { readonly to?: string | null; readonly transaction?: Transaction | null },
  ): Said {
    const entry: Said = {
      to: null,
      transaction: null,
      ...said,
      n: this.said.length,
      begunAt: performance.now(),
      bound: Number.POSITIVE_INFINITY,
      outcome: 'under way',
      settledAt: Number.POSITIVE_INFINITY,
      place: null,
      heardAt: null,
      ids: new Set(),
    }
    this.said.push(entry)
    return entry
  }

  /** It is tried, after this change. */
  attempt(said: Said, change: number): void {
    if (change < said.bound) said.bound = change
  }

  transaction(): Transaction {
    this.#transactions += 1
    return { number: this.#transactions }
  }

  settle(said: Said, outcome: 'accepted' | 'refused' | 'unknown', place: Place | null = null): void {
    said.outcome = outcome
    said.settledAt = performance.now()
    said.place = place
    if (place === null) return
    if (said.to !== null) {
      const key = `${said.room.id} ${said.room.kind === 'plain' ? markOf(place) : place.seq}`
      this.#targets.set(key, [...(this.#targets.get(key) ?? []), said.to])
    }
    if (said.room.kind !== 'plain') this.#stands(said, place)
  }

  /** The last change known to be committed; 0 for none. */
  get lastChange(): number {
    return this.changes.findLast(({ committedAt }) => committedAt !== null)?.number ?? 0
  }

  /** Up to which change a process of a node had come at a moment, at least. */
  floor(life: string, at: number): number {
    return this.#floors.get(life)?.findLast(floor => floor.at <= at)?.change ?? 0
  }

  /** It has come so far by now. */
  raise(life: string, change: number): void {
    const floors = this.#floors.get(life)
    const floor = { at: performance.now(), change }
    if (floors === undefined) this.#floors.set(life, [floor])
    else if (change > floors.at(-1)!.change) floors.push(floor)
  }

  /** Somebody was told it. @returns null for what nobody said */
  heard(n: number, id: string, life: string, place: Place | null): Said | null {
    const said = this.said[n]
    if (said === undefined) return null
    this.deliveries += 1
    said.heardAt ??= performance.now()
    if (!said.ids.has(id)) {
      said.ids.add(id)
      if (said.ids.size > 1 && !this.isHit(said))
        this.find('repeated', `${nameOf(said)} was sent under ${said.ids.size} ids`)
    }
    if (place !== null) this.#stands(said, place)
    if (Number.isFinite(said.bound)) this.raise(life, said.bound)
    return said
  }

  /** Whether Redis has since forgotten something, of which whoever was not asked since may be told only now. */
  hasLostSince(at: number): boolean {
    return this.losses.some(({ killedAt }) => killedAt > at)
  }

  hasRestartedSince(at: number): boolean {
    return this.restarts.some(restartedAt => restartedAt > at)
  }

  /** Whether Redis may have forgotten it. */
  isHit(said: Said): boolean {
    const storedAt =
      said.way === 'sql' ? said.heardAt : Math.min(said.settledAt, said.heardAt ?? Number.POSITIVE_INFINITY)
    return this.losses.some(
      ({ savedAt, killedAt }) => said.begunAt < killedAt && (storedAt ?? Number.POSITIVE_INFINITY) > savedAt,
    )
  }

  /** Whether this number of a room may be of a message that is for others than this user. */
  isForOthers(room: Room, seq: bigint, user: string, at: number): boolean {
    const targets = this.#targets.get(`${room.id} ${seq}`)
    if (targets?.some(to => to !== user)) return true
    // Of one that was never answered, or sent again after Redis forgot it, nobody was told this number.
    return this.said.some(
      said =>
        said.room === room &&
        said.to !== null &&
        said.to !== user &&
        said.begunAt < at &&
        (said.outcome === 'unknown' || this.isHit(said)),
    )
  }

  /** Whether it is let in, by what was committed last. */
  isMember(user: string, room: Room): boolean {
    return (
      this.changes.findLast(each => each.user === user && each.room === room && !each.isRolledBack)?.isLetIn ?? false
    )
  }

  /** The greatest number heard of in a room. */
  greatest(room: Room): bigint {
    let greatest = 0n
    for (const seq of this.#byNumber.get(room.id)?.keys() ?? []) if (seq > greatest) greatest = seq
    return greatest
  }

  /** One number, one message; one message, one number. */
  #stands(said: Said, place: Place): void {
    const { room } = said
    let numbers = this.#byNumber.get(room.id)
    if (numbers === undefined) {
      numbers = new Map()
      this.#byNumber.set(room.id, numbers)
    }
    const { epoch, seq } = place
    const other = numbers.get(seq)
    if (other !== undefined && other.said !== said) {
      if (other.epoch === epoch || !(this.isHit(said) || this.isHit(other.said)))
        this.find(
          'disordered',
          `${nameOf(said)} and ${nameOf(other.said)} are both number ${seq} of ${epoch}, ${other.epoch}`,
        )
    }
    numbers.set(seq, { epoch, said })
    const known = this.#numbers.get(said.n)
    if (known !== undefined && known.seq !== seq && (known.epoch === epoch || !this.isHit(said)))
      this.find('disordered', `${nameOf(said)} is number ${known.seq} of ${known.epoch} and ${seq} of ${epoch}`)
    this.#numbers.set(said.n, place)
  }
}

export const nameOf = ({ n, way, room, outcome, begunAt }: Said): string =>
  `#${n} (${way}, ${room.topic}, ${outcome}, begun at ${Math.round(begunAt)})`

/** As positions of channels without a history have it: shifted by its epoch, so that epochs are told apart. */
const markOf = ({ epoch, seq }: Place): bigint => BigInt.asUintN(32, seq + BigInt(`0x${epoch}`))
