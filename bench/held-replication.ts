// Replication sessions that a measurement directs. Everything behind them (assembler, relay, memberships, router, judge,
// encoder, subscriptions, gateway) is the node's own.
import { type Life, Replication, type ReplicationOptions } from '../src/server/wal/replication.ts'
import type { WalMessage, WalStream } from '../src/server/wal/wal-source.ts'

const insert = 0x49 // 'I'

/** Streams only while it is let: a backlog can stand behind it. */
export class HeldReplication extends Replication {
  /** Insert messages received since the start. */
  inserts = 0
  #life = new AbortController()
  #open = Promise.withResolvers<void>()
  #closed = Promise.resolve()

  constructor(options: ReplicationOptions) {
    super(options)
    this.open()
  }

  open(): void {
    this.#open.resolve()
  }

  /** Ends the session, and resolves when Postgres may hand the slot on. */
  async close(): Promise<void> {
    this.#open = Promise.withResolvers()
    this.#life.abort()
    await this.#closed
  }

  override async *lives(signal: AbortSignal): AsyncIterable<Life> {
    while (!signal.aborted) {
      await this.#open.promise
      this.#life = new AbortController()
      const closed = Promise.withResolvers<void>()
      this.#closed = closed.promise
      for await (const life of super.lives(AbortSignal.any([signal, this.#life.signal])))
        yield { ...life, stream: this.#counted(life.stream) }
      closed.resolve()
    }
  }

  #counted(stream: WalStream): WalStream {
    const count = (gulp: readonly WalMessage[]): void => {
      for (const { data } of gulp) if (data !== null && data[0] === insert) this.inserts += 1
    }
    return {
      async *gulps() {
        for await (const gulp of stream.gulps()) {
          count(gulp)
          yield gulp
        }
      },
      acknowledge: lsn => stream.acknowledge(lsn),
      close: () => stream.close(),
    }
  }
}

/** A commit of one inserted row, as it came from Postgres: to be sent again under other LSNs and ids. */
interface Template {
  readonly messages: readonly Buffer[]
  readonly row: number
  /** Where the id's ten digits stand in the row's message. */
  readonly idAt: number
}

/** The id of the row that serves as the template; of several, of the first. */
export const templateId = '1000000000'
/** Past every LSN that the server will reach, so that positions have one length. */
const firstLsn = 0x10_0000_0000n

/** Streams from Postgres until a row with `templateId` has come, then repeats that commit as often and as closely as it
 *  is told to: what is measured behind it then does not wait for a writer. */
export class RepeatingReplication extends Replication {
  readonly #ready = Promise.withResolvers<void>()
  /** Templates to wait for. */
  #wanted = 0
  readonly #templates: Template[] = []
  #repeated = 0
  #lsn = firstLsn
  #id = Number(templateId)
  #gulps: WalMessage[][] = []
  #wake = Promise.withResolvers<void>()

  /** The next commits with a template's id are the templates, repeated in turn: what the slot repeats from earlier runs is not. */
  arm(templates: number): void {
    this.#wanted = templates
  }

  /** Resolves when the template has come. */
  get ready(): Promise<void> {
    return this.#ready.promise
  }

  /** Lets `commits` more commits come, in one gulp. */
  repeat(commits: number): void {
    const gulp: WalMessage[] = []
    for (let i = 0; i < commits; i++) gulp.push(...this.#next())
    this.#gulps.push(gulp)
    this.#wake.resolve()
  }

  override async *lives(signal: AbortSignal): AsyncIterable<Life> {
    for await (const life of super.lives(signal)) {
      const { stream } = life
      const gulps = () => this.#stream(stream, signal)
      yield {
        ...life,
        stream: { gulps, acknowledge: (lsn: bigint) => this.#acknowledge(stream, lsn), close: () => stream.close() },
      }
    }
  }

  /** Positions that were made up here must not reach Postgres. */
  #acknowledge(stream: WalStream, lsn: bigint): void {
    if (lsn < firstLsn) stream.acknowledge(lsn)
  }

  async *#stream(stream: WalStream, signal: AbortSignal): AsyncIterable<readonly WalMessage[]> {
    let messages: Buffer[] = []
    for await (const gulp of stream.gulps()) {
      for (const { data } of gulp) {
        if (data?.[0] === 0x42) messages = []
        if (data != null) messages.push(data)
        if (data?.[0] !== 0x43 || this.#templates.length === this.#wanted) continue
        const template = templateOf(messages)
        if (template !== null) this.#templates.push(template)
      }
      yield gulp
      if (this.#wanted > 0 && this.#templates.length === this.#wanted) break
    }
    this.#ready.resolve()
    signal.addEventListener('abort', () => this.#wake.resolve())
    while (!signal.aborted) {
      await this.#wake.promise
      this.#wake = Promise.withResolvers()
      for (const gulp of this.#gulps.splice(0)) yield gulp
    }
  }

  #next(): WalMessage[] {
    const { messages, row, idAt } = this.#templates[this.#repeated++ % this.#wanted]!
    this.#lsn += 64n
    this.#id += 1
    return messages.map((message, i) => {
      const data = Buffer.from(message)
      if (message[0] === 0x42) data.writeBigUInt64BE(this.#lsn, 1)
      else if (message[0] === 0x43) {
        data.writeBigUInt64BE(this.#lsn, 2)
        data.writeBigUInt64BE(this.#lsn + 32n, 10)
      } else if (i === row) data.write(String(this.#id), idAt)
      return { data, walEnd: this.#lsn + 32n }
    })
  }
}

/** Begin, Insert, Commit: the Relation message between them announces the table, and would have it looked up each time. */
function templateOf(all: readonly Buffer[]): Template | null {
  const messages = all.filter(message => message[0] !== 0x52)
  const row = messages.findIndex(message => message[0] === insert)
  const idAt = row < 0 ? -1 : messages[row]!.toString('latin1').search(/10000\d{5}/)
  return idAt < 0 ? null : { messages, row, idAt }
}
