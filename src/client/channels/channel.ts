// What an application holds of a channel: what is said in it, who is there, what was said before.
//
//   const room = tide.channel<{ typing: { on: boolean } }>('room:42')
//   room.on('typing', ({ payload, sender }) => show(sender, payload.on))
//   await room.send('typing', { on: true })
//   room.presence.track({ name: 'me' })
//   room.presence.subscribe(({ here, joined, left }) => list(here))
import type { Json, Send, Track } from '../../protocol/messages.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { refusalError } from '../refusal-error.ts'
import type { Refusal } from '../status.ts'
import type { ChannelListener, ChannelStatus, Gap, Wants } from './channel-feed.ts'
import type { History, HistoryRange, Pages } from './channel-history.ts'
import { type AnyMessage, type Message, messageOf, type Payload, payloadOf } from './channel-message.ts'
import type { Channels } from './channels.ts'
import type { ChannelName } from './channels-options.ts'
import type { Sent } from './outbox.ts'
import { nobody, type PresenceChange, type PresenceState } from './presence-state.ts'

/** Of a channel whose events nobody has named: any JSON, or bytes. */
export type AnyEvents = Record<string, Payload>
export interface ChannelOptions {
  /** False: the public channel of the topic, where a rule allows one. Default: true, policies say who may. */
  readonly private?: boolean
  /** What this client says comes back to the listeners of this handle. Default: false. */
  readonly self?: boolean
  /** So many of the newest messages first, when the client enters the channel; of a channel with a history. */
  readonly last?: number
  /** Asks who is there from the start: else the first `presence.subscribe` enters the channel once more. */
  readonly presence?: boolean
}

export interface SendOptions {
  /** For this user or connection alone; it must be in the channel. */
  readonly to?: Send['to']
  /** `pg_current_xact_id()` of a transaction that has committed: whoever it shuts out does not get the message. */
  readonly after?: string | bigint
  /** Sent once under it, however often it is tried, as long as the channel's rule says. Default: one of its own. */
  readonly idempotencyKey?: string
  /** Rejected with SEND_TIMEOUT when it is not answered within so many milliseconds. Default: it waits. */
  readonly timeoutMs?: number
  /** While the client is offline: `wait` in the queue, or be rejected with CLIENT_OFFLINE at once. Default: as the client's `offlineSends` says. */
  readonly offline?: 'wait' | 'refuse'
}

export interface PresenceUpdate<Meta = Json> extends PresenceState<Meta>, PresenceChange<Meta> {}

/** A handle on one channel: `tide.channel(topic)`. All handles on one topic share one place in it.
 *  @typeParam Events what may be said, by event @typeParam Meta what members tell of themselves */
export class Channel<Events extends object = AnyEvents, Meta = Json> {
  /** Its name. */
  readonly topic: string
  /** Who is there. */
  readonly presence: ChannelPresence<Meta>
  /** Says which channel, and with which options: handles of one client with the same key are the same. */
  readonly key: string
  readonly #channels: Channels
  readonly #name: ChannelName
  readonly #options: ChannelOptions

  constructor(channels: Channels, topic: string, options: ChannelOptions = {}) {
    const { last = 0 } = options
    if (!Number.isInteger(last) || last < 0 || last > 10_000)
      throw new TidegateError('PARAMETER_INVALID', `last is ${last}; it takes 0 to 10000`)
    this.topic = topic
    this.key = JSON.stringify([topic, options])
    this.#channels = channels
    this.#name = options.private === false ? { topic, private: false } : { topic }
    this.#options = options
    this.presence = new ChannelPresence(channels, this.#name, this.#wants)
  }

  /** Whose it is. */
  get client(): object {
    return this.#channels
  }

  /** `idle`: the client is not in the channel, because nobody has asked. `live` over long-polls, in a channel without a history: what is said
   *  between two polls is missed, and told to `onGap`. */
  get status(): ChannelStatus {
    return this.#channels.find(this.#name)?.feed.status ?? 'idle'
  }

  /** Why it is not `live`, where there is a reason. */
  get error(): Refusal | null {
    return this.#channels.find(this.#name)?.feed.error ?? null
  }

  /** As whom others see this client: what they name in `to`, and find in `sender` and among the members. Null before it is connected;
   *  another after every reconnect. */
  get connection(): string | null {
    return this.#channels.connection
  }

  /** Calls the listener with what others say. The client is in the channel as long as anybody listens.
   *  @param event `*`: all of them
   *  @returns ends it; calling it again does nothing */
  on<E extends keyof Events & string>(event: E, listener: (message: Message<E, Events[E]>) => void): () => void
  on(event: '*', listener: (message: AnyMessage<Events>) => void): () => void
  on(event: string, listener: (message: never) => void): () => void {
    return this.#listen(event, listener as (message: Message) => void, {})
  }

  /** The messages one after another. A loop slower than the channel misses the oldest: `dropped` says how many right before the message.
   *  Leaving the loop ends the listening; it ends by itself when the client is closed.
   *  @param max what may wait for the loop
   *  @throws TidegateError when the channel is refused */
  messages<E extends keyof Events & string>(
    event: E,
    options?: { readonly max?: number },
  ): AsyncGenerator<Message<E, Events[E]> & { readonly dropped: number }, void, undefined>
  messages(
    event: '*',
    options?: { readonly max?: number },
  ): AsyncGenerator<AnyMessage<Events> & { readonly dropped: number }, void, undefined>
  async *messages(
    event: string,
    { max = 1000 }: { readonly max?: number } = {},
  ): AsyncGenerator<never, void, undefined> {
    const waiting: Message[] = []
    let dropped = 0
    let wake = (): void => {}
    const take = (message: Message): void => {
      if (waiting.push(message) > max) {
        waiting.shift()
        dropped += 1
      }
      wake()
    }
    // Of its own: whoever logs out leaves no place to ask.
    let { status, error } = this as { status: ChannelStatus; error: Refusal | null }
    const onStatus: ChannelListener['onStatus'] = (...now) => {
      ;[status, error] = now
      wake()
    }
    const unlisten = this.#listen(event, take, { onStatus })
    try {
      for (;;) {
        const message = waiting.shift()
        if (message !== undefined) {
          const missed = dropped
          dropped = 0
          yield { ...message, dropped: missed } as unknown as never
        } else if (status === 'refused') throw refusalError(error)
        else if (status === 'closed') return
        else
          await new Promise<void>(resolve => {
            wake = resolve
          })
      }
    } finally {
      unlisten()
    }
  }

  /** Messages were missed: `missed` of them, as far as that is known. Does not enter the channel. Without it they go to the client's
   *  `onError`. */
  onGap(listener: (gap: Gap) => void): () => void {
    return this.#channels.listen(this.#name, { onGap: listener }, null)
  }

  /** Calls the listener after every change of `status`. Does not enter the channel. */
  onStatus(listener: (status: ChannelStatus, error: Refusal | null) => void): () => void {
    return this.#channels.listen(this.#name, { onStatus: listener }, null)
  }

  /** Stays in the channel, also while nobody listens. @returns leaves it */
  join(): () => void {
    return this.#channels.hold(this.#name, this.#wants)
  }

  /** Says something, once, in the order in which it is said: sent again by itself when the link was lost before the answer. Waits while
   *  the client is offline. Messages of one channel keep their order, but for those that the server refuses.
   *  @param payload JSON, or bytes; taken as it is now
   *  @returns when the server has it, and the history where there is one
   *  @throws TidegateError SEND_REFUSED, RATE_LIMITED, PAYLOAD_TOO_LARGE, BAD_FRAME and what else the server answers; CLIENT_OFFLINE,
   *  SEND_QUEUE_FULL, SEND_TIMEOUT, SEND_UNCERTAIN, CLIENT_CLOSED */
  async send<E extends keyof Events & string>(event: E, payload: Events[E], options: SendOptions = {}): Promise<Sent> {
    const { timeoutMs, offline, idempotencyKey = newKey() } = options
    const { send, bytes } = this.#sendOf(event, payload as Payload, { ...options, idempotencyKey })
    const { offlineSends } = this.#channels.options
    const error = new TidegateError('SEND_TIMEOUT', `${this.topic} did not answer in ${timeoutMs} ms`)
    return this.#channels.send(this.#name, send, {
      bytes,
      mayWait: offline === undefined ? offlineSends !== 'refuse' : offline === 'wait',
      timeout: timeoutMs === undefined ? null : { ms: timeoutMs, error },
    })
  }

  /** Says what is worth nothing a moment later: a cursor. Not answered, not sent again.
   *  @returns false when it was dropped, because the client is not in the channel now
   *  @throws TidegateError PAYLOAD_TOO_LARGE, BAD_FRAME */
  sendNow<E extends keyof Events & string>(
    event: E,
    payload: Events[E],
    options: Pick<SendOptions, 'to' | 'after'> = {},
  ): boolean {
    const { send } = this.#sendOf(event, payload as Payload, options)
    return this.#channels.find(this.#name)?.feed.sendNow(send) ?? false
  }

  /** What was said before, in pages, oldest first within each: of a channel with a history. `last`, the newest, or those `before` a
   *  position, page by page into the past; those `after` one, towards now. */
  history(range: HistoryRange = {}): History<AnyMessage<Events>> {
    const { request } = this.#channels.options
    return pagesOf(async () => {
      const { Pages } = await import('./channel-history.ts')
      return new Pages<AnyMessage<Events>>(request, this.#name, range)
    })
  }

  get #wants() {
    const { self = false, presence = false, last = 0 } = this.#options
    return { self, presence, last }
  }

  #listen(event: string, listener: (message: Message) => void, more: Partial<ChannelListener>): () => void {
    const { self = false } = this.#options
    const onMessage: ChannelListener['onMessage'] = frame => {
      if (event === '*' || event === frame.event) listener(messageOf(frame))
    }
    return this.#channels.listen(this.#name, { ...more, self, onMessage }, this.#wants)
  }

  #sendOf(event: string, payload: Payload, options: SendOptions): { send: Send; bytes: number } {
    const { to, after, idempotencyKey } = options
    assertName('event', event)
    if (to !== undefined) assertName('to', 'user' in to ? to.user : to.connection)
    if (idempotencyKey !== undefined) assertName('idempotencyKey', idempotencyKey)
    const send: Send = {
      event,
      ...payloadOf(payload),
      ...(to === undefined ? {} : { to }),
      ...(idempotencyKey === undefined ? {} : { idempotencyKey }),
      ...(after === undefined ? {} : { after: String(after) }),
    }
    return { send, bytes: assertFits(send, this.#channels) }
  }
}

/** Who is in a channel, and what they tell of themselves. */
export class ChannelPresence<Meta = Json> {
  readonly #channels: Channels
  readonly #name: ChannelName
  readonly #wants: Wants

  constructor(channels: Channels, name: ChannelName, wants: Wants) {
    this.#channels = channels
    this.#name = name
    this.#wants = { ...wants, last: 0 }
  }

  /** Who is there, as far as it is known; the same object until something changes. */
  get state(): PresenceState<Meta> {
    return (this.#channels.find(this.#name)?.feed.presence ?? nobody) as PresenceState<Meta>
  }

  /** The same list until something changes. */
  get here(): PresenceState<Meta>['here'] {
    return this.state.here
  }

  /** How many are there; also where they are too many to be listed. */
  get count(): number {
    return this.state.count
  }

  /** Calls the listener with who is here, at once where that is known, and then with every change.
   *  @returns ends it */
  subscribe(listener: (update: PresenceUpdate<Meta>) => void): () => void {
    const onPresence: ChannelListener['onPresence'] = (state, change) =>
      listener({ ...state, ...change } as unknown as PresenceUpdate<Meta>)
    return this.#channels.listen(this.#name, { onPresence }, { ...this.#wants, presence: true })
  }

  /** Is there, and stays there over reconnects, until `untrack`. Called again: tells something else of itself. The client has one entry in
   *  a channel: of several handles the one that spoke last counts.
   *  @param meta JSON, what it tells of itself
   *  @param key as whom, where the channel's rule leaves that to the client; default: the token's subject
   *  @throws TidegateError SEND_REFUSED, PRESENCE_OFF, PAYLOAD_TOO_LARGE and what else the server answers; CLIENT_CLOSED */
  async track(meta: Meta, { key }: { readonly key?: string } = {}): Promise<void> {
    if (key !== undefined) assertName('key', key)
    const { payload = null } = payloadOf(meta as Json)
    const track: Track = { meta: payload, ...(key === undefined ? {} : { key }) }
    assertFits(track, this.#channels)
    return this.#channels.track(this.#name, this, track)
  }

  /** The same as `track`, for whoever is there already. */
  update(meta: Meta, options?: { readonly key?: string }): Promise<void> {
    return this.track(meta, options)
  }

  /** Is there no longer; at once, without the grace of a lost link. */
  async untrack(): Promise<void> {
    await this.#channels.track(this.#name, this, null)
  }
}

/** What the server puts around a message, and its place among the frames. */
const frameRoom = 64

/** @returns its bytes @throws PAYLOAD_TOO_LARGE: such a frame would end the connection */
function assertFits(asked: Send | Track, { options }: Channels): number {
  const { maxFrameBytes = 65_536 } = options
  const bytes = new TextEncoder().encode(JSON.stringify(asked)).length
  if (bytes + frameRoom <= maxFrameBytes) return bytes
  throw new TidegateError('PAYLOAD_TOO_LARGE', `it takes ${bytes} bytes, and a frame ${maxFrameBytes}`)
}

function assertName(what: string, text: string): void {
  if (typeof text !== 'string' || text === '' || text.length > 255)
    throw new TidegateError('BAD_FRAME', `${what} has 1 to 255 characters`)
}

/** @param load what gives the pages, whose code is fetched with the first */
function pagesOf<M>(load: () => Promise<Pages<M>>): History<M> {
  let pages: Promise<Pages<M>> | null = null
  const next: History<M>['next'] = async () => {
    pages ??= load()
    return (await pages).next()
  }
  return {
    next,
    async *[Symbol.asyncIterator]() {
      for (let page = await next(); page !== null; page = await next()) yield page
    },
  }
}

const newKey = (): string =>
  Array.from(globalThis.crypto.getRandomValues(new Uint32Array(4)), part => part.toString(36)).join('-')
