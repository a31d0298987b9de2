// Who is here: every WebSocket, SSE stream and held long-poll of this node, counted and bounded.
import type { PeerCode } from '../../protocol/codes.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { addressGroup } from '../config/trusted-proxies.ts'
import { Figures } from '../figures/figures.ts'
import type { MoveOrder, Moving } from '../nodes/node-state.ts'
import { tokenOf } from '../orders/order.ts'
import { noOrders, type OrderedConnections, type TokenOrders } from '../orders/targets.ts'
import { steadyNow } from '../steady-clock.ts'
import type { Principal } from '../subscribe/subscription.ts'
import { Quota } from './quota.ts'
import { Roster } from './roster.ts'
import { Surplus } from './surplus.ts'

/** How a connection ended: a code, or `ANSWERED`: one answer was all. */
export type Ending = PeerCode | 'ANSWERED'

export interface Connection {
  /** Whose it is; null before its token is verified, and of an operator. Renewal replaces it, by one of the same role and subject. */
  readonly principal: Principal | null
  /** What channels and the log know it by; null where it has none. */
  readonly name: string | null
  /** The code that it ended by; null while it is there, and where its client went by itself. */
  readonly endedBy: Ending | null
  /** What waits for its client. */
  readonly queuedBytes: number
  /** Time has passed: heartbeats, expiry, silence. @param now milliseconds since 1970 */
  tick(now: number): void
  /** Tells the client whether the stream moves, where it can be told: that has changed. */
  tellPulse(): void
  /** Sends what waits for the client, tells it where it stands and to come back elsewhere, and ends. */
  goAway(error: TidegateError): void
  /** The same while this node stays: another is to take it. @returns false where it is over soon, and better left alone */
  moveAway(error: TidegateError): boolean
  /** Sends nothing more of what can be taken back, tells why, and ends. */
  cutOff(error: TidegateError): void
  /** A token issued later must come within this time, or `goAway` follows. Where none can be presented it may end at once. */
  refresh(withinMs: number): void
  /** Ends at once, without a word. */
  terminate(): void
}

/** A place taken. */
export class Place {
  readonly #connections: Connections
  /** On the steady clock. */
  readonly takenAt = steadyNow()
  /** As whom and as what it stands in the roster. */
  sub: string | null = null
  name: string | null = null
  /** What it counts as, where connections of an address are counted. */
  readonly addressGroup: string
  /** What it is within; null: nothing. */
  readonly outer: Place | null
  /** The user that it counts for. */
  user: string | null = null
  /** Users that it counts for and those within it, each as often as they are there; null: none. */
  users: string[] | null = null

  constructor(connections: Connections, addressGroup: string, outer: Place | null) {
    this.#connections = connections
    this.addressGroup = addressGroup
    this.outer = outer
  }

  /** Counts it among the connections of its user, of whom there may be too many; before it is held. What answers at once is not
   *  counted. Again it does nothing. @throws USER_TOO_MANY */
  admit(principal: Principal): void {
    this.#connections.admit(this, principal)
  }

  /** Again when it is known whose the connection is, or when another token has come. */
  hold(connection: Connection): void {
    this.#connections.hold(this, connection)
  }

  /** May be called more than once. */
  release(): void {
    this.#connections.release(this)
  }
}

export interface ConnectionLimits {
  readonly maxConnections: number
  /** Of one address, or of one /64 of IPv6; 0 or left out: as many as there are. */
  readonly maxConnectionsPerAddress?: number
  /** Of one subject and role; 0 or left out: as many as there are. */
  readonly maxConnectionsPerUser?: number
}

export class Connections {
  readonly #max: number
  readonly #ofAddress: Quota
  readonly #ofUser: Quota
  readonly #orders: TokenOrders
  readonly #figures: Figures
  readonly #roster = new Roster<Place>()
  /** At most `max`; past it a newcomer is told TOO_MANY_CONNECTIONS. */
  readonly #places = new Map<Place, Connection | null>()
  /** Within those: see `inner`. */
  readonly #inner = new Map<Place, Connection>()
  /** Those told to move to another node, until they are gone. */
  readonly #moving = new Set<Place>()
  #surplus: Surplus<Place> | null = null
  #isDraining = false
  #telling: NodeJS.Timeout | null = null
  #whenEmpty: (() => void) | null = null

  constructor(limits: ConnectionLimits, orders: TokenOrders = noOrders, figures = new Figures()) {
    this.#max = limits.maxConnections
    this.#ofAddress = new Quota(limits.maxConnectionsPerAddress ?? 0)
    this.#ofUser = new Quota(limits.maxConnectionsPerUser ?? 0)
    this.#orders = orders
    this.#figures = figures
  }

  get count(): number {
    return this.#places.size
  }

  /** Entries of the roster, addresses and users that are counted: none is left of those who went. */
  get listed(): number {
    return this.#roster.size + this.#ofAddress.size + this.#ofUser.size
  }

  /** What waits for all of them: looked at one by one. */
  get queuedBytes(): number {
    let bytes = 0
    for (const connection of this.#places.values()) bytes += connection?.queuedBytes ?? 0
    return bytes
  }

  get isDraining(): boolean {
    return this.#isDraining
  }

  /** @param address canonical. @throws GOING_AWAY, TOO_MANY_CONNECTIONS, ADDRESS_TOO_MANY */
  takePlace(address: string): Place {
    this.refuseIfDraining()
    if (this.#places.size >= this.#max) {
      throw new TidegateError('TOO_MANY_CONNECTIONS', `this node holds ${this.#max} connections, its limit`)
    }
    const group = this.#ofAddress.max === 0 ? '' : addressGroup(address)
    if (!this.#ofAddress.take(group)) {
      const message = `${this.#ofAddress.max} connections came from ${group}, as many as one address may have here`
      throw new TidegateError('ADDRESS_TOO_MANY', message)
    }
    const place = new Place(this, group, null)
    this.#places.set(place, null)
    return place
  }

  /** A place within another, of a session that has its wire from there and a token of its own: orders find it, and it makes the other
   *  a connection of its user. Whoever has it bounds how many there are, and releases it. */
  inner(outer: Place): Place {
    return new Place(this, '', outer)
  }

  admit(place: Place, principal: Principal): void {
    const { sub } = tokenOf(principal)
    const outer = place.outer ?? place
    // The client may have gone while its token was being checked.
    if (this.#ofUser.max === 0 || sub === null || place.user !== null || !this.#places.has(outer)) return
    const user = JSON.stringify([principal.role, sub])
    if (outer.users?.includes(user) !== true && !this.#ofUser.take(user)) {
      const message = `this user has ${this.#ofUser.max} connections here, as many as one may have`
      throw new TidegateError('USER_TOO_MANY', message)
    }
    place.user = user
    outer.users = [...(outer.users ?? []), user]
  }

  hold(place: Place, connection: Connection): void {
    if (place.outer !== null) this.#inner.set(place, connection)
    // The client may have gone while its token was being checked.
    else if (!this.#places.has(place)) return
    else {
      if (this.#places.get(place) === null) this.#figures.connectionsOpened += 1
      this.#places.set(place, connection)
    }
    const { principal, name } = connection
    if (principal === null) return
    place.sub = tokenOf(principal).sub
    place.name = name
    this.#roster.add(place, place.sub, name)
    // An order may have come since the door looked, and would not have found it here.
    const verdict = this.#orders.verdictOn(principal)
    if (verdict?.kind === 'refused') connection.cutOff(verdict.error)
    else if (verdict?.kind === 'outdated') connection.refresh(verdict.withinMs)
  }

  release(place: Place): void {
    const held = this.#places.get(place)
    if (held != null) this.#figures.closes.add(held.endedBy ?? (this.#isDraining ? 'GOING_AWAY' : 'CLIENT_LEFT'))
    if (this.#places.delete(place)) {
      this.#ofAddress.giveBack(place.addressGroup)
      for (const user of new Set(place.users)) this.#ofUser.giveBack(user)
      place.users = null
    }
    if (place.outer !== null) this.#leaveUser(place, place.outer)
    this.#inner.delete(place)
    this.#roster.remove(place, place.sub, place.name)
    this.#moving.delete(place)
    if (this.#places.size === 0) this.#whenEmpty?.()
  }

  #leaveUser(place: Place, outer: Place): void {
    const { user } = place
    place.user = null
    const at = user === null || outer.users === null ? -1 : outer.users.indexOf(user)
    if (user === null || outer.users === null || at === -1) return
    outer.users = outer.users.toSpliced(at, 1)
    if (!outer.users.includes(user)) this.#ofUser.giveBack(user)
  }

  /** For orders. Lists: whoever ends leaves them. */
  get ordered(): OrderedConnections {
    const held = (places: Iterable<Place>): Connection[] =>
      [...places]
        .map(place => this.#places.get(place) ?? this.#inner.get(place) ?? null)
        .filter(connection => connection !== null)
    return {
      ofUser: sub => held(this.#roster.ofUser(sub)),
      named: name => held(this.#roster.named(name)),
      all: () => held([...this.#places.keys(), ...this.#inner.keys()]),
    }
  }

  /** @throws GOING_AWAY */
  refuseIfDraining(): void {
    if (this.#isDraining) throw new TidegateError('GOING_AWAY', 'this node is shutting down; connect again')
  }

  tick(now: number): void {
    for (const connection of this.#places.values()) connection?.tick(now)
    if (!this.#isDraining) this.#surplus?.step(steadyNow())
  }

  /** Sends away those past the order's share, with the ticks to come. Another order takes the place of the one before. */
  sendSurplusAway(order: MoveOrder, random: () => number): void {
    const now = steadyNow()
    this.#surplus = new Surplus({
      order,
      candidates: [...this.#places.keys()].filter(place => place.takenAt <= now - order.ageMs),
      staying: () => this.#places.size - this.#moving.size,
      sendAway: place => this.#moveAway(place),
      random,
      now,
    })
  }

  /** What came of the last order. */
  get moving(): Moving | null {
    return this.#surplus?.moving ?? null
  }

  #moveAway(place: Place): boolean {
    // At once: their times were spread already.
    const error = new TidegateError('REBALANCED', 'another node is to take this connection; connect again and resume', {
      retryAfterMs: 0,
    })
    if (!(this.#places.get(place)?.moveAway(error) ?? false)) return false
    // One that could be closed at once has gone by now.
    if (this.#places.has(place)) this.#moving.add(place)
    return true
  }

  /** Tells everybody whether the stream moves, a few at a time: woken in one turn, ten thousand idle sockets would keep the
   *  others waiting for a fifth of a second. */
  tellPulse(withinMs: number): void {
    if (this.#telling !== null) clearInterval(this.#telling)
    const untold = this.#held()
    const atOnce = Math.ceil((untold.length * tellEveryMs) / withinMs)
    const tellSome = (): void => {
      for (const connection of untold.splice(0, atOnce)) connection.tellPulse()
      if (untold.length > 0 || this.#telling === null) return
      clearInterval(this.#telling)
      this.#telling = null
    }
    this.#telling = setInterval(tellSome, tellEveryMs)
    tellSome()
  }

  /** Tells everybody to go, each with a time of its own to come back, and waits until they are gone.
   *  @param spreadMs these times are spread evenly over it; null: as many milliseconds as there are connections, within bounds
   *  @param timeoutMs whoever is left then is cut off */
  async drain({ spreadMs, timeoutMs }: { spreadMs: number | null; timeoutMs: number }): Promise<void> {
    this.#isDraining = true
    const leaving = this.#held()
    const stepMs = (spreadMs ?? spreadOf(leaving.length)) / leaving.length
    for (const [place, connection] of leaving.entries()) {
      const retryAfterMs = Math.round((place + 1) * stepMs)
      connection.goAway(
        new TidegateError('GOING_AWAY', 'this node is shutting down; connect again and resume', { retryAfterMs }),
      )
    }
    if (this.#places.size > 0) await this.#emptyWithin(timeoutMs)
    this.terminate()
  }

  terminate(): void {
    this.#isDraining = true
    if (this.#telling !== null) clearInterval(this.#telling)
    for (const connection of [...this.#places.values()]) connection?.terminate()
  }

  #held(): Connection[] {
    return [...this.#places.values()].filter(connection => connection !== null)
  }

  #emptyWithin(timeoutMs: number): Promise<void> {
    return new Promise(resolve => {
      const timer = setTimeout(resolve, timeoutMs)
      this.#whenEmpty = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }
}

const tellEveryMs = 50

/** Who comes back costs the others about a millisecond: of reading its token, resuming, perhaps a snapshot. */
const spreadOf = (count: number): number => Math.min(Math.max(count, 1000), 20_000)
