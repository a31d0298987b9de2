// Messages of our own that travel through the WAL: a heartbeat moves an idle slot and measures the way, a fence tells
// when the stream has passed a point. Anyone who may connect can emit a message, so ours carry a keyed hash.
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import pg from 'pg'
import type { Lane } from '../postgres/database.ts'
import { steadyNow } from '../steady-clock.ts'
import { low32 } from './visibility.ts'

export type BeaconKind = 'heartbeat' | 'fence'

export interface BeaconOptions {
  readonly pool: Lane
  /** The message's prefix, the name of the deployment. */
  readonly prefix: string
  /** At least 32 random bytes, of this process only. */
  readonly secret: Buffer
  /** How long one emission may take before it fails. */
  readonly timeoutMs?: number
}

export interface BeaconMessage {
  readonly kind: BeaconKind
  readonly id: string
  /** By this process's steady clock, milliseconds since 1970. */
  readonly sentAtMs: number
}

interface Emission {
  readonly result: Promise<{ id: string }>
  /** False once its message may have been written. */
  open: boolean
}

export class Beacon {
  readonly #pool: Lane
  readonly #prefix: string
  readonly #secret: Buffer
  readonly #timeoutMs: number
  /** The emission that callers of `fence` may still join. */
  #fence: Emission | null = null

  constructor(options: BeaconOptions) {
    this.#pool = options.pool
    this.#prefix = options.prefix
    this.#secret = options.secret
    this.#timeoutMs = options.timeoutMs ?? 10_000
  }

  /** Writes a message into the WAL and resolves when it has committed. Its WAL position lies after every position that
   *  the caller knew when calling; callers that ask for a fence at the same time share one.
   *  @returns the id that `read` gives when the message comes through the stream
   *  @throws when the database cannot be reached, or does not answer within `timeoutMs` */
  emit(kind: BeaconKind): Promise<{ id: string }> {
    if (kind === 'heartbeat') return this.#write(kind, { open: true, result: Promise.resolve({ id: '' }) })
    if (this.#fence?.open) return this.#fence.result
    const { promise, resolve } = Promise.withResolvers<{ id: string }>()
    const fence: Emission = { open: true, result: promise }
    this.#fence = fence
    resolve(this.#write(kind, fence))
    return promise
  }

  /** What a message says, or null if it is not ours: another prefix, another process, or forged.
   *  @param xid 32-bit, from the Begin of the transaction that carried it: a copy of our message in another
   *    transaction is not ours */
  read(xid: number, message: { prefix: string; content: Buffer }): BeaconMessage | null {
    if (message.prefix !== this.#prefix || message.content.length > 200) return null
    const parts = /^((heartbeat|fence) ([0-9a-f]{16}) (\d{1,16})) ([0-9a-f]{64})$/.exec(
      message.content.toString('latin1'),
    )
    if (parts === null) return null
    const expected = this.#hash(xid, parts[1]!)
    if (!timingSafeEqual(expected, Buffer.from(parts[5]!, 'hex'))) return null
    return { kind: parts[2] as BeaconKind, id: parts[3]!, sentAtMs: Number(parts[4]) }
  }

  async #write(kind: BeaconKind, emission: Emission): Promise<{ id: string }> {
    const id = randomBytes(8).toString('hex')
    let client: pg.PoolClient
    try {
      client = await this.#pool.connect()
    } catch (error) {
      emission.open = false
      throw error
    }
    let failed = true
    try {
      // While a synchronous standby is missing, a commit waits for it for ever; this one has nothing to protect.
      const begun = await this.#run(
        client,
        'BEGIN; SET LOCAL synchronous_commit = local; SELECT pg_current_xact_id()::text AS xid',
      )
      const xid = low32(BigInt((begun.at(-1)!.rows[0] as { xid: string }).xid))
      const payload = `${kind} ${id} ${steadyNow()}`
      const content = `${payload} ${this.#hash(xid, payload).toString('hex')}`
      // From here on the message's position may be below one that a new caller knows.
      emission.open = false
      const emit = `SELECT pg_logical_emit_message(true, ${pg.escapeLiteral(this.#prefix)}, ${pg.escapeLiteral(content)})`
      await this.#run(client, `${emit}; COMMIT`)
      failed = false
      return { id }
    } finally {
      emission.open = false
      // Its transaction may be open still, or its connection dead.
      client.release(failed)
    }
  }

  /** Several statements in one round trip. */
  async #run(client: pg.PoolClient, text: string): Promise<pg.QueryResult[]> {
    const query = { text, query_timeout: this.#timeoutMs }
    return (await client.query(query)) as unknown as pg.QueryResult[]
  }

  #hash(xid: number, payload: string): Buffer {
    return createHmac('sha256', this.#secret).update(`${xid} ${payload}`).digest()
  }
}
