// The replication session over its many lives: finds or makes the slot, streams from it, and comes back when the
// connection is lost. Nothing is lost in between, because the slot keeps what was not acknowledged.
import { setTimeout as sleep } from 'node:timers/promises'
import type pg from 'pg'
import type { OperatorCode } from '../../protocol/codes.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { createPool } from '../database.ts'
import type { Log } from '../log.ts'
import { Trouble } from '../trouble.ts'
import { backoffMs } from './backoff.ts'
import { formatLsn } from './lsn.ts'
import { assertReady, keepSizeWarning, readFacts, standbyWarning } from './preflight.ts'
import { ReplicationStream } from './replication-stream.ts'
import {
  assertDeploymentName,
  createSlot,
  decideSlot,
  dropSlot,
  epochOf,
  isOverLimit,
  overLimit,
  readSlots,
  type SlotRow,
} from './slot.ts'
import type { SlotState, WalStream } from './wal-source.ts'

export interface ReplicationOptions {
  readonly databaseUrl: string
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

const retry = { firstMs: 250, maxMs: 10_000 }
/** A life this long starts the backoff anew. */
const stableMs = 10_000
const pollMs = 250
const queryTimeoutMs = 5000
/** Whoever holds the slot for longer holds it up. */
const busyMs = 1000

/** These stop a start; later on the operator may be at work, so they are logged and tried again. */
const startCodes: readonly OperatorCode[] = [
  'CONFIG_INVALID',
  'DATABASE_UNREACHABLE',
  'WAL_LEVEL',
  'NOT_REPLICATION',
  'VERSION_UNSUPPORTED',
  'PUBLICATION_MISSING',
  'SLOT_BLOCKED',
]

export class Replication {
  readonly #options: Required<ReplicationOptions>
  /** The slot of the life before, to notice that someone dropped it. */
  #slotName: string | null = null
  /** Who streamed to us in the life before. */
  #serverPid: number | null = null

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
      trouble: new Trouble(options.log, Date.now),
      ...options,
    }
  }

  /** One element per connected life; ask for the next when `gulps()` of the last has thrown. Ends when the signal aborts.
   *  @throws before the first life, what an operator must mend: DATABASE_UNREACHABLE, VERSION_UNSUPPORTED, WAL_LEVEL,
   *    NOT_REPLICATION, PUBLICATION_MISSING, SLOT_BLOCKED. After it every failure is logged and tried again. */
  async *lives(signal: AbortSignal): AsyncIterable<Life> {
    const { databaseUrl, trouble } = this.#options
    const pool = createPool(databaseUrl, { maxConnections: 2, applicationName: 'tidegate slot', queryTimeoutMs })
    let lived = false
    let attempt = 0
    try {
      while (!signal.aborted) {
        let life: (Life & { stream: ReplicationStream }) | null = null
        try {
          life = await this.#begin(pool, signal, !lived)
        } catch (error) {
          if (signal.aborted) return
          if (!lived && error instanceof TidegateError && startCodes.some(code => code === error.code)) throw error
          trouble.noticed(error)
        }
        if (life !== null) {
          lived = true
          const startedAt = performance.now()
          void this.#watch(pool, life)
          try {
            yield life
          } finally {
            await life.stream.close()
          }
          if (performance.now() - startedAt > stableMs) attempt = 0
        }
        await sleep(backoffMs(attempt, Math.random(), retry), undefined, { signal }).catch(() => {})
        attempt += 1
      }
    } finally {
      await pool.end()
    }
  }

  async #begin(pool: pg.Pool, signal: AbortSignal, first: boolean): Promise<Life & { stream: ReplicationStream }> {
    const { databaseUrl, publication, log, slotMaxBytes, walSenderTimeoutMs } = this.#options
    const facts = await reach(databaseUrl, () => readFacts(pool, publication))
    assertReady(facts, publication)
    const warnings = first ? [keepSizeWarning(facts, slotMaxBytes), standbyWarning(facts)] : []
    for (const warning of warnings) if (warning !== null) log.warn(warning)
    for (;;) {
      const { slot, created } = await this.#acquire(pool, signal)
      const stream = new ReplicationStream({
        databaseUrl,
        publication,
        slotName: slot.slotName,
        confirmedFlushLsn: slot.confirmedFlushLsn,
        walSenderTimeoutMs,
        statusIntervalMs: this.#options.statusIntervalMs,
        silenceMs: walSenderTimeoutMs === 0 ? 6 * this.#options.statusIntervalMs : 2 * walSenderTimeoutMs,
        maxPendingBytes: this.#options.maxPendingBytes,
        signal,
      })
      try {
        const epoch = epochOf(await stream.start(), slot.slotName)
        this.#slotName = slot.slotName
        this.#serverPid = stream.serverPid
        const { slotName, confirmedFlushLsn } = slot
        log.info(
          { slot: slotName, epoch, from: formatLsn(confirmedFlushLsn), created },
          created
            ? 'streaming from a new slot: an epoch begins, and a client with a position of another one starts over'
            : 'streaming from the slot',
        )
        return { slot: { epoch, slotName, confirmedFlushLsn, created }, stream }
      } catch (error) {
        if (signal.aborted || !isInUse(error)) throw error
      }
    }
  }

  /** Finds our slot or makes one, and waits while another process streams from it. */
  async #acquire(pool: pg.Pool, signal: AbortSignal): Promise<{ slot: SlotRow; created: boolean }> {
    const { databaseUrl, name, log, slotMaxBytes, resumeFrom } = this.#options
    let waiting = null as { pid: number; since: number; isTold: boolean } | null
    for (;;) {
      signal.throwIfAborted()
      const decision = decideSlot({
        rows: await reach(databaseUrl, () => readSlots(pool, name)),
        slotMaxBytes,
        expected: this.#slotName,
        relayHead: slot => resumeFrom(slot.slotName),
      })
      if (decision.action === 'stream') return { slot: decision.slot, created: false }
      if (decision.action === 'create') {
        const slot = await this.#create(pool, decision.drop, decision.cause)
        if (slot !== null) return { slot, created: true }
      } else {
        const { pid, slot } = decision
        if (waiting?.pid !== pid) waiting = { pid, since: performance.now(), isTold: false }
        // Our own former session has not noticed yet that we are gone, and others only look in: neither is news.
        const isNews = pid !== this.#serverPid && performance.now() - waiting.since >= busyMs
        if (isNews && !waiting.isTold) {
          waiting.isTold = true
          const fields = { code: 'SLOT_BUSY', slot: slot.slotName, pid }
          log.warn(
            fields,
            'another process streams from the slot; waiting until it lets go. If it is no node that is about to end, stop it, or give this one another TIDEGATE_NAME',
          )
        }
      }
      await sleep(pollMs, undefined, { signal })
    }
  }

  /** @returns null if another node is at it, or someone took the slot in between: look again */
  async #create(
    pool: pg.Pool,
    drop: readonly SlotRow[],
    cause: { code: string; message: string } | null,
  ): Promise<SlotRow | null> {
    const { name, log, createTimeoutMs } = this.#options
    const client = await pool.connect()
    let failed = true
    try {
      // Two nodes that start at once would make a slot each.
      const key = `tidegate slot ${name}`
      const lock = await client.query<{ ok: boolean }>('SELECT pg_try_advisory_lock(hashtextextended($1, 0)) AS ok', [
        key,
      ])
      if (!lock.rows[0]!.ok) return null
      const left = (await readSlots(client, name)).filter(slot => !drop.some(each => each.slotName === slot.slotName))
      if (left.length > 0) return null
      if (cause !== null)
        log.error(
          { code: cause.code, slot: this.#slotName },
          `${cause.message}; a new epoch starts and every client resyncs`,
        )
      for (const slot of drop) await dropSlot(client, slot.slotName)
      this.#slotName = null
      const slotName = await createSlot(client, name, createTimeoutMs)
      const slot = (await readSlots(client, name)).find(each => each.slotName === slotName)
      await client.query('SELECT pg_advisory_unlock_all()')
      failed = false
      return slot ?? null
    } catch (error) {
      if (isInUse(error)) return null
      throw error
    } finally {
      // Destroyed unless all went well: that frees the lock, too.
      client.release(failed)
    }
  }

  /** Compares the slot with its limit until the life is over. */
  async #watch(pool: pg.Pool, life: { slot: SlotState; stream: ReplicationStream }): Promise<void> {
    const { name, log, slotMaxBytes, slotCheckMs } = this.#options
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

/** Names the database in errors of connecting; the password is left out. */
async function reach<T>(databaseUrl: string, ask: () => Promise<T>): Promise<T> {
  try {
    return await ask()
  } catch (error) {
    if (error instanceof TidegateError) throw error
    const { message } = error as Error
    const reason = message === '' ? String((error as { code?: unknown }).code) : message
    throw new TidegateError('DATABASE_UNREACHABLE', `no connection to ${place(databaseUrl)}: ${reason}`, {
      cause: error,
    })
  }
}

function place(databaseUrl: string): string {
  if (!URL.canParse(databaseUrl)) return 'the database'
  const url = new URL(databaseUrl)
  return `${url.username}@${url.host}${url.pathname}`
}

/** 55006 object_in_use. */
const isInUse = (error: unknown): boolean => codeOf(error) === '55006'

/** 57P03 cannot_connect_now, 57P01 admin_shutdown. */
const isShuttingDown = (error: unknown): boolean => ['57P03', '57P01'].includes(codeOf(error))

function codeOf(error: unknown): string {
  const cause = error instanceof TidegateError ? error.cause : error
  return String((cause as { code?: unknown } | null)?.code ?? '')
}
