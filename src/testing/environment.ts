// The options of the server that a test sets, as the environment would have them.
import { TidegateError } from '../protocol/tidegate-error.ts'
import { type Environment, type OptionName, optionNames } from '../server/config/config.ts'

/** Set by startTidegate itself. */
const ownNames = [
  'DATABASE_URL',
  'ADMIN_DATABASE_URL',
  'REDIS_URL',
  'TIDEGATE_NAME',
  'TRACK',
  'HOST',
  'PORT',
] as const satisfies readonly OptionName[]

/** A list of texts is one with commas between; any other object goes in as JSON. */
export type ConfigByName = {
  readonly [Name in Exclude<OptionName, (typeof ownNames)[number]>]?:
    | string
    | number
    | boolean
    | readonly unknown[]
    | object
}

/** A test waits for nobody, and any page may look on. */
const defaults: ConfigByName = {
  LOG_LEVEL: 'error',
  BEACON_MS: 500,
  DRAIN_DELAY_MS: 0,
  DRAIN_SPREAD_MS: 0,
  DRAIN_TIMEOUT_MS: 1000,
  ALLOWED_ORIGINS: '*',
}

/** @throws CONFIG_INVALID where a name is no option, or is not the test's to set */
export function environmentOf(config: ConfigByName): Environment {
  const given = { ...defaults, ...config }
  for (const name of Object.keys(given)) {
    if (!(optionNames as readonly string[]).includes(name))
      throw new TidegateError('CONFIG_INVALID', `config has ${name}, which is no option; see docs/configuration.md`)
    if ((ownNames as readonly string[]).includes(name))
      throw new TidegateError('CONFIG_INVALID', `config has ${name}, which startTidegate sets itself`)
  }
  return Object.fromEntries(Object.entries(given).map(([name, value]) => [name, textOf(value)]))
}

function textOf(value: string | number | boolean | readonly unknown[] | object): string {
  if (Array.isArray(value) && value.every(each => typeof each === 'string')) return value.join(',')
  return typeof value === 'object' ? JSON.stringify(value) : String(value)
}
