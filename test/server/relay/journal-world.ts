// Journals over one Redis without a Postgres: a database that is a list of commits, and nodes that lead or follow it.

import type { Commit } from '../../../src/server/decode/change.ts'
import { TransactionAssembler } from '../../../src/server/decode/transaction.ts'
import { createLog } from '../../../src/server/log/log.ts'
import { Trouble } from '../../../src/server/log/trouble.ts'
import { openRedis, type RedisClient } from '../../../src/server/redis/redis.ts'
import type { Feed, Inlet } from '../../../src/server/relay/journal.ts'
import { RedisJournal, type RedisJournalOptions } from '../../../src/server/relay/redis-journal.ts'
import { steadyNow } from '../../../src/server/steady-clock.ts'
import { parseSnapshot } from '../../../src/server/wal/visibility.ts'
import type { SlotState } from '../../../src/server/wal/wal-source.ts'
import * as wire from '../decode/wire-bytes.ts'

export const name = 'tide'

/** What a slot would send: commit n at LSN n * 100, ending 50 later, with so many rows. */
export class Wal {
  readonly rows: number[] = []

  write(rows = 1): number {
    return this.rows.push(rows)
  }

  /** Commits that end after `confirmed`, decoded anew as each session does. */
  since(confirmed: bigint, spoolBytes = 64 * 1024): Commit[] {
    const assembler = new TransactionAssembler({ spoolBytes })
    const commits: Commit[] = []
    for (const [i, rows] of this.rows.entries()) {
      const lsn = BigInt(i + 1) * 100n
      if (lsn + 50n <= confirmed) continue
      assembler.push(wire.begin(i + 1, lsn))
      assembler.push(wire.relation(1, 'rooms', 'd', ['id*', 'name']))
      for (let row = 0; row < rows; row++) assembler.push(wire.insert(1, [`${row}`, `row ${row} of ${i + 1}`]))
      commits.push(assembler.push(wire.commit(lsn, lsn + 50n))!)
    }
    return commits
  }

  get end(): bigint {
    return BigInt(this.rows.length) * 100n + 50n
  }
}

export const lsnOf = (commit: number): bigint => BigInt(commit) * 100n

/** A node's window: what it was given since it began, last. */
export class Window implements Feed {
  epoch = ''
  headLsn = 0n
  floorLsn = 0n
  isSettled = false
  /** Commits by number with their rows, and each time it began anew. */
  readonly told: (number | `begins after ${number}`)[] = []
  readonly rows = new Map<number, number>()

  begin(epoch: string, floorLsn: bigint, isSettled: boolean): void {
    this.epoch = epoch
    this.headLsn = this.floorLsn = floorLsn
    this.isSettled = isSettled
    this.told.push(`begins after ${Number(floorLsn)}`)
  }

  append(commit: Commit): void {
    if (commit.commitLsn <= this.headLsn) {
      commit.release()
      return
    }
    this.headLsn = commit.commitLsn
    const number = Number(commit.commitLsn / 100n)
    this.told.push(number)
    this.rows.set(number, [...commit.passing()].length)
    commit.release()
  }

  passed(): void {}

  settled(lsn: bigint): void {
    if (lsn >= this.floorLsn) this.isSettled = true
  }

  async room(): Promise<void> {}

  get commits(): number[] {
    return this.told.filter(told => typeof told === 'number')
  }
}

/** A node: its journal, running, and its window. */
export class JournalNode implements AsyncDisposable {
  readonly window = new Window()
  /** Slots that Postgres does not have any more. */
  readonly gone = new Set<string>()
  readonly journal: RedisJournal
  readonly #stop = new AbortController()
  readonly #clients: readonly RedisClient[]
  readonly #running: Promise<void>

  constructor(nodeId: string, url: string, options: Partial<RedisJournalOptions> = {}) {
    const log = createLog((process.env.TEST_LOG_LEVEL as 'silent' | undefined) ?? 'silent')
    const [client, reader] = ['client', 'reader'].map(use =>
      openRedis(url, { connectionName: `${nodeId} ${use}`, commandTimeoutMs: 2000 }),
    ) as [RedisClient, RedisClient]
    this.#clients = [client, reader]
    this.journal = new RedisJournal({
      name,
      nodeId,
      client,
      reader,
      log,
      trouble: new Trouble(log, steadyNow),
      hasSlot: async slotName => !this.gone.has(slotName),
      spoolBytes: 64 * 1024,
      maxBytes: 64 * 1024 * 1024,
      maxAgeMs: 600_000,
      durability: 'none',
      holdMs: 0,
      ...options,
    })
    this.#running = this.journal.run(this.window, this.#stop.signal)
  }

  /** Takes the slot. */
  async lead(confirmed: bigint, slot: Partial<SlotState> = {}): Promise<Inlet> {
    for (let attempt = 0; !(await this.journal.mayLead()); attempt++) {
      if (attempt === 100) throw new Error('Redis does not answer')
      await new Promise(resolve => setTimeout(resolve, 50))
    }
    const state: SlotState = {
      epoch: '0a1b2c3d',
      slotName: `${name}_01234567`,
      systemId: '7',
      timeline: '1',
      confirmedFlushLsn: confirmed,
      created: false,
      ...slot,
    }
    return this.journal.lead(state, this.window)
  }

  async until(condition: () => boolean, timeoutMs = 20_000): Promise<void> {
    const deadline = performance.now() + timeoutMs
    while (!condition()) {
      if (performance.now() > deadline) throw new Error(`it does not come: told ${this.window.told.slice(-20).join()}`)
      await new Promise(resolve => setTimeout(resolve, 5))
    }
  }

  /** Waits for this commit. */
  has(commit: number, timeoutMs?: number): Promise<void> {
    return this.until(() => this.window.headLsn >= lsnOf(commit), timeoutMs)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort()
    for (const client of this.#clients) client.disconnect()
    await this.#running
  }
}

/** Gives an inlet everything the slot would send. */
export async function feedAll(inlet: Inlet, commits: readonly Commit[]): Promise<void> {
  for (const commit of commits) inlet.append(commit)
  inlet.flush()
  await inlet.room()
}

/** Sees every transaction below this one. */
export const seesBelow = (xid: number) => parseSnapshot(`${xid}:${xid}:`)

export const upTo = (last: number, first = 1): number[] => Array.from({ length: last - first + 1 }, (_, i) => first + i)
