// Everything the doctor looks at, side by side: what is dead does not keep the rest from being told.
import { setTimeout as sleep } from 'node:timers/promises'
import { type Environment, type Flags, type OptionName, options } from '../config/config.ts'
import { release } from '../nodes/release.ts'
import { type CheckName, failure, ok, unknown } from './checks.ts'
import { readConfiguration } from './configuration.ts'
import { configurationFindings } from './configuration-findings.ts'
import { databaseFindings } from './database.ts'
import type { Diagnosis, Finding, Verdict } from './finding.ts'
import { jwksFindings } from './jwks.ts'
import { machineFindings } from './machine.ts'
import { lookAtMachine } from './machine-look.ts'
import { redisFindings } from './redis.ts'

export interface DiagnoseOptions {
  readonly env: Environment
  readonly flags?: Flags
  /** How long each part may take; what it has not said by then is `unknown`. Default 25,000. */
  readonly timeoutMs?: number
}

/** Changes nothing but one key in Redis and one file in the temporary folder, both deleted at once.
 *  @throws nothing */
export async function diagnose({ env, flags = {}, timeoutMs = 25_000 }: DiagnoseOptions): Promise<Diagnosis> {
  const at = new Date().toISOString()
  const { config, refused, findings } = readConfiguration(env, flags)
  /** A part that an option leads to which does not fit. */
  const unless = (name: OptionName, check: CheckName, look: () => Promise<Finding[]>): Promise<Finding[]> =>
    refused.has(name)
      ? Promise.resolve([unknown(check, `${name} does not fit, so it cannot be looked at`)])
      : bounded(check, look, timeoutMs)
  const parts = await Promise.all([
    findings.length > 0 ? findings : [ok('option', `all ${Object.keys(options).length} options fit`)],
    withoutRefused(configurationFindings(config, env.NODE_ENV === 'production'), refused),
    refused.has('JWT_JWKS_URL') || refused.has('JWT_SECRET')
      ? []
      : bounded('jwks', () => jwksFindings(config), timeoutMs),
    unless('DATABASE_URL', 'postgres-reachable', () => databaseFindings({ config })),
    unless('REDIS_URL', 'redis-reachable', () => redisFindings({ config })),
    bounded('node-version', async () => machineFindings(config, lookAtMachine()), timeoutMs),
  ])
  const all = parts.flat()
  return { release, at, verdict: worstOf(all), findings: all }
}

/** What is made up in the place of an option says nothing. */
const lookedAt: Partial<Record<CheckName, OptionName>> = {
  'jwt-secret': 'JWT_SECRET',
  'jwt-audience': 'JWT_AUDIENCE',
  'allowed-origins': 'ALLOWED_ORIGINS',
  'operator-token': 'OPERATOR_TOKEN',
}

const withoutRefused = (findings: readonly Finding[], refused: ReadonlySet<OptionName>): Finding[] =>
  findings.filter(({ check, about }) => {
    const option = lookedAt[check as CheckName] ?? about
    return option === null || !refused.has(option as OptionName)
  })

/** @param check told as unknown if the time is up, or as failed if it throws, which is a fault of ours */
async function bounded(check: CheckName, look: () => Promise<Finding[]>, timeoutMs: number): Promise<Finding[]> {
  const timer = new AbortController()
  try {
    return await Promise.race([
      look().catch((error: unknown) => [failure(check, `the look itself failed: ${(error as Error).message}`, null)]),
      sleep(timeoutMs, undefined, { signal: timer.signal }).then(() => [
        unknown(check, `it took longer than ${timeoutMs / 1000} s`),
      ]),
    ])
  } finally {
    timer.abort()
  }
}

const badness: Readonly<Record<Verdict, number>> = { ok: 0, warning: 1, unknown: 2, failure: 3 }

/** The worst first. */
export const byBadness = (a: Pick<Finding, 'verdict'>, b: Pick<Finding, 'verdict'>): number =>
  badness[b.verdict] - badness[a.verdict]

const worstOf = (findings: readonly Finding[]): Verdict => findings.toSorted(byBadness)[0]?.verdict ?? 'ok'
