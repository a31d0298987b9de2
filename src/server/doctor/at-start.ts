// What a start warns of: what the doctor would say of the options, the machine and Redis. What it refuses has stopped it before.
import type { Config } from '../config/config.ts'
import type { Log } from '../log/log.ts'
import { isRedisAway, type RedisClient } from '../redis/redis.ts'
import { configurationFindings } from './configuration-findings.ts'
import type { Finding } from './finding.ts'
import { machineFindings } from './machine.ts'
import { lookAtMachine } from './machine-look.ts'
import { redisWarnings } from './redis.ts'

/** @param except told elsewhere, by the part that acts on it */
export function warnAtStart(config: Config, log: Log, except: ReadonlySet<string> = toldElsewhere): void {
  const findings = [...configurationFindings(config), ...machineFindings(config, lookAtMachine())]
  warnOf(
    findings.filter(({ check }) => !except.has(check)),
    log,
  )
}

/** The listener counts descriptors itself, and takes fewer connections. */
const toldElsewhere: ReadonlySet<string> = new Set(['descriptors'])

/** Of a Redis that is away nothing is said: it is waited for, and told of by whoever needs it. */
export async function warnOfRedis(client: RedisClient, config: Config, log: Log): Promise<void> {
  if (config.redisUrl === null) return
  try {
    const findings = await redisWarnings(client, config.redisUrl, config)
    // Nodes come and go one after the other: only whoever looks from outside can say whether that is as it should be.
    warnOf(
      findings.filter(({ check }) => check !== 'nodes'),
      log,
    )
  } catch (error) {
    if (!isRedisAway(error)) throw error
  }
}

function warnOf(findings: readonly Finding[], log: Log): void {
  for (const { check, about, verdict, reason, remedy, code } of findings)
    if (verdict === 'warning' || verdict === 'failure')
      log.warn(
        {
          check,
          ...(about === null ? {} : { about }),
          ...(code === null ? {} : { code }),
          ...(remedy === null ? {} : { remedy: remedy.text }),
        },
        reason,
      )
}
