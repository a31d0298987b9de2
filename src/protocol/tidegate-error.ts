// The one error Tidegate throws on purpose: a stable code, a message that names the thing and its value, a cause.
import { type Code, type PeerCode, peerCodes } from './codes.ts'

export interface ErrorBody {
  readonly code: string
  readonly message: string
  readonly retry: boolean
  readonly retryAfterMs?: number
}

/** A refusal: by the server, or by the client itself. Compare its `code`; the message is for people, and may change.
 *  @example throw new TidegateError('COLUMN_UNKNOWN', 'public.messages has no column "bodyy"') */
export class TidegateError extends Error {
  /** A stable code of docs/errors.md, which says what to do. */
  readonly code: Code
  /** When to try again, where that helps and the server said so. */
  readonly retryAfterMs: number | undefined

  constructor(code: Code, message: string, options: { cause?: unknown; retryAfterMs?: number } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = 'TidegateError'
    this.code = code
    this.retryAfterMs = options.retryAfterMs
  }
}

export const isPeerCode = (code: string): code is PeerCode => Object.hasOwn(peerCodes, code)

/** What a peer is told of an error: its own refusals word for word, of anything else only that it happened. */
export function errorBodyOf(error: unknown): ErrorBody & { code: PeerCode } {
  if (error instanceof TidegateError && isPeerCode(error.code)) {
    const { retry } = peerCodes[error.code]
    const body = { code: error.code, message: error.message, retry: retry !== 'never' }
    return error.retryAfterMs === undefined ? body : { ...body, retryAfterMs: error.retryAfterMs }
  }
  return { code: 'INTERNAL', message: 'the server failed; see its log', retry: true, retryAfterMs: 1000 }
}
