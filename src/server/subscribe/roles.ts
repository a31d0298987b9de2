// Decides whether a token may take a database role. Postgres would refuse SET ROLE to a non-member, but what is judged
// here never runs SET ROLE: so the door checks.
import { setTimeout as sleep } from 'node:timers/promises'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Config } from '../config/config.ts'
import { isAway, type Lane } from '../postgres/database.ts'

export interface RoleGateOptions {
  /** Connected as the login that serves. */
  readonly pool: Lane
  /** JWT_ROLES. A superuser or a role with BYPASSRLS is admitted like any other that is named. */
  readonly allowed: readonly string[]
  /** Roles that are admitted only while row-level security binds them; see `openRolesOf`. */
  readonly bound?: readonly string[]
  /** Milliseconds, monotonic. */
  readonly now?: () => number
  /** How long an answer holds. */
  readonly maxAgeMs?: number
  /** How long one is waited for. */
  readonly patienceMs?: number
}

export interface RoleGate {
  /** @throws ROLE_REFUSED with the remedy; UNAVAILABLE when the database does not answer in time */
  admit(role: string): Promise<void>
  /** Forgets every answer, because roles changed. */
  invalidate(): void
}

/** Members of roles cannot be watched: a revoked membership is noticed within this time, or by the catalog's poller. */
const defaultMaxAgeMs = 2_000
/** Every new connection asks: one that is left hanging for as long as a question may take comes again meanwhile. */
const defaultPatienceMs = 3_000

/** @returns the roles that anybody may come to have: of a token that names none, and of keys that stand in pages */
export const openRolesOf = ({ defaultRole, apiKeys }: Pick<Config, 'defaultRole' | 'apiKeys'>): readonly string[] => [
  defaultRole,
  ...apiKeys.filter(({ key }) => key.startsWith('sb_publishable_')).map(({ role }) => role),
]

/** Waits for a database that is away. @throws CONFIG_INVALID where row-level security does not bind one of these roles */
export async function refuseUnbound(pool: Lane, roles: readonly string[], signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    try {
      const { rows } = await pool.query<{ role: string }>(
        'SELECT rolname AS role FROM pg_roles WHERE rolname = ANY($1) AND (rolsuper OR rolbypassrls)',
        [roles],
      )
      if (rows[0] !== undefined) throw new TidegateError('CONFIG_INVALID', unboundText(rows[0].role))
      return
    } catch (error) {
      if (!isAway(error)) throw error
      await sleep(1000, undefined, { signal, ref: false }).catch(() => {})
    }
  }
}

const unboundText = (role: string): string =>
  `row-level security does not bind the role "${role}", which DEFAULT_ROLE or a publishable key gives to anybody, who would see every row; give another, such as anon`

export function createRoleGate(options: RoleGateOptions): RoleGate {
  const { pool, now = () => performance.now() } = options
  const { maxAgeMs = defaultMaxAgeMs, patienceMs = defaultPatienceMs } = options
  const allowed = new Set(options.allowed)
  const bound = new Set(options.bound)
  // Never larger than `allowed`: others are refused before they are looked up.
  const answers = new Map<string, { readonly at: number; readonly refusal: Promise<TidegateError | null> }>()
  return {
    async admit(role) {
      if (!allowed.has(role))
        throw new TidegateError(
          'ROLE_REFUSED',
          `JWT_ROLES does not list the role ${JSON.stringify(role.slice(0, 130))}; add it there, or name another`,
        )
      let answer = answers.get(role)
      if (answer === undefined || now() - answer.at >= maxAgeMs) {
        answer = { at: now(), refusal: refusalOf(pool, role, bound.has(role)) }
        answers.set(role, answer)
        const asked = answer
        answer.refusal.catch(() => {
          if (answers.get(role) === asked) answers.delete(role)
        })
      }
      const refusal = await inTime(answer.refusal, patienceMs - (now() - answer.at))
      if (refusal !== null) throw refusal
    },
    invalidate: () => answers.clear(),
  }
}

/** @throws UNAVAILABLE */
async function inTime<T>(answer: Promise<T>, ms: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    const give = (): void =>
      reject(new TidegateError('UNAVAILABLE', 'the database does not answer', { retryAfterMs: 1000 }))
    timer = setTimeout(give, ms)
  })
  try {
    return await Promise.race([answer, late])
  } finally {
    clearTimeout(timer)
  }
}

async function refusalOf(pool: Lane, role: string, isBound: boolean): Promise<TidegateError | null> {
  // Since Postgres 16 a member may have been granted the role without SET.
  const { rows } = await pool.query<{ login: string; member: boolean | null; unbound: boolean | null }>(
    `SELECT current_user AS login,
       (SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = $1) AS unbound, (SELECT pg_has_role(current_user, oid,
       CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END)
       FROM pg_roles WHERE rolname = $1) AS member`,
    [role],
  )
  const { login, member, unbound } = rows[0]!
  if (isBound && unbound === true) return new TidegateError('ROLE_REFUSED', unboundText(role))
  if (member === true) return null
  const reason =
    member === null
      ? `there is no database role "${role}"; create it: CREATE ROLE "${role}"`
      : `the server's login "${login}" may not take the role "${role}": GRANT "${role}" TO "${login}"`
  return new TidegateError('ROLE_REFUSED', reason)
}
