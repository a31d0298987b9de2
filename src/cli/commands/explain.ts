// Explains who may see what of a table, from the terminal: with the same words as GET /v1/explain.
import { decodeJwt } from 'jose'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { createCatalog } from '../../server/authorize/policy-catalog.ts'
import { settingsList } from '../../server/authorize/settings.ts'
import { type OptionValues, sessionUrlOf } from '../../server/config/config.ts'
import { verificationOf } from '../../server/config/config-tokens.ts'
import { explain as explainTable } from '../../server/explain/explain.ts'
import type { Explanation } from '../../server/explain/explanation.ts'
import { type ExplainRequest, parseExplainRequest } from '../../server/explain/request.ts'
import { createLog } from '../../server/log/log.ts'
import { createPool, isAway } from '../../server/postgres/database.ts'
import { createAuthenticator } from '../../server/subscribe/authenticate.ts'
import { createRoleGate } from '../../server/subscribe/roles.ts'
import { explanationLines } from '../explanation-lines.ts'

export type ExplainSettings = OptionValues<
  | 'DATABASE_URL'
  | 'DATABASE_REPLICATION_URL'
  | 'TIDEGATE_NAME'
  | 'JWT_SECRET'
  | 'JWT_JWKS_URL'
  | 'JWT_ALGORITHMS'
  | 'JWT_ISSUER'
  | 'JWT_AUDIENCE'
  | 'JWT_ROLE_CLAIM'
  | 'DEFAULT_ROLE'
  | 'JWT_ROLES'
  | 'CLAIM_SETTINGS'
  | 'MEMBERSHIP_MAX_ROWS'
>

export interface ExplainWishes {
  readonly table: string
  readonly role: string | undefined
  /** A JSON object. */
  readonly claims: string | undefined
  /** A JWT, in the place of role and claims. */
  readonly token: string | undefined
  /** `id=42` each. */
  readonly keys: readonly string[]
  readonly json: boolean
}

export interface ExplainTerminal {
  readonly print: (line: string) => void
  /** What is beside the explanation: standard error. */
  readonly note: (line: string) => void
}

/** @returns false when Postgres disagrees with what Tidegate says of the row
 *  @throws CONFIG_INVALID, DATABASE_UNREACHABLE, and as `explain` in server/explain */
export async function explain(
  options: ExplainSettings,
  wishes: ExplainWishes,
  terminal: ExplainTerminal,
): Promise<boolean> {
  const request = await requestOf(options, wishes, terminal.note)
  const databaseUrl = sessionUrlOf(options)
  const pool = createPool(databaseUrl, { maxConnections: 2, applicationName: 'tidegate explain' })
  try {
    await pool.query('SELECT 1').catch(cause => {
      if (!isAway(cause)) throw cause
      throw new TidegateError('DATABASE_UNREACHABLE', `${new URL(databaseUrl).host}: ${String(cause)}`, {
        cause,
      })
    })
    const gate = createRoleGate({ pool, allowed: options.jwtRoles })
    const explanation = await explainTable(
      {
        pool,
        catalog: () => createCatalog({ pool, publication: options.tidegateName, log: createLog('silent') }),
        publication: options.tidegateName,
        admit: role => gate.admit(role),
        settingsOf: principal => settingsList(principal, { claimSettings: options.claimSettings }),
        maxRows: options.membershipMaxRows,
        timeoutMs: 30_000,
      },
      request,
    )
    print(explanation, wishes, terminal)
    return explanation.row?.agrees !== false
  } finally {
    await pool.end()
  }
}

function print(explanation: Explanation, { json }: ExplainWishes, terminal: ExplainTerminal): void {
  const lines = json ? [JSON.stringify(explanation, null, 2)] : explanationLines(explanation)
  for (const line of lines) terminal.print(line)
}

async function requestOf(
  options: ExplainSettings,
  { table, role, claims, token, keys }: ExplainWishes,
  note: ExplainTerminal['note'],
): Promise<ExplainRequest> {
  const { jwtRoleClaim, defaultRole } = options
  if (token === undefined) return asOption(() => parseExplainRequest({ table, role, claims, keys }, jwtRoleClaim))
  if (claims !== undefined || role !== undefined)
    throw new TidegateError('CONFIG_INVALID', '--token says the role and the claims; leave out --role and --claims')
  let payload: Readonly<Record<string, unknown>>
  try {
    payload = decodeJwt(token)
  } catch (cause) {
    throw new TidegateError('CONFIG_INVALID', '--token is no JWT', { cause })
  }
  await verify(options, token, note)
  const named = payload[jwtRoleClaim] ?? defaultRole
  const request = asOption(() =>
    parseExplainRequest({ table, role: String(named), claims: undefined, keys }, jwtRoleClaim),
  )
  // Word for word: a token of the default role may have no claim that says so.
  return { ...request, claims: payload }
}

/** Whoever runs this reads the database anyway, so a token that a server would refuse is explained all the same. */
async function verify(options: ExplainSettings, token: string, note: ExplainTerminal['note']): Promise<void> {
  if (options.jwtSecret === null && options.jwtJwksUrl === null) {
    note('the token is taken as it is: neither JWT_SECRET nor JWT_JWKS_URL is set to verify it')
    return
  }
  const { jwtAlgorithms: algorithms } = verificationOf(options)
  const authenticator = createAuthenticator({
    ...(options.jwtSecret === null ? {} : { secrets: options.jwtSecret }),
    ...(options.jwtJwksUrl === null ? {} : { jwksUrl: options.jwtJwksUrl }),
    ...(options.jwtIssuer === null ? {} : { issuer: options.jwtIssuer }),
    ...(options.jwtAudience === null ? {} : { audience: options.jwtAudience }),
    algorithms,
    roleClaim: options.jwtRoleClaim,
    defaultRole: options.defaultRole,
    now: Date.now,
  })
  await authenticator.authenticate(token).catch((error: unknown) => {
    if (!(error instanceof TidegateError)) throw error
    note(`a server would refuse this token: ${error.code}: ${error.message}`)
  })
}

/** What does not parse was typed after the command. */
function asOption<T>(parse: () => T): T {
  try {
    return parse()
  } catch (error) {
    if (!(error instanceof TidegateError) || error.code !== 'FILTER_INVALID') throw error
    throw new TidegateError('CONFIG_INVALID', error.message, { cause: error })
  }
}
