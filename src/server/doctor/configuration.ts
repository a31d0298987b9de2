// The configuration as far as it fits: what does not is a finding, and does not keep the rest from being looked at.
import { randomBytes } from 'node:crypto'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import {
  type Config,
  type Environment,
  type Flags,
  flagOf,
  keyOf,
  loadConfig,
  loadOptions,
  type OptionName,
  optionNames,
  options,
} from '../config/config.ts'
import { failure, setting } from './checks.ts'
import type { Finding, Remedy } from './finding.ts'

export interface ConfigurationReading {
  /** In the place of an option that does not fit stands its default, or something made up. */
  readonly config: Config
  /** Options that do not fit. */
  readonly refused: ReadonlySet<OptionName>
  /** What a start refuses: CONFIG_INVALID. */
  readonly findings: readonly Finding[]
}

/** Of the options that a start insists on, one that leads nowhere. */
const nowhere = 'postgres://127.0.0.1:1/none'

/** Two options of one line blame the first; each round takes one away. */
const maxRounds = 50

/** Reads what `loadConfig` reads. @throws nothing that says an option does not fit */
export function readConfiguration(env: Environment, flags: Flags = {}): ConfigurationReading {
  const left = { env: { ...env }, flags: { ...flags } as Record<string, unknown> }
  const refused = new Set<OptionName>()
  const findings: Finding[] = []
  const drop = (name: OptionName): void => {
    refused.add(name)
    delete left.env[name]
    delete left.flags[keyOf(name)]
    if (name === 'DATABASE_URL') left.env.DATABASE_URL = nowhere
    if (name === 'JWT_SECRET' || name === 'JWT_JWKS_URL') {
      for (const other of ['JWT_SECRET', 'JWT_JWKS_URL'] as const) delete left.flags[keyOf(other)]
      delete left.env.JWT_JWKS_URL
      left.env.JWT_SECRET = randomBytes(64).toString('hex')
    }
  }
  const note = (line: string, name: OptionName | null): void => {
    findings.push(
      failure('option', line, name === null ? null : remedyFor(name, line, { env, flags }), {
        about: name,
        code: 'CONFIG_INVALID',
      }),
    )
  }
  for (const name of optionNames)
    try {
      loadOptions([name], left.env, left.flags)
    } catch (error) {
      for (const line of refusalsIn(error)) note(line, name)
      drop(name)
    }
  for (let round = 0; round < maxRounds; round += 1)
    try {
      return { config: loadConfig(left.env, left.flags), refused, findings }
    } catch (error) {
      for (const line of refusalsIn(error)) {
        const name = firstNamed(line)
        // What was taken out may be missed now: that says nothing new.
        if (name === null || !refused.has(name)) note(line, name)
        if (name !== null) drop(name)
      }
    }
  return {
    config: loadConfig({ DATABASE_URL: nowhere, JWT_SECRET: randomBytes(64).toString('hex') }),
    refused,
    findings,
  }
}

function refusalsIn(error: unknown): readonly string[] {
  if (error instanceof TidegateError && error.code === 'CONFIG_INVALID') return error.message.split('\n')
  throw error
}

/** The option that a refusal is about, as it was given: `PORT`, `--port`. */
function firstNamed(line: string): OptionName | null {
  for (const [word] of line.matchAll(/--[a-z-]+|[A-Z][A-Z_]+/g)) {
    const name = optionNames.find(option => option === word || flagOf(option) === word)
    if (name !== undefined) return name
  }
  return null
}

interface Given {
  readonly env: Environment
  readonly flags: Flags
}

function remedyFor(name: OptionName, line: string, { env, flags }: Given): Remedy {
  const isFlag = typeof flags[keyOf(name)] === 'string'
  const then = isFlag
    ? `leave out ${flagOf(name)}, which wins over the environment; restart the node`
    : 'restart the node'
  return setting(`${name}=${fittingValue(name, line, env)}`, then)
}

const newSecret = '$(openssl rand -hex 32)'

/** As a shell takes it; empty counts as not set. */
function fittingValue(name: OptionName, line: string, env: Environment): string {
  if (name === 'DATABASE_URL') return 'postgres://tidegate:$PGPASSWORD@127.0.0.1:5432/app'
  // Of two ways to verify one is to go, and the keys of an issuer are rarely set by mistake.
  if (name === 'JWT_SECRET') return line.includes('are both set') ? '' : newSecret
  if (name === 'OPERATOR_TOKEN') return newSecret
  if (name === 'JWT_JWKS_URL') return httpsOf(env.JWT_JWKS_URL)
  if (name === 'ALLOWED_ORIGINS') return withoutAll(env.ALLOWED_ORIGINS)
  if (name === 'ADMIN_PORT' || name === 'ADMIN_HOST') return ''
  const { default: text } = options[name]
  return /[^\w.,:/-]/.test(text ?? '') ? '' : (text ?? '')
}

function httpsOf(text = ''): string {
  if (!URL.canParse(text)) return 'https://issuer.example.com/.well-known/jwks.json'
  const url = new URL(text)
  return `https://${url.host}${url.pathname}`
}

const withoutAll = (text = ''): string =>
  text
    .split(',')
    .map(part => part.trim())
    .filter(part => URL.canParse(part))
    .map(part => new URL(part).origin)
    .filter(part => part !== 'null')
    .join(',')
