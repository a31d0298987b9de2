// Settings of a Redis: as they were read, and how to change them.
import { redisCommands } from './checks.ts'
import type { Remedy } from './finding.ts'
import type { RedisServerLook } from './redis-look.ts'

/** Null: it was not read. */
export const settingOf = ({ settings }: RedisServerLook, name: string): string | null => settings?.get(name) ?? null

/** Null: there is none, or it is no number. */
export function numberOf(text: string | null | undefined): number | null {
  const number = Number.parseFloat(text ?? '')
  return Number.isFinite(number) ? number : null
}

/** Changes them now and, where the server has a file, for good. @param changes a value of several words in quotes */
export function changeSettings(
  { info }: RedisServerLook,
  ...changes: readonly (readonly [name: string, value: string])[]
): Remedy {
  const lines = changes.map(([name, value]) => `CONFIG SET ${name} ${value}`)
  if (info.get('config_file')) return redisCommands([...lines, 'CONFIG REWRITE'].join('\n'))
  const names = changes.map(([name]) => name).join(' and ')
  return redisCommands(lines.join('\n'), `set ${names} also where this Redis is started: it has no configuration file`)
}
