// The way from what applications hold of channels to the places in them, whose code is fetched with the first use: a page that only
// follows tables never loads it.
import type { Send, Track } from '../../protocol/messages.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { ChannelListener, Wants } from './channel-feed.ts'
import type { ChannelPlace, ChannelPlaces, SendHow } from './channel-places.ts'
import type { ChannelName, ChannelsOptions } from './channels-options.ts'
import type { Sent } from './outbox.ts'

/** Names of earlier connections of this client: what it said over them may come back. */
const maxNames = 16
/** When the code could not be fetched: in a while, as the page is perhaps offline. */
const loadAgainMs = 2000

export class Channels {
  readonly options: ChannelsOptions
  #places: ChannelPlaces | null = null
  #loading: Promise<ChannelPlaces> | null = null
  #names: string[] = []
  /** Grows when the user goes: what was asked before is nothing to the next one. */
  #user = 0

  constructor(options: ChannelsOptions) {
    this.options = options
  }

  /** The name of the connection, as others in its channels see it; null before the first. */
  get connection(): string | null {
    return this.#names.at(-1) ?? null
  }

  /** The server's welcome. */
  connected(connection: string): void {
    this.#names = [...this.#names.filter(name => name !== connection), connection].slice(-maxNames)
  }

  /** The place in the channel, if the client has one. */
  find(name: ChannelName): ChannelPlace | undefined {
    return this.#places?.find(name)
  }

  /** @param wants null: only while others hold the place */
  listen(name: ChannelName, listener: ChannelListener, wants: Wants | null): () => void {
    return this.#until(
      places => places.of(name).listen(listener, wants),
      () => listener.onStatus?.('closed', null),
    )
  }

  hold(name: ChannelName, wants: Wants): () => void {
    return this.#until(places => places.of(name).hold(wants))
  }

  send(name: ChannelName, send: Send, how: SendHow): Promise<Sent> {
    return this.#once(places => places.of(name).send(send, how))
  }

  /** @param track null: is there no more, if it is */
  track(name: ChannelName, owner: object, track: Track | null): Promise<void> {
    return this.#once(async places => {
      await (track === null ? places.find(name) : places.of(name))?.track(owner, track)
    })
  }

  /** The user has gone, and every feed with it. */
  end(): void {
    this.#user += 1
    this.#places?.end()
    this.#names = []
  }

  /** At once where the code is there, so that what is asked stays in order with what else is done.
   *  @throws CLIENT_CLOSED when the user has gone meanwhile */
  #once<T>(ask: (places: ChannelPlaces) => Promise<T>): Promise<T> {
    return this.#places === null ? this.#ours().then(ask) : ask(this.#places)
  }

  async #ours(): Promise<ChannelPlaces> {
    const user = this.#user
    const places = await this.#load()
    if (user === this.#user) return places
    throw new TidegateError('CLIENT_CLOSED', 'the client was logged out before it was sent')
  }

  /** @param over the user has gone before it could begin
   *  @returns ends it, also before it has begun */
  #until(begin: (places: ChannelPlaces) => () => void, over = (): void => {}): () => void {
    if (this.#places !== null) return begin(this.#places)
    let end: (() => void) | null = null
    let isOver = false
    this.#ours().then(
      places => {
        if (!isOver) end = begin(places)
      },
      () => {
        if (!isOver) over()
      },
    )
    return () => {
      isOver = true
      end?.()
    }
  }

  #load(): Promise<ChannelPlaces> {
    this.#loading ??= this.#fetch()
    return this.#loading
  }

  async #fetch(): Promise<ChannelPlaces> {
    for (;;) {
      try {
        const { ChannelPlaces } = await import('./channel-places.ts')
        this.#places = new ChannelPlaces(this.options, connection => this.#names.includes(connection))
        return this.#places
      } catch (error) {
        this.options.report(error as Error)
        await new Promise(resolve => setTimeout(resolve, loadAgainMs))
      }
    }
  }
}
