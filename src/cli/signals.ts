// Ctrl-C, SIGTERM and a closed terminal: the first is a wish, the second an order.
import { constants } from 'node:os'

/** Aborts at the first SIGINT, SIGTERM or SIGHUP; the second ends the process at once, as if nobody had listened. */
export function stopSignal(): AbortSignal {
  const stop = new AbortController()
  const listener = (name: NodeJS.Signals): void => {
    if (stop.signal.aborted) process.exit(128 + constants.signals[name])
    stop.abort()
  }
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, listener)
  return stop.signal
}
