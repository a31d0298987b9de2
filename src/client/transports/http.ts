// Requests of the transports that go by POST, and what their refusals ask for.
import type { ErrorEvent } from '../../protocol/messages.ts'
import type { Loss } from './transport.ts'
import { broken } from './wire.ts'

/** A POST that is not answered within this time is as good as a link that broke. */
const answerMs = 15_000

/** What an error asks for that came by a frame: its code stands for the range that a close code would have. */
export function lossOf(error: ErrorEvent | null): Loss {
  if (error === null) return broken
  const { code, retry, retryAfterMs } = error
  return { error, retry: /^(TOKEN|TICKET)_/.test(code) ? 'token' : !retry ? 'never' : retryAfterMs ? 'later' : 'now' }
}

/** What a request was refused with; `error` is null where no JSON of the server says so: that was somebody on the way. */
export class Refused extends Error {
  readonly status: number
  readonly error: ErrorEvent | null

  constructor(status: number, error: ErrorEvent | null) {
    super()
    this.status = status
    this.error = error
  }

  /** Not the fault of what was asked: asking anything would have been answered so. */
  get isOfAll(): boolean {
    return this.error === null || this.status === 401 || /^(GOING_AWAY|TOO_MANY_CONN)/.test(this.error.code)
  }

  get loss(): Loss {
    const { status, error } = this
    if (status === 401) return { error, retry: 'token' }
    // A stream that is not there any more: another one is there at once.
    return error?.code === 'STREAM_UNKNOWN' ? { error, retry: 'now' } : lossOf(error)
  }
}

export interface Post<T> {
  readonly address: URL
  readonly token: string
  /** JSON. */
  readonly body: string
  readonly signal: AbortSignal
  /** Until the whole answer is read. Null: for ever. */
  readonly timeoutMs?: number | null
  readonly read: (response: Response) => Promise<T>
}

/** POSTs JSON. @throws Refused when the answer is not 200; else whatever fetch throws */
export async function post<T>({ address, token, body, signal, timeoutMs = answerMs, read }: Post<T>): Promise<T> {
  const one = new AbortController()
  const abort = (): void => one.abort()
  if (signal.aborted) abort()
  signal.addEventListener('abort', abort)
  const timer = timeoutMs === null ? undefined : setTimeout(abort, timeoutMs)
  try {
    const response = await fetch(address, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      body,
      signal: one.signal,
    })
    if (response.ok) return await read(response)
    const error = (await response.json().catch(() => null)) as ErrorEvent | null
    throw new Refused(response.status, typeof error?.code === 'string' ? error : null)
  } finally {
    clearTimeout(timer)
    signal.removeEventListener('abort', abort)
  }
}
