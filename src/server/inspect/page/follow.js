// Keeps a stream of events: comes back when it breaks, later each time, and notices when nothing is heard any more.
import { Refusal } from './api.js'

/**
 * - `live`: it was heard of within the time that it owes
 * - `lost`: the next attempt is at `againAt`, in milliseconds since 1970
 * - `refused`: it will not come back by itself, for the `reason`
 * @typedef {{ state: 'connecting' }
 *   | { state: 'live' }
 *   | { state: 'lost', reason: string, againAt: number }
 *   | { state: 'refused', reason: string, refusal: Refusal }} Link
 */

/**
 * @typedef {object} Following
 * @property {import('./api.js').Api} api
 * @property {string} path
 * @property {readonly (readonly [name: string, value: string])[]} [parameters]
 * @property {number} silentMs after which a stream that says nothing is dead
 * @property {(event: import('./events.js').ServerEvent) => void} take
 * @property {(link: Link) => void} tell
 */

/** @param {number} failures in a row, from 1 @param {number | null} hintMs what the node asks for @param {number} random 0 to 1 */
export const waitMsOf = (failures, hintMs, random) =>
  Math.round(Math.max(hintMs ?? 0, Math.min(20_000, 400 * 2 ** Math.min(failures, 8)) * (0.5 + random / 2)))

/**
 * Follows until the signal, or a refusal that waiting does not mend.
 * @param {Following} following
 * @param {AbortSignal} signal
 */
export async function follow(following, signal) {
  const { tell } = following
  let failures = 0
  tell({ state: 'connecting' })
  while (!signal.aborted) {
    let hintMs = null
    let reason = 'The connection was lost.'
    try {
      await once(following, signal, () => {
        failures = 0
        tell({ state: 'live' })
      })
    } catch (error) {
      if (signal.aborted) return
      if (error instanceof Refusal) {
        if (!error.retry || error.isOfToken) return tell({ state: 'refused', reason: error.message, refusal: error })
        hintMs = error.retryAfterMs
        reason = `${error.code}: ${error.message}`
      }
    }
    if (signal.aborted) return
    failures += 1
    const waitMs = waitMsOf(failures, hintMs, Math.random())
    tell({ state: 'lost', reason, againAt: Date.now() + waitMs })
    await pause(waitMs, signal)
  }
}

/**
 * One connection. A refusal may also come as the last event.
 * @param {Following} following
 * @param {AbortSignal} signal
 * @param {() => void} onHeard with the first event
 */
async function once({ api, path, parameters = [], silentMs, take }, signal, onHeard) {
  const broken = new AbortController()
  const both = AbortSignal.any([signal, broken.signal])
  /** @type {Refusal | null} */
  let refusal = null
  let isHeard = false
  let timer = setTimeout(() => broken.abort(), silentMs)
  try {
    await api.follow(path, parameters, both, event => {
      clearTimeout(timer)
      timer = setTimeout(() => broken.abort(), silentMs)
      if (event.event === 'error') refusal = new Refusal(event.data)
      else if (!isHeard) {
        isHeard = true
        onHeard()
      }
      take(event)
    })
  } finally {
    clearTimeout(timer)
  }
  if (refusal !== null) throw refusal
}

/** Ends early when the browser is online again, or looked at. @param {number} ms @param {AbortSignal} signal @returns {Promise<void>} */
function pause(ms, signal) {
  return new Promise(resolve => {
    const over = new AbortController()
    const end = () => {
      clearTimeout(timer)
      over.abort()
      resolve()
    }
    const timer = setTimeout(end, ms)
    signal.addEventListener('abort', end, { signal: over.signal })
    window.addEventListener('online', end, { signal: over.signal })
  })
}
