// Reads types and collations: what is needed to compare values as Postgres would.
import { type Kysely, sql } from 'kysely'
import type { SqlType, TypeFamily } from '../../predicate/algebra.ts'
import { readCaseMap } from './case-map.ts'
import type { CollationFacts } from './facts.ts'
import { PromiseCache } from './promise-cache.ts'

interface TypeRow {
  oid: number
  name: string
  typname: string
  kind: string
  element: number | null
  base: number | null
  labels: string[] | null
  /** Of a composite type, in their order. */
  fields: { name: string; type: number }[] | null
}

interface CollationRow {
  oid: number
  schema: string
  name: string
  provider: string
  collate: string
  ctype: string
  locale: string | null
  deterministic: boolean
  encoding: string
}

const families: Readonly<Record<number, TypeFamily>> = {
  16: 'bool',
  17: 'bytea',
  19: 'text',
  20: 'int',
  21: 'int',
  23: 'int',
  25: 'text',
  26: 'int',
  114: 'json',
  700: 'float',
  701: 'float',
  1042: 'bpchar',
  1043: 'text',
  1082: 'date',
  1083: 'time',
  1114: 'timestamp',
  1184: 'timestamptz',
  1700: 'numeric',
  2950: 'uuid',
  3802: 'jsonb',
}

/** Encodings whose byte order is the order of code points, which is how rows are compared here. */
const orderedEncodings: ReadonlySet<string> = new Set(['UTF8', 'LATIN1', 'SQL_ASCII'])

const defaultCollation = 100
/** Postgres comes with about a thousand; a case map is about 100 kB. */
const maxCollations = 200

/** Reads each type and collation once. Types: as many as tracked tables and policies name. */
export class TypeReader {
  readonly #db: Kysely<unknown>
  readonly #version: number
  readonly #rows: Map<number, TypeRow>
  readonly #collations: PromiseCache<number, CollationFacts | null>

  constructor(db: Kysely<unknown>, version: number, shared?: TypeReader) {
    this.#db = db
    this.#version = version
    this.#rows = shared === undefined ? new Map() : shared.#rows
    this.#collations = shared === undefined ? new PromiseCache(maxCollations) : shared.#collations
  }

  /** The same memory, reading within a transaction. */
  within(transaction: Kysely<unknown>): TypeReader {
    return new TypeReader(transaction, this.#version, this)
  }

  /** @param collationOid of the column; 0 for types without one */
  async type(oid: number, collationOid: number): Promise<SqlType> {
    await this.#load(oid)
    return this.#typeOf(oid, await this.collation(collationOid))
  }

  /** `pg_type.typname` of a type that was read. */
  typname(oid: number): string | undefined {
    return this.#rows.get(oid)?.typname
  }

  async namedType(schema: string, name: string, array: boolean): Promise<SqlType | null> {
    const { rows } = await sql<{ oid: number; collation: number }>`
      SELECT CASE WHEN ${array}::bool THEN typarray ELSE t.oid END AS oid, typcollation AS collation
      FROM pg_type t JOIN pg_namespace n ON n.oid = typnamespace
      WHERE nspname = ${schema} AND typname = ${name} AND typtype IN ('b', 'd', 'e')`.execute(this.#db)
    const [row] = rows
    return row === undefined || row.oid === 0 ? null : this.type(row.oid, row.collation)
  }

  async namedCollation(schema: string, name: string): Promise<CollationFacts | null> {
    const { rows } = await sql<{ oid: number }>`
      SELECT c.oid FROM pg_collation c JOIN pg_namespace n ON n.oid = collnamespace
      WHERE nspname = ${schema} AND collname = ${name}
        AND collencoding IN (-1, (SELECT encoding FROM pg_database WHERE datname = current_database()))
      ORDER BY collencoding DESC LIMIT 1`.execute(this.#db)
    return rows[0] === undefined ? null : this.collation(rows[0].oid)
  }

  collation(oid: number): Promise<CollationFacts | null> {
    return this.#collations.get(oid, async () => (oid === 0 ? null : this.#readCollation(oid)))
  }

  /** The type with all types beneath it. */
  async #load(oid: number): Promise<void> {
    if (this.#rows.has(oid)) return
    const { rows } = await sql<TypeRow>`
      WITH RECURSIVE reached AS (
        SELECT oid, typelem, typbasetype, typrelid FROM pg_type WHERE oid = ${oid}::oid
        UNION
        SELECT t.oid, t.typelem, t.typbasetype, t.typrelid FROM reached r JOIN pg_type t ON t.oid IN (r.typelem, r.typbasetype)
          OR t.oid IN (SELECT a.atttypid FROM pg_attribute a WHERE a.attrelid = r.typrelid AND a.attnum > 0 AND NOT a.attisdropped)
      )
      SELECT t.oid, format_type(t.oid, NULL) AS name, t.typname, t.typtype AS kind, e.oid AS element,
        NULLIF(t.typbasetype, 0::oid) AS base,
        (SELECT json_agg(enumlabel ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = t.oid) AS labels,
        (SELECT json_agg(json_build_object('name', attname, 'type', atttypid::bigint) ORDER BY attnum) FROM pg_attribute
         WHERE attrelid = t.typrelid AND t.typtype = 'c' AND attnum > 0 AND NOT attisdropped) AS fields
      FROM reached r JOIN pg_type t ON t.oid = r.oid LEFT JOIN pg_type e ON e.typarray = t.oid`.execute(this.#db)
    for (const row of rows) this.#rows.set(row.oid, row)
  }

  #typeOf(oid: number, collation: CollationFacts | null): SqlType {
    const row = this.#rows.get(oid)
    if (row === undefined) return { oid, name: `type ${oid}`, family: 'other' }
    const { name } = row
    if (row.kind === 'd' && row.base !== null) {
      const base = this.#typeOf(row.base, collation)
      return { ...base, oid, name, domain: true, base }
    }
    if (row.kind === 'e') return { oid, name, family: 'enum', labels: row.labels ?? [] }
    if (row.element !== null) return { oid, name, family: 'array', element: this.#typeOf(row.element, collation) }
    if (row.fields !== null)
      return {
        oid,
        name,
        family: 'other',
        fields: row.fields.map(field => ({ name: field.name, type: this.#typeOf(field.type, null) })),
      }
    const family = families[oid] ?? 'other'
    if ((family !== 'text' && family !== 'bpchar') || collation === null) return { oid, name, family }
    const { behaviour, lower } = collation
    return { oid, name, family, collation: behaviour, ...(lower === undefined ? {} : { lower }) }
  }

  async #readCollation(oid: number): Promise<CollationFacts | null> {
    const isDefault = oid === defaultCollation
    const locale = sql.raw(
      this.#version < 150000
        ? 'NULL'
        : this.#version < 170000
          ? isDefault
            ? 'daticulocale'
            : 'colliculocale'
          : isDefault
            ? 'datlocale'
            : 'colllocale',
    )
    const provider = sql.raw(this.#version < 150000 ? "'c'" : 'datlocprovider')
    const { rows } = isDefault
      ? await sql<CollationRow>`
          SELECT 100::oid AS oid, 'pg_catalog' AS schema, 'default' AS name, ${provider} AS provider, datcollate AS collate,
            datctype AS ctype, ${locale}::text AS locale, true AS deterministic, pg_encoding_to_char(encoding) AS encoding
          FROM pg_database WHERE datname = current_database()`.execute(this.#db)
      : await sql<CollationRow>`
          SELECT c.oid, nspname AS schema, collname AS name, collprovider AS provider, collcollate AS collate,
            collctype AS ctype, ${locale}::text AS locale, collisdeterministic AS deterministic,
            (SELECT pg_encoding_to_char(encoding) FROM pg_database WHERE datname = current_database()) AS encoding
          FROM pg_collation c JOIN pg_namespace n ON n.oid = collnamespace WHERE c.oid = ${oid}::oid`.execute(this.#db)
    const [row] = rows
    if (row === undefined) return null
    const behaviour = behaviourOf(row)
    const lower = folds(row) ? await readCaseMap(this.#db, row) : null
    return lower === null ? { oid, behaviour } : { oid, behaviour, lower }
  }
}

const isC = (locale: string): boolean => locale === 'C' || locale === 'POSIX'

function behaviourOf(row: CollationRow): CollationFacts['behaviour'] {
  if (!row.deterministic) return 'nondeterministic'
  // The built-in provider orders by code point under every locale it has.
  const byBytes = row.provider === 'b' || (row.provider === 'c' && isC(row.collate))
  return byBytes && orderedEncodings.has(row.encoding) ? 'c' : 'deterministic'
}

/** Whether lower() goes character by character and changes more than ASCII. ICU and PG_UNICODE_FAST look at neighbours. */
function folds(row: CollationRow): boolean {
  if (!row.deterministic || row.encoding !== 'UTF8') return false
  if (row.provider === 'b') return row.locale === 'C.UTF-8'
  return row.provider === 'c' && !isC(row.ctype)
}
