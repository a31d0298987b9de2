// The doctor's look at JWT_JWKS_URL: whether it answers, and whether its keys are of the kinds that are accepted.
import type { JWK } from 'jose'
import type { Config } from '../config/config.ts'
import { fetchPublicKeys } from '../subscribe/jwks.ts'
import { failure, ok, setting, shell, warning } from './checks.ts'
import type { Finding } from './finding.ts'

type Needs = Pick<Config, 'jwtJwksUrl' | 'jwtAlgorithms'>

/** @throws nothing */
export async function jwksFindings({ jwtJwksUrl, jwtAlgorithms }: Needs): Promise<Finding[]> {
  if (jwtJwksUrl === null) return []
  try {
    return [judgeKeys(await fetchPublicKeys(jwtJwksUrl), jwtAlgorithms)]
  } catch (error) {
    return [
      failure(
        'jwks',
        `JWT_JWKS_URL (${jwtJwksUrl}) gives no keys: ${reasonOf(error)}; a node that starts now lets nobody in`,
        shell(`curl -fsS ${quoted(jwtJwksUrl)}`, 'from where the nodes run; mend the way to it, or JWT_JWKS_URL'),
      ),
    ]
  }
}

/** @param keys at least one; public ones */
export function judgeKeys(keys: readonly JWK[], algorithms: readonly string[]): Finding {
  const signing = keys.filter(({ use }) => use !== 'enc')
  const misfits = signing.filter(key => !algorithmsOf(key).some(algorithm => algorithms.includes(algorithm)))
  const words = `${signing.map(sayKey).join(', ') || 'no key that signs'}; JWT_ALGORITHMS accepts ${algorithms.join(', ')}`
  if (signing.length > 0 && misfits.length === 0) return ok('jwks', `it has ${words}`)
  const wanted = [...new Set([...algorithms, ...misfits.map(key => algorithmsOf(key)[0] ?? '')])].filter(
    text => text !== '',
  )
  const remedy = misfits.length === 0 ? null : setting(`JWT_ALGORITHMS=${wanted.join(',')}`)
  if (misfits.length === signing.length) return failure('jwks', `it has ${words}: no token can be verified`, remedy)
  return warning('jwks', `it has ${words}: tokens signed by ${misfits.map(sayKey).join(', ')} are refused`, remedy)
}

/** What a key may sign with (RFC 7518, RFC 8037), the likeliest first. */
function algorithmsOf({ kty, crv, alg }: JWK): readonly string[] {
  const ofKind = kindsOf(kty, crv)
  if (alg === undefined) return ofKind
  // Two names of one.
  if (alg === 'EdDSA' || alg === 'Ed25519') return ofKind.includes('EdDSA') ? ['EdDSA', 'Ed25519'] : []
  return ofKind.filter(algorithm => algorithm === alg)
}

function kindsOf(kty: string | undefined, crv: string | undefined): readonly string[] {
  if (kty === 'RSA') return ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512']
  if (kty === 'EC') return { 'P-256': ['ES256'], 'P-384': ['ES384'], 'P-521': ['ES512'] }[crv ?? ''] ?? []
  return kty === 'OKP' && crv === 'Ed25519' ? ['EdDSA', 'Ed25519'] : []
}

const sayKey = (key: JWK): string => `${key.kid ?? 'a key'} (${key.alg ?? algorithmsOf(key)[0] ?? key.crv ?? key.kty})`

function reasonOf(error: unknown): string {
  const { message, cause } = error as Error
  return cause instanceof Error && cause.message !== '' ? cause.message : message
}

const quoted = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`
