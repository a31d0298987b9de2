// Explains who may see what of a table: how each policy is judged and what it reads, what is missing for that, and for one
// reader and one row, visible or not, and why.
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { untrackedInputs } from '../admin/policy-inputs.ts'
import { loadGrammar } from '../authorize/parse-sql.ts'
import { type AccessExplained, explainAccess } from '../authorize/policies.ts'
import { assertPrivileged } from '../authorize/privileges.ts'
import type { PostgresCatalog } from '../catalog/catalog.ts'
import type { Table } from '../catalog/table.ts'
import { answered, type Lane } from '../postgres/database.ts'
import { prepare } from '../subscribe/prepare.ts'
import type { Principal } from '../subscribe/subscription.ts'
import type { Explanation, Problem, TableExplanation } from './explanation.ts'
import {
  explainColumns,
  explainPolicies,
  explainTables,
  isAsked,
  nameOf,
  problemsOfTables,
  type RecordedReads,
} from './reads.ts'
import { type ExplainRequest, keyValuesOf } from './request.ts'
import { explainRow } from './row.ts'

export interface ExplainOptions {
  readonly pool: Lane
  /** One that has read nothing yet: what is explained is how things stand now. */
  readonly catalog: () => PostgresCatalog
  readonly publication: string
  /** @throws ROLE_REFUSED */
  readonly admit: (role: string) => Promise<void>
  readonly settingsOf: (principal: Principal) => readonly (readonly [name: string, value: string])[]
  /** MEMBERSHIP_MAX_ROWS */
  readonly maxRows: number
  /** How long a statement may take. */
  readonly timeoutMs: number
}

/** @throws TABLE_UNKNOWN, TABLE_UNSUPPORTED, ROLE_REFUSED for what does not exist; FILTER_INVALID, COLUMN_UNKNOWN for a key
 *  that does not fit; UNAVAILABLE */
export const explain = (options: ExplainOptions, request: ExplainRequest): Promise<Explanation> =>
  answered(explained(options, request))

async function explained(options: ExplainOptions, request: ExplainRequest): Promise<Explanation> {
  await loadGrammar()
  const catalog = options.catalog()
  const table = await catalog.inspect(request.schema, request.table)
  const key = request.key === null ? null : keyValuesOf(table, request.key)
  const access = await catalog.compiled(table, request.role, explainAccess)
  const policies = explainPolicies(access, await recordedReads(options.pool, access))
  const tables = explainTables(access)
  const principal: Principal = { role: request.role, claims: request.claims ?? {}, expiresAt: null }
  const standing = { access, tables, principal, hasClaims: request.claims !== null }
  const { problems, asked } = await problemsOf(options, catalog, standing)
  return {
    table: nameOf(table),
    role: access.role.name,
    rowSecurity: !table.rowSecurity ? 'off' : access.seesAllRows ? 'bypassed' : 'on',
    exact: policies.every(({ judged }) => judged === 'compiled' || judged === 'not applied'),
    problems,
    warnings: [...access.warnings, ...(asked === null ? [] : [{ code: 'POLICY_ASKED', message: asked.message }])],
    columns: explainColumns(access),
    policies,
    tables,
    row:
      key === null
        ? null
        : await explainRow({
            ...options,
            access,
            key,
            reader: { role: principal.role, settings: options.settingsOf(principal) },
          }),
  }
}

/** What Postgres has recorded of the policies that do not compile. */
async function recordedReads(pool: Lane, access: AccessExplained): Promise<Map<string, RecordedReads>> {
  const found = new Map<string, Map<string, Set<string>>>()
  if (access.policies.every(({ refusal }) => refusal === null)) return found
  const { rows } = await pool.query<{ policy: string; table: string; columns: string[] }>(
    `SELECT p.polname AS policy, format('%s.%s', n.nspname, c.relname) AS "table",
       coalesce(json_agg(a.attname ORDER BY a.attnum) FILTER (WHERE a.attname IS NOT NULL), '[]') AS columns
     FROM pg_depend d JOIN pg_policy p ON d.classid = 'pg_policy'::regclass AND d.objid = p.oid
     JOIN pg_class c ON d.refclassid = 'pg_class'::regclass AND c.oid = d.refobjid
     JOIN pg_namespace n ON n.oid = c.relnamespace
     LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND d.refobjsubid > 0 AND a.attnum = d.refobjsubid
     WHERE p.polrelid = $1 GROUP BY 1, 2 ORDER BY 1, 2`,
    [access.relation.table.oid],
  )
  for (const { policy, table, columns } of rows) {
    const tables = found.get(policy) ?? new Map<string, Set<string>>()
    found.set(policy, tables.set(table, new Set(columns)))
  }
  return found
}

interface Standing {
  readonly access: AccessExplained
  readonly tables: readonly TableExplanation[]
  readonly principal: Principal
  readonly hasClaims: boolean
}

/** Everything that is missing, not only what a subscription would be told first.
 *  @returns in `asked` why Postgres would be asked for a subscription; null when it would not */
async function problemsOf(
  options: ExplainOptions,
  catalog: PostgresCatalog,
  { access, tables, principal, hasClaims }: Standing,
): Promise<{ problems: Problem[]; asked: TidegateError | null }> {
  const { table } = access.relation
  const problems: Problem[] = []
  const add = (error: unknown): void => {
    if (!(error instanceof TidegateError)) throw error
    problems.push({ code: error.code, message: error.message, run: null })
  }
  await options.admit(principal.role).catch(add)
  await catalog.table(table.schema, table.name).catch(add)
  for (const refusal of refusalsOf(access)) add(refusal)
  // That the table itself is not tracked, and why, was said by the catalog.
  const missing = problemsOfTables(tables, access).filter(
    ({ code, message }) => code !== 'TABLE_UNKNOWN' || !message.startsWith(`${nameOf(table)} `),
  )
  const untracked = await untrackedTables(options, access, tables)
  const door = await refusalAtTheDoor(options, catalog, table, principal)
  // Of a table that Postgres is asked for, nobody judges old rows, and no membership is held.
  const asked = door !== null && isAsked(door) ? door : null
  problems.push(...(asked === null ? missing : missing.filter(({ code }) => !judgingHere.has(code))), ...untracked)
  // Claims of nobody in particular need not fit.
  const isSaid = door === null || problems.some(({ code }) => code === door.code)
  if (!isSaid && asked === null && (hasClaims || door.code !== 'CLAIM_INVALID')) add(door)
  return { problems, asked }
}

const judgingHere: ReadonlySet<string> = new Set(['IDENTITY_INSUFFICIENT', 'INDEX_NOT_READABLE'])

/** Why a SELECT by the role raises, and why its rows could not be named. */
function* refusalsOf({ relation, role, privileges, policies }: AccessExplained): Generator<TidegateError> {
  const { table } = relation
  try {
    assertPrivileged(relation, role, privileges, 'SELECT')
  } catch (error) {
    if (!(error instanceof TidegateError)) throw error
    yield error
    return
  }
  for (const { refusal } of policies) if (refusal !== null && refusal.code !== 'POLICY_UNSUPPORTED') yield refusal
  const hidden = table.primaryKey.map(column => table.columns[column]!.name).find(name => !privileges.columns.has(name))
  if (hidden === undefined) return
  const what = `role ${role.name} may not SELECT ${hidden}, of the primary key of ${nameOf(table)}`
  yield new TidegateError('KEY_NOT_READABLE', what)
}

/** What a live query of the whole table would be told; null when it would be accepted. */
async function refusalAtTheDoor(
  { settingsOf }: ExplainOptions,
  catalog: PostgresCatalog,
  { schema, name: table }: Table,
  principal: Principal,
): Promise<TidegateError | null> {
  const filterLimits = { maxLength: 0, maxDepth: 0, maxTerms: 0 }
  try {
    await prepare({ catalog, admit: async () => {}, settingsOf, filterLimits, maxLimit: 0 }, principal, {
      ...{ kind: 'live', schema, table, filters: [], select: null, events: null, since: null },
    })
    return null
  } catch (error) {
    if (!(error instanceof TidegateError)) throw error
    return error
  }
}

/** Tables that a policy which does not compile reads, by itself or through functions, and that are not followed. */
async function untrackedTables(
  { pool, publication }: ExplainOptions,
  { relation, policies }: AccessExplained,
  tables: readonly TableExplanation[],
): Promise<Problem[]> {
  if (policies.every(({ refusal }) => refusal === null)) return []
  const client = await pool.connect()
  try {
    const found = await untrackedInputs(client, relation.table, publication)
    return found
      .map(nameOf)
      .filter(name => !tables.some(({ table }) => table === name))
      .map(name => ({
        code: 'POLICY_UNSUPPORTED',
        message: `${name}, which a policy reads, is not tracked`,
        run: `tidegate track ${name}`,
      }))
  } finally {
    client.release()
  }
}
