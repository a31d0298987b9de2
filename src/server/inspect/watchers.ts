// `GET /v1/inspect/stream`: whoever watches the node. What they are told is made once for all of them, and only while there are some.
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { sseEvent } from '../deliver/encode.ts'
import { type Exchange, whenOver } from '../deliver/exchange.ts'
import { refusalOf } from '../deliver/refusal.ts'
import { SendQueue, type Turn } from '../deliver/send-queue.ts'
import { sseHeaders } from '../deliver/sse.ts'
import type { CommitTraces } from '../figures/commit-trace.ts'
import type { Figures } from '../figures/figures.ts'
import type { Log } from '../log/log.ts'
import type { OperatorRoute } from '../operator/route.ts'
import { steadyNow } from '../steady-clock.ts'
import { CommitsRecord } from './commits-seen.ts'
import type { Overviews } from './overviews.ts'
import type { CommitsSeen } from './wire.ts'

export interface WatchersOptions {
  readonly overviews: Overviews
  readonly traces: CommitTraces
  readonly figures: Pick<Figures, 'commits'>
  readonly turn: Turn
  /** Whoever takes nothing for so long is let go. */
  readonly slowConsumerMs: number
  readonly log: Log
  readonly commitsEveryMs?: number
}

/** Past it BUSY. */
const maxWatchers = 8
const defaultCommitsEveryMs = 250

export class Watchers {
  readonly #options: WatchersOptions
  /** At most `maxWatchers`. */
  readonly #watchers = new Set<Watcher>()
  #commits: { readonly record: CommitsRecord; end(): void } | null = null
  #isClosed = false

  constructor(options: WatchersOptions) {
    this.#options = options
    options.overviews.onSample = () => {
      if (this.#watchers.size > 0) this.#tell(this.#overview())
    }
  }

  get route(): OperatorRoute {
    return { method: 'GET', path: '/v1/inspect/stream', answer: async exchange => this.#begin(exchange) }
  }

  /** Everybody is told to come back elsewhere. */
  close(): void {
    this.#isClosed = true
    const { log } = this.#options
    const refusal = refusalOf(goingAway(), log, Math.random)
    for (const watcher of [...this.#watchers]) watcher.end(sseEvent('error', refusal, null))
  }

  /** @throws BUSY, GOING_AWAY */
  #begin(exchange: Exchange): void {
    if (this.#isClosed) throw goingAway()
    if (this.#watchers.size >= maxWatchers)
      throw new TidegateError('BUSY', `${maxWatchers} watch this node already, the most`)
    const watcher = new Watcher(exchange, this.#options.turn)
    this.#watchers.add(watcher)
    whenOver(exchange, () => this.#over(watcher))
    watcher.start()
    watcher.tell(this.#overview())
    this.#commits ??= this.#follow()
  }

  #overview(): Buffer {
    return sseEvent('overview', this.#options.overviews.now(), null)
  }

  /** Traces are made while somebody listens. */
  #follow(): { readonly record: CommitsRecord; end(): void } {
    const { traces, figures, commitsEveryMs = defaultCommitsEveryMs } = this.#options
    const record = new CommitsRecord(() => figures.commits)
    const unwatch = traces.watch(record.take)
    const timer = setInterval(() => this.#tellCommits(record), commitsEveryMs)
    const end = (): void => {
      unwatch()
      clearInterval(timer)
    }
    return { record, end }
  }

  #tellCommits(record: CommitsRecord): void {
    const seen = record.look()
    if (seen === null) return
    let shared: Buffer | null = null
    for (const watcher of this.#watchers) {
      if (watcher.missed > 0 && !watcher.isSlow) watcher.tell(commitsEvent(seen, watcher.missed))
      else if (!watcher.isSlow) {
        shared ??= commitsEvent(seen, 0)
        watcher.tell(shared)
      } else {
        watcher.missed += seen.traces.length + seen.skipped
        continue
      }
      watcher.missed = 0
    }
  }

  #tell(event: Buffer): void {
    const { slowConsumerMs, log } = this.#options
    for (const watcher of [...this.#watchers]) {
      if (!watcher.isSlow) watcher.tell(event)
      else if (watcher.stalledMs > slowConsumerMs) {
        log.info('an inspector took nothing for too long; it may come back')
        watcher.destroy()
      }
    }
  }

  #over(watcher: Watcher): void {
    watcher.stop()
    this.#watchers.delete(watcher)
    if (this.#watchers.size > 0) return
    this.#commits?.end()
    this.#commits = null
  }
}

const goingAway = (): TidegateError => new TidegateError('GOING_AWAY', 'this node is shutting down; look at another')

const commitsEvent = ({ traces, skipped }: CommitsSeen, missed: number): Buffer =>
  sseEvent('commits', { traces, skipped: skipped + missed }, null)

/** One stream. While its reader has not taken what it was told, it is told nothing: at most two events wait for it. */
class Watcher {
  readonly #exchange: Exchange
  readonly #queue: SendQueue
  #isHeld = true
  /** Commits that it was not told of. */
  missed = 0

  constructor(exchange: Exchange, turn: Turn) {
    this.#exchange = exchange
    this.#queue = new SendQueue({
      turn,
      socket: exchange.request.socket,
      maxBytes: 1024 * 1024,
      bytesOf: () => nothing,
      now: steadyNow,
      onDrained: () => {},
    })
    // Nothing may reach the socket before the headers do.
    this.#queue.hold()
  }

  get isSlow(): boolean {
    return this.#isHeld || this.#queue.stalledSince !== null
  }

  get stalledMs(): number {
    const since = this.#queue.stalledSince
    return since === null ? 0 : steadyNow() - since
  }

  start(): void {
    const { response } = this.#exchange
    // The stream ends with its connection, and its bytes are written to the socket itself.
    response.removeHeader('Transfer-Encoding')
    response.writeHead(200, { ...sseHeaders, 'Cache-Control': 'no-store, no-transform' })
    response.flushHeaders()
    // Behind an answer to an earlier request of the connection the response has no socket yet.
    if (response.socket !== null) this.#release()
    else response.write(':\n\n', () => this.#release())
  }

  #release(): void {
    this.#isHeld = false
    this.#queue.release()
  }

  tell(event: Buffer): void {
    this.#queue.push(event)
  }

  end(event: Buffer): void {
    this.#queue.push(event)
    this.#queue.finish()
    this.#exchange.response.end()
  }

  destroy(): void {
    this.#exchange.request.socket.destroy()
  }

  stop(): void {
    this.#queue.stop()
  }
}

const nothing = Buffer.alloc(0)
