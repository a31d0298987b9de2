// Supabase's clients as their packages are published, and all that they tell. Runs where a client runs, in Node or in a page: it is asked by
// name, with what JSON can say.
import { createClient, postgresChangesFilter, RealtimeClient } from '@supabase/supabase-js'
import { createClient as createClient2025, RealtimeClient as RealtimeClient2025 } from 'supabase-js-2025'

export type Version = '2.119.1' | '2.83.0'
export type Json = null | boolean | number | string | readonly Json[] | JsonObject
export interface JsonObject {
  readonly [key: string]: Json
}

export interface OpenOptions {
  readonly version: Version
  readonly url: string
  readonly key: string
  /** As `createClient` takes them below `realtime`: vsn, heartbeatIntervalMs, worker ... */
  readonly realtime: JsonObject
  /** What `accessToken` answers until `token` changes it; left out: the client has none, and says its key. */
  readonly token?: string
  /** The RealtimeClient by itself, to which tokens are given by hand. */
  readonly isBare?: boolean
}

/** One call of `.on('postgres_changes', ...)`. */
export interface ChangesOptions {
  readonly event: string
  readonly schema: string
  readonly table?: string
  readonly filter?: string
  readonly select?: readonly string[]
  /** Calls of the filter builder instead of `filter`: `[['eq', 'id', 1]]`. */
  readonly built?: readonly (readonly [method: string, ...Json[]])[]
}

export interface JoinOptions {
  readonly config?: JsonObject
  readonly changes?: readonly ChangesOptions[]
  /** Events. */
  readonly broadcast?: readonly string[]
  readonly presence?: readonly ('sync' | 'join' | 'leave')[]
  readonly timeoutMs?: number
}

/** What a callback was given: `['status', 'SUBSCRIBED', null]`, `['change', binding, payload]`, `['broadcast', payload]`,
 *  `['sync', state]`, `['join', payload]`, `['leave', payload]`, `['system', payload]`. */
export type Told = readonly [kind: string, ...Json[]]

/** @param topic null: of the client itself */
export type Tell = (client: string, topic: string | null, told: Told) => void

interface Channel {
  // biome-ignore lint/suspicious/noExplicitAny: the two packages differ in their types, not in these calls.
  on(type: string, filter: object, callback: (payload: any) => void): Channel
  subscribe(callback: (status: string, error?: Error) => void, timeoutMs?: number): Channel
  send(message: object, options?: object): Promise<string>
  httpSend(event: string, payload: unknown, options?: object): Promise<unknown>
  track(payload: object): Promise<string>
  untrack(): Promise<string>
  unsubscribe(): Promise<string>
  presenceState(): object
}

interface Realtime {
  channel(topic: string, options?: object): Channel
  removeChannel(channel: Channel): Promise<string>
  removeAllChannels(): Promise<string[]>
  setAuth(token?: string): Promise<void>
  disconnect(code?: number, reason?: string): unknown
}

type CreateClient = (url: string, key: string, options: object) => { readonly realtime: Realtime }

const creators: Readonly<Record<Version, unknown>> = { '2.119.1': createClient, '2.83.0': createClient2025 }

interface Seat {
  readonly realtime: Realtime
  readonly channels: Map<string, Channel>
  token: string | undefined
}

/** The methods are what may be asked, the first argument is always the client's name. */
export class Performer {
  readonly #tell: Tell
  readonly #seats = new Map<string, Seat>()

  constructor(tell: Tell) {
    this.#tell = tell
  }

  open(name: string, { version, url, key, realtime, token, isBare = false }: OpenOptions): void {
    const settings = {
      ...realtime,
      heartbeatCallback: (status: string) => this.#tell(name, null, ['heartbeat', status]),
    }
    const isCurrent = version === '2.119.1'
    const seat = { channels: new Map(), token } as Seat & { realtime: Realtime }
    this.#seats.set(name, seat)
    if (isBare) {
      const Client = isCurrent ? RealtimeClient : RealtimeClient2025
      const endpoint = `${url.replace(/^http/, 'ws')}/realtime/v1`
      Object.assign(seat, { realtime: new Client(endpoint, { ...settings, params: { apikey: key } }) })
      return
    }
    const create = creators[version] as CreateClient
    const options = {
      realtime: settings,
      ...(token === undefined
        ? { auth: { persistSession: false, autoRefreshToken: false, detectSessionInUrl: false } }
        : { accessToken: async () => seat.token ?? null }),
    }
    Object.assign(seat, { realtime: create(url, key, options).realtime })
  }

  /** Makes the channel, listens, subscribes. */
  join(name: string, topic: string, options: JoinOptions): void {
    this.prepare(name, topic, options)
    this.subscribe(name, topic, options.timeoutMs)
  }

  prepare(name: string, topic: string, { config, changes, broadcast, presence }: JoinOptions): void {
    const seat = this.#of(name)
    const channel = seat.realtime.channel(topic, config === undefined ? undefined : { config: structuredClone(config) })
    seat.channels.set(topic, channel)
    const tell = (...told: Told): void => this.#tell(name, topic, asJson(told) as Told)
    for (const [index, { built, ...filter }] of (changes ?? []).entries())
      channel.on(
        'postgres_changes',
        built === undefined ? filter : { ...filter, filter: buildFilter(built) },
        payload => tell('change', index, payload),
      )
    for (const event of broadcast ?? []) channel.on('broadcast', { event }, payload => tell('broadcast', payload))
    for (const event of presence ?? [])
      channel.on('presence', { event }, payload =>
        event === 'sync' ? tell('sync', asJson(channel.presenceState())) : tell(event, payload),
      )
    channel.on('system', {}, payload => tell('system', payload))
  }

  subscribe(name: string, topic: string, timeoutMs?: number): void {
    this.#channel(name, topic).subscribe((status, error) => {
      this.#tell(name, topic, ['status', status, error === undefined ? null : String(error?.message ?? error)])
    }, timeoutMs)
  }

  send(name: string, topic: string, event: string, payload: Json, options: JsonObject = {}): Promise<string> {
    const { timeout, ...rest } = options
    const message = { type: 'broadcast', event, payload: asPayload(payload), ...rest }
    return this.#channel(name, topic).send(message, timeout === undefined ? {} : { timeout })
  }

  /** @returns what it resolves with, or the message it rejects with */
  async httpSend(name: string, topic: string, event: string, payload: Json, options: JsonObject = {}): Promise<Json> {
    try {
      return asJson(await this.#channel(name, topic).httpSend(event, asPayload(payload), options))
    } catch (error) {
      return { rejected: error instanceof Error ? error.message : String(error) }
    }
  }

  track(name: string, topic: string, payload: JsonObject): Promise<string> {
    return this.#channel(name, topic).track(payload)
  }

  untrack(name: string, topic: string): Promise<string> {
    return this.#channel(name, topic).untrack()
  }

  presenceState(name: string, topic: string): Json {
    return asJson(this.#channel(name, topic).presenceState())
  }

  unsubscribe(name: string, topic: string): Promise<string> {
    return this.#channel(name, topic).unsubscribe()
  }

  removeChannel(name: string, topic: string): Promise<string> {
    return this.#of(name).realtime.removeChannel(this.#channel(name, topic))
  }

  /** The client asks `accessToken` at once. @param token what it answers from now on */
  async renew(name: string, token?: string): Promise<void> {
    const seat = this.#of(name)
    if (token !== undefined) seat.token = token
    await seat.realtime.setAuth()
  }

  /** By hand, of a RealtimeClient by itself. */
  setAuth(name: string, token: string): Promise<void> {
    return this.#of(name).realtime.setAuth(token)
  }

  disconnect(name: string): void {
    void this.#of(name).realtime.disconnect()
  }

  async close(name: string): Promise<void> {
    const { realtime } = this.#of(name)
    this.#seats.delete(name)
    await realtime.removeAllChannels()
    await realtime.disconnect()
  }

  #of(name: string): Seat {
    const seat = this.#seats.get(name)
    if (seat === undefined) throw new Error(`no client ${name}`)
    return seat
  }

  #channel(name: string, topic: string): Channel {
    const channel = this.#of(name).channels.get(topic)
    if (channel === undefined) throw new Error(`no channel ${topic} of ${name}`)
    return channel
  }
}

function buildFilter(calls: readonly (readonly [method: string, ...Json[]])[]): unknown {
  const builder = postgresChangesFilter()
  for (const [method, ...args] of calls)
    (builder as unknown as Record<string, (...args: Json[]) => void>)[method]!(...args)
  return builder
}

/** Bytes are said as `{"bytes": [1, 2]}`, both ways. */
function asPayload(payload: Json): unknown {
  const bytes = (payload as { bytes?: number[] } | null)?.bytes
  return bytes === undefined ? payload : new Uint8Array(bytes).buffer
}

function asJson(value: unknown): Json {
  return JSON.parse(
    JSON.stringify(value ?? null, (_, each: unknown) =>
      each instanceof ArrayBuffer ? { bytes: [...new Uint8Array(each)] } : each,
    ),
  ) as Json
}
