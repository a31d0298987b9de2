// The built-in types by name, and what a type is beneath its domain.
import type { SqlType, TypeFamily } from './algebra.ts'

/** Built-in types as constants and casts need them; text ones state no collation, so they yield to the other side's. */
export const sqlTypes = {
  bool: { oid: 16, name: 'boolean', family: 'bool' },
  bytea: { oid: 17, name: 'bytea', family: 'bytea' },
  name: { oid: 19, name: 'name', family: 'text' },
  int8: { oid: 20, name: 'bigint', family: 'int' },
  int2: { oid: 21, name: 'smallint', family: 'int' },
  int4: { oid: 23, name: 'integer', family: 'int' },
  text: { oid: 25, name: 'text', family: 'text' },
  json: { oid: 114, name: 'json', family: 'json' },
  float4: { oid: 700, name: 'real', family: 'float' },
  float8: { oid: 701, name: 'double precision', family: 'float' },
  bpchar: { oid: 1042, name: 'bpchar', family: 'bpchar' },
  varchar: { oid: 1043, name: 'character varying', family: 'text' },
  date: { oid: 1082, name: 'date', family: 'date' },
  time: { oid: 1083, name: 'time without time zone', family: 'time' },
  timestamp: { oid: 1114, name: 'timestamp without time zone', family: 'timestamp' },
  timestamptz: { oid: 1184, name: 'timestamp with time zone', family: 'timestamptz' },
  numeric: { oid: 1700, name: 'numeric', family: 'numeric' },
  uuid: { oid: 2950, name: 'uuid', family: 'uuid' },
  jsonb: { oid: 3802, name: 'jsonb', family: 'jsonb' },
} as const satisfies Record<string, SqlType>

/** What a domain over an unnamed base is read as: the widest type of the family. */
const widest: Partial<Record<TypeFamily, SqlType>> = {
  bool: sqlTypes.bool,
  int: sqlTypes.int8,
  numeric: sqlTypes.numeric,
  text: sqlTypes.text,
  bpchar: sqlTypes.bpchar,
  uuid: sqlTypes.uuid,
  date: sqlTypes.date,
  timestamp: sqlTypes.timestamp,
  timestamptz: sqlTypes.timestamptz,
  time: sqlTypes.time,
  bytea: sqlTypes.bytea,
  json: sqlTypes.json,
  jsonb: sqlTypes.jsonb,
}

/** The type beneath a domain; any other type as it is. Postgres picks operators by it. A domain over float without a
 *  `base` stays a domain: real and double precision compare differently, so nothing here will compare it. */
export function baseOf(type: SqlType): SqlType {
  if (type.domain !== true) return type
  if (type.base !== undefined) return withCollation(baseOf(type.base), type)
  const base = widest[type.family]
  return base === undefined ? type : withCollation(base, type)
}

function withCollation(base: SqlType, type: SqlType): SqlType {
  if (type.collation === undefined) return base
  return { ...base, collation: type.collation, ...(type.lower === undefined ? {} : { lower: type.lower }) }
}

/** The name to cast a constant to. Never with a length (`character varying(3)` would cut the constant), never a domain
 *  (its checks would raise), and never `character`, which SQL reads as `character(1)`. */
export function castNameOf(type: SqlType): string {
  const base = baseOf(type)
  if (base.oid === sqlTypes.bpchar.oid) return 'bpchar'
  if (base.family === 'array' && base.element !== undefined) return `${castNameOf(base.element)}[]`
  // Below 16384 are the types of Postgres itself; a user's type may have parentheses in its quoted name.
  return base.oid < 16384 ? base.name.replace(/\(\d+(,-?\d+)?\)/, '') : base.name
}

/** True when the name carries a length or precision: casting to it changes values. */
export const hasModifier = (type: SqlType): boolean => type.oid < 16384 && /\(\d/.test(type.name)
