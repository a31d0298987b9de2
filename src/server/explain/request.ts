// What is to be explained, parsed once at the door: the same for the command and the endpoint. Pure.
import { readValue } from '../../predicate/read-value.ts'
import { ValueError } from '../../predicate/value-error.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { parseTableName } from '../admin/tracked-table.ts'
import type { Table } from '../catalog/table.ts'
import { oddityOf } from '../subscribe/authenticate.ts'

export interface ExplainRequest {
  readonly schema: string
  readonly table: string
  readonly role: string
  /** Null: no reader in particular. */
  readonly claims: Readonly<Record<string, unknown>> | null
  /** Column and value of the primary key; null: no row in particular. */
  readonly key: ReadonlyMap<string, string> | null
}

export interface ExplainTexts {
  readonly table: string
  /** Undefined: the role that the claims name. */
  readonly role: string | undefined
  /** A JSON object. */
  readonly claims: string | undefined
  /** `id=42`, one for each column of the primary key. */
  readonly keys: readonly string[]
}

/** @param roleClaim the claim that names the role
 *  @throws FILTER_INVALID, TABLE_UNKNOWN */
export function parseExplainRequest(texts: ExplainTexts, roleClaim: string): ExplainRequest {
  const given = texts.claims === undefined ? null : parseClaims(texts.claims)
  const named = given?.[roleClaim]
  if (named !== undefined && typeof named !== 'string') throw invalid(`the claim ${roleClaim} is no role name`)
  const role = texts.role ?? named
  if (role === undefined || role === '')
    throw invalid(`no role is named; give role, or claims with the claim ${roleClaim}`)
  if (named !== undefined && named !== role)
    throw invalid(`role is ${shown(role)}, but the claim ${roleClaim} is ${shown(named)}`)
  // Postgres would refuse the very question whether there is one of that name.
  const odd = [texts.table, role].find(name => name.includes('\0') || !name.isWellFormed())
  if (odd !== undefined) throw invalid(`${shown(odd)} is no name`)
  const { schema, name } = parseTableName(texts.table)
  const key = texts.keys.length === 0 ? null : new Map(texts.keys.map(parseKey))
  // A row is shown to somebody: without claims to whoever has the role and says nothing else.
  const claims = given ?? (key === null ? null : {})
  // As in the tokens of those who have the role: `auth.role()` reads the claim.
  return { schema, table: name, role, claims: claims === null ? null : { ...claims, [roleClaim]: role }, key }
}

/** @example parseExplainParameters(new URLSearchParams('table=messages&role=anon&key=id=42'), 'role')
 *  @throws FILTER_INVALID, TABLE_UNKNOWN */
export function parseExplainParameters(parameters: URLSearchParams, roleClaim: string): ExplainRequest {
  const stray = [...parameters.keys()].find(name => !['table', 'role', 'claims', 'key'].includes(name))
  if (stray !== undefined) throw invalid(`there is no parameter ${shown(stray)}; there are table, role, claims and key`)
  const single = (name: string): string | undefined => {
    const [value, second] = parameters.getAll(name)
    if (second !== undefined) throw invalid(`${name} stands twice`)
    return value
  }
  const table = single('table')
  if (table === undefined) throw invalid('no table is named; write table=<schema>.<table>')
  const texts = { table, role: single('role'), claims: single('claims'), keys: parameters.getAll('key') }
  return parseExplainRequest(texts, roleClaim)
}

function parseClaims(text: string): Record<string, unknown> {
  let claims: unknown
  try {
    claims = JSON.parse(text)
  } catch {
    // The text is not repeated: claims are nobody's business.
    throw invalid('claims is not JSON; it takes an object, {"sub": "..."}')
  }
  if (typeof claims !== 'object' || claims === null || Array.isArray(claims))
    throw invalid('claims is no JSON object; it takes {"sub": "..."}')
  const oddity = oddityOf(claims as Record<string, unknown>)
  if (oddity !== null) throw invalid(`claims ${oddity}`)
  return claims as Record<string, unknown>
}

function parseKey(text: string): [string, string] {
  const equals = text.indexOf('=')
  if (equals < 1) throw invalid(`key is ${shown(text)}; it takes column=value: id=42`)
  return [text.slice(0, equals), text.slice(equals + 1)]
}

/** Values of the primary key in its order, as Postgres prints them.
 *  @throws COLUMN_UNKNOWN when the key is not the primary key, FILTER_INVALID when a value does not fit, NO_PRIMARY_KEY */
export function keyValuesOf(table: Table, key: ReadonlyMap<string, string>): string[] {
  const name = `${table.schema}.${table.name}`
  const columns = table.primaryKey.map(column => table.columns[column]!)
  if (columns.length === 0) throw new TidegateError('NO_PRIMARY_KEY', `${name} has no primary key; add one`)
  const names = columns.map(column => column.name)
  if (names.length !== key.size || names.some(column => !key.has(column)))
    throw new TidegateError('COLUMN_UNKNOWN', `the key of ${name} is (${names.join(', ')}); give each once, as id=42`)
  return columns.map(({ name: column, type }) => {
    try {
      return readValue(type, key.get(column)!)
    } catch (error) {
      if (!(error instanceof ValueError)) throw error
      throw invalid(`key ${column} is ${shown(key.get(column)!)}: ${error.message}`)
    }
  })
}

const shown = (text: string): string => JSON.stringify(text.slice(0, 80))

const invalid = (message: string): TidegateError => new TidegateError('FILTER_INVALID', message)
