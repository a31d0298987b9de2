// Options that fit each for itself and together leave a door open, or promise one that is not there.
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { isGuessable } from './config-tokens.ts'

export interface Mixture {
  /** Stable: `operator-token-shared`. */
  readonly check: string
  /** Refused at start; else it works, and the log warns. */
  readonly isRefused: boolean
  /** With the names of the options and what to do; never a secret. */
  readonly reason: string
}

/** What it reads of the configuration. */
export interface Mixed {
  readonly databaseUrl: string
  readonly adminDatabaseUrl: string | null
  readonly databaseReplicationUrl: string | null
  readonly redisUrl: string | null
  readonly port: number
  readonly adminPort: number | null
  readonly adminHost: string | null
  readonly allowedOrigins: readonly string[]
  readonly operatorToken: readonly string[] | null
  readonly jwtSecret: readonly string[] | null
  readonly jwtJwksUrl: string | null
  readonly jwtAudience: string | null
  readonly apiKeys: readonly { readonly key: string; readonly role: string }[]
  readonly jwtRoles: readonly string[]
}

type Name = 'ADMIN_HOST' | 'ADMIN_PORT' | 'ALLOWED_ORIGINS' | 'API_KEYS' | 'JWT_SECRET' | 'OPERATOR_TOKEN'

/** @param nameOf the option as it was given: JWT_SECRET or --jwt-secret
 *  @throws CONFIG_INVALID with a line for each that is refused */
export function refuseMixtures(mixed: Mixed, nameOf: (name: Name) => string, isProduction: boolean): void {
  const refused = mixturesOf(mixed, nameOf, isProduction).filter(({ isRefused }) => isRefused)
  if (refused.length > 0) throw new TidegateError('CONFIG_INVALID', refused.map(({ reason }) => reason).join('\n'))
}

/** @param isProduction NODE_ENV is production */
export function mixturesOf(
  mixed: Mixed,
  nameOf: (name: Name) => string = name => name,
  isProduction = false,
): readonly Mixture[] {
  return [
    ...sharedSecrets(mixed, nameOf),
    ...knownSecrets(mixed, nameOf, isProduction),
    ...operatorDoor(mixed, nameOf),
    ...origins(mixed, nameOf),
    ...keys(mixed, nameOf),
    ...audience(mixed),
  ]
}

const refused = (check: string, reason: string): Mixture => ({ check, isRefused: true, reason })

/** A secret that opens two doors is lost with the weaker: an API key stands in pages, a token in each request's header. */
function* sharedSecrets(mixed: Mixed, nameOf: (name: Name) => string): Iterable<Mixture> {
  const uses: readonly (readonly [name: string, secrets: readonly string[]])[] = [
    [nameOf('OPERATOR_TOKEN'), mixed.operatorToken ?? []],
    [nameOf('JWT_SECRET'), mixed.jwtSecret ?? []],
    [nameOf('API_KEYS'), mixed.apiKeys.map(({ key }) => key)],
    ['DATABASE_URL', passwordsOf(mixed.databaseUrl)],
    ['DATABASE_REPLICATION_URL', passwordsOf(mixed.databaseReplicationUrl)],
    ['ADMIN_DATABASE_URL', passwordsOf(mixed.adminDatabaseUrl)],
    ['REDIS_URL', passwordsOf(mixed.redisUrl)],
  ]
  // Of the others, passwords of one another are no matter of ours.
  for (const [place, [name, secrets]] of uses.slice(0, 3).entries())
    for (const [other, others] of uses.slice(place + 1))
      if (secrets.some(secret => others.includes(secret)))
        yield refused(
          'secret-shared',
          `${name} and ${other} hold the same secret: who learns one has both; make another for ${name}: openssl rand -hex 32`,
        )
}

/** Before the host, or behind the path as `?password=`. */
function passwordsOf(url: string | null): readonly string[] {
  const parameters = new URLSearchParams(/\?(.*)$/s.exec(url ?? '')?.[1] ?? '')
  const named = ['password', 'sentinelPassword', 'sslpassword'].flatMap(name => parameters.getAll(name))
  return [...loginPasswordOf(url), ...named.filter(password => password !== '')]
}

function loginPasswordOf(url: string | null): readonly string[] {
  const encoded = /^[a-z+]+:\/\/[^/@]*?:([^/@]*)@/i.exec(url ?? '')?.[1]
  if (encoded === undefined || encoded === '') return []
  try {
    return [decodeURIComponent(encoded)]
  } catch {
    return [encoded]
  }
}

/** As they stand in examples that everybody can read. */
const published: readonly RegExp[] = [
  /^(your-)?super-secret-jwt-token-with-at-least-32-characters(-long)?$/,
  /^(change-?me|secret|password|example)/i,
]

function* knownSecrets(mixed: Mixed, nameOf: (name: Name) => string, isProduction: boolean): Iterable<Mixture> {
  const isPublished = (secret: string): boolean => published.some(pattern => pattern.test(secret))
  // Supabase's own development stack signs with one: there it is right.
  if (mixed.jwtSecret?.some(isPublished))
    yield {
      check: 'secret-published',
      isRefused: isProduction,
      reason: `${nameOf('JWT_SECRET')} stands in public examples: whoever reads them can sign any token; outside development make another: openssl rand -hex 32`,
    }
  if (mixed.operatorToken?.some(token => isPublished(token) || isGuessable(token)))
    yield refused(
      'operator-token-weak',
      `${nameOf('OPERATOR_TOKEN')} can be guessed; make another: openssl rand -hex 32`,
    )
}

function* operatorDoor(mixed: Mixed, nameOf: (name: Name) => string): Iterable<Mixture> {
  const { port, adminPort, adminHost, operatorToken } = mixed
  if (adminPort !== null && adminPort !== 0 && adminPort === port)
    yield refused(
      'admin-port',
      `${nameOf('ADMIN_PORT')} is ${adminPort}, the port of the clients, who would reach the operators' addresses; choose another`,
    )
  if (adminHost !== null && adminPort === null)
    yield refused(
      'admin-host',
      `${nameOf('ADMIN_HOST')} is "${adminHost}" and ADMIN_PORT is not set, so the operators' addresses would stay on the port of the clients; set ADMIN_PORT`,
    )
  if (adminPort !== null && operatorToken === null)
    yield {
      check: 'operator-token-missing',
      isRefused: false,
      reason: `${nameOf('ADMIN_PORT')} is set and OPERATOR_TOKEN is not: only /health and /ready answer there; for the others: openssl rand -hex 32`,
    }
}

function* origins({ allowedOrigins }: Mixed, nameOf: (name: Name) => string): Iterable<Mixture> {
  if (allowedOrigins.includes('*') && allowedOrigins.length > 1)
    yield refused(
      'origins',
      `${nameOf('ALLOWED_ORIGINS')} is "${allowedOrigins.join(',')}": with * the others say nothing, and every page may connect; leave out * or them`,
    )
}

function* keys({ apiKeys }: Mixed, nameOf: (name: Name) => string): Iterable<Mixture> {
  const strong = apiKeys.find(({ key, role }) => key.startsWith('sb_publishable_') && ownersOfAll.has(role))
  if (strong !== undefined)
    yield refused(
      'publishable-key',
      `${nameOf('API_KEYS')} has a publishable key, which stands in pages, for the role "${strong.role}", which sees everything; give it anon`,
    )
}

/** By convention; what Postgres says of others is looked at where it is asked (see `refuseOpenRoles`). */
const ownersOfAll: ReadonlySet<string> = new Set(['service_role', 'postgres', 'supabase_admin'])

function* audience({ jwtJwksUrl, jwtAudience }: Mixed): Iterable<Mixture> {
  if (jwtJwksUrl !== null && jwtAudience === null)
    yield {
      check: 'jwt-audience',
      isRefused: false,
      reason:
        'JWT_AUDIENCE is not set: a token that the issuer made for another application is accepted here; set it to the aud of yours',
    }
}
