// What the gateway takes of the configuration.
import type { Config } from '../config/config.ts'
import { takeRoom } from '../config/descriptors.ts'
import { ApiKeys, type SupabaseOptions } from '../deliver/phoenix/api-keys.ts'
import type { Log } from '../log/log.ts'
import { repeated } from '../log/log-repeated.ts'

/** @param openFiles as of `takeRoom`. @throws DESCRIPTORS_SHORT */
export const gatewayLimits = (config: Config, openFiles: number | null | undefined, log: Log) => ({
  maxFrameBytes: config.maxFrameBytes,
  maxSubscriptions: config.maxSubscriptions,
  framesPerSecond: config.maxFramesPerSecond,
  ...takeRoom(config, openFiles, (facts, message) => log.warn(facts, message)),
  maxConnectionsPerAddress: config.maxConnectionsPerAddress,
  maxConnectionsPerUser: config.maxConnectionsPerUser,
  handshakeMs: config.handshakeMs,
  heartbeatMs: config.heartbeatMs,
  sendQueueBytes: config.sendQueueBytes,
  ticketMs: config.ticketMs,
})

export function authenticatorOptions(config: Config, log: Log) {
  return {
    onKeysFailure: (error: unknown) =>
      repeated(log).warn(
        { err: error },
        'the keys of JWT_JWKS_URL cannot be fetched: those that are known stay, and tokens of others are told to come back',
      ),
    ...(config.jwtSecret === null ? {} : { secrets: config.jwtSecret }),
    ...(config.jwtJwksUrl === null ? {} : { jwksUrl: config.jwtJwksUrl }),
    ...(config.jwtIssuer === null ? {} : { issuer: config.jwtIssuer }),
    ...(config.jwtAudience === null ? {} : { audience: config.jwtAudience }),
    algorithms: config.jwtAlgorithms,
    roleClaim: config.jwtRoleClaim,
    defaultRole: config.defaultRole,
  }
}

export const supabaseOptions = ({ apiKeys, supabasePrivateOnly }: Config): SupabaseOptions => ({
  apiKeys: new ApiKeys(apiKeys),
  isPrivateOnly: supabasePrivateOnly,
})
