// One connection of a reader, over any transport, with one or several queries on it: comes, goes, comes back, stops taking.
import type { Random } from './random.ts'
import type { Subscriber } from './subscriber.ts'
import { closed, connect, type Ending, Refused, type Transport, transports, type Wire } from './wires.ts'

export interface ClientOptions {
  readonly name: string
  readonly transport: Transport
  readonly token: string
  readonly readers: readonly Subscriber[]
  /** Takes only a little at a time, always. */
  readonly isLaggard: boolean
  /** How long an answer may take; left out, for ever. */
  readonly timeoutMs?: number
  /** Where a connection with this local port leads; left out, there is one node. */
  readonly nodeOf?: (localPort: number) => string
}

const lagMs = 300
const gulpMs = 10

export class Client {
  readonly options: ClientOptions
  /** What ended its connections or subscriptions, until somebody counts it. */
  readonly endings: Ending[] = []
  connected = false
  paused = false
  transport: Transport
  /** Whether it left by itself, and comes back when it likes. */
  isAway = false
  /** Connections in a row that were refused or lost before they brought it anywhere. */
  failures = 0
  /** How long it rests before it comes back by itself; null until somebody says. */
  restMs: number | null = null
  /** performance.now(): it does not come before. */
  sleepsUntil = 0
  /** performance.now(), when it was last told something, or came or went. */
  lastAt = 0
  /** The node that it is, or was last, connected to. */
  via = 'node'
  #wire: Wire | null = null
  #connection = 0
  #byPlace: Subscriber[] = []
  #lag: NodeJS.Timeout | null = null

  constructor(options: ClientOptions) {
    this.options = options
    this.transport = options.transport
  }

  /** Connects, each query at its position if it has one. @returns false when it was refused */
  async come(url: string): Promise<boolean> {
    const { token, readers, timeoutMs, nodeOf } = this.options
    const { transport } = this
    this.#connection += 1
    const connection = this.#connection
    const isMine = (): boolean => this.#connection === connection
    this.connected = true
    this.isAway = false
    this.restMs = null
    this.lastAt = performance.now()
    this.#byPlace = [...readers]
    try {
      const wire = await connect({
        url,
        transport,
        token,
        asked: readers.map(reader => reader.begin()),
        ...(timeoutMs === undefined ? {} : { timeoutMs: this.patienceOf(timeoutMs) }),
        onReached: (localPort, askedAt) => {
          if (!isMine() || nodeOf === undefined) return
          this.via = nodeOf(localPort)
          for (const reader of readers) reader.reached(this.via, askedAt)
        },
        onEvent: (place, event) => {
          if (!isMine()) return
          this.lastAt = performance.now()
          const reader = this.#byPlace[place]!
          if (event.event !== 'error') {
            reader.take(event)
            if (reader.lsn !== null) this.failures = 0
          } else {
            const { code, retry } = event.data as { code: string; retry: boolean }
            this.endings.push({ code, isRetryable: retry })
            reader.end(code)
          }
        },
        onEnd: ending => {
          if (isMine()) this.#ended(ending)
        },
      })
      if (!isMine()) wire.close()
      else {
        this.#wire = wire
        this.lagBehind()
      }
      return true
    } catch (error) {
      if (isMine()) this.#ended(error instanceof Refused ? error.ending : closed)
      return false
    }
  }

  /** It comes next over another transport, if all it follows is of one kind. @returns whether it changed */
  hop(random: Random): boolean {
    const before = this.transport
    const { readers } = this.options
    const isOfOneKind = readers.every(({ options }) => options.kind === readers[0]!.options.kind)
    if (isOfOneKind) this.transport = random.pick(transports)
    return this.transport !== before
  }

  leave(): void {
    this.isAway = true
    if (this.connected) this.#end('it leaves')
  }

  /** A machine that is slow is not made faster by those who give up and begin again. */
  patienceOf(ms: number): number {
    return ms * (1 + Math.min(this.failures, 5))
  }

  /** The connection says nothing, and is given up. */
  giveUp(): void {
    this.failures += 1
    this.#end('it heard nothing')
  }

  pause(): void {
    this.paused = true
    this.#note('takes nothing')
    this.#hurry()
    this.#wire?.pause()
  }

  goOn(): void {
    this.paused = false
    this.lastAt = performance.now()
    this.#note('goes on')
    this.#hurry()
    this.#wire?.resume()
  }

  /** Lets go of one query, or takes one up again, on a connection that stays. @returns false where that is not possible */
  swap(random: Random): boolean {
    const wire = this.#wire
    if (wire?.add === undefined || this.paused) return false
    const reader = random.pick(this.options.readers)
    if (reader.attached) {
      reader.end('it unsubscribes')
      reader.isLetGo = true
      wire.remove!(this.#byPlace.lastIndexOf(reader))
    } else this.#byPlace[wire.add(reader.begin())] = reader
    return true
  }

  /** Takes up again what it follows no more. */
  async complete(url: string): Promise<void> {
    const wire = this.#wire
    if (!this.connected) await this.come(url)
    else if (wire?.add !== undefined)
      for (const reader of this.options.readers) if (!reader.attached) this.#byPlace[wire.add(reader.begin())] = reader
  }

  /** Takes up again what a node has ended on a connection that stays. */
  mend(): void {
    const wire = this.#wire
    if (wire?.add === undefined || this.paused) return
    for (const reader of this.options.readers)
      if (!reader.attached && !reader.isLetGo) this.#byPlace[wire.add(reader.begin())] = reader
  }

  #ended(ending: Ending): void {
    this.endings.push(ending)
    this.failures += 1
    this.#end(ending.code)
  }

  #end(why: string): void {
    this.#connection += 1
    this.#hurry()
    this.#wire?.close()
    this.#wire = null
    this.connected = false
    this.paused = false
    this.lastAt = performance.now()
    for (const reader of this.options.readers) reader.end(why)
  }

  /** Of a laggard: takes a gulp now and then, until it is told to go on. */
  lagBehind(): void {
    if (!this.options.isLaggard || this.#wire === null || this.#lag !== null) return
    this.#lag = setInterval(() => {
      this.#wire?.resume()
      setTimeout(() => {
        if (this.#lag !== null) this.#wire?.pause()
      }, gulpMs)
    }, lagMs)
  }

  #hurry(): void {
    if (this.#lag !== null) clearInterval(this.#lag)
    this.#lag = null
  }

  #note(line: string): void {
    for (const reader of this.options.readers) if (reader.attached) reader.note(line)
  }
}
