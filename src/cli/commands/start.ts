// Runs a server until a signal ends it: one line when it listens, one when it is ready, a clean end, a second signal forces.
import { constants } from 'node:os'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Config } from '../../server/config.ts'
import { createLog, type Log } from '../../server/log.ts'

export interface RunningServer {
  readonly port: number
  /** Resolves when changes stream. */
  ready(): Promise<void>
  /** Tells clients when to come back, hands the slot over, closes. */
  stop(): Promise<void>
}

export type StartServer = (config: Config, deps: { log: Log }) => Promise<RunningServer>

/** Resolves when a signal ended the server.
 *  @throws whatever `startServer` and `ready` throw; an address that cannot be listened on as CONFIG_INVALID */
export async function start(
  config: Config,
  startServer: StartServer,
  print: (line: string) => void = console.log,
): Promise<void> {
  using signals = new Signals()
  const starting = startServer(config, { log: createLog(config.logLevel) })
  const server = await Promise.race([starting.catch(error => fail(error, config)), signals.first])
  // Nobody was served yet, so there is nobody to tell; and a start that waits for a database may never end by itself.
  if (server === 'signal') process.exit(0)
  print(`tidegate listens on http://${hostInUrl(config.host)}:${server.port}`)
  const ready = server.ready().then(() => print('tidegate is ready'))
  const failed = ready.then(() => new Promise<never>(() => {}))
  try {
    await Promise.race([failed, signals.first])
    print('tidegate stops; the same signal again forces it')
  } finally {
    // `ready` may reject because we stop: that is no news.
    failed.catch(() => {})
    await server.stop()
  }
}

/** The first signal is a wish, the second an order. */
class Signals {
  readonly first: Promise<'signal'>
  #hasCome = false
  readonly #listener: (name: NodeJS.Signals) => void

  constructor() {
    const { promise, resolve } = Promise.withResolvers<'signal'>()
    this.first = promise
    this.#listener = name => {
      if (this.#hasCome) process.exit(128 + constants.signals[name])
      this.#hasCome = true
      resolve('signal')
    }
    process.on('SIGINT', this.#listener).on('SIGTERM', this.#listener)
  }

  [Symbol.dispose](): void {
    process.off('SIGINT', this.#listener).off('SIGTERM', this.#listener)
  }
}

function fail(error: unknown, config: Config): never {
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  if (code === 'EADDRINUSE')
    throw new TidegateError('CONFIG_INVALID', `PORT is ${config.port}, where another process listens; choose another`, {
      cause: error,
    })
  if (code === 'EADDRNOTAVAIL' || code === 'ENOTFOUND' || code === 'EACCES')
    throw new TidegateError(
      'CONFIG_INVALID',
      `HOST is "${config.host}" and PORT is ${config.port}, where this process may not listen (${code})`,
      { cause: error },
    )
  throw error
}

const hostInUrl = (host: string): string => (host.includes(':') ? `[${host}]` : host)
