// What every answer must be, whatever was asked: a documented code with its own status, retry and close code, a message that
// says what to do and shows nothing of the inside. Collects what was not so.
import { closeCodeOf, type PeerCode, peerCodes } from '../../src/protocol/codes.ts'
import { isPeerCode } from '../../src/protocol/tidegate-error.ts'
import { serverFrameSchema } from '../../src/server/deliver/frame-schema.ts'
import { leakOf } from '../support/refused.ts'

const maxFailures = 20
const maxShown = 1200

export class Oracle {
  /** What went wrong, each with the input that did it. At most `maxFailures`. */
  readonly failures: string[] = []
  /** How often each code was met. */
  readonly codes = new Map<string, number>()
  /** By actor. */
  readonly inputs = new Map<string, number>()
  /** Rows that must not be told to anybody who asks here hold this word. */
  readonly #secret: string

  constructor(secret: string) {
    this.#secret = secret
  }

  count(actor: string, times = 1): void {
    this.inputs.set(actor, (this.inputs.get(actor) ?? 0) + times)
  }

  fail(what: string, input: unknown): void {
    const shown = typeof input === 'string' ? input : JSON.stringify(input)
    if (this.failures.length < maxFailures) this.failures.push(`${what}\n    input: ${shown?.slice(0, maxShown)}`)
  }

  /** An error body, over whichever wire. @param status HTTP status, null where there is none */
  refusal(body: unknown, status: number | null, input: unknown): PeerCode | null {
    const { code, message, retry, retryAfterMs } = (body ?? {}) as Record<string, unknown>
    if (typeof code !== 'string' || !isPeerCode(code)) {
      this.fail(`an answer of ${status} without a documented code: ${JSON.stringify(body)?.slice(0, 300)}`, input)
      return null
    }
    this.codes.set(code, (this.codes.get(code) ?? 0) + 1)
    const entry = peerCodes[code]
    const wrong: string[] = []
    if (code === 'INTERNAL') wrong.push('INTERNAL')
    // Of a URL and headers past their limit HTTP's own 431 says more.
    const isHeaders = code === 'FRAME_TOO_LARGE' && status === 431
    if (status !== null && status !== entry.status && !isHeaders) wrong.push(`status ${status} of ${code}`)
    if (retry !== (entry.retry !== 'never')) wrong.push(`retry ${String(retry)} of ${code}`)
    if ((entry.retry === 'now' || entry.retry === 'later') && typeof retryAfterMs !== 'number')
      wrong.push(`${code} without retryAfterMs`)
    if (typeof message !== 'string' || message.length < 8) wrong.push(`${code} without a message`)
    else {
      const leak = leakOf(message, this.#secret)
      if (leak !== null) wrong.push(`${code} shows ${JSON.stringify(leak)}: ${message}`)
    }
    if (wrong.length > 0) this.fail(wrong.join('; '), input)
    return code
  }

  /** A frame of the server: of the published shape; if an error, one of ours. */
  frame(text: string, input: unknown): { readonly type: string; readonly [field: string]: unknown } | null {
    let frame: unknown
    try {
      frame = JSON.parse(text)
    } catch {
      this.fail(`a frame that is no JSON: ${text.slice(0, 300)}`, input)
      return null
    }
    const parsed = serverFrameSchema.safeParse(frame)
    if (!parsed.success) {
      this.fail(`a frame not of the published shape: ${text.slice(0, 300)}`, input)
      return null
    }
    if (text.includes(this.#secret))
      this.fail(`a frame shows what its reader may not see: ${text.slice(0, 300)}`, input)
    if (parsed.data.type === 'error') {
      const { type, id, ...body } = parsed.data
      this.refusal(body, null, input)
    }
    // As it came: the schema's copy has no field __proto__.
    return frame as { readonly type: string }
  }

  /** @param code null when the socket ended without a close frame. @param last the code of the last error that named no
   *  subscription; null when there was none. @param mayEcho the client may have closed first, with any code there is */
  closed(code: number | null, last: PeerCode | null, input: unknown, mayEcho = false): void {
    // Whoever closes first hears its own code back, or none.
    const isEcho = code === null || code === 1000 || code === 1005 || code === 1006 || (mayEcho && last === null)
    if (last !== null && code !== null && code >= 4000 && code !== closeCodeOf(last))
      this.fail(`closed with ${code} after ${last}`, input)
    if (isEcho || documentedCloses.has(code)) return
    this.fail(`closed with ${code}, which no code has`, input)
  }
}

const documentedCloses = new Set((Object.keys(peerCodes) as PeerCode[]).map(closeCodeOf))
