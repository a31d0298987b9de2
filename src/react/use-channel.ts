// A place in a channel in a component: what is said there, and a way to say something.
import { type RefObject, useCallback, useMemo, useSyncExternalStore } from 'react'
import type { AnyMessage, Channel, ChannelStatus, Gap, Message, Refusal } from '../client/client.ts'
import { TidegateError } from '../protocol/tidegate-error.ts'
import { useSame } from './keyed.ts'
import { useLatest } from './latest.ts'

/** By event; `*` hears all of them. */
export type ChannelListeners<Events extends object> = string extends keyof Events
  ? { readonly [event: string]: (message: Message<string, Events[keyof Events]>) => void }
  : { readonly [E in keyof Events & string]?: (message: Message<E, Events[E]>) => void } & {
      readonly '*'?: (message: AnyMessage<Events>) => void
    }

export interface UseChannelOptions {
  /** False: the client does not enter the channel for this component. */
  readonly enabled?: boolean
  /** Messages were missed. Without it they go to the client's `onError`. */
  readonly onGap?: (gap: Gap) => void
}

export interface ChannelResult<Events extends object, Meta> {
  /** `idle`: the client is not in the channel. */
  readonly status: ChannelStatus
  /** Why the status is not `live`, where there is a reason. */
  readonly error: Refusal | null
  /** The channel's own `send` and `sendNow`; the same functions for the same channel. */
  readonly send: Channel<Events, Meta>['send']
  readonly sendNow: Channel<Events, Meta>['sendNow']
}

/** Is in the channel for as long as the component is there, and calls the listeners with what is said. The channel may be made in render,
 *  and so may the listeners: it is always those of the last render that are called. Messages do not render the component.
 *  @param channel null: none
 *  @example
 *  const { send } = useChannel(tide.channel('room:42'), { typing: ({ sender, payload }) => show(sender, payload) }) */
export function useChannel<Events extends object, Meta>(
  channel: Channel<Events, Meta> | null | undefined,
  listeners: ChannelListeners<NoInfer<Events>>,
  { enabled = true, onGap }: UseChannelOptions = {},
): ChannelResult<Events, Meta> {
  const held = useSame(channel ?? null)
  const latest = useLatest<Listening>({ listeners: listeners as Listening['listeners'], onGap })
  const hearsGaps = onGap !== undefined
  const place = useMemo(
    () => (held === null || !enabled ? null : new Place(held, latest, hearsGaps)),
    [held, enabled, latest, hearsGaps],
  )
  const state = useSyncExternalStore(
    useCallback(wake => place?.subscribe(wake) ?? (() => {}), [place]),
    () => place?.read() ?? idle,
    () => idle,
  )
  const ways = useMemo(
    () => ({
      send: held === null ? refuse : held.send.bind(held),
      sendNow: held === null ? () => false : held.sendNow.bind(held),
    }),
    [held],
  )
  return useMemo(() => ({ ...state, ...ways }), [state, ways])
}

interface Listening {
  readonly listeners: { readonly [event: string]: ((message: unknown) => void) | undefined }
  readonly onGap: UseChannelOptions['onGap']
}

interface PlaceState {
  readonly status: ChannelStatus
  readonly error: Refusal | null
}

const idle: PlaceState = { status: 'idle', error: null }
const refuse = (): Promise<never> =>
  Promise.reject(new TidegateError('CHANNEL_CLOSED', 'useChannel was given no channel to send to'))

class Place<Events extends object, Meta> {
  readonly #channel: Channel<Events, Meta>
  readonly #latest: RefObject<Listening>
  readonly #hearsGaps: boolean
  #state = idle

  constructor(channel: Channel<Events, Meta>, latest: RefObject<Listening>, hearsGaps: boolean) {
    this.#channel = channel
    this.#latest = latest
    this.#hearsGaps = hearsGaps
  }

  subscribe(wake: () => void): () => void {
    const channel = this.#channel
    const ends = [
      channel.onStatus(wake),
      channel.on('*', message => {
        const { listeners } = this.#latest.current
        // An event may have any name, `toString` too.
        if (message.event !== '*' && Object.hasOwn(listeners, message.event)) listeners[message.event]?.(message)
        listeners['*']?.(message)
      }),
      ...(this.#hearsGaps ? [channel.onGap(gap => this.#latest.current.onGap?.(gap))] : []),
    ]
    return () => {
      for (const end of ends) end()
    }
  }

  /** The same object until something changes. */
  read(): PlaceState {
    const { status, error } = this.#channel
    if (status !== this.#state.status || error !== this.#state.error) this.#state = { status, error }
    return this.#state
  }
}
