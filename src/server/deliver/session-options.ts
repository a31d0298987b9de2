// What a session is begun with: types only.
import type { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Principal } from '../subscribe/subscription.ts'
import type { Carrier, FrameQueue } from './carrier.ts'
import type { Services } from './services.ts'

export interface SessionOptions {
  readonly services: Services
  readonly carrier: Carrier
  /** @param onDrained to be called when there is room again, after the queue was past its bound */
  readonly queue: (onDrained: () => void) => FrameQueue
  /** What was verified before it began: a principal, an error to close with, or null when the first frame must bring the token. */
  readonly credentials: Principal | TidegateError | null
  readonly name?: string
  /** See `Caller`. */
  readonly isPublicOpen?: boolean
}
