// The replication session over its many lives: finds or makes the slot, streams from it, and comes back when the
// connection is lost. Nothing is lost in between, because the slot keeps what was not acknowledged.
import { setTimeout as sleep } from 'node:timers/promises'
import type { OperatorCode } from '../../protocol/operator-codes.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Log } from '../log/log.ts'
import { Trouble } from '../log/trouble.ts'
import type { Lane } from '../postgres/database.ts'
import { connectionOf, settled } from '../postgres/postgres-url.ts'
import { steadyNow } from '../steady-clock.ts'
import { backoffMs } from './backoff.ts'
import { Leadership, type Turn } from './leadership.ts'
import { formatLsn } from './lsn.ts'
import { assertOwnSession } from './own-session.ts'
import { assertReady, keepSizeWarning, reach, readFacts, standbyWarning } from './preflight.ts'
import { ReplicationStream } from './replication-stream.ts'
import { assertDeploymentName, isInUse, isOverLimit, overLimit, readSlots, stateOf } from './slot.ts'
import { decideEpoch, needsHistory, parseHistory } from './timeline.ts'
import type { Held, SlotState, WalStream } from './wal-source.ts'

export interface ReplicationOptions {
  readonly databaseUrl: string
  /** For looks at the slot. */
  readonly pool: Lane
  /** For the one who makes or takes the slot: a connection for as long as that takes, half a minute at most. Left out: of
   *  the same. */
  readonly turns?: Lane
  /** The deployment: its slot is `<name>_<8 hex digits>`. */
  readonly name: string
  readonly publication: string
  readonly log: Log
  /** Told when a session ends or cannot start; left out: one of its own. */
  readonly trouble?: Trouble
  /** WAL that the slot may make the server keep, before it is dropped to save the disk. */
  readonly slotMaxBytes: number
  /** The relay's head, null if it holds nothing. A slot acknowledged past it has a gap.
   *  @param slotName the slot about to be read: of another slot's epoch the relay holds nothing that counts */
  readonly resumeFrom: (slotName: string) => bigint | null
  /** What is held of this slot's epoch, where nodes share it; left out: what `resumeFrom` says of the life before. */
  readonly held?: (slotName: string) => Promise<Held | null>
  /** Whether this node could lead now, asked before it tries; left out: it is the only node, and always could. */
  readonly mayLead?: () => Promise<boolean>
  /** How long the process of the leader has shown no sign of life; null when that is not known. From four seconds on the
   *  leader's session is ended. */
  readonly leaderSilentMs?: () => number | null
  /** How soon Postgres lets go of the slot when this process freezes; 0 is never. */
  readonly walSenderTimeoutMs?: number
  readonly statusIntervalMs?: number
  /** How often the slot's retained WAL is compared with its limit. */
  readonly slotCheckMs?: number
  /** How long transactions that were running may hold up a new slot. */
  readonly createTimeoutMs?: number
  /** What may be read and not yet taken; beyond it the socket is not read. */
  readonly maxPendingBytes?: number
}

export interface Life {
  readonly slot: SlotState
  readonly stream: WalStream
}

type OpenLife = Life & { readonly stream: ReplicationStream }

const retry = { firstMs: 250, maxMs: 10_000 }
/** A life this long starts the backoff anew. */
const stableMs = 10_000
/** Longer than whoever waits in line takes to look and to connect. */
const stepBackMs = 1000
const startTimeoutMs = 10_000

/** These stop a start; later on the operator may be at work, so they are logged and tried again. */
const startCodes: readonly OperatorCode[] = [
  'CONFIG_INVALID',
  'DATABASE_UNREACHABLE',
  'DATABASE_POOLED',
  'WAL_LEVEL',
  'NOT_REPLICATION',
  'VERSION_UNSUPPORTED',
  'PUBLICATION_MISSING',
  'SLOT_BLOCKED',
]

export class Replication {
  readonly #options: Required<ReplicationOptions> & { readonly hasPeers: boolean }
  /** The slot as the last life found it. */
  #last: SlotState | null = null

  /** @throws CONFIG_INVALID */
  constructor(options: ReplicationOptions) {
    assertDeploymentName(options.name)
    const walSenderTimeoutMs = options.walSenderTimeoutMs ?? 5000
    this.#options = {
      walSenderTimeoutMs,
      statusIntervalMs: walSenderTimeoutMs === 0 ? 10_000 : Math.max(100, Math.min(walSenderTimeoutMs / 3, 10_000)),
      slotCheckMs: 10_000,
      createTimeoutMs: 30_000,
      maxPendingBytes: 8 * 2 ** 20,
      trouble: new Trouble(options.log, steadyNow),
      held: async slotName => this.#remembered(slotName),
      mayLead: async () => true,
      leaderSilentMs: () => null,
      turns: options.pool,
      hasPeers: options.mayLead !== undefined,
      ...options,
    }
  }

  /** One element per connected life; ask for the next when `gulps()` of the last has thrown. Ends when the signal aborts.
   *  @throws before the first life, what an operator must mend: DATABASE_UNREACHABLE, DATABASE_POOLED, VERSION_UNSUPPORTED, WAL_LEVEL,
   *    NOT_REPLICATION, PUBLICATION_MISSING, SLOT_BLOCKED. After it every failure is logged and tried again. */
  async *lives(signal: AbortSignal): AsyncIterable<Life> {
    const { trouble } = this.#options
    const leadership = new Leadership(this.#options)
    let lived = false
    let attempt = 0
    while (!signal.aborted) {
      let life: OpenLife | null = null
      let atLeastMs = 0
      const began = performance.now()
      try {
        life = await this.#begin(leadership, signal, !lived)
      } catch (error) {
        if (signal.aborted) return
        const isStart = !lived && !leadership.hasWaited
        if (isStart && error instanceof TidegateError && startCodes.some(code => code === error.code)) throw error
        trouble.noticed(error)
        // Who stood in line for long failed for the first time.
        if (performance.now() - began > stableMs) attempt = 0
      }
      if (life !== null) {
        lived = true
        const startedAt = performance.now()
        void this.#watch(life)
        let wasCut = false
        try {
          yield life
        } finally {
          wasCut = isCut(life.stream.ending)
          await life.stream.close()
        }
        const wasStable = performance.now() - startedAt > stableMs
        if (wasStable) attempt = 0
        // A link that was cut once is no reason to be slow. Who cannot keep the slot, or gave it up, steps behind those in line.
        if (!wasCut || !wasStable) atLeastMs = stepBackMs
      }
      const delayMs = atLeastMs + backoffMs(attempt, Math.random(), retry)
      await sleep(delayMs, undefined, { signal }).catch(() => {})
      attempt += 1
    }
  }

  async #begin(leadership: Leadership, signal: AbortSignal, first: boolean): Promise<OpenLife> {
    const { databaseUrl, pool, publication, log, slotMaxBytes } = this.#options
    const facts = await reach(databaseUrl, async () => {
      await assertOwnSession(pool)
      return readFacts(pool, publication)
    })
    assertReady(facts, publication)
    const warnings = first ? [keepSizeWarning(facts, slotMaxBytes), standbyWarning(facts)] : []
    for (const warning of warnings) if (warning !== null) log.warn(warning)
    for (;;) {
      const turn = await leadership.turn(signal)
      try {
        const life = await this.#stream(turn, signal)
        leadership.leads(life.slot.slotName, life.stream.serverPid)
        return life
      } catch (error) {
        // By whoever knows nothing of the lock: a node of an earlier release, pg_recvlogical.
        if (signal.aborted || !isInUse(error)) throw error
      } finally {
        await turn.end()
      }
    }
  }

  async #stream({ slot, created, held }: Turn, signal: AbortSignal): Promise<OpenLife> {
    const { databaseUrl, publication, log, walSenderTimeoutMs, statusIntervalMs } = this.#options
    const { slotName, confirmedFlushLsn } = slot
    const connection = await reach(databaseUrl, () => settled(connectionOf(databaseUrl)))
    const stream = new ReplicationStream({
      connection,
      publication,
      slotName,
      confirmedFlushLsn,
      walSenderTimeoutMs,
      statusIntervalMs,
      // By then Postgres, where it hears as little, has let go. In the midst of decoding it answers after half its timeout.
      silenceMs: walSenderTimeoutMs === 0 ? 6 * statusIntervalMs : 1.5 * walSenderTimeoutMs,
      maxPendingBytes: this.#options.maxPendingBytes,
      startTimeoutMs,
      makeFailover: slot.failover === false,
      needsHistory: system => needsHistory(held, system, slotName),
      signal,
    })
    const { systemId, timeline, history, failoverError } = await stream.start()
    const question = { system: { systemId, timeline }, slotName, held, history: parseHistory(history ?? '') }
    const { epoch, lost } = decideEpoch(question)
    if (lost !== null) {
      this.#options.trouble.count('HISTORY_DIVERGED')
      log.error(
        { code: 'HISTORY_DIVERGED' satisfies OperatorCode, slot: slotName, epoch },
        `${lost}; a new epoch starts and every client resyncs`,
      )
    }
    if (failoverError !== null)
      log.warn(
        { err: failoverError, slot: slotName },
        'no standby keeps the slot: a failover of Postgres would lose it',
      )
    log.info(
      { slot: slotName, epoch, timeline, from: formatLsn(confirmedFlushLsn), created },
      created
        ? 'streaming from a new slot: an epoch begins, and a client with a position of another one starts over'
        : 'streaming from the slot',
    )
    this.#last = { slotName, systemId, timeline, epoch, confirmedFlushLsn, created }
    return { slot: this.#last, stream }
  }

  /** What this process itself holds of the life before. */
  #remembered(slotName: string): Held | null {
    const last = this.#last
    const headEndLsn = this.#options.resumeFrom(slotName)
    if (last?.slotName !== slotName || headEndLsn === null) return null
    return { epoch: last.epoch, timeline: last.timeline, headEndLsn }
  }

  /** Compares the slot with its limit until the life is over. */
  async #watch(life: { slot: SlotState; stream: ReplicationStream }): Promise<void> {
    const { pool, name, log, slotMaxBytes, slotCheckMs } = this.#options
    const over = new AbortController()
    life.stream.over.then(() => over.abort())
    for (;;) {
      await sleep(slotCheckMs, undefined, { signal: over.signal }).catch(() => {})
      if (over.signal.aborted) return
      try {
        const slot = (await readSlots(pool, name)).find(each => each.slotName === life.slot.slotName)
        // The next life finds it so and drops it, for it can be dropped only when nobody streams from it.
        if (slot !== undefined && isOverLimit(slot, slotMaxBytes))
          life.stream.fail(new TidegateError('SLOT_OVER_LIMIT', overLimit(slot, slotMaxBytes)))
      } catch (error) {
        // A fast shutdown waits until we have read everything. A stalled reader would keep it waiting.
        if (life.stream.isStalled && isShuttingDown(error))
          life.stream.fail(new TidegateError('DATABASE_UNREACHABLE', 'the database is shutting down', { cause: error }))
        log.debug({ err: error }, 'the slot could not be inspected')
      }
    }
  }
}

/** 57P03 cannot_connect_now, 57P01 admin_shutdown. */
const isShuttingDown = (error: unknown): boolean => ['57P03', '57P01'].includes(stateOf(error))

/** Whether a life ended by its connection alone: not by us, and not by someone who meant it, with pg_terminate_backend
 *  (57P01 admin_shutdown). */
const isCut = (ending: TidegateError | null | undefined): boolean =>
  ending !== undefined && ending !== null && stateOf(ending) !== '57P01'
