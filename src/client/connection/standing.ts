// The status that follows from where the connection stands.

import type { FeedStatus, Refusal, Status } from '../status.ts'
import type { TransportName } from '../transports/transport.ts'
import type { ConnectionState } from './connection-machine.ts'

export function statusOf(
  state: ConnectionState,
  { transport, areLive, stale }: { transport: TransportName; areLive: boolean; stale: boolean },
): Status {
  switch (state.name) {
    case 'idle':
    case 'closed':
      return { name: state.name }
    case 'refused':
      return { name: 'refused', error: state.error }
    case 'waiting':
      return { name: 'offline', error: state.error, retryAt: state.retryAt }
    case 'asking':
    case 'opening':
      return state.attempt === 0 ? { name: 'connecting' } : { name: 'offline', error: state.error, retryAt: null }
    case 'open': {
      if (!areLive) return { name: 'catching up', transport }
      const { reason } = state.ladder
      return reason === null ? { name: 'live', transport, stale } : { name: 'degraded', transport, stale, reason }
    }
  }
}

/** How a subscription is doing that no answer of the server has reached on this connection. */
export function standingOf(state: ConnectionState): readonly [status: FeedStatus, error: Refusal | null] {
  switch (state.name) {
    case 'idle':
      return ['connecting', null]
    case 'asking':
    case 'opening':
      return [state.attempt === 0 ? 'connecting' : 'offline', state.error]
    case 'waiting':
      return ['offline', state.error]
    case 'open':
      return ['catching up', null]
    case 'refused':
      return ['refused', state.error]
    case 'closed':
      return ['closed', null]
  }
}
