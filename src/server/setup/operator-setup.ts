// Opens the door of operators: on the port of the clients, or on one of its own.
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Config } from '../config/config.ts'
import { TrustedProxies } from '../config/trusted-proxies.ts'
import type { Probes } from '../deliver/probes.ts'
import type { Log } from '../log/log.ts'
import { AdminServer } from '../operator/admin-server.ts'
import { OperatorDoor } from '../operator/door.ts'
import type { OperatorRoute } from '../operator/route.ts'

export interface OperatorSetup {
  readonly config: Config
  readonly log: Log
  readonly routes: readonly OperatorRoute[]
  readonly probes: Probes
}

export interface Operators {
  /** Null: on the port of the clients there is none. */
  readonly publicDoor: OperatorDoor | null
  /** @returns the port of its own; null where it has none @throws CONFIG_INVALID when nobody may listen there */
  listen(): Promise<number | null>
  /** The node leaves: see `OperatorDoor`. */
  drain(): void
  close(): Promise<void>
}

export function openOperators({ config, log, routes, probes }: OperatorSetup): Operators {
  const { operatorToken, adminPort, adminHost, host } = config
  const random = Math.random
  const door = operatorToken === null ? null : new OperatorDoor({ tokens: operatorToken, routes, log, random })
  const trustedProxies = new TrustedProxies(config.trustedProxies.flat())
  const admin = adminPort === null ? null : new AdminServer({ probes, door, log, random, trustedProxies })
  return {
    publicDoor: admin === null ? door : null,
    listen: async () => {
      if (admin === null || adminPort === null) return null
      try {
        return await admin.listen(adminHost ?? host, adminPort)
      } catch (cause) {
        const { code } = cause as { code?: string }
        throw new TidegateError(
          'CONFIG_INVALID',
          `ADMIN_HOST is "${adminHost ?? host}" and ADMIN_PORT is ${adminPort}, where this process may not listen (${code}); choose another`,
          { cause },
        )
      }
    },
    drain: () => door?.drain(),
    close: async () => admin?.close(),
  }
}
