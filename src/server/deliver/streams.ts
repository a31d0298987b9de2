// The streams of this node, found by what their clients send to; what is for a stream of another node is handed on.
import { randomBytes } from 'node:crypto'
import { errorBodyOf, TidegateError } from '../../protocol/tidegate-error.ts'
import type { Principal } from '../subscribe/subscription.ts'
import { postingOf } from './frame-body.ts'
import { streamUnknown } from './frame-inbox.ts'
import type { GatewayLimits } from './limits.ts'
import type { Peers } from './peers.ts'
import { canRenew } from './renewal.ts'
import type { FrameStream } from './stream-carrier.ts'

/** From node to node. */
interface Handed {
  readonly key: string
  readonly role: string
  readonly sub?: unknown
  readonly body: string
}

export interface StreamsOptions {
  readonly limits: Pick<GatewayLimits, 'maxFrameBytes' | 'postWaitMs'>
  /** Null: this node is alone. */
  readonly peers: Peers | null
}

export class Streams {
  readonly #options: StreamsOptions
  /** At most one for each connection. */
  readonly #open = new Map<string, FrameStream>()

  constructor(options: StreamsOptions) {
    this.#options = options
    options.peers?.answerBy(question => this.#answer(question))
  }

  get size(): number {
    return this.#open.size
  }

  /** A secret, unlike the connection's name, which others in its channels see; with the node that has the stream. */
  newKey(): string {
    const { peers } = this.#options
    return randomBytes(16).toString('base64url') + (peers === null ? '' : `.${peers.nodeId}`)
  }

  add(key: string, stream: FrameStream): void {
    this.#open.set(key, stream)
  }

  remove(key: string): void {
    this.#open.delete(key)
  }

  /** Hands frames to the session of a stream, on whichever node it is.
   *  @param principal who sends them @param body see `postingSchema`
   *  @throws STREAM_UNKNOWN where it is over, another subject's, or never was; BAD_FRAME, FRAME_TOO_LARGE, UNAVAILABLE */
  async post(key: string, principal: Principal, body: string): Promise<void> {
    const { peers } = this.#options
    const nodeId = key.split('.')[1] ?? null
    if (nodeId === null || nodeId === peers?.nodeId) return this.#take(key, principal, body)
    if (peers === null || !/^[0-9a-f]{1,32}$/.test(nodeId)) throw streamUnknown()
    const handed: Handed = { key, role: principal.role, sub: principal.claims.sub, body }
    const answer = await peers.ask(nodeId, JSON.stringify(handed))
    if (answer === null) throw streamUnknown()
    const refusal = JSON.parse(answer)
    if (refusal !== null) throw new TidegateError(refusal.code, refusal.message, refusal)
  }

  async #take(key: string, principal: Principal, body: string): Promise<void> {
    const stream = this.#open.get(key)
    const owner = stream?.session.principal ?? null
    if (stream === undefined || owner === null || !canRenew(owner, principal)) throw streamUnknown()
    const { seq, frames, close } = postingOf(body, this.#options.limits.maxFrameBytes)
    await inTime(stream.inbox.post(seq, frames), this.#options.limits.postWaitMs)
    if (close) stream.close()
  }

  async #answer(question: string): Promise<string> {
    try {
      const { key, role, sub, body }: Handed = JSON.parse(question)
      await this.#take(key, { role, claims: sub === undefined ? {} : { sub }, expiresAt: null }, body)
      return 'null'
    } catch (error) {
      return JSON.stringify(errorBodyOf(error))
    }
  }
}

async function inTime(taken: Promise<void>, ms: number): Promise<void> {
  const late = Promise.withResolvers<never>()
  const refuse = (): void =>
    late.reject(
      new TidegateError(
        'UNAVAILABLE',
        'the stream takes no frames now: read it, and send these again under the same seq',
        {
          retryAfterMs: 1000,
        },
      ),
    )
  const timer = setTimeout(refuse, ms)
  try {
    await Promise.race([taken, late.promise])
  } finally {
    clearTimeout(timer)
  }
}
