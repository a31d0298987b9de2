// Who may try to take the slot, and when. Leadership is the slot itself: Postgres lets one connection stream from it. But
// each attempt on a slot in use costs a replication connection and an ERROR in Postgres's log, and with many nodes that is
// the one line an operator would learn to ignore. So whoever waits only looks, over the pool; who finds the slot free takes
// a lock before trying, and keeps it until the stream stands or has failed.
import { setTimeout as sleep } from 'node:timers/promises'
import type pg from 'pg'
import type { OperatorCode } from '../../protocol/operator-codes.ts'
import type { Log } from '../log/log.ts'
import type { Trouble } from '../log/trouble.ts'
import type { Lane } from '../postgres/database.ts'
import { reach } from './preflight.ts'
import {
  createSlot,
  decideSlot,
  dropSlot,
  isInUse,
  lookAt,
  type ServerLook,
  type SlotDecision,
  type SlotRow,
} from './slot.ts'
import type { Held } from './wal-source.ts'

export interface LeadershipOptions {
  readonly databaseUrl: string
  readonly pool: Lane
  /** For the one who has the turn, until it is over. */
  readonly turns: Lane
  readonly name: string
  readonly log: Log
  readonly trouble: Trouble
  readonly slotMaxBytes: number
  /** How long transactions that were running may hold up a new slot. */
  readonly createTimeoutMs: number
  /** What is held of this slot's epoch. */
  readonly held: (slotName: string) => Promise<Held | null>
  /** Where what is held ends, if that is all that is known of it. */
  readonly resumeFrom: (slotName: string) => bigint | null
  readonly mayLead: () => Promise<boolean>
  readonly leaderSilentMs: () => number | null
  /** Others of this deployment are expected to hold the slot. */
  readonly hasPeers: boolean
}

/** The right to try. */
export interface Turn {
  readonly slot: SlotRow
  /** Made just now. */
  readonly created: boolean
  readonly held: Held | null
  /** Lets the next one try: the stream stands, or has failed. */
  end(): Promise<void>
}

interface Waiting {
  readonly pid: number
  sinceMs: number
  lookedMs: number
  isTold: boolean
  /** Its session was ended by us: once is enough. */
  isEnded: boolean
}

/** Looked at this often, or up to twice as seldom, so that many nodes do not look at the same moment. */
const pollMs = 250
/** Whoever holds the slot for longer holds it up. */
const busyMs = 1000
/** A leader that shows no sign of life for this long is paused, cut off or dead. Its process sends one every second. */
const silentMs = 4000
/** Who has not looked for longer knows nothing of the time between: it was paused itself. */
const gapMs = 2000
/** The lock's session ends by itself when its holder is paused between taking it and streaming. */
const lockMs = 15_000

export class Leadership {
  readonly #options: LeadershipOptions
  /** The slot of the life before, to notice that someone dropped it, and who streamed to us in it. */
  #last: { readonly slotName: string | null; readonly pid: number | null } = { slotName: null, pid: null }
  #waiting: Waiting | null = null
  #toldStandby = false
  #hasWaited = false

  constructor(options: LeadershipOptions) {
    this.#options = options
  }

  /** Waits until the slot is free, this node may lead and nobody else tries; makes the slot if there is none.
   *  @throws DATABASE_UNREACHABLE, SLOT_BLOCKED, what else Postgres says; the signal's reason */
  async turn(signal: AbortSignal): Promise<Turn> {
    for (;;) {
      signal.throwIfAborted()
      const look = await this.#look()
      if (!(await this.#mustWait(look)) && (await this.#options.mayLead())) {
        const turn = await this.#take()
        if (turn !== null) return turn
      }
      this.#hasWaited = true
      await sleep(pollMs * (1 + Math.random()), undefined, { signal })
    }
  }

  /** This node has stood in line: it runs, and what fails from now on is no reason not to start. */
  get hasWaited(): boolean {
    return this.#hasWaited
  }

  /** This node streams from that slot. @param pid the process of Postgres that streams */
  leads(slotName: string, pid: number | null): void {
    this.#last = { slotName, pid }
  }

  async #look(): Promise<ServerLook> {
    const { databaseUrl, pool, name } = this.#options
    return await reach(databaseUrl, async () => {
      const client = await pool.connect()
      let stays = false
      try {
        const look = await lookAt(client, name)
        // By the time of the next look DATABASE_URL may lead to another server.
        stays = !look.inRecovery
        return look
      } finally {
        client.release(!stays)
      }
    })
  }

  async #mustWait(look: ServerLook): Promise<boolean> {
    const { log, trouble } = this.#options
    if (look.inRecovery) trouble.count('DATABASE_STANDBY')
    if (look.inRecovery && !this.#toldStandby)
      log.warn(
        { code: 'DATABASE_STANDBY' satisfies OperatorCode },
        'DATABASE_URL leads to a standby; waiting until it is promoted, or DATABASE_URL leads elsewhere',
      )
    this.#toldStandby = look.inRecovery
    const busy = look.slots.find(slot => slot.activePid !== null)
    if (busy !== undefined && !look.inRecovery) await this.#wait(busy.slotName, busy.activePid!)
    return look.inRecovery || busy !== undefined
  }

  async #wait(slotName: string, pid: number): Promise<void> {
    const { log, trouble, hasPeers } = this.#options
    const now = performance.now()
    if (this.#waiting?.pid !== pid) this.#waiting = { pid, sinceMs: now, lookedMs: now, isTold: false, isEnded: false }
    const waiting = this.#waiting
    if (now - waiting.lookedMs > gapMs) waiting.sinceMs = now
    waiting.lookedMs = now
    // Our own former session has not noticed yet that we are gone.
    if (pid === this.#last.pid) return
    if (!hasPeers && now - waiting.sinceMs >= busyMs) trouble.count('SLOT_BUSY')
    // Others only look in: that is no news.
    if (now - waiting.sinceMs >= busyMs && !waiting.isTold) {
      waiting.isTold = true
      if (hasPeers)
        log.info({ slot: slotName, pid }, 'another node leads; this one takes over when the slot becomes free')
      else
        log.warn(
          { code: 'SLOT_BUSY' satisfies OperatorCode, slot: slotName, pid },
          'another process streams from the slot; waiting until it lets go. If it is no node that is about to end, stop it, or give this one another TIDEGATE_NAME',
        )
    }
    await this.#endSilent(slotName, waiting)
  }

  /** Ends the session of a leader that is paused, cut off or dead, if Postgres has not noticed yet. */
  async #endSilent(slotName: string, waiting: Waiting): Promise<void> {
    const { pool, log, leaderSilentMs } = this.#options
    const { pid, sinceMs, lookedMs } = waiting
    // A sign of life that stopped with the leader before this one says nothing of this one, which has just begun.
    const silent = Math.min(leaderSilentMs() ?? 0, lookedMs - sinceMs)
    if (silent < silentMs || waiting.isEnded) return
    const fields = { code: 'LEADER_SILENT' satisfies OperatorCode, slot: slotName, pid, silentMs: Math.round(silent) }
    try {
      // In one statement, because by now the process may be another's, or stream from another slot.
      await pool.query(
        'SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1 AND active_pid = $2',
        [slotName, pid],
      )
      waiting.isEnded = true
      log.warn(fields, 'the leader gives no sign of life; its session is ended, so that another node can lead')
    } catch (error) {
      // 42501 insufficient_privilege: it is another login's. Postgres ends it after wal_sender_timeout.
      if ((error as { code?: unknown }).code !== '42501') throw error
      waiting.isEnded = true
      log.warn({ ...fields, err: error }, 'the leader gives no sign of life, and its session may not be ended by us')
    }
  }

  /** @returns null if another node is at it, or took the slot in between: look again */
  async #take(): Promise<Turn | null> {
    const { turns, name } = this.#options
    const client = await turns.connect()
    // Destroyed unless all went well: that frees the lock, too.
    let isOver = false
    const end = async (failed: boolean): Promise<void> => {
      if (isOver) return
      isOver = true
      const unlock = 'SELECT pg_advisory_unlock_all(); RESET idle_session_timeout'
      const unlocked = failed
        ? false
        : await client.query(unlock).then(
            () => true,
            () => false,
          )
      client.release(!unlocked)
    }
    try {
      await client.query(`SET idle_session_timeout = ${lockMs}`)
      const { rows } = await client.query<{ ok: boolean }>(
        'SELECT pg_try_advisory_lock(hashtextextended($1, 0)) AS ok',
        [`tidegate slot ${name}`],
      )
      if (rows[0]!.ok) {
        // It may have been taken since, by the one who had the lock before.
        const look = await lookAt(client, name)
        const decision = look.inRecovery ? null : await this.#decide(look)
        if (decision?.action === 'create') {
          const slot = await this.#create(client, decision)
          if (slot !== null) return { slot, created: true, held: null, end: () => end(false) }
        } else if (decision?.action === 'stream')
          return { slot: decision.slot, created: false, held: decision.held, end: () => end(false) }
      }
      await end(false)
      return null
    } catch (error) {
      await end(true)
      if (isInUse(error)) return null
      throw error
    }
  }

  async #decide(look: ServerLook): Promise<SlotDecision & { held: Held | null }> {
    const { slotMaxBytes, held, resumeFrom, hasPeers } = this.#options
    const known = new Map<string, Held | null>()
    for (const { slotName } of look.slots) known.set(slotName, await held(slotName))
    const told = ({ slotName }: SlotRow): bigint | null => known.get(slotName)?.headEndLsn ?? resumeFrom(slotName)
    const decision = decideSlot({
      rows: look.slots,
      slotMaxBytes,
      expected: this.#last.slotName,
      // A journal that lost its end is refilled from where the slot is: no reason for a new one.
      relayHead: slot => (hasPeers ? null : told(slot)),
      toldLsn: told,
      walEndLsn: look.walEndLsn,
    })
    return { ...decision, held: decision.action === 'create' ? null : (known.get(decision.slot.slotName) ?? null) }
  }

  async #create(
    client: pg.ClientBase,
    { drop, cause }: Extract<SlotDecision, { action: 'create' }>,
  ): Promise<SlotRow | null> {
    const { name, log, trouble, createTimeoutMs } = this.#options
    if (cause !== null) {
      trouble.count(cause.code)
      log.error(
        { code: cause.code, slot: this.#last.slotName },
        `${cause.message}; a new epoch starts and every client resyncs`,
      )
    }
    for (const slot of drop) await dropSlot(client, slot.slotName)
    this.#last = { slotName: null, pid: null }
    const slotName = await createSlot(client, name, createTimeoutMs)
    const { slots } = await lookAt(client, name)
    return slots.find(each => each.slotName === slotName) ?? null
  }
}
