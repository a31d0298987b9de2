// The public keys of an issuer: fetched when they are needed, and kept while it is away.
import { createLocalJWKSet, errors, type JSONWebKeySet, type JWK, type JWTVerifyGetKey } from 'jose'
import { TidegateError } from '../../protocol/tidegate-error.ts'

export interface RemoteKeysOptions {
  readonly url: string
  /** Steady, in milliseconds. */
  readonly now: () => number
  /** A fetch failed: the keys that are known stay. */
  readonly onFailure?: (error: unknown) => void
}

/** A key ID that nobody knows starts a fetch, at most so often: tokens with made-up ones must not turn into requests to the issuer. */
const cooldownMs = 30_000
/** While there are no keys at all nobody gets in, so it is asked more often. */
const firstCooldownMs = 1_000
/** A key that the issuer has withdrawn is trusted for so long, and for as long as the issuer is away. */
const maxAgeMs = 600_000
const timeoutMs = 5_000
const maxBytes = 512 * 1024
const maxKeys = 100

export class RemoteKeys {
  readonly #options: RemoteKeysOptions
  /** Of the last fetch that succeeded: at most `maxKeys`. */
  #keys: JWTVerifyGetKey | null = null
  #fetchedAtMs = Number.NEGATIVE_INFINITY
  #triedAtMs = Number.NEGATIVE_INFINITY
  #hasFailed = false
  #fetching: Promise<void> | null = null

  constructor(options: RemoteKeysOptions) {
    this.#options = options
  }

  /** As jose asks for the key of a token.
   *  @throws JWKSNoMatchingKey: the issuer has no such key; JWKSMultipleMatchingKeys: it has several, any of which may be the one;
   *  UNAVAILABLE: it could not be asked, or not yet again */
  readonly keyOf: JWTVerifyGetKey = async (header, jws) => {
    const askedAtMs = this.#options.now()
    await this.#freshen()
    try {
      return await this.#known()(header, jws)
    } catch (error) {
      if (!(error instanceof errors.JWKSNoMatchingKey)) throw error
      // Asked after the token came: the issuer's word on it.
      if (this.#fetchedAtMs >= askedAtMs) throw error
      if (this.#mayFetch(cooldownMs)) await this.#fetch().catch(() => {})
      if (this.#fetchedAtMs >= askedAtMs) return this.#known()(header, jws)
      const waitMs = Math.max(1000, this.#triedAtMs + cooldownMs - this.#options.now())
      throw new TidegateError(
        'UNAVAILABLE',
        'the key of the token is not known here yet, and JWT_JWKS_URL is not asked again at once',
        { retryAfterMs: waitMs },
      )
    }
  }

  /** Fetches keys where there are none, or old ones. @throws UNAVAILABLE when there are none after that */
  async #freshen(): Promise<void> {
    if (this.#keys === null) {
      if (this.#fetching === null && !this.#mayFetch(firstCooldownMs))
        throw unavailable(undefined, this.#triedAtMs + firstCooldownMs - this.#options.now())
      return this.#fetch()
    }
    if (this.#options.now() < this.#fetchedAtMs + maxAgeMs) return
    if (this.#fetching === null && !this.#mayFetch(cooldownMs)) return
    const fetched = this.#fetch().catch(() => {})
    // Nobody waits again for an issuer that did not answer: its keys are those that are known.
    if (!this.#hasFailed) await fetched
  }

  #known(): JWTVerifyGetKey {
    if (this.#keys === null) throw unavailable(undefined, firstCooldownMs)
    return this.#keys
  }

  #mayFetch(everyMs: number): boolean {
    return this.#fetching !== null || this.#options.now() >= this.#triedAtMs + everyMs
  }

  /** One at a time. @throws UNAVAILABLE */
  #fetch(): Promise<void> {
    this.#fetching ??= this.#fetchNow().finally(() => {
      this.#fetching = null
    })
    return this.#fetching
  }

  async #fetchNow(): Promise<void> {
    const { url, now, onFailure } = this.#options
    this.#triedAtMs = now()
    try {
      this.#keys = createLocalJWKSet(publicKeysOf(await fetchJson(url)))
      this.#fetchedAtMs = now()
      this.#hasFailed = false
    } catch (error) {
      this.#hasFailed = true
      onFailure?.(error)
      throw unavailable(error, firstCooldownMs)
    }
  }
}

/** The issuer's keys as they are now, fetched once. @throws Error that says what is wrong with its answer, or with the way to it */
export async function fetchPublicKeys(url: string): Promise<readonly JWK[]> {
  return publicKeysOf(await fetchJson(url)).keys
}

const unavailable = (cause: unknown, retryAfterMs: number): TidegateError =>
  new TidegateError('UNAVAILABLE', 'the keys of JWT_JWKS_URL cannot be fetched', {
    cause,
    retryAfterMs: Math.max(1000, retryAfterMs),
  })

async function fetchJson(url: string): Promise<unknown> {
  const response = await fetch(url, {
    signal: AbortSignal.timeout(timeoutMs),
    // Who can answer for one address need not be who can for the other.
    redirect: 'manual',
    headers: { accept: 'application/json, application/jwk-set+json' },
  })
  if (response.status !== 200) {
    await response.body?.cancel()
    throw new Error(
      `it answered ${response.status}${response.status >= 300 && response.status < 400 ? ', and redirects are not followed' : ''}`,
    )
  }
  const chunks: Uint8Array[] = []
  let bytes = 0
  for await (const chunk of response.body ?? []) {
    bytes += chunk.length
    if (bytes > maxBytes) throw new Error(`it answered with more than ${maxBytes} bytes`)
    chunks.push(chunk)
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString())
  } catch {
    throw new Error('its answer is no JSON')
  }
}

/** Leaves out what signs (secrets, private keys), and what is no key. @throws Error */
function publicKeysOf(value: unknown): JSONWebKeySet {
  const keys = typeof value === 'object' && value !== null && 'keys' in value ? value.keys : null
  if (!Array.isArray(keys)) throw new Error('its answer is no set of keys: {"keys": [...]}')
  if (keys.length > maxKeys) throw new Error(`its answer holds ${keys.length} keys, more than ${maxKeys}`)
  const usable = keys.filter(isPublicKey)
  if (usable.length === 0) throw new Error('its answer holds no public key')
  return { keys: usable }
}

const isPublicKey = (key: unknown): key is JWK =>
  typeof key === 'object' &&
  key !== null &&
  'kty' in key &&
  (key.kty === 'RSA' || key.kty === 'EC' || key.kty === 'OKP') &&
  !('d' in key) &&
  !('k' in key)
