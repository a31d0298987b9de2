// Asks for something again and again while it is looked at. A page that is not looked at asks nothing.

/** @typedef {{ readonly stop: () => void }} Polling */

/**
 * @param {object} options
 * @param {import('./api.js').Api} options.api
 * @param {string} options.path
 * @param {number} options.everyMs from one answer to the next question
 * @param {(answer: any) => void} options.take
 * @param {(problem: string | null) => void} options.tell null: it went well
 * @returns {Polling}
 */
export function poll({ api, path, everyMs, take, tell }) {
  const stopping = new AbortController()
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer
  const ask = async () => {
    if (!document.hidden) {
      try {
        const answer = await api.get(path, [], AbortSignal.any([stopping.signal, AbortSignal.timeout(10_000)]))
        if (stopping.signal.aborted) return
        take(answer)
        tell(null)
      } catch (error) {
        if (stopping.signal.aborted) return
        tell(`These are from before: ${error instanceof Error ? error.message : String(error)}`)
      }
    }
    timer = setTimeout(ask, everyMs)
  }
  void ask()
  return {
    stop() {
      stopping.abort()
      clearTimeout(timer)
    },
  }
}
