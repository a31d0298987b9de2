// What is done every second beside the stream: sample what SQL can see, let go of what is old, acknowledge the slot, send
// the heartbeat on its way through the WAL, look whether the catalog changed, once a minute delete old messages, and once an hour look
// at another's schema realtime.
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { RealtimeWatch } from '../admin/realtime-watch.ts'
import type { MessageSweep } from '../channels/sql/message-sweep.ts'
import type { Commit } from '../decode/change.ts'
import type { Gauges } from '../figures/gauges.ts'
import { WalAges } from '../figures/wal-ages.ts'
import type { Log } from '../log/log.ts'
import type { Trouble } from '../log/trouble.ts'
import { isAway, type Lane } from '../postgres/database.ts'
import type { Head } from '../relay/head.ts'
import type { Inlet } from '../relay/journal.ts'
import type { MemoryRelay } from '../relay/memory-relay.ts'
import type { Beacon } from '../wal/heartbeat.ts'
import { parseLsn } from '../wal/lsn.ts'
import { parseSnapshot } from '../wal/visibility.ts'
import type { WalStream } from '../wal/wal-source.ts'
import { BeaconWay } from './beacon-way.ts'
import type { CatalogWatch } from './catalog-watch.ts'
import { Isolation } from './isolation.ts'
import type { NodeView } from './readiness.ts'

export interface UpkeepOptions {
  readonly pool: Lane
  /** The deployment's: its slot is looked for by it. */
  readonly name: string
  readonly relay: MemoryRelay
  readonly head: Pick<Head, 'passedLsn'>
  readonly beacon: Beacon
  readonly beaconMs: number
  /** The session to acknowledge to, and what says how far; null while another node holds the slot. */
  readonly leading: () => { readonly stream: WalStream; readonly inlet: Inlet } | null
  /** Looks whether the catalog changed. */
  readonly watch: Pick<CatalogWatch, 'poll' | 'stop'>
  /** Deletes messages that have come through the stream. Done by the node that leads. */
  readonly messageSweep: Pick<MessageSweep, 'isDue' | 'sweep'>
  /** Warns of what is wrong with another's schema realtime. Done by the node that leads. */
  readonly realtimeWatch: Pick<RealtimeWatch, 'isDue' | 'look'>
  readonly log: Log
  /** Told when the database is away, and when the way through the WAL works again. */
  readonly trouble: Trouble
  /** Steady milliseconds since 1970, the beacon's own. */
  readonly now: () => number
}

/** What this node knows of itself, but for whether it is draining. */
export type UpkeepView = Omit<NodeView, 'draining'>

/** As Gauges tells it. */
export type WalLags = Pick<Gauges, 'slot'> & { readonly relayLagBytes: number; readonly relayLagSeconds: number }

const tickMs = 1000
/** Longer than a dead connection takes to be noticed and told: past it, what keeps heartbeats has no other witness. */
const unexplainedMs = 15_000
/** A second one is sent while the first hangs, on another connection: the first's may be dead. No more: they would pile up. */
const maxEmissions = 2

export class Upkeep {
  readonly #options: UpkeepOptions
  readonly #way: BeaconWay
  readonly #isolation: Isolation
  #lastEmittedMs = 0
  /** At most `maxEmissions`, one sample, one acknowledgement, one sweep and one look at the schema realtime. */
  readonly #underWay = new Set<Promise<void>>()
  #emissions = 0
  #isSampling = false
  #isAcknowledging = false
  /** WAL written when Postgres was last asked. */
  #insertLsn: bigint | null = null
  /** The slot as it stood then. */
  #slot: SlotSample | null = null
  readonly #ages = new WalAges()
  /** The last session acknowledged to, and how far. */
  #acknowledged: { readonly stream: WalStream; readonly lsn: bigint } | null = null
  #firstReturn: () => void = () => {}
  readonly #warned = new Set<string>()
  readonly ready: Promise<void>

  constructor(options: UpkeepOptions) {
    this.#options = options
    this.#way = new BeaconWay(options.beaconMs + tickMs)
    this.#isolation = new Isolation(options.now())
    this.ready = new Promise(resolve => {
      this.#firstReturn = resolve
    })
  }

  /** Nothing here waits for anything else: while Postgres does not answer one question, the others are asked. */
  async run(signal: AbortSignal): Promise<void> {
    const { watch, relay, now, messageSweep, realtimeWatch, leading } = this.#options
    signal.addEventListener('abort', () => watch.stop(), { once: true })
    while (!signal.aborted) {
      this.#isolation.looked(relay.passedLsn, now())
      this.#emitWhenDue()
      if (!this.#isSampling) this.#start('sample a snapshot', () => this.#sample())
      if (!this.#isAcknowledging) this.#start('acknowledge the slot', () => this.#acknowledge())
      void watch.poll()
      if (leading() !== null && messageSweep.isDue(now()))
        this.#start('delete old messages', async () => void (await messageSweep.sweep(now(), signal)))
      if (leading() !== null && realtimeWatch.isDue(now()))
        this.#start('look at the schema realtime', () => realtimeWatch.look(now()))
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
    await Promise.all(this.#underWay)
  }

  /** Looks at a served commit's messages for a heartbeat of ours. */
  received(commit: Commit): void {
    for (const message of commit.messages) {
      const beacon = this.#options.beacon.read(commit.xid, message)
      if (beacon === null) continue
      this.#way.cameBack(beacon.sentAtMs, this.#options.now())
      this.#options.trouble.over(beacon.sentAtMs)
      this.#firstReturn()
    }
  }

  /** `stale` when a heartbeat has been awaited for longer than an interval. `lagMs` is how long the newest was on its way,
   *  or how long one has been awaited. */
  pulse(): { stale: boolean; lagMs: number } {
    const { stale, lagMs } = this.#way.at(this.#options.now())
    return { stale, lagMs }
  }

  view(): UpkeepView {
    const { now, beaconMs, relay, head, leading } = this.#options
    const nowMs = now()
    const { stale, lagMs, sinceMs } = this.#way.at(nowMs)
    const behind = this.#insertLsn === null ? null : this.#insertLsn - head.passedLsn
    return {
      ...this.#isolation.at(nowMs),
      started: relay.epoch !== '' && this.#way.isProven,
      intervalMs: beaconMs + tickMs,
      stale,
      lagMs,
      lagBytes: behind === null ? null : Math.max(0, Number(behind)),
      since: sinceMs === null ? null : new Date(Date.now() - (nowMs - sinceMs)).toISOString(),
      leader: leading() !== null,
    }
  }

  /** How far behind the end of the WAL the slot and this node are; null before Postgres was asked. */
  lags(): WalLags | null {
    const { relay, now } = this.#options
    const endLsn = this.#insertLsn
    if (endLsn === null) return null
    const bytesBehind = (lsn: bigint): number => Math.max(0, Number(endLsn - lsn))
    const nowMs = now()
    return {
      slot:
        this.#slot === null
          ? null
          : {
              lagBytes: bytesBehind(this.#slot.confirmedLsn),
              lagSeconds: this.#ages.secondsBehind(this.#slot.confirmedLsn, nowMs),
              retainedBytes: this.#slot.restartLsn === null ? null : bytesBehind(this.#slot.restartLsn),
              walStatus: this.#slot.walStatus,
            },
      relayLagBytes: bytesBehind(relay.passedLsn),
      relayLagSeconds: this.#ages.secondsBehind(relay.passedLsn, nowMs),
    }
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

  /** Until the first came back, and while none does, every tick: the sooner it is known that the way is open. */
  #emitWhenDue(): void {
    const { beacon, beaconMs, now } = this.#options
    const nowMs = now()
    if (!this.#way.at(nowMs).stale && nowMs - this.#lastEmittedMs < beaconMs) return
    if (this.#emissions >= maxEmissions) return
    this.#lastEmittedMs = nowMs
    this.#way.sent(nowMs)
    this.#start('emit a heartbeat', async () => {
      this.#emissions += 1
      try {
        await beacon.emit('heartbeat')
      } finally {
        this.#emissions -= 1
      }
    })
  }

  async #sample(): Promise<void> {
    const { pool, relay, name, now } = this.#options
    this.#isSampling = true
    this.#isolation.asked(now())
    try {
      const { rows } = await pool.query<Sample>(sampleSql, [`^${name}_[0-9a-f]{8}$`])
      const { snapshot: text, inserted, confirmed, restart, wal_status } = rows[0]!
      const snapshot = parseSnapshot(text)
      relay.sampled(snapshot)
      this.#options.leading()?.inlet.sampled(snapshot)
      relay.evict()
      this.#insertLsn = parseLsn(inserted)
      this.#ages.saw(this.#insertLsn, now())
      const confirmedLsn = confirmed === null ? null : parseLsn(confirmed)
      const restartLsn = restart === null ? null : parseLsn(restart)
      this.#slot = confirmedLsn === null ? null : { confirmedLsn, restartLsn, walStatus: wal_status ?? 'lost' }
      if (confirmedLsn !== null) this.#ages.forget(confirmedLsn, relay.passedLsn)
      this.#isolation.looked(relay.passedLsn, now())
      this.#isolation.answered(confirmedLsn, now())
    } finally {
      this.#isSampling = false
    }
  }

  async #acknowledge(): Promise<void> {
    const leading = this.#options.leading()
    if (leading === null) return
    this.#isAcknowledging = true
    try {
      const { stream, inlet } = leading
      const lsn = await inlet.acknowledgeable()
      // The session may have ended meanwhile, and another begun, of another slot even.
      if (lsn === null || this.#options.leading()?.stream !== stream) return
      if (this.#acknowledged?.stream === stream && lsn <= this.#acknowledged.lsn) return
      stream.acknowledge(lsn)
      this.#acknowledged = { stream, lsn }
    } finally {
      this.#isAcknowledging = false
    }
  }

  #start(what: string, work: () => Promise<void>): void {
    const started = this.#try(what, work).finally(() => this.#underWay.delete(started))
    this.#underWay.add(started)
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

interface Sample {
  readonly snapshot: string
  /** Everything written before it. */
  readonly inserted: string
  /** Of the slot that is acknowledged furthest, as the rest. */
  readonly confirmed: string | null
  readonly restart: string | null
  readonly wal_status: string | null
}

interface SlotSample {
  readonly confirmedLsn: bigint
  /** Null: it is invalid. */
  readonly restartLsn: bigint | null
  readonly walStatus: string
}

/** One round trip a second: what SQL sees, how far the WAL is, how far the slot is acknowledged, and what it holds back. */
const sampleSql = `SELECT pg_current_snapshot()::text AS snapshot, pg_current_wal_insert_lsn()::text AS inserted,
  confirmed_flush_lsn::text AS confirmed, restart_lsn::text AS restart, wal_status
  FROM (SELECT) AS one LEFT JOIN LATERAL (SELECT confirmed_flush_lsn, restart_lsn, wal_status FROM pg_replication_slots
    WHERE database = current_database() AND plugin = 'pgoutput' AND NOT temporary AND slot_name ~ $1 AND confirmed_flush_lsn IS NOT NULL
    ORDER BY confirmed_flush_lsn DESC LIMIT 1) AS slot ON true`
