// Who is in a channel, in a component; and the component's user among them.
import { useCallback, useEffect, useMemo, useState, useSyncExternalStore } from 'react'
import type { Channel, PresenceState, Refusal } from '../client/client.ts'
import type { TidegateError } from '../protocol/tidegate-error.ts'
import { useSame } from './keyed.ts'

export interface PresenceResult<Meta> extends PresenceState<Meta> {
  /** Why the user is not listed, where that was asked and refused. */
  readonly error: Refusal | null
}

/** Follows who is in the channel for as long as the component is there.
 *  @param channel may be made in render; null: nobody is there
 *  @param track what the user tells of themselves while the component is there; left out: the user is not listed. It may be made in render:
 *  what is the same as JSON is not told again.
 *  @example
 *  const { here, count } = usePresence(tide.channel('room:42'), { name: 'me' }) */
export function usePresence<Events extends object, Meta>(
  channel: Channel<Events, Meta> | null | undefined,
  track?: NoInfer<Meta>,
): PresenceResult<Meta> {
  const held = useSame(channel ?? null)
  const state = useSyncExternalStore(
    useCallback(wake => held?.presence.subscribe(wake) ?? (() => {}), [held]),
    () => held?.presence.state ?? nobody,
    () => nobody,
  )
  const [error, setError] = useState<Refusal | null>(null)
  const listed = useMemo(() => (held === null ? null : new Listed(held.presence, setError)), [held])
  const isTracked = track !== undefined
  useEffect(() => (isTracked ? listed?.hold() : undefined), [listed, isTracked])
  const text = JSON.stringify(track)
  useEffect(() => {
    if (text !== undefined) listed?.tell(JSON.parse(text))
  }, [listed, text])
  return useMemo(() => ({ ...state, error: isTracked ? error : null }), [state, isTracked, error])
}

const nobody: PresenceState<never> = { here: [], count: 0, isListed: true, isCurrent: false }

interface Tracking<Meta> {
  track(meta: Meta): Promise<void>
  untrack(): Promise<void>
}

/** The user's entry, as one component wants it. */
class Listed<Meta> {
  readonly #presence: Tracking<Meta>
  readonly #onError: (error: Refusal | null) => void
  #holds = 0

  constructor(presence: Tracking<Meta>, onError: (error: Refusal | null) => void) {
    this.#presence = presence
    this.#onError = onError
  }

  hold(): () => void {
    this.#holds += 1
    return () => {
      this.#holds -= 1
      // Not at once: React's StrictMode leaves and comes back, and nobody need see it.
      queueMicrotask(() => {
        if (this.#holds === 0) this.#settle(this.#presence.untrack())
      })
    }
  }

  tell(meta: Meta): void {
    this.#settle(this.#presence.track(meta))
  }

  #settle(done: Promise<void>): void {
    done.then(
      () => this.#onError(null),
      ({ code, message }: TidegateError) => this.#onError({ code, message }),
    )
  }
}
