// Who is here: every WebSocket, SSE stream and held long-poll of this node, counted and bounded.
import { TidegateError } from '../../protocol/tidegate-error.ts'

export interface Connection {
  /** Time has passed: heartbeats, expiry, silence. @param now milliseconds since 1970 */
  tick(now: number): void
  /** Tells the client whether the stream moves, where it can be told: that has changed. */
  tellPulse(): void
  /** Sends what waits for the client, tells it where it stands and to come back elsewhere, and ends. */
  goAway(error: TidegateError): void
  /** Ends at once, without a word. */
  terminate(): void
}

/** A place taken. */
export class Place {
  readonly #connections: Connections

  constructor(connections: Connections) {
    this.#connections = connections
  }

  hold(connection: Connection): void {
    this.#connections.hold(this, connection)
  }

  /** May be called more than once. */
  release(): void {
    this.#connections.release(this)
  }
}

export class Connections {
  readonly #max: number
  /** At most `max`; past it a newcomer is told TOO_MANY_CONNECTIONS. */
  readonly #places = new Map<Place, Connection | null>()
  #isDraining = false
  #telling: NodeJS.Timeout | null = null
  #whenEmpty: (() => void) | null = null

  constructor(max: number) {
    this.#max = max
  }

  get count(): number {
    return this.#places.size
  }

  get isDraining(): boolean {
    return this.#isDraining
  }

  /** @throws GOING_AWAY, TOO_MANY_CONNECTIONS */
  takePlace(): Place {
    this.refuseIfDraining()
    if (this.#places.size >= this.#max) {
      throw new TidegateError('TOO_MANY_CONNECTIONS', `this node holds ${this.#max} connections, its limit`)
    }
    const place = new Place(this)
    this.#places.set(place, null)
    return place
  }

  hold(place: Place, connection: Connection): void {
    // The client may have gone while its token was being checked.
    if (this.#places.has(place)) this.#places.set(place, connection)
  }

  release(place: Place): void {
    this.#places.delete(place)
    if (this.#places.size === 0) this.#whenEmpty?.()
  }

  /** @throws GOING_AWAY */
  refuseIfDraining(): void {
    if (this.#isDraining) throw new TidegateError('GOING_AWAY', 'this node is shutting down; connect again')
  }

  tick(now: number): void {
    for (const connection of this.#places.values()) connection?.tick(now)
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
