// Follows a table from the terminal: its rows as they are, then every change, through any number of broken connections.
import { setTimeout as sleep } from 'node:timers/promises'
import { isPeerCode, TidegateError } from '../../protocol/tidegate-error.ts'
import { jsonLines, textLines } from '../event-lines.ts'
import { readEvents, type StreamEvent } from '../event-stream.ts'

export interface TailOptions {
  readonly table: string
  /** Base of the server, `http://127.0.0.1:4000`. */
  readonly url: string
  readonly token: string | null
  /** One condition each, in PostgREST's grammar: `room_id=eq.1`. */
  readonly filters: readonly string[]
  /** Columns with commas between; null for all. */
  readonly select: string | null
  /** Every change as an event, instead of rows and deltas. */
  readonly changes: boolean
  readonly as: 'json' | 'text'
}

export interface TailTerminal {
  /** Rows and changes: standard output. */
  readonly print: (line: string) => void
  /** Connected, lost, coming back: standard error. */
  readonly note: (line: string) => void
}

/** A server is heard from every 25 s by default; a link silent for longer than two of them is dead. */
const silenceMs = 60_000
const firstBackoffMs = 500
const maxBackoffMs = 20_000
const maxEventLength = 64 * 1024 * 1024

/** Resolves when the signal aborts. @throws TidegateError when the server refuses for good, with its code */
export async function tail(options: TailOptions, terminal: TailTerminal, signal: AbortSignal): Promise<void> {
  const address = addressOf(options)
  let lastEventId = ''
  let attempt = 0
  let hintMs = 0
  while (!signal.aborted) {
    let problem: unknown
    try {
      for await (const event of follow(address, options.token, lastEventId, signal, retryMs => (hintMs = retryMs))) {
        if (attempt > 0) terminal.note('connected again')
        attempt = 0
        lastEventId = event.id || lastEventId
        if (event.event === 'error') throw refusalOf(JSON.parse(event.data))
        // What we hold is void: the position of before must not be asked for again.
        if (event.event === 'resync') lastEventId = ''
        for (const line of options.as === 'json' ? jsonLines(event) : textLines(event)) terminal.print(line)
      }
      problem = new Error('the server ended the stream')
    } catch (error) {
      problem = error
    }
    if (signal.aborted) return
    if (problem instanceof Refusal && !problem.retry) throw problem.asError()
    const waitMs = backoffMs(attempt++, problem instanceof Refusal ? problem.retryAfterMs : hintMs)
    terminal.note(`${messageOf(problem)}; back in ${(waitMs / 1000).toFixed(1)} s`)
    await sleep(waitMs, undefined, { signal }).catch(() => {})
  }
}

async function* follow(
  address: URL,
  token: string | null,
  lastEventId: string,
  signal: AbortSignal,
  onRetry: (retryMs: number) => void,
): AsyncGenerator<StreamEvent> {
  using silence = new Watchdog(silenceMs)
  const headers: Record<string, string> = { accept: 'text/event-stream' }
  if (token !== null) headers.authorization = `Bearer ${token}`
  if (lastEventId !== '') headers['last-event-id'] = lastEventId
  const response = await fetch(address, { headers, signal: AbortSignal.any([signal, silence.signal]) })
  if (!response.ok || response.body === null) throw await refusalOfResponse(response)
  const heard = async function* (body: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    for await (const chunk of body) {
      silence.restart()
      yield chunk
    }
  }
  yield* readEvents(heard(response.body), { onRetry, maxEventLength })
}

/** `http://127.0.0.1:4000/v1/live/messages?room_id=eq.1`. @throws CONFIG_INVALID when the base or a filter does not fit */
export function addressOf(options: TailOptions): URL {
  if (!/^https?:\/\//.test(options.url) || !URL.canParse(options.url))
    throw new TidegateError('CONFIG_INVALID', `--url is "${options.url}"; it takes a URL as http://127.0.0.1:4000`)
  const kind = options.changes ? 'changes' : 'live'
  const address = new URL(`v1/${kind}/${encodeURIComponent(options.table)}`, `${options.url.replace(/\/+$/, '')}/`)
  for (const filter of options.filters) {
    const equals = filter.indexOf('=')
    if (equals < 1) throw new TidegateError('CONFIG_INVALID', `--filter is "${filter}"; it takes column=operator.value`)
    address.searchParams.append(filter.slice(0, equals), filter.slice(equals + 1))
  }
  if (options.select !== null) address.searchParams.append('select', options.select)
  return address
}

/** Aborts when it was not restarted for a while: a link can die without either side being told. */
class Watchdog {
  readonly #controller = new AbortController()
  readonly #timer: NodeJS.Timeout

  constructor(timeoutMs: number) {
    this.#timer = setTimeout(() => this.#controller.abort(new Error('the server was silent for too long')), timeoutMs)
  }

  get signal(): AbortSignal {
    return this.#controller.signal
  }

  restart(): void {
    this.#timer.refresh()
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer)
  }
}

/** What the server answered instead of a stream, or at the end of one. */
class Refusal extends Error {
  readonly code: string
  readonly retry: boolean
  readonly retryAfterMs: number

  constructor(code: string, message: string, retry: boolean, retryAfterMs: number) {
    super(message)
    this.code = code
    this.retry = retry
    this.retryAfterMs = retryAfterMs
  }

  asError(): TidegateError {
    if (isPeerCode(this.code)) return new TidegateError(this.code, this.message)
    return new TidegateError('UNAVAILABLE', `${this.message} (${this.code})`)
  }
}

async function refusalOfResponse(response: Response): Promise<Refusal> {
  const text = await response.text()
  try {
    return refusalOf(JSON.parse(text))
  } catch {
    const isTemporary = response.status >= 500 || response.status === 429 || response.status === 408
    return new Refusal(`HTTP ${response.status}`, `${response.url} answered ${response.status}`, isTemporary, 0)
  }
}

/** A new token is needed where a token was refused, and this command has only the one it was given. */
function refusalOf(body: { code?: unknown; message?: unknown; retry?: unknown; retryAfterMs?: unknown }): Refusal {
  if (typeof body?.code !== 'string') throw new TypeError('no refusal')
  const needsToken = body.code.startsWith('TOKEN_') || body.code === 'TICKET_INVALID'
  const retryAfterMs = typeof body.retryAfterMs === 'number' ? body.retryAfterMs : 0
  return new Refusal(body.code, String(body.message ?? ''), body.retry === true && !needsToken, retryAfterMs)
}

/** Full jitter, and never before the server's own hint. */
const backoffMs = (attempt: number, hintMs: number): number =>
  hintMs + Math.random() * Math.min(maxBackoffMs, firstBackoffMs * 2 ** Math.min(attempt, 10))

function messageOf(problem: unknown): string {
  if (problem instanceof Refusal) return `${problem.code}: ${problem.message}`
  if (!(problem instanceof Error)) return String(problem)
  const cause = problem.cause instanceof Error ? problem.cause : null
  return cause === null ? problem.message : `${problem.message}: ${cause.message || cause.name}`
}
