// One connected life of the replication session: messages out, acknowledgements in, and a timer that tells the
// walsender we are alive whatever the consumer does.
import type pg from 'pg'
import { LogicalReplicationService } from 'pg-logical-replication'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { PostgresConnection } from '../postgres/postgres-url.ts'
import { GulpReader } from './gulp-reader.ts'
import { formatLsn } from './lsn.ts'
import { MessageCopier, MessageQueue } from './message-queue.ts'
import { type CopyConnection, copyConnection, type StatusUpdate, sendStatusUpdates } from './status-update.ts'
import { type ServerIdentity, type SystemIdentity, WalPlugin } from './wal-plugin.ts'
import type { WalMessage, WalStream } from './wal-source.ts'

export interface ReplicationStreamOptions {
  readonly connection: PostgresConnection
  readonly slotName: string
  readonly publication: string
  /** Where the slot stands: acknowledging below it is of no use. */
  readonly confirmedFlushLsn: bigint
  /** Postgres ends the session after this much silence from us; 0 is never. */
  readonly walSenderTimeoutMs: number
  readonly statusIntervalMs: number
  /** We end the session after this much silence from Postgres. */
  readonly silenceMs: number
  /** What may wait to be taken by the consumer. */
  readonly maxPendingBytes: number
  /** How long connecting may take, until the first message could come. */
  readonly startTimeoutMs: number
  readonly makeFailover: boolean
  readonly needsHistory: (system: SystemIdentity) => boolean
  readonly signal: AbortSignal
}

export class ReplicationStream implements WalStream {
  readonly #options: ReplicationStreamOptions
  readonly #queue: MessageQueue
  readonly #copier = new MessageCopier()
  readonly #reader: GulpReader
  readonly #plugin: WalPlugin
  readonly #service: LogicalReplicationService
  readonly #over = Promise.withResolvers<void>()
  #client: pg.Client | null = null
  #timer: NodeJS.Timeout | null = null
  #lastTickAt = 0
  /** From keepalives, which tell how far the walsender has read. */
  #writtenLsn = 0n
  #acknowledgedLsn = 0n
  #end: { readonly error: TidegateError | null } | null = null
  #goodbye: Promise<void> = Promise.resolve()

  constructor(options: ReplicationStreamOptions) {
    this.#options = options
    this.#queue = new MessageQueue(options.maxPendingBytes)
    this.#reader = new GulpReader({ isFull: () => this.#queue.isFull, received: () => this.#queue.received })
    this.#plugin = new WalPlugin({
      publication: options.publication,
      walSenderTimeoutMs: options.walSenderTimeoutMs,
      makeFailover: options.makeFailover,
      needsHistory: options.needsHistory,
      onConnected: client => {
        this.#client = client
      },
    })
    const client = {
      ...options.connection,
      replication: 'database' as const,
      application_name: 'tidegate wal',
      connectionTimeoutMillis: options.startTimeoutMs,
      keepAlive: true,
      stream: this.#reader.socket,
    }
    // Its defaults acknowledge what was merely received, and lose it.
    this.#service = new LogicalReplicationService(client, { acknowledge: { auto: false, timeoutSeconds: 0 } })
  }

  /** Connects and starts to stream. @throws what Postgres says, for instance 55006 when the slot is in use */
  async start(): Promise<ServerIdentity> {
    const { startTimeoutMs } = this.#options
    const started = Promise.withResolvers<void>()
    // Others wait meanwhile.
    const late = setTimeout(
      () => this.#lost(new Error(`it did not stream within ${startTimeoutMs} ms`)),
      startTimeoutMs,
    )
    const service = this.#service
    service.on('start', () => {
      // Before the first message. The library would make a text of each message's position and hand both on through two
      // emitters: 0.3 µs of the 1.6 µs that a message cost.
      const connection = copyConnection(this.#client!)
      connection.removeAllListeners('copyData')
      connection.on('copyData', ({ chunk }) => this.#receive(chunk))
      started.resolve()
    })
    service.on('error', error => this.#lost(error))
    const abort = () => this.#finish(null)
    this.#options.signal.addEventListener('abort', abort, { once: true })
    this.#over.promise.then(() => this.#options.signal.removeEventListener('abort', abort))
    service.subscribe(this.#plugin, this.#options.slotName, formatLsn(0n)).then(
      () => this.#lost(new Error('Postgres ended the stream')),
      (error: unknown) => {
        started.reject(error)
        this.#lost(error)
      },
    )
    try {
      await Promise.race([started.promise, this.#over.promise])
      if (this.#end !== null) throw this.#end.error ?? new Error('aborted')
    } catch (error) {
      await this.close()
      throw error
    } finally {
      clearTimeout(late)
    }
    this.#reader.attach(copyConnection(this.#client!).stream)
    this.#lastTickAt = performance.now()
    this.#timer = setInterval(() => this.#tick(), this.#options.statusIntervalMs)
    return this.#plugin.server!
  }

  /** @throws DATABASE_UNREACHABLE when the connection is lost, SLOT_OVER_LIMIT when the slot had to be given up: another
   *    life follows. What had come in until then is given first. */
  async *gulps(): AsyncIterable<readonly WalMessage[]> {
    for (;;) {
      if (this.#options.signal.aborted) return
      if (!this.#queue.isEmpty) {
        const gulp = this.#queue.take()
        this.#reader.resume()
        yield gulp
        continue
      }
      if (this.#end !== null) {
        if (this.#end.error === null) return
        throw this.#end.error
      }
      await this.#queue.changed()
    }
  }

  acknowledge(lsn: bigint): void {
    if (lsn < this.#acknowledgedLsn) {
      const [to, from] = [formatLsn(lsn), formatLsn(this.#acknowledgedLsn)]
      throw new TidegateError('LSN_WENT_BACKWARDS', `acknowledged ${to} after ${from}; acknowledge in commit order`)
    }
    if (lsn === this.#acknowledgedLsn) return
    this.#acknowledgedLsn = lsn
    if (lsn <= this.#options.confirmedFlushLsn) return
    // The second takes the flush position back at once. A walsender that has one waits at shutdown until it equals what
    // was sent, and may be elected synchronous standby: commits would wait for us, and we wait for them to be visible.
    this.#send({ flushedLsn: lsn }, { flushedLsn: 0n })
  }

  /** Ends this life with an error for its consumer. */
  fail(error: TidegateError): void {
    this.#finish(error)
  }

  /** True while the consumer takes nothing and the socket is therefore not read. */
  get isStalled(): boolean {
    return this.#reader.isHeld
  }

  /** The process of Postgres that streams to us; null before it is known. */
  get serverPid(): number | null {
    return (this.#client as unknown as { processID?: number | null } | null)?.processID ?? null
  }

  get pendingBytes(): number {
    return this.#queue.bytes
  }

  /** What ended this life: an error, null for an end of our own accord, undefined while it goes on. */
  get ending(): TidegateError | null | undefined {
    return this.#end?.error
  }

  /** Resolves when this life is over, whoever ended it. */
  get over(): Promise<void> {
    return this.#over.promise
  }

  async close(): Promise<void> {
    this.#finish(null)
    await this.#goodbye
    await this.#service.stop()
  }

  /** Takes XLogData (`w`: start and end of the WAL, the time, then the message) or a keepalive (`k`: end of the WAL, the
   *  time, whether to reply). Source: PostgreSQL manual, Streaming Replication Protocol */
  #receive(chunk: Buffer): void {
    if (this.#end !== null) return
    const [high, low] = [chunk.readUInt32BE(1), chunk.readUInt32BE(5)]
    if (chunk[0] === 0x77) {
      this.#queue.push(this.#copier.copy(chunk, 25), high, low)
      return
    }
    if (chunk[0] !== 0x6b) return
    this.#queue.push(null, high, low)
    const walEnd = chunk.readBigUInt64BE(1)
    if (walEnd > this.#writtenLsn) this.#writtenLsn = walEnd
    // At shutdown the walsender asks this way whether all has arrived, and stays until it hears so.
    if (chunk[17] === 1) this.#send({})
  }

  #tick(): void {
    const now = performance.now()
    const late = now - this.#lastTickAt > 2 * this.#options.statusIntervalMs
    this.#lastTickAt = now
    const silentMs = this.#reader.silentMs(now)
    // After a pause of our own (a suspended machine) what came meanwhile is still unread: give it one round.
    if (!late && silentMs > this.#options.silenceMs) {
      this.#lost(new Error(`Postgres was silent for ${Math.round(silentMs)} ms`))
      return
    }
    // Asking for a reply makes the walsender speak: with regular updates from us it would never ask by itself, and a
    // dead link would look like an idle database.
    this.#send({ replyRequested: true })
  }

  #send(...updates: readonly Partial<StatusUpdate>[]): void {
    if (this.#client === null || this.#end !== null) return
    const received = this.#queue.lastLsn
    if (received > this.#writtenLsn) this.#writtenLsn = received
    const common = { writtenLsn: this.#writtenLsn, flushedLsn: 0n, sentAtMs: Date.now(), replyRequested: false }
    sendStatusUpdates(
      this.#client,
      updates.map(update => ({ ...common, ...update })),
    )
  }

  #lost(cause: unknown): void {
    const reason = cause instanceof Error ? cause.message : String(cause)
    this.#finish(new TidegateError('DATABASE_UNREACHABLE', `the replication connection was lost: ${reason}`, { cause }))
  }

  #finish(error: TidegateError | null): void {
    if (this.#end !== null) return
    this.#end = { error }
    if (this.#timer !== null) clearInterval(this.#timer)
    this.#reader.stop()
    if (this.#client !== null) {
      const connection = copyConnection(this.#client)
      if (error === null && this.#timer !== null) this.#goodbye = leave(connection)
      else connection.stream.destroy()
    }
    this.#queue.rouse()
    this.#over.resolve()
  }
}

/** Ends a session of our own accord. What is still unread would turn a plain close into a reset, and Postgres would never
 *  read what we said last, perhaps an acknowledgement. After a Terminate it lets go of the slot at once. */
async function leave(connection: CopyConnection): Promise<void> {
  const { stream } = connection
  const closed = new Promise<void>(resolve => stream.once('close', () => resolve()))
  // A server that hangs must not keep us.
  const late = setTimeout(() => stream.destroy(), goodbyeMs)
  connection.end()
  stream.resume()
  await closed
  clearTimeout(late)
}

const goodbyeMs = 250
