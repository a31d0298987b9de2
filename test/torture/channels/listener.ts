// One who listens to a channel: comes to any node over any wire, hops, is cut off and comes back where it stood.
import type { Random } from '../../checker/random.ts'
import { type Transport, transports } from '../../checker/wires.ts'
import type { TorturedNode, TorturedNodes } from '../nodes.ts'
import type { ChannelJudge } from './judge.ts'
import { Mirror } from './mirror.ts'
import { type Hearing, hear, NotLetIn } from './wires.ts'

export interface ListenerOptions {
  readonly judge: ChannelJudge
  readonly token: string
  readonly nodes: TorturedNodes
  readonly random: Random
  /** How long an answer may take, and a connection say nothing, before it is given up; longer after failures. */
  readonly patienceMs: number
}

export class Listener {
  readonly judge: ChannelJudge
  readonly mirror = new Mirror()
  connected = false
  paused = false
  /** Its connection's name, while it is listed as being there. */
  tracked: string | null = null
  /** performance.now(), when it was last refused because it may not be there. */
  refusedAt = 0
  /** performance.now(), when it was last told anything. */
  heardAt = 0
  hops = 0
  readonly #options: ListenerOptions
  #wire: Transport | null = null
  #isResting = false
  #failures = 0

  constructor(options: ListenerOptions) {
    this.judge = options.judge
    this.#options = options
  }

  pause(): void {
    if (this.#wire !== 'websocket') return
    this.paused = true
    this.#hearing?.pause()
  }

  goOn(): void {
    this.paused = false
    this.#hearing?.goOn()
  }

  #hearing: Hearing | null = null

  /** From now on it stays where it is; cut off, it comes back. */
  rest(): void {
    this.#isResting = true
    if (this.paused) this.goOn()
  }

  hopOn(): void {
    this.#isResting = false
  }

  /** Until the signal aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const { random, nodes } = this.#options
    while (!signal.aborted) {
      const node = random.pick(nodes.all)
      const isRefused = await this.#visit(node, signal)
      await sleep(isRefused ? 200 + random.below(300) : random.below(50 * 2 ** Math.min(this.#failures, 5)))
    }
  }

  /** @returns whether it may not be there */
  async #visit(node: TorturedNode, signal: AbortSignal): Promise<boolean> {
    const { judge, random, token } = this.#options
    const wire = random.pick(transports)
    if (this.#wire !== null && wire !== this.#wire) this.hops += 1
    this.#wire = wire
    const { life } = node
    const patienceMs = this.#options.patienceMs * (1 + Math.min(this.#failures, 5))
    const presence = wire !== 'long-poll'
    const askedAt = performance.now()
    this.heardAt = askedAt
    this.mirror.clear()
    const { promise: ended, resolve: end } = Promise.withResolvers<string>()
    let isOver = false
    try {
      this.#hearing = await hear({
        ...{ url: node.toClients.url, wire, token, topic: judge.room.topic, since: judge.since, presence, patienceMs },
        onHeard: (heard, position) => {
          if (isOver) return
          this.heardAt = performance.now()
          if (heard.kind === 'joined' && presence) this.tracked = heard.connection
          if (heard.kind === 'message') this.#failures = 0
          judge.take(heard, position, life)
          if (heard.kind === 'presence')
            try {
              this.mirror.take(heard.presence)
            } catch (error) {
              judge.find('wrong', `presence: ${String(error)}; ${JSON.stringify(heard.presence).slice(0, 400)}`)
              isOver = true
              end('given up')
            }
        },
        onEnd: end,
      })
      this.connected = true
      const hopAt = askedAt + 500 + random.below(8000)
      const code = await this.#stay({ ended, hopAt, patienceMs, signal })
      if (code !== null) judge.ended(code, life, wire === 'long-poll' ? null : askedAt)
      return code === 'CHANNEL_CLOSED' || code === 'CHANNEL_REFUSED'
    } catch (error) {
      if (!(error instanceof NotLetIn)) {
        this.#failures += 1
        return false
      }
      if (error.code === 'CHANNEL_REFUSED') this.refusedAt = askedAt
      else this.#failures += 1
      judge.ended(error.code, life, null)
      return error.code === 'CHANNEL_REFUSED'
    } finally {
      isOver = true
      this.#hearing?.close()
      this.#hearing = null
      this.connected = false
      this.paused = false
      this.tracked = null
    }
  }

  /** @returns why it ended; null when it left by itself */
  async #stay(until: {
    readonly ended: Promise<string>
    readonly hopAt: number
    readonly patienceMs: number
    readonly signal: AbortSignal
  }): Promise<string | null> {
    const { ended, hopAt, patienceMs, signal } = until
    for (;;) {
      const code = await Promise.race([ended, sleep(50).then(() => null)])
      if (code !== null) {
        if (code === 'closed') this.#failures += 1
        return code
      }
      const now = performance.now()
      if (signal.aborted || (!this.#isResting && now > hopAt && !this.paused)) return null
      if (!this.paused && now - this.heardAt > patienceMs) {
        this.judge.note('heard nothing, and gives up')
        this.#failures += 1
        return null
      }
    }
  }
}

const sleep = (ms: number): Promise<void> => new Promise(resolve => setTimeout(resolve, ms))
