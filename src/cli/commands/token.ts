// Mints a development token with JWT_SECRET, as the identity provider would in production.
import { SignJWT } from 'jose'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { OptionValues } from '../../server/config/config.ts'
import { verificationOf } from '../../server/config/config-tokens.ts'

export type SigningOptions = OptionValues<
  'JWT_SECRET' | 'JWT_JWKS_URL' | 'JWT_ALGORITHMS' | 'JWT_ISSUER' | 'JWT_AUDIENCE' | 'JWT_ROLE_CLAIM'
>

export interface TokenWishes {
  readonly role: string
  readonly sub?: string | undefined
  /** `name=value` each; a value that is JSON is taken as such: `level=3`, `tags=["a"]`. */
  readonly claims?: readonly string[]
  /** `90s`, `30m`, `1h`, `7d`, or `never`. */
  readonly expires: string
}

export interface TokenContents {
  readonly role: string
  readonly sub?: string | undefined
  readonly claims: Readonly<Record<string, unknown>>
  /** Null: it does not expire. */
  readonly lifetimeSeconds: number | null
}

/** @throws CONFIG_INVALID when there is no secret to sign with, or a wish does not parse */
export async function mintToken(options: SigningOptions, wishes: TokenWishes, nowMs: number): Promise<string> {
  const { role, sub } = wishes
  const claims = claimsOf(wishes.claims ?? [])
  return await signToken(options, { role, sub, claims, lifetimeSeconds: lifetimeSeconds(wishes.expires) }, nowMs)
}

/** @throws CONFIG_INVALID when there is no secret to sign with */
export async function signToken(options: SigningOptions, contents: TokenContents, nowMs: number): Promise<string> {
  if (options.jwtSecret === null && options.jwtJwksUrl !== null)
    throw new TidegateError(
      'CONFIG_INVALID',
      'JWT_JWKS_URL is set, so tokens are signed with a private key that Tidegate does not have; ask your identity provider for one',
    )
  const [algorithm = 'HS256'] = verificationOf(options).jwtAlgorithms
  const seconds = Math.floor(nowMs / 1000)
  const token = new SignJWT({ ...contents.claims, [options.jwtRoleClaim]: contents.role })
    .setProtectedHeader({ alg: algorithm, typ: 'JWT' })
    .setIssuedAt(seconds)
  if (contents.sub !== undefined) token.setSubject(contents.sub)
  if (options.jwtIssuer !== null) token.setIssuer(options.jwtIssuer)
  if (options.jwtAudience !== null) token.setAudience(options.jwtAudience)
  if (contents.lifetimeSeconds !== null) token.setExpirationTime(seconds + contents.lifetimeSeconds)
  return token.sign(new TextEncoder().encode(options.jwtSecret?.[0]))
}

function claimsOf(texts: readonly string[]): Record<string, unknown> {
  return Object.fromEntries(
    texts.map(text => {
      const equals = text.indexOf('=')
      if (equals < 1) throw new TidegateError('CONFIG_INVALID', `--claim is "${text}"; it takes name=value`)
      return [text.slice(0, equals), jsonOrText(text.slice(equals + 1))]
    }),
  )
}

function jsonOrText(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}

const unitSeconds: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86_400 }

function lifetimeSeconds(text: string): number | null {
  if (text === 'never') return null
  const match = /^(\d{1,9})([smhd])$/.exec(text)
  if (match === null)
    throw new TidegateError('CONFIG_INVALID', `--expires is "${text}"; it takes 90s, 30m, 1h, 7d or never`)
  return Number(match[1]) * unitSeconds[match[2]!]!
}
