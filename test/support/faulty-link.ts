// A TCP link that a test can hurt: what a broken network looks like from both of its ends.
//
// Frozen, a direction takes nothing more from its sender, as a network that swallows the packets: the bytes stay in the
// sender's kernel, and come through when it thaws. An end that closes meanwhile is not noticed by the other one.
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'

/** `up` is from whoever connected to the server behind the link, `down` the way back. */
export type Direction = 'up' | 'down'

interface Way {
  readonly direction: Direction
  readonly from: Socket
  readonly to: Socket
  isFrozen: boolean
  /** Chunks on their way while the link delays, and when the last of them has arrived. */
  delayed: number
  arrived: Promise<void>
}

/** One connection over the link. */
class Pair {
  readonly near: Socket
  readonly far: Socket
  readonly ways: readonly [Way, Way]
  /** What the client said first: a start-up message, a request's head. */
  opening: Buffer = Buffer.alloc(0)

  constructor(near: Socket, far: Socket) {
    this.near = near
    this.far = far
    const way = (direction: Direction, from: Socket, to: Socket): Way => ({
      direction,
      from,
      to,
      isFrozen: false,
      delayed: 0,
      arrived: Promise.resolve(),
    })
    this.ways = [way('up', near, far), way('down', far, near)]
  }

  destroy(): void {
    this.near.destroy()
    this.far.destroy()
  }
}

export class FaultyLink {
  /** Address of the link itself, as the target's was written. */
  readonly url: string
  /** How long every chunk is under way. */
  delayMs = 0
  /** What passes in a second, on each way of each connection; null: as fast as it can. */
  bytesPerSecond: number | null = null
  /** Who connects is reset at once. */
  isRefusing = false
  /** Connections made in all. */
  accepted = 0
  readonly #server: Server
  #target: URL
  #idleMs: number | null = null
  readonly #pairs = new Set<Pair>()
  /** For connections still to come. */
  readonly #frozen = new Set<Direction>()

  private constructor(server: Server, target: URL) {
    this.#server = server
    this.#target = target
    const url = new URL(target)
    url.host = `127.0.0.1:${(server.address() as AddressInfo).port}`
    this.url = url.href.replace(/\/$/, '')
  }

  /** @param targetUrl of a database or an HTTP server on this machine */
  static async to(targetUrl: string): Promise<FaultyLink> {
    const server = createServer({ allowHalfOpen: true })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const link = new FaultyLink(server, new URL(targetUrl))
    server.on('connection', near => link.#join(near))
    return link
  }

  /** Connections that are there. */
  get size(): number {
    return this.#pairs.size
  }

  /** Ports from which the link's connections come, as its target sees them. */
  get ports(): (number | undefined)[] {
    return [...this.#pairs].map(({ far }) => far.localPort)
  }

  /** A connection over which nothing passes for so long is closed, as by a proxy that has waited long enough; null: never. */
  set idleMs(ms: number | null) {
    this.#idleMs = ms
    for (const { near } of this.#pairs) near.setTimeout(ms ?? 0)
  }

  /** Nothing passes any more over the connections that are there, in these directions.
   *  @param which of the connections, by what the client said first */
  freeze(directions: readonly Direction[] = ['up', 'down'], which: (opening: Buffer) => boolean = () => true): void {
    for (const pair of this.#pairs) {
      if (!which(pair.opening)) continue
      for (const way of pair.ways) if (directions.includes(way.direction)) halt(way)
    }
  }

  /** As `freeze`, also over connections that are made from now on. */
  isolate(directions: readonly Direction[] = ['up', 'down']): void {
    this.freeze(directions)
    for (const direction of directions) this.#frozen.add(direction)
  }

  /** All flows again. */
  thaw(): void {
    this.#frozen.clear()
    for (const pair of this.#pairs)
      for (const way of pair.ways) {
        if (!way.isFrozen) continue
        way.isFrozen = false
        if (way.from.destroyed) way.to.destroy()
        else way.from.resume()
      }
  }

  /** Connections made from now on go there, those that are there get a reset: as when a name comes to mean another server. */
  redirect(targetUrl: string): void {
    this.#target = new URL(targetUrl)
    this.cut()
  }

  /** Both ends get a reset. */
  cut(which: (opening: Buffer) => boolean = () => true): void {
    for (const { near, far, opening } of this.#pairs) {
      if (!which(opening)) continue
      near.resetAndDestroy()
      far.resetAndDestroy()
    }
  }

  /** One end gets a reset, and the other goes on waiting, until the link thaws.
   *  @param end `near` is whoever connected, `far` the server behind the link */
  leaveHalfOpen(end: 'near' | 'far', which: (opening: Buffer) => boolean = () => true): void {
    for (const pair of this.#pairs) {
      if (!which(pair.opening)) continue
      for (const way of pair.ways) halt(way)
      pair[end].resetAndDestroy()
    }
  }

  /** Whether one of its connections reaches the server from this local port. */
  carries(port: number): boolean {
    return this.#pairs.values().some(({ far }) => far.localPort === port)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const pair of this.#pairs) pair.destroy()
    this.#server.close()
    await once(this.#server, 'close')
  }

  #join(near: Socket): void {
    this.accepted += 1
    if (this.isRefusing) {
      near.on('error', () => {})
      near.resetAndDestroy()
      return
    }
    const { hostname, port } = this.#target
    const far = connect({ host: hostname, port: Number(port), allowHalfOpen: true, noDelay: true })
    near.setNoDelay()
    const pair = new Pair(near, far)
    this.#pairs.add(pair)
    near.setTimeout(this.#idleMs ?? 0)
    near.on('timeout', () => pair.destroy())
    near.once('data', chunk => {
      pair.opening = chunk
    })
    for (const way of pair.ways) {
      this.#carry(way)
      if (this.#frozen.has(way.direction)) halt(way)
    }
    for (const socket of [near, far]) {
      socket.on('error', () => {})
      socket.on('close', () => {
        if (near.destroyed && far.destroyed) this.#pairs.delete(pair)
      })
    }
  }

  #carry(way: Way): void {
    const { from, to } = way
    from.on('data', chunk => {
      if (this.bytesPerSecond !== null) {
        from.pause()
        way.delayed += 1
        way.arrived = way.arrived
          .then(() => this.#trickle(way, chunk))
          .then(() => {
            way.delayed -= 1
            if (!way.isFrozen) from.resume()
          })
        return
      }
      // One after the other, however the timers fire and whatever the delay is by then.
      if (this.delayMs > 0 || way.delayed > 0) {
        way.delayed += 1
        const due = new Promise<void>(resolve => setTimeout(resolve, this.delayMs))
        way.arrived = Promise.all([way.arrived, due]).then(() => {
          way.delayed -= 1
          to.write(chunk)
        })
      } else if (!to.write(chunk)) from.pause()
    })
    to.on('drain', () => {
      if (!way.isFrozen && way.delayed === 0) from.resume()
    })
    from.on('end', () => void way.arrived.then(() => to.end()))
    from.on('close', () => {
      // What happens to one end of a frozen link, the other end does not hear.
      if (!way.isFrozen) void way.arrived.then(() => to.destroySoon())
    })
  }

  /** At the pace of each moment; a way that is frozen meanwhile keeps the rest until it thaws. */
  async #trickle(way: Way, chunk: Buffer): Promise<void> {
    for (let at = 0; at < chunk.length && !way.to.destroyed; ) {
      const { bytesPerSecond } = this
      if (bytesPerSecond !== null || way.isFrozen) await new Promise(resolve => setTimeout(resolve, trickleMs))
      if (way.isFrozen) continue
      const size = bytesPerSecond === null ? chunk.length : Math.max(1, Math.round((bytesPerSecond * trickleMs) / 1000))
      way.to.write(chunk.subarray(at, at + size))
      at += size
    }
  }
}

/** How often a slow way lets something through. */
const trickleMs = 20

function halt(way: Way): void {
  way.isFrozen = true
  way.from.pause()
}
