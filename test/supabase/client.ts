// A client of Supabase's as a scenario holds it, wherever it runs, and its channels with all that they were told.
import { setTimeout as sleep } from 'node:timers/promises'
import type { JoinOptions, Json, JsonObject, OpenOptions, Told } from './performer.ts'
import type { Runtime } from './runtime.ts'

const waitMs = 30_000

/** What `postgres_changes` gives its callback. */
export interface Change {
  readonly schema: string
  readonly table: string
  readonly commit_timestamp: string
  readonly eventType: string
  readonly new: JsonObject
  readonly old: JsonObject
  readonly errors: Json
}

export interface Broadcast {
  readonly type: string
  readonly event: string
  readonly payload: Json
  readonly meta?: { readonly id: string; readonly replayed?: boolean; readonly sender?: JsonObject }
}

/** A channel of one client. A topic that is joined again goes on in the same list. */
export class Room {
  readonly topic: string
  readonly told: Told[] = []
  readonly client: Client

  constructor(client: Client, topic: string) {
    this.client = client
    this.topic = topic
  }

  get statuses(): string[] {
    return this.of('status').map(([status]) => status as string)
  }

  /** Of one call of `.on('postgres_changes')`. */
  changes(binding = 0): Change[] {
    return this.of('change').flatMap(([of, change]) => (of === binding ? [change as unknown as Change] : []))
  }

  /** In short: `INSERT 1`. */
  ops(binding = 0): string[] {
    return this.changes(binding).map(({ eventType, new: row, old }) => `${eventType} ${row.id ?? old.id}`)
  }

  get broadcasts(): Broadcast[] {
    return this.of('broadcast').map(([message]) => message as unknown as Broadcast)
  }

  /** In short: event and payload. */
  get heard(): unknown[][] {
    return this.broadcasts.map(({ event, payload }) => [event, payload])
  }

  get systems(): JsonObject[] {
    return this.of('system').map(([message]) => message as JsonObject)
  }

  /** The last state that a `sync` saw, without references, keys and metas sorted. */
  get present(): Record<string, Json[]> {
    return plainState((this.of('sync').at(-1)?.[0] ?? {}) as JsonObject)
  }

  of(kind: string): Json[][] {
    return this.told.flatMap(([each, ...values]) => (each === kind ? [values] : []))
  }

  /** @throws with all that it was told */
  async until(what: string, holds: () => boolean, timeoutMs = waitMs): Promise<void> {
    const deadline = Date.now() + timeoutMs
    while (!holds()) {
      if (Date.now() > deadline)
        throw new Error(
          `${this.client.name} in ${this.topic} waits for ${what}; it was told\n${this.told.map(each => JSON.stringify(each).slice(0, 400)).join('\n')}`,
        )
      await sleep(20)
    }
  }

  /** For the n-th time. */
  subscribed(times = 1): Promise<void> {
    return this.until(`SUBSCRIBED, ${times}`, () => this.statuses.filter(each => each === 'SUBSCRIBED').length >= times)
  }

  status(status: string, times = 1): Promise<void> {
    return this.until(`${status}, ${times}`, () => this.statuses.filter(each => each === status).length >= times)
  }

  /** That a row so numbered was told of. */
  change(id: number, binding = 0): Promise<void> {
    return this.until(`a change of ${id}`, () =>
      this.changes(binding).some(each => (each.new.id ?? each.old.id) === id),
    )
  }

  event(event: string, times = 1): Promise<void> {
    return this.until(`${event}, ${times}`, () => this.broadcasts.filter(each => each.event === event).length >= times)
  }

  /** The state that the last `sync` saw. */
  presence(state: Record<string, Json[]>): Promise<void> {
    const wanted = JSON.stringify(plainState(state))
    return this.until(`presence ${wanted}`, () => JSON.stringify(this.present) === wanted)
  }

  send(event: string, payload: Json, options: JsonObject = {}): Promise<string> {
    return this.client.runtime.ask('send', this.client.name, this.topic, event, payload, options)
  }

  httpSend(event: string, payload: Json, options: JsonObject = {}): Promise<Json> {
    return this.client.runtime.ask('httpSend', this.client.name, this.topic, event, payload, options)
  }

  track(payload: JsonObject): Promise<string> {
    return this.client.runtime.ask('track', this.client.name, this.topic, payload)
  }

  untrack(): Promise<string> {
    return this.client.runtime.ask('untrack', this.client.name, this.topic)
  }

  presenceState(): Promise<Json> {
    return this.client.runtime.ask('presenceState', this.client.name, this.topic)
  }

  unsubscribe(): Promise<string> {
    return this.client.runtime.ask('unsubscribe', this.client.name, this.topic)
  }

  remove(): Promise<string> {
    return this.client.runtime.ask('removeChannel', this.client.name, this.topic)
  }

  subscribe(): Promise<void> {
    return this.client.runtime.ask('subscribe', this.client.name, this.topic)
  }
}

export class Client {
  readonly name: string
  readonly runtime: Runtime
  /** What `heartbeatCallback` was given. */
  readonly heartbeats: string[] = []
  readonly #rooms = new Map<string, Room>()

  constructor(runtime: Runtime, name: string) {
    this.runtime = runtime
    this.name = name
  }

  open(options: OpenOptions): Promise<void> {
    return this.runtime.ask('open', this.name, options)
  }

  async join(topic: string, options: JoinOptions = {}): Promise<Room> {
    const room = this.room(topic)
    await this.runtime.ask('join', this.name, topic, options)
    return room
  }

  /** Listens to all of it without subscribing. */
  async prepare(topic: string, options: JoinOptions = {}): Promise<Room> {
    const room = this.room(topic)
    await this.runtime.ask('prepare', this.name, topic, options)
    return room
  }

  /** Joins and is SUBSCRIBED. */
  async enter(topic: string, options: JoinOptions = {}): Promise<Room> {
    const room = this.room(topic)
    const before = room.statuses.filter(each => each === 'SUBSCRIBED').length
    await this.join(topic, options)
    await room.subscribed(before + 1)
    return room
  }

  renew(token?: string): Promise<void> {
    return this.runtime.ask('renew', this.name, ...(token === undefined ? [] : [token]))
  }

  setAuth(token: string): Promise<void> {
    return this.runtime.ask('setAuth', this.name, token)
  }

  take(topic: string | null, told: Told): void {
    if (topic !== null) this.room(topic).told.push(told)
    else if (told[0] === 'heartbeat') this.heartbeats.push(told[1] as string)
  }

  room(topic: string): Room {
    const known = this.#rooms.get(topic)
    if (known !== undefined) return known
    const room = new Room(this, topic)
    this.#rooms.set(topic, room)
    return room
  }
}

function plainState(state: JsonObject): Record<string, Json[]> {
  const keys = Object.keys(state).sort()
  return Object.fromEntries(
    keys.map(key => [
      key,
      (state[key] as JsonObject[])
        .map(({ presence_ref: _, ...meta }) => meta)
        .sort((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1)),
    ]),
  )
}
