// What is done every second beside the stream: sample what SQL can see, let go of what is old, acknowledge the slot, send
// the heartbeat on its way through the WAL, and look whether the catalog changed.
import type pg from 'pg'
import { TidegateError } from '../protocol/tidegate-error.ts'
import type { CatalogWatch } from './catalog-watch.ts'
import { isAway } from './database.ts'
import type { Commit } from './decode/change.ts'
import type { Log } from './log.ts'
import type { Inlet } from './relay/journal.ts'
import type { MemoryRelay } from './relay/memory-relay.ts'
import type { Trouble } from './trouble.ts'
import type { Beacon } from './wal/heartbeat.ts'
import { parseSnapshot } from './wal/visibility.ts'
import type { WalStream } from './wal/wal-source.ts'

export interface UpkeepOptions {
  readonly pool: pg.Pool
  readonly relay: MemoryRelay
  readonly beacon: Beacon
  readonly beaconMs: number
  /** The session to acknowledge to, and what says how far; null while another node holds the slot. */
  readonly leading: () => { readonly stream: WalStream; readonly inlet: Inlet } | null
  /** Looks whether the catalog changed. */
  readonly watch: Pick<CatalogWatch, 'poll' | 'stop'>
  readonly log: Log
  /** Told when the database is away, and when the way through the WAL works again. */
  readonly trouble: Trouble
  readonly now: () => number
}

const tickMs = 1000
/** Longer than a dead connection takes to be noticed and told: past it, what keeps heartbeats has no other witness. */
const unexplainedMs = 15_000

export class Upkeep {
  readonly #options: UpkeepOptions
  #lastEmittedMs = 0
  /** The last session acknowledged to, and how far. */
  #acknowledged: { readonly stream: WalStream; readonly lsn: bigint } | null = null
  /** When the newest heartbeat that came back was sent and received. */
  #returned: { sentAtMs: number; receivedAtMs: number } | null = null
  #firstReturn: () => void = () => {}
  readonly #warned = new Set<string>()
  readonly ready: Promise<void>

  constructor(options: UpkeepOptions) {
    this.#options = options
    this.ready = new Promise(resolve => {
      this.#firstReturn = resolve
    })
  }

  async run(signal: AbortSignal): Promise<void> {
    const { watch } = this.#options
    signal.addEventListener('abort', () => watch.stop(), { once: true })
    while (!signal.aborted) {
      // Each by itself: a catalog that cannot be read must not keep the slot from being acknowledged.
      await this.#try('emit a heartbeat', () => this.#emit())
      await this.#try('sample a snapshot', () => this.#sample())
      await this.#try('acknowledge the slot', () => this.#acknowledge())
      // Not waited for: a table that a migration has locked must not hold up a heartbeat.
      void watch.poll()
      this.#lookAtPulse()
      await new Promise<void>(resolve => {
        const timer = setTimeout(done, tickMs)
        function done(): void {
          clearTimeout(timer)
          signal.removeEventListener('abort', done)
          resolve()
        }
        signal.addEventListener('abort', done)
      })
    }
  }

  /** Looks at a served commit's messages for a heartbeat of ours. */
  received(commit: Commit): void {
    for (const message of commit.messages) {
      const beacon = this.#options.beacon.read(commit.xid, message)
      if (beacon === null) continue
      this.#returned = { sentAtMs: beacon.sentAtMs, receivedAtMs: this.#options.now() }
      this.#options.trouble.over(beacon.sentAtMs)
      this.#firstReturn()
    }
  }

  /** `stale` when no heartbeat came back for three intervals. `lagMs` is how long the newest was on its way, or how long
   *  one has been awaited. */
  pulse(): { stale: boolean; lagMs: number } {
    const { now, beaconMs } = this.#options
    if (this.#returned === null) return { stale: true, lagMs: 0 }
    const { sentAtMs, receivedAtMs } = this.#returned
    const silentMs = now() - receivedAtMs
    const stale = silentMs > beaconMs * 3 + tickMs
    return { stale, lagMs: Math.max(0, stale ? silentMs : receivedAtMs - sentAtMs) }
  }

  /** Postgres answers and the session stands, but what is written does not come: said too, with what is known. */
  #lookAtPulse(): void {
    const { trouble } = this.#options
    const { stale, lagMs } = this.pulse()
    if (!stale || lagMs < unexplainedMs || trouble.isOpen) return
    trouble.noticed(
      new TidegateError(
        'STREAM_BEHIND',
        `no heartbeat has come back through the WAL for ${lagMs} ms, though Postgres answers`,
      ),
    )
  }

  async #emit(): Promise<void> {
    const { beacon, beaconMs, now } = this.#options
    // Until the first came back, every tick: a server that starts is ready as soon as the way is open.
    if (this.#returned !== null && now() - this.#lastEmittedMs < beaconMs) return
    this.#lastEmittedMs = now()
    await beacon.emit('heartbeat')
  }

  async #sample(): Promise<void> {
    const { pool, relay } = this.#options
    const result = await pool.query<{ snapshot: string }>('SELECT pg_current_snapshot()::text AS snapshot')
    const snapshot = parseSnapshot(result.rows[0]!.snapshot)
    relay.sampled(snapshot)
    this.#options.leading()?.inlet.sampled(snapshot)
    relay.evict()
  }

  async #acknowledge(): Promise<void> {
    const leading = this.#options.leading()
    if (leading === null) return
    const { stream, inlet } = leading
    const lsn = await inlet.acknowledgeable()
    // The session may have ended meanwhile, and another begun, of another slot even.
    if (lsn === null || this.#options.leading()?.stream !== stream) return
    if (this.#acknowledged?.stream === stream && lsn <= this.#acknowledged.lsn) return
    stream.acknowledge(lsn)
    this.#acknowledged = { stream, lsn }
  }

  async #try(what: string, work: () => Promise<void>): Promise<void> {
    const { trouble, now } = this.#options
    const beganMs = now()
    try {
      await work()
      this.#warned.delete(what)
    } catch (error) {
      if (isAway(error)) {
        trouble.noticed(error, beganMs)
        return
      }
      // Said once, until it works again.
      if (!this.#warned.has(what))
        this.#options.log.warn({ err: error }, `could not ${what}; trying again every second`)
      this.#warned.add(what)
    }
  }
}
