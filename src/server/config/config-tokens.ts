// What verifies tokens: shared secrets or public keys, one way only. A public key must never be taken for a shared secret.
import { TidegateError } from '../../protocol/tidegate-error.ts'

export const secretAlgorithms = ['HS256', 'HS384', 'HS512'] as const
export const keyAlgorithms = [
  ...['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512'],
  ...['ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519'],
] as const

export type TokenAlgorithm = (typeof secretAlgorithms)[number] | (typeof keyAlgorithms)[number]

const defaultSecretAlgorithms = ['HS256'] as const
const defaultKeyAlgorithms = ['RS256', 'ES256', 'EdDSA'] as const

/** Each costs every token one hash. */
const maxSecrets = 10

type Name = 'JWT_SECRET' | 'JWT_JWKS_URL' | 'JWT_ALGORITHMS'

interface Given {
  /** Newest first. */
  readonly jwtSecret: readonly string[] | null
  readonly jwtJwksUrl: string | null
  readonly jwtAlgorithms: readonly TokenAlgorithm[]
}

/** A text is one secret; a JSON list of texts is several. What only looks like a list is a secret all the same. */
export function secretsIn(text: string): readonly string[] {
  if (!text.trimStart().startsWith('[')) return [text]
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return [text]
  }
  return Array.isArray(value) && value.every(item => typeof item === 'string') ? value : [text]
}

/** @param nameOf the option as it was given: JWT_SECRET or --jwt-secret
 *  @returns the algorithms, never none of them
 *  @throws CONFIG_INVALID for what would accept forged tokens, or none */
export function verificationOf(
  given: Given,
  nameOf: (name: Name) => string = name => name,
): { readonly jwtAlgorithms: readonly TokenAlgorithm[] } {
  const { jwtSecret, jwtJwksUrl, jwtAlgorithms } = given
  if (jwtSecret === null && jwtJwksUrl === null)
    throw invalid(
      'JWT_SECRET is not set, nor JWT_JWKS_URL; set the one that verifies your tokens (a new secret: openssl rand -hex 32)',
    )
  if (jwtSecret !== null && jwtJwksUrl !== null)
    throw invalid(
      `${nameOf('JWT_SECRET')} and ${nameOf('JWT_JWKS_URL')} are both set; set one of them, since a token verified by a shared secret could be forged with a public key`,
    )
  const fitting: readonly string[] = jwtSecret === null ? keyAlgorithms : secretAlgorithms
  const chosen =
    jwtAlgorithms.length > 0 ? jwtAlgorithms : jwtSecret === null ? defaultKeyAlgorithms : defaultSecretAlgorithms
  if (chosen.some(algorithm => !fitting.includes(algorithm)))
    throw invalid(
      `${nameOf('JWT_ALGORITHMS')} is "${jwtAlgorithms.join(',')}"; with ${jwtSecret === null ? 'JWT_JWKS_URL' : 'JWT_SECRET'} it takes ${fitting.join(', ')}`,
    )
  if (jwtSecret !== null) refuseWeakSecrets(jwtSecret, chosen, nameOf('JWT_SECRET'))
  if (jwtJwksUrl !== null) refuseOpenAddress(new URL(jwtJwksUrl), nameOf('JWT_JWKS_URL'))
  return { jwtAlgorithms: chosen }
}

function refuseWeakSecrets(secrets: readonly string[], algorithms: readonly string[], name: string): void {
  if (secrets.length === 0 || secrets.length > maxSecrets)
    throw invalid(`${name} is a list of ${secrets.length} secrets; it takes 1 to ${maxSecrets}, the newest first`)
  // A key shorter than its hash can be guessed (RFC 7518, section 3.2).
  const leastBytes = Math.max(...algorithms.map(algorithm => Number(algorithm.slice(2)) / 8))
  for (const [place, secret] of secrets.entries()) {
    const which = secrets.length === 1 ? name : `${name}, number ${place + 1} of its list,`
    const size = Buffer.byteLength(secret)
    if (size < leastBytes)
      throw invalid(
        `${which} has ${size} bytes; for ${algorithms.join(', ')} it takes at least ${leastBytes} (openssl rand -hex 32)`,
      )
    if (isKey(secret))
      throw invalid(
        `${which} is a public key or a certificate, which everybody may have, and who has it could sign any token; give the address of the keys in JWT_JWKS_URL instead`,
      )
    if (isGuessable(secret))
      throw invalid(`${which} is the same few characters again and again; make another: openssl rand -hex 32`)
    if (secrets.indexOf(secret) !== place)
      throw invalid(`${which} stands in it twice: once removed, it would still be accepted; leave one of them`)
  }
}

/** PEM, or a JWK or set of them. */
function isKey(secret: string): boolean {
  if (/^\s*-----BEGIN /.test(secret) || /^\s*ssh-(rsa|ed25519) /.test(secret)) return true
  if (!/^\s*\{/.test(secret)) return false
  try {
    const value: unknown = JSON.parse(secret)
    return typeof value === 'object' && value !== null && ('kty' in value || 'keys' in value)
  } catch {
    return false
  }
}

/** Random bytes of 32, in hexadecimal or base64, have fewer different characters than this less than once in 10^15. */
const leastDifferent = 6

export const isGuessable = (secret: string): boolean => new Set(secret).size < leastDifferent

/** Whoever answers for the issuer could sign any token. */
function refuseOpenAddress(url: URL, name: string): void {
  if (url.username !== '' || url.password !== '')
    throw invalid(`${name} holds a user name or a password; keys are public, give their address without`)
  if (url.protocol === 'http:' && !isInside(url.hostname))
    throw invalid(
      `${name} is http to ${url.hostname}: whoever is on the way could put keys of their own in the place of the issuer's; give its https address`,
    )
}

/** Loopback, private addresses (RFC 1918, RFC 4193), and names that no public server has: those of a compose file or a cluster. */
function isInside(host: string): boolean {
  if (host.startsWith('[')) return /^\[(::1\]|f[cd]|fe[89ab])/.test(host)
  if (/^\d+\.\d+\.\d+\.\d+$/.test(host))
    return /^(127|10)\.|^192\.168\.|^169\.254\.|^172\.(1[6-9]|2\d|3[01])\./.test(host)
  return !host.includes('.') || /\.(localhost|local|internal|svc|test|lan|home\.arpa)\.?$/.test(host)
}

const invalid = (refusal: string): TidegateError => new TidegateError('CONFIG_INVALID', refusal)
