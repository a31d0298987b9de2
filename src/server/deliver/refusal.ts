// What a client is told when it is refused: the same body on every wire, with a hint when to come back.
import { type PeerCode, peerCodes } from '../../protocol/codes.ts'
import type { ErrorEvent, ServerFrame } from '../../protocol/messages.ts'
import { errorBodyOf, isPeerCode, TidegateError } from '../../protocol/tidegate-error.ts'
import type { Figures } from '../figures/figures.ts'
import type { Log } from '../log/log.ts'
import { repeated } from '../log/log-repeated.ts'

export interface Refusal extends ErrorEvent {
  code: PeerCode
}

/** @returns the body of the error; what is not a peer's own fault is logged here, once, and told as INTERNAL */
export function refusalOf(error: unknown, log: Log, random: () => number): Refusal {
  if (!(error instanceof TidegateError && isPeerCode(error.code))) {
    repeated(log).error({ err: error }, 'a request or subscription failed')
  }
  const body = errorBodyOf(error)
  if (body.retryAfterMs !== undefined) return body
  const { retry } = peerCodes[body.code]
  // Without a spread, everybody refused in one moment would come back in one moment.
  if (retry === 'now') return { ...body, retryAfterMs: Math.round(random() * 1000) }
  if (retry === 'later') return { ...body, retryAfterMs: Math.round((laterMs[body.code] ?? 1000) * (1 + random() * 2)) }
  return body
}

/** At least so long, where a second would change nothing: until somebody closes a tab. */
const laterMs: { readonly [code in PeerCode]?: number } = { ADDRESS_TOO_MANY: 5000, USER_TOO_MANY: 5000 }

/** The same, counted: for all that is refused, but not for what ends a connection. */
export function refused({ log, random, figures }: Refuser, error: unknown): Refusal {
  const refusal = refusalOf(error, log, random)
  figures.refusals.add(refusal.code)
  return refusal
}

interface Refuser {
  readonly log: Log
  readonly random: () => number
  readonly figures: Figures
}

/** @param of what is refused; see the effect `refuse` of a session */
export const errorFrame = (
  { id, ref, same }: { readonly id: number | null; readonly ref?: number | null; readonly same?: number },
  refusal: Refusal,
): ServerFrame => ({
  type: 'error',
  ...(id === null ? {} : { id }),
  ...(ref === undefined ? {} : { ref }),
  ...(same === undefined ? {} : { same }),
  ...refusal,
})

/** How a member of channels ends whose connection is closed by this code: whoever is to come back at once is not gone. */
export const endOf = (code: PeerCode): 'gone' | 'broken' =>
  peerCodes[code].retry === 'now' || code === 'TOKEN_EXPIRED' ? 'broken' : 'gone'

const maxReasonBytes = 122

/** The text of a WebSocket close frame: the standard leaves it 123 bytes, and ws throws past them. */
export function closeReason(refusal: Pick<Refusal, 'code' | 'message'>): string {
  const reason = `${refusal.code}: ${refusal.message}`
  if (Buffer.byteLength(reason) <= maxReasonBytes) return reason
  let text = ''
  let bytes = 3
  for (const character of reason) {
    bytes += Buffer.byteLength(character)
    if (bytes > maxReasonBytes) break
    text += character
  }
  return `${text}…`
}
