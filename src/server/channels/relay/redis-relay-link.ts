// One connection over which a node hears one server of Redis.
//
// It subscribes by SSUBSCRIBE where the server has it, else by SUBSCRIBE, as the scripts publish. Whatever it is to hear is subscribed
// to again by itself on each new connection, and counted: ioredis is told to leave that alone. It trusts nothing but what it hears: once a
// second the node publishes a probe through the server and must hear it back. A connection that stands and delivers nothing is dropped
// and made anew; if that does not help, the next time later, so that a broken server is not stormed.
import type { Redis } from 'ioredis'
import type { Log } from '../../log/log.ts'
import { encodeProbe } from './redis-envelope.ts'

export interface LinkOptions {
  readonly connection: Redis
  /** A server of a Cluster takes names of one slot at a time. */
  readonly slotOf: ((name: string) => number) | null
  /** A name of its own, of this server. */
  readonly probeName: string
  /** Publishes through the server. @throws when that failed: then nothing is to be heard */
  readonly probe: (name: string, text: string) => Promise<unknown>
  readonly log: Log
  readonly events: LinkEvents
}

/** Nothing here may throw. */
export interface LinkEvents {
  heard(name: string, text: Buffer): void
  /** From now on all that is published under these is heard; something may have been missed before. */
  confirmed(names: readonly string[]): void
  /** Some name is of another server. */
  moved(): void
}

/** Between two ticks, by which everything here is timed: while the process does nothing else, no tick passes either. */
export const tickMs = 250
/** A probe is sent every so many ticks. */
const probeTicks = 4
/** A probe that Redis took is missing after so many; the connection is dropped. */
const missingTicks = 6
const maxMissingTicks = 40
/** So long without anything heard, it does not hear. */
const deafTicks = 12
/** So long until all is subscribed to. */
const beginTicks = 20
const maxNames = 500

export class SubscriberLink {
  readonly #options: LinkOptions
  /** Whether SSUBSCRIBE; null: not known of this connection. */
  #isSharded: boolean | null = null
  readonly #wanted = new Set<string>()
  /** In the order of this turn. */
  #changes: Map<string, boolean> = new Map()
  #state: 'down' | 'beginning' | 'up' = 'down'
  /** Counts connections, and attempts over one. */
  #attempt = 0
  #ticks = 0
  #beganTick = 0
  #ticksSinceHeard = deafTicks
  #probed: { readonly token: string; ticks: number; isTaken: boolean } | null = null
  #limitTicks = missingTicks
  #count = 0
  #isClosed = false

  constructor(options: LinkOptions) {
    this.#options = options
    const { connection } = options
    connection.options.autoResubscribe = false
    connection.on('ready', this.#onReady)
    connection.on('close', this.#onClose)
    connection.on('end', this.#onClose)
    connection.on('moved', this.#onMoved)
    connection.on('smessageBuffer', this.#onMessage)
    connection.on('messageBuffer', this.#onMessage)
    if (connection.status === 'ready') this.#begin()
  }

  /** Everything that is subscribed to is heard. */
  get isHearing(): boolean {
    return this.#state === 'up' && this.#ticksSinceHeard < deafTicks && (this.#probed?.ticks ?? 0) < missingTicks
  }

  get size(): number {
    return this.#wanted.size
  }

  /** Told by `confirmed` when it is so. */
  want(name: string): void {
    this.#wanted.add(name)
    this.#change(name, true)
  }

  drop(name: string): void {
    this.#wanted.delete(name)
    this.#change(name, false)
  }

  /** Called each `tickMs`. */
  tick(): void {
    this.#ticks += 1
    this.#ticksSinceHeard += 1
    if (this.#probed !== null) this.#probed.ticks += 1
    const { connection } = this.#options
    if (this.#state === 'down') {
      if (connection.status === 'ready' && this.#ticks % probeTicks === 0) this.#begin()
      return
    }
    if (this.#state === 'beginning') {
      if (this.#ticks - this.#beganTick > beginTicks) this.#remake('subscribing to channels took too long')
      return
    }
    const probed = this.#probed
    if (probed?.isTaken && probed.ticks >= this.#limitTicks && this.#ticksSinceHeard >= this.#limitTicks) {
      this.#limitTicks = Math.min(2 * this.#limitTicks, maxMissingTicks)
      this.#remake('a connection to Redis stands, but what is published is not heard over it')
    } else if (this.#ticks % probeTicks === 0) void this.#probe()
  }

  close(): void {
    this.#isClosed = true
    const { connection } = this.#options
    connection.off('ready', this.#onReady)
    connection.off('close', this.#onClose)
    connection.off('end', this.#onClose)
    connection.off('moved', this.#onMoved)
    connection.off('smessageBuffer', this.#onMessage)
    connection.off('messageBuffer', this.#onMessage)
    this.#onClose()
  }

  readonly #onReady = (): void => this.#begin()

  /** The server has let go of a name, or never had it: all is subscribed to once more, until every name is where it belongs. */
  readonly #onMoved = (): void => {
    if (this.#state === 'up') {
      this.#attempt += 1
      this.#state = 'down'
    }
    this.#options.events.moved()
  }

  readonly #onClose = (): void => {
    this.#attempt += 1
    this.#state = 'down'
    this.#isSharded = null
    this.#probed = null
    this.#changes = new Map()
  }

  readonly #onMessage = (name: Buffer, text: Buffer): void => {
    this.#ticksSinceHeard = 0
    const { events, probeName } = this.#options
    const channel = name.toString('latin1')
    if (channel !== probeName) events.heard(channel, text)
    else if (this.#probed !== null && text.toString('latin1') === this.#probed.token) {
      this.#probed = null
      this.#limitTicks = missingTicks
    }
  }

  /** Subscribes to everything, over a new connection or once more. */
  #begin(): void {
    if (this.#isClosed) return
    this.#attempt += 1
    this.#state = 'beginning'
    this.#beganTick = this.#ticks
    this.#changes = new Map()
    this.#probed = null
    void this.#subscribeAll(this.#attempt)
  }

  async #subscribeAll(attempt: number): Promise<void> {
    const { events, probeName, log } = this.#options
    try {
      await this.#findManner(probeName)
      if (attempt !== this.#attempt) return
      const names = [...this.#wanted]
      const counts = await Promise.all(this.#commands(names).map(each => this.#subscribe(each)))
      if (attempt !== this.#attempt) return
      const count = counts.at(-1) ?? 1
      if (count !== names.length + 1) {
        this.#remake(`Redis says that ${count} channels are subscribed to, of ${names.length + 1}`)
        return
      }
      this.#state = 'up'
      this.#ticksSinceHeard = 0
      // What was wanted or dropped meanwhile.
      const subscribed = new Set(names)
      for (const name of this.#wanted) if (!subscribed.has(name)) this.#changes.set(name, true)
      for (const name of names) if (!this.#wanted.has(name)) this.#changes.set(name, false)
      this.#flush()
      events.confirmed(names.filter(name => this.#wanted.has(name)))
      void this.#probe()
    } catch (error) {
      this.#failed(attempt, error)
      log.debug({ err: error }, 'could not subscribe to channels; trying again')
    }
  }

  /** By the first name, its own. */
  async #findManner(name: string): Promise<void> {
    const { connection } = this.#options
    try {
      await connection.ssubscribe(name)
      this.#isSharded = true
    } catch (error) {
      if (!(error instanceof Error) || !/unknown command/i.test(error.message)) throw error
      await connection.subscribe(name)
      this.#isSharded = false
    }
  }

  #subscribe(names: readonly string[]): Promise<number> {
    const { connection } = this.#options
    const asked = this.#isSharded ? connection.ssubscribe(...names) : connection.subscribe(...names)
    return asked as Promise<number>
  }

  #change(name: string, isWanted: boolean): void {
    if (this.#state !== 'up') return
    if (this.#changes.size === 0) setImmediate(() => this.#flush())
    this.#changes.set(name, isWanted)
  }

  /** What was wanted and dropped in one turn goes in as few commands as can be. */
  #flush(): void {
    const changes = this.#changes
    if (changes.size === 0 || this.#state !== 'up') return
    this.#changes = new Map()
    const attempt = this.#attempt
    const { connection, events } = this.#options
    const added = [...changes].flatMap(([name, isWanted]) => (isWanted ? name : []))
    const removed = [...changes].flatMap(([name, isWanted]) => (isWanted ? [] : name))
    connection.stream?.cork()
    for (const names of this.#commands(removed)) {
      const asked = this.#isSharded ? connection.sunsubscribe(...names) : connection.unsubscribe(...names)
      asked.catch((error: unknown) => this.#failed(attempt, error))
    }
    for (const names of this.#commands(added))
      this.#subscribe(names).then(
        () => {
          if (attempt === this.#attempt) events.confirmed(names.filter(name => this.#wanted.has(name)))
        },
        (error: unknown) => this.#failed(attempt, error),
      )
    connection.stream?.uncork()
  }

  #commands(names: readonly string[]): readonly (readonly string[])[] {
    const { slotOf } = this.#options
    const commands: string[][] = []
    const open = new Map<number, string[]>()
    for (const name of names) {
      const slot = slotOf === null ? 0 : slotOf(name)
      let command = open.get(slot)
      if (command === undefined || command.length === maxNames) {
        command = []
        commands.push(command)
        open.set(slot, command)
      }
      command.push(name)
    }
    return commands
  }

  /** All is subscribed to again, soon: here, or where the names are now. */
  #failed(attempt: number, error: unknown): void {
    if (attempt !== this.#attempt) return
    this.#attempt += 1
    this.#state = 'down'
    if (error instanceof Error && error.message.startsWith('MOVED ')) this.#options.events.moved()
  }

  async #probe(): Promise<void> {
    if (this.#probed?.isTaken) return
    this.#count += 1
    const probed = { token: encodeProbe(`${this.#attempt}-${this.#count}`), ticks: 0, isTaken: false }
    this.#probed = probed
    try {
      await this.#options.probe(this.#options.probeName, probed.token)
      probed.isTaken = true
    } catch {
      // Redis did not take it: nothing is to be heard.
      if (this.#probed === probed) this.#probed = null
    }
  }

  #remake(why: string): void {
    this.#options.log.debug(`${why}; connecting again`)
    this.#onClose()
    const { connection } = this.#options
    if (connection.status === 'ready') connection.stream?.destroy()
  }
}
