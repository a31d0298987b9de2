// Reads from the catalog what compiling a policy asks for: roles, privileges, functions, types.
import { type Kysely, sql } from 'kysely'
import type { ExecutionFacts, Facts, FunctionFacts, Need, PrivilegeFacts, RoleFacts } from './facts.ts'
import { FactNeeded } from './facts.ts'
import { type RelationReading, readRelation } from './read-relation.ts'
import type { Command } from './table.ts'

/** Facts already read, by need. Owned by the catalog, which drops it whole when the catalog of Postgres changes; as large
 *  as what the policies of the tables in use name. */
export class FactStore implements Facts {
  readonly #facts = new Map<string, unknown>()

  put(need: Need, fact: unknown): void {
    this.#facts.set(keyOf(need), fact)
  }

  has = (need: Need): boolean => this.#facts.has(keyOf(need))

  role = (oid: number): RoleFacts => this.#get({ kind: 'role', oid })
  relation: Facts['relation'] = (schema, name) => this.#get({ kind: 'relation', schema, name })
  privileges: Facts['privileges'] = (relation, role, command = 'SELECT') =>
    this.#get({ kind: 'privileges', relation, role, command })
  functions: Facts['functions'] = (schema, name) => this.#get({ kind: 'functions', schema, name })
  execution: Facts['execution'] = (functionOid, role) => this.#get({ kind: 'execute', function: functionOid, role })
  type: Facts['type'] = (schema, name, array) => this.#get({ kind: 'type', schema, name, array })
  collation: Facts['collation'] = (schema, name) => this.#get({ kind: 'collation', schema, name })
  setting: Facts['setting'] = name => this.#get({ kind: 'setting', name })
  operators: Facts['operators'] = schema => this.#get({ kind: 'operators', schema })

  /** The one cast: what is put under a need is what reading that need gave. */
  #get<T>(need: Need): T {
    const key = keyOf(need)
    if (!this.#facts.has(key)) throw new FactNeeded(need)
    return this.#facts.get(key) as T
  }
}

const keyOf = (need: Need): string => JSON.stringify(Object.values(need))

export function readFact(reading: RelationReading, need: Need): Promise<unknown> {
  switch (need.kind) {
    case 'role':
      return readRole(reading.db, sql`r.oid = ${need.oid}::oid`)
    case 'relation':
      return readRelation(reading, need.schema, need.name)
    case 'privileges':
      return readPrivileges(reading, need)
    case 'functions':
      return readFunctions(reading, need.schema, need.name)
    case 'execute':
      return readExecution(reading.db, need.function, need.role)
    case 'type':
      return reading.types.namedType(need.schema, need.name, need.array)
    case 'collation':
      return reading.types.namedCollation(need.schema, need.name)
    case 'setting':
      return readSetting(reading.db, need.name)
    case 'operators':
      return readOperators(reading.db, need.schema)
  }
}

export const readRoleNamed = (db: Kysely<unknown>, name: string): Promise<RoleFacts | null> =>
  readRole(db, sql`r.rolname = ${name}`)

async function readRole(db: Kysely<unknown>, where: ReturnType<typeof sql>): Promise<RoleFacts | null> {
  const { rows } = await sql<Omit<RoleFacts, 'privilegesOf'> & { privilegesOf: number[] }>`
    SELECT r.oid, r.rolname AS name, r.rolsuper AS superuser, r.rolbypassrls AS "bypassRowSecurity",
      (SELECT json_agg(g.oid::int8) FROM pg_roles g WHERE pg_has_role(r.oid, g.oid, 'USAGE')) AS "privilegesOf"
    FROM pg_roles r WHERE ${where}`.execute(db)
  const [row] = rows
  return row === undefined ? null : { ...row, privilegesOf: new Set(row.privilegesOf) }
}

async function readPrivileges(
  { db }: RelationReading,
  { relation, role, command }: { readonly relation: number; readonly role: number; readonly command: Command },
): Promise<PrivilegeFacts> {
  const { rows } = await sql<{ schemaUsage: boolean; anyColumn: boolean; columns: string[] | null }>`
    SELECT has_schema_privilege(${role}::oid, relnamespace, 'USAGE') AS "schemaUsage",
      has_any_column_privilege(${role}::oid, c.oid, ${command}) AS "anyColumn",
      (SELECT json_agg(attname) FROM pg_attribute
       WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped
         AND has_column_privilege(${role}::oid, c.oid, attnum, ${command})) AS columns
    FROM pg_class c WHERE c.oid = ${relation}::oid`.execute(db)
  const [row] = rows
  if (row === undefined) return { schemaUsage: false, anyColumn: false, columns: new Set() }
  return { schemaUsage: row.schemaUsage, anyColumn: row.anyColumn, columns: new Set(row.columns ?? []) }
}

async function readExecution(db: Kysely<unknown>, functionOid: number, role: number): Promise<ExecutionFacts> {
  const { rows } = await sql<ExecutionFacts>`
    SELECT has_function_privilege(${role}::oid, oid, 'EXECUTE') AS execute,
      has_schema_privilege(${role}::oid, pronamespace, 'USAGE') AS "schemaUsage"
    FROM pg_proc WHERE oid = ${functionOid}::oid`.execute(db)
  return rows[0] ?? { execute: false, schemaUsage: false }
}

interface FunctionRow
  extends Omit<
    FunctionFacts,
    'argumentTypes' | 'argumentNames' | 'returnType' | 'columns' | 'settings' | 'searchPath' | 'body'
  > {
  allTypes: number[] | null
  arguments: number[]
  names: string[] | null
  modes: string[] | null
  returns: number
  config: string[] | null
  source: string
  standard: string | null
}

async function readFunctions({ db, types }: RelationReading, schema: string, name: string): Promise<FunctionFacts[]> {
  const { rows } = await sql<FunctionRow>`
    SELECT p.oid, n.nspname AS schema, proname AS name, to_json(proargtypes::oid[]::int8[]) AS arguments,
      to_json(proargnames) AS names, to_json(proargmodes) AS modes, to_json(proallargtypes::int8[]) AS "allTypes", pronargdefaults AS defaults,
      provariadic <> 0 AS variadic, l.lanname AS language, prokind = 'f' AS plain, proretset AS "returnsSet",
      prorettype AS returns, proisstrict AS strict, prosecdef AS "securityDefiner", proowner AS owner,
      to_json(proconfig) AS config, prosrc AS source, pg_get_function_sqlbody(p.oid) AS standard
    FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace JOIN pg_language l ON l.oid = prolang
    WHERE n.nspname = ${schema} AND proname = ${name} ORDER BY p.oid`.execute(db)
  const found: FunctionFacts[] = []
  for (const { arguments: args, allTypes, names, modes, returns, config, source, standard, ...row } of rows) {
    const argumentTypes = []
    for (const oid of args) argumentTypes.push(await types.type(oid, 0))
    const columns = []
    for (const [i, oid] of (allTypes ?? []).entries())
      if ('otb'.includes(modes?.[i] ?? 'i')) columns.push({ name: names?.[i] ?? '', type: await types.type(oid, 0) })
    const settings = (config ?? []).map(splitSetting)
    const path = settings.find(([setting]) => setting === 'search_path')
    found.push({
      ...row,
      argumentTypes,
      argumentNames: (names ?? []).filter((_, i) => modes === null || 'ibv'.includes(modes[i] ?? 'i')),
      returnType: await types.type(returns, 0),
      columns: columns.length === 0 ? null : columns,
      settings,
      searchPath: path === undefined ? null : splitIdentifiers(path[1]),
      body: standard === null ? { kind: 'source', text: source } : { kind: 'standard', text: standard },
    })
  }
  return found
}

function splitSetting(text: string): readonly [string, string] {
  const at = text.indexOf('=')
  return [text.slice(0, at), text.slice(at + 1)]
}

/** `public, "My Schema", ""` as search_path has it; the empty name stands for no schema. */
export const splitIdentifiers = (list: string): string[] =>
  [...list.matchAll(/"((?:[^"]|"")*)"|([^\s,"]+)/g)]
    .map(([, quoted, bare]) => (quoted === undefined ? (bare ?? '') : quoted.replaceAll('""', '"')))
    .filter(name => name !== '')

async function readSetting(db: Kysely<unknown>, name: string): Promise<string | null> {
  // A session in which it was once set locally shows '' from then on.
  const { rows } = await sql<{ value: string | null }>`
    SELECT nullif(current_setting(${name}, true), '') AS value`.execute(db)
  return rows[0]?.value ?? null
}

async function readOperators(db: Kysely<unknown>, schema: string): Promise<ReadonlySet<string>> {
  const { rows } = await sql<{ name: string }>`
    SELECT DISTINCT oprname AS name FROM pg_operator o JOIN pg_namespace n ON n.oid = oprnamespace
    JOIN pg_type a ON a.oid = oprleft JOIN pg_type b ON b.oid = oprright
    WHERE nspname = ${schema} AND a.typnamespace = 'pg_catalog'::regnamespace
      AND b.typnamespace = 'pg_catalog'::regnamespace`.execute(db)
  return new Set(rows.map(({ name }) => name))
}
