// Asks a node, with the operator's token in the header: never in a URL.
import { EventParser } from './events.js'

/** What a node answers when it does not do what it was asked for. */
export class Refusal extends Error {
  /** @param {{ code: string, message: string, retry: boolean, retryAfterMs?: number }} body */
  constructor({ code, message, retry, retryAfterMs }) {
    super(message)
    this.code = code
    this.retry = retry
    this.retryAfterMs = retryAfterMs ?? null
  }

  /** Whether another token is needed. */
  get isOfToken() {
    return this.code.startsWith('TOKEN_')
  }
}

export class Api {
  #token

  /** @param {string} token */
  constructor(token) {
    this.#token = token
  }

  /**
   * @param {string} path
   * @param {readonly (readonly [name: string, value: string])[]} [parameters]
   * @param {AbortSignal} [signal]
   * @returns {Promise<any>} the JSON of the answer
   * @throws {Refusal | TypeError}
   */
  async get(path, parameters = [], signal) {
    const response = await this.#ask(path, parameters, 'application/json', signal)
    return response.json()
  }

  /**
   * Reads events until the stream ends.
   * @param {string} path
   * @param {readonly (readonly [name: string, value: string])[]} parameters
   * @param {AbortSignal} signal
   * @param {(event: import('./events.js').ServerEvent) => void} take
   * @throws {Refusal | TypeError}
   */
  async follow(path, parameters, signal, take) {
    const response = await this.#ask(path, parameters, 'text/event-stream', signal)
    const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader()
    const decoder = new TextDecoder()
    const parser = new EventParser()
    for (;;) {
      const { done, value } = await reader.read()
      if (done) return
      for (const event of parser.feed(decoder.decode(value, { stream: true }))) take(event)
    }
  }

  /**
   * @param {string} path
   * @param {readonly (readonly [name: string, value: string])[]} parameters
   * @param {string} accept
   * @param {AbortSignal | undefined} signal
   */
  async #ask(path, parameters, accept, signal) {
    const query = new URLSearchParams(parameters.map(([name, value]) => [name, value]))
    const response = await fetch(parameters.length === 0 ? path : `${path}?${query}`, {
      headers: { Authorization: `Bearer ${this.#token}`, Accept: accept },
      cache: 'no-store',
      credentials: 'omit',
      ...(signal === undefined ? {} : { signal }),
    })
    if (response.ok) return response
    throw new Refusal(await refusalIn(response))
  }
}

/** Something before the node may have answered, a proxy for instance. @param {Response} response */
async function refusalIn(response) {
  const body = await response.json().catch(() => null)
  if (typeof body?.code === 'string' && typeof body.message === 'string') return body
  const message = `the answer is ${response.status} ${response.statusText}`.trim()
  return { code: `HTTP_${response.status}`, message, retry: response.status >= 500 || response.status === 429 }
}
