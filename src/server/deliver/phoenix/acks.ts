// Tells how far a client is known to have got what was sent to it: a ping goes in the order of the frames, its pong comes once
// everything before it has arrived. Pure but for its clock's reading, which is given.

/** Between two pings to a client that is sent something. What was sent within it before a socket breaks may come twice. */
const askEveryMs = 1000

/** Of a node: past it each client is asked more rarely. A ping and its pong cost about as much as two deliveries. */
const asksPerSecond = 1000

/** @param sockets of this node */
const everyMsOf = (sockets: number): number => Math.max(askEveryMs, (sockets * 1000) / asksPerSecond)

export class Acks {
  #number = 0
  /** The ping that is not answered yet. */
  #asked: number | null = null
  #askedAt: number
  #hasSent = false
  readonly #idleMs: number

  /** @param idleMs a client that is sent nothing is asked so often, so that it is seen whether it is there */
  constructor(now: number, idleMs: number) {
    // Whoever has just come back is asked at once: cut off again, it would get everything once more.
    this.#askedAt = now - askEveryMs
    this.#idleMs = idleMs
  }

  /** Something was sent that may have to be sent again. */
  sent(): void {
    this.#hasSent = true
  }

  /** Whether something was sent that is not known to have arrived. */
  get isOwed(): boolean {
    return this.#hasSent || this.#asked !== null
  }

  /** One at a time: the next one goes when the last one was answered. @param sockets of this node */
  isDue(now: number, sockets: number): boolean {
    if (this.#asked !== null) return false
    return now - this.#askedAt >= (this.#hasSent ? Math.min(everyMsOf(sockets), this.#idleMs) : this.#idleMs)
  }

  /** @returns a whole WebSocket ping, to be sent behind everything that was sent */
  ask(now: number): Buffer {
    this.#number = (this.#number + 1) >>> 0
    this.#asked = this.#number
    this.#askedAt = now
    this.#hasSent = false
    const frame = Buffer.alloc(6)
    frame[0] = finPing
    frame[1] = 4
    frame.writeUInt32BE(this.#number, 2)
    return frame
  }

  /** @returns whether this pong answers the last ping */
  answered(payload: Buffer): boolean {
    if (this.#asked === null || payload.length !== 4 || payload.readUInt32BE(0) !== this.#asked) return false
    this.#asked = null
    return true
  }
}

const finPing = 0x89
