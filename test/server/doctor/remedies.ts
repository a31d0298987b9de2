// Does what a remedy says, as somebody does who copies it from the terminal.
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { expect } from 'vitest'
import type { CheckName } from '../../../src/server/doctor/checks.ts'
import type { Finding } from '../../../src/server/doctor/finding.ts'
import type { RedisProcess } from '../../support/redis-process.ts'

/** The finding of a check: the first that is not ok, or else the first. */
export function findingOf(findings: readonly Finding[], check: CheckName, about?: string): Finding {
  const own = findings.filter(finding => finding.check === check && (about === undefined || finding.about === about))
  const found = own.find(({ verdict }) => verdict !== 'ok') ?? own[0]
  expect(found, `${check} in ${findings.map(finding => finding.check).join(', ')}`).toBeDefined()
  return found!
}

/** Each line to the server, as redis-cli sends it. */
export async function runRedisRemedy(redis: RedisProcess, { remedy }: Finding): Promise<void> {
  expect(remedy?.kind).toBe('redis')
  for (const line of remedy!.text.split('\n')) {
    const words = [...line.matchAll(/"([^"]*)"|(\S+)/g)].map(([, quoted, plain]) => quoted ?? plain!)
    await redis.ask(words[0]!, ...words.slice(1))
  }
}

/** What a shell makes of the options.
 *  @param env what it knows besides: the passwords that a remedy does not print
 *  @returns the options of the remedy, by name; '' for one that is taken out */
export async function settingsOfRemedy(
  { remedy }: Finding,
  env: Readonly<Record<string, string>> = {},
): Promise<Record<string, string>> {
  expect(remedy?.kind).toBe('setting')
  const names = remedy!.text.split('\n').map(line => line.split('=')[0]!)
  const script = `${remedy!.text}\nprintf '%s\\n' ${names.map(name => `"$${name}"`).join(' ')}`
  const { stdout } = await promisify(execFile)('sh', ['-c', script], { env: { PATH: process.env.PATH ?? '', ...env } })
  const values = stdout.split('\n')
  return Object.fromEntries(names.map((name, place) => [name, values[place]!]))
}
