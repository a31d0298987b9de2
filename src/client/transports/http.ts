// What the transports share: addresses, frames as text, requests whose refusals are read as a Loss.
import type { ErrorEvent, ServerFrame } from '../../protocol/messages.ts'
import type { Loss, TransportListener } from './transport.ts'

/** The link broke, and nobody said why. */
export const broken: Loss = { error: null, retry: 'now' }

/** A POST that is not answered within this time is as good as a link that broke. */
const answerMs = 15_000

/** `https://host/base/` and `socket` become `https://host/base/v1/socket`. */
export function addressOf(base: URL, path: string): URL {
  const address = new URL(base)
  address.pathname = `${address.pathname.replace(/\/+$/, '')}/v1/${path}`
  address.search = ''
  address.hash = ''
  return address
}

/** A frame of a later server with a type unknown here passes. @returns null for what is no JSON object with a type */
export function frameOf(text: unknown): ServerFrame | null {
  try {
    const value: unknown = JSON.parse(text as string)
    return typeof value === 'object' && value !== null && 'type' in value ? (value as ServerFrame) : null
  } catch {
    return null
  }
}

/** An error of whoever listens is not the transport's. */
export function tell(listener: TransportListener, frame: ServerFrame): void {
  try {
    listener.onFrame(frame)
  } catch (error) {
    queueMicrotask(() => {
      throw error
    })
  }
}

/** What the server said of the whole connection. */
export const errorOfAll = (frame: ServerFrame, before: ErrorEvent | null): ErrorEvent | null =>
  frame.type === 'error' && frame.id === undefined && frame.ref === undefined
    ? frame
    : // What could not be checked was checked after all.
      frame.type === 'authenticated'
      ? null
      : before

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
