// Runs a server until a signal ends it: one line when it listens, one when it is ready, a clean end, a second signal forces.
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Config } from '../../server/config/config.ts'
import { createLog, type Log } from '../../server/log/log.ts'

export interface RunningServer {
  readonly port: number
  /** Null or left out: operators have no port of their own. */
  readonly adminPort?: number | null
  /** Resolves when changes stream. */
  ready(): Promise<void>
  /** Never resolves. @throws what stops the server for good */
  ended(): Promise<never>
  /** Tells clients when to come back, hands the slot over, closes. */
  stop(): Promise<void>
}

export type StartServer = (config: Config, deps: { log: Log }) => Promise<RunningServer>

/** Resolves when the signal ended the server, or the start: one that waits for a database may never end by itself.
 *  @throws whatever `startServer`, `ready` and `ended` throw, so that what runs it starts it again; an address that cannot be listened on as CONFIG_INVALID */
export async function start(
  config: Config,
  startServer: StartServer,
  print: (line: string) => void,
  signal: AbortSignal,
): Promise<void> {
  const wished = new Promise<null>(resolve => signal.addEventListener('abort', () => resolve(null), { once: true }))
  const starting = startServer(config, { log: createLog(config.logLevel) }).catch(error => fail(error, config))
  const server = await Promise.race([starting, wished])
  // Nobody was served yet, so there is nobody to tell.
  if (server === null) return
  print(`tidegate listens on http://${hostInUrl(config.host)}:${server.port}`)
  const { adminPort = null } = server
  if (adminPort !== null) print(`operators on http://${hostInUrl(config.adminHost ?? config.host)}:${adminPort}`)
  try {
    await Promise.race([server.ready().then(() => print('tidegate is ready')), wished])
    await Promise.race([wished, server.ended()])
    print('tidegate stops; a second signal forces it')
  } finally {
    await server.stop()
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
