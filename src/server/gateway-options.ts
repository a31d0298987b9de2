// What the gateway takes of the configuration.
import type { Config } from './config.ts'
import { ApiKeys, type SupabaseOptions } from './deliver/phoenix/api-keys.ts'

export const gatewayLimits = (config: Config) => ({
  maxFrameBytes: config.maxFrameBytes,
  maxSubscriptions: config.maxSubscriptions,
  framesPerSecond: config.maxFramesPerSecond,
  maxConnections: config.maxConnections,
  handshakeMs: config.handshakeMs,
  heartbeatMs: config.heartbeatMs,
  sendQueueBytes: config.sendQueueBytes,
  ticketMs: config.ticketMs,
})

export function authenticatorOptions(config: Config) {
  return {
    ...(config.jwtSecret === null ? {} : { secret: config.jwtSecret }),
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
