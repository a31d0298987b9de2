// Verifies a JWT and says who asks.
import { createHmac, timingSafeEqual } from 'node:crypto'
import { type CryptoKey, errors, type JWTPayload, type JWTVerifyGetKey, type JWTVerifyOptions, jwtVerify } from 'jose'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { steadyNow } from '../steady-clock.ts'
import { RemoteKeys } from './jwks.ts'
import type { Principal } from './subscription.ts'

export interface AuthenticatorOptions {
  /** Shared secrets of HS256, HS384, HS512: each verifies. Exactly one of `secrets` and `jwksUrl`. */
  readonly secrets?: readonly string[]
  /** Address of public keys (JWKS) of RS, PS, ES, EdDSA. */
  readonly jwksUrl?: string
  /** What a token may be signed with. The token's own header never widens it. */
  readonly algorithms: readonly string[]
  readonly issuer?: string
  readonly audience?: string
  /** The claim that names the database role. */
  readonly roleClaim: string
  /** The role of a token that names none. */
  readonly defaultRole: string
  /** Milliseconds since 1970. */
  readonly now: () => number
  /** Milliseconds on a steady clock, by which keys grow old. */
  readonly steadyNow?: () => number
  /** The keys could not be fetched; those that are known stay. */
  readonly onKeysFailure?: (error: unknown) => void
  /** Allowed difference between this clock and the issuer's, for exp, nbf and iat. */
  readonly clockToleranceMs?: number
}

export interface Authenticator {
  /** @throws TOKEN_INVALID, TOKEN_EXPIRED; UNAVAILABLE when the keys cannot be fetched */
  authenticate(token: string): Promise<Principal>
}

/** Past it a token is refused unread; the largest header Node takes is 16 KiB. */
const maxTokenBytes = 16_384

/** Claims nested deeper than this are refused: JSON.stringify, Postgres and whoever compares them give up somewhere below. */
const maxClaimDepth = 64

/** A token that names no key is tried with so many: each costs a verification. */
const maxKeysTried = 10

const secretAlgorithm = /^HS(256|384|512)$/

/** @throws TypeError for options that would accept forged tokens: no algorithm, `none`, or an algorithm that does not
 *  belong to the kind of key. A public key taken as an HMAC secret lets anybody sign. */
export function createAuthenticator(options: AuthenticatorOptions): Authenticator {
  const { secrets, jwksUrl, algorithms } = options
  if ((secrets === undefined) === (jwksUrl === undefined))
    throw new TypeError('give exactly one of secrets and jwksUrl')
  if (secrets?.length === 0) throw new TypeError('give a secret')
  const misfit = algorithms.find(
    algorithm => algorithm === 'none' || secretAlgorithm.test(algorithm) !== (secrets !== undefined),
  )
  if (algorithms.length === 0 || misfit !== undefined)
    throw new TypeError(
      `algorithm ${misfit ?? '(none given)'} does not go with ${secrets === undefined ? 'public keys' : 'a secret'}`,
    )
  const key = secrets === undefined ? remoteKeys(jwksUrl!, options) : secretKeys(secrets)
  return { authenticate: token => authenticate(token, key, options) }
}

const remoteKeys = (
  url: string,
  { steadyNow: now = steadyNow, onKeysFailure }: AuthenticatorOptions,
): JWTVerifyGetKey =>
  new RemoteKeys({ url, now, ...(onKeysFailure === undefined ? {} : { onFailure: onKeysFailure }) }).keyOf

/** The secret that signed a token, or the first: jose verifies with it. Each is tried, so that the time says nothing of which. */
function secretKeys(secrets: readonly string[]): JWTVerifyGetKey {
  const keys = secrets.map(secret => new TextEncoder().encode(secret))
  const [first] = keys
  if (keys.length === 1) return async () => first!
  return async ({ alg = '' }, jws) => {
    const given = Buffer.from(jws.signature, 'base64url')
    const signing = keys.filter(key => {
      const hash = createHmac(`sha${alg.slice(2)}`, key)
        .update(`${jws.protected}.${jws.payload}`)
        .digest()
      return hash.length === given.length && timingSafeEqual(hash, given)
    })
    return signing[0] ?? first!
  }
}

async function authenticate(token: string, key: JWTVerifyGetKey, options: AuthenticatorOptions): Promise<Principal> {
  if (token.length > maxTokenBytes) throw invalid(`it has ${token.length} bytes, more than ${maxTokenBytes}`)
  const { now, issuer, audience, clockToleranceMs = 0 } = options
  try {
    const payload = await verify(token, key, {
      algorithms: [...options.algorithms],
      currentDate: new Date(now()),
      clockTolerance: clockToleranceMs / 1000,
      ...(issuer === undefined ? {} : { issuer }),
      ...(audience === undefined ? {} : { audience }),
    })
    return principalOf(payload, options)
  } catch (error) {
    throw refusalOf(error)
  }
}

async function verify(token: string, key: JWTVerifyGetKey, options: JWTVerifyOptions): Promise<JWTPayload> {
  try {
    return (await jwtVerify(token, key, options)).payload
  } catch (error) {
    if (!(error instanceof errors.JWKSMultipleMatchingKeys)) throw error
    return verifyWithAny(token, error, options)
  }
}

/** Of a token that names no key, or a key ID that several have. */
async function verifyWithAny(
  token: string,
  keys: AsyncIterable<CryptoKey>,
  options: JWTVerifyOptions,
): Promise<JWTPayload> {
  let tried = 0
  for await (const key of keys) {
    if (tried++ === maxKeysTried) throw invalid(`it names none of the many keys of JWT_JWKS_URL by a kid`)
    try {
      return (await jwtVerify(token, key, options)).payload
    } catch (error) {
      if (!(error instanceof errors.JWSSignatureVerificationFailed)) throw error
    }
  }
  throw new errors.JWSSignatureVerificationFailed()
}

function principalOf(
  payload: JWTPayload,
  { roleClaim, defaultRole, clockToleranceMs = 0 }: AuthenticatorOptions,
): Principal {
  const oddity = oddityOf(payload)
  if (oddity !== null) throw invalid(`its claims ${oddity}`)
  const role = payload[roleClaim] ?? defaultRole
  if (typeof role !== 'string' || role === '') throw invalid(`its claim ${roleClaim} is no role name`)
  const expiresAt = payload.exp === undefined ? null : payload.exp * 1000 + clockToleranceMs
  return { role, claims: payload, expiresAt }
}

/** What keeps claims from being judged here as Postgres does: `are nested deeper than 64`; null when nothing does. */
export function oddityOf(claims: Readonly<Record<string, unknown>>): string | null {
  if (isNestedDeeper(claims, maxClaimDepth)) return `are nested deeper than ${maxClaimDepth}`
  const text = JSON.stringify(claims)
  // Postgres takes neither in text: the same token would be judged here and raise there.
  return text.includes('\\u0000') || /\\ud[89a-f]/i.test(text) ? 'hold a NUL or half a character' : null
}

const isNestedDeeper = (value: unknown, depth: number): boolean =>
  typeof value === 'object' &&
  value !== null &&
  (depth === 0 || Object.values(value).some(item => isNestedDeeper(item, depth - 1)))

/** Says what is wrong with a token without repeating any of it. */
function refusalOf(error: unknown): unknown {
  if (error instanceof TidegateError) return error
  if (error instanceof errors.JWTExpired) return new TidegateError('TOKEN_EXPIRED', 'the token has expired; renew it')
  if (error instanceof errors.JWTClaimValidationFailed)
    return invalid(
      error.claim === 'nbf' ? 'it is not valid yet' : `its claim ${error.claim} is not what this server takes`,
    )
  if (error instanceof errors.JOSEAlgNotAllowed) return invalid('its algorithm is not one of JWT_ALGORITHMS')
  if (error instanceof errors.JWSSignatureVerificationFailed) return invalid('its signature does not verify')
  if (error instanceof errors.JWKSNoMatchingKey) return invalid('it is signed by a key that JWT_JWKS_URL does not have')
  if (error instanceof errors.JOSEError || error instanceof TypeError || error instanceof SyntaxError)
    return invalid('it is no signed JWT', error)
  return error
}

const invalid = (reason: string, cause?: unknown): TidegateError =>
  new TidegateError('TOKEN_INVALID', `the token is not accepted: ${reason}`, { cause })
