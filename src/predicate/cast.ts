// Casts between types, where their result depends on the value alone.
import { TidegateError } from '../protocol/tidegate-error.ts'
import type { SqlType } from './algebra.ts'
import { mapArray } from './array-text.ts'
import { datetimeMicros, isDatetimeFamily, printDatetime } from './calendar.ts'
import { stripSpaces } from './compare.ts'
import { jsonKind } from './json-text.ts'
import { roundNumeric } from './numeric-text.ts'
import { readValue } from './read-value.ts'
import { baseOf, hasModifier, sqlTypes } from './sql-types.ts'
import { ValueError } from './value-error.ts'

type Cast = (text: string) => string

/** @returns what turns the printed form of one type into that of the other; it throws ValueError where Postgres raises
 *  @throws POLICY_UNSUPPORTED for a cast whose result depends on settings, rounds, cuts, or runs a domain's checks */
export function castFunction(from: SqlType, to: SqlType): Cast {
  const source = baseOf(from)
  const target = baseOf(to)
  const refuse = (why: string): TidegateError =>
    new TidegateError('POLICY_UNSUPPORTED', `a cast from ${from.name} to ${to.name} ${why}; compare without it`)
  if (hasModifier(to)) throw refuse('changes the value by length or precision')
  if (to.domain === true && from.oid !== to.oid) throw refuse("runs the domain's checks")
  if (source.oid === target.oid && (source.oid !== 0 || source.element?.oid === target.element?.oid))
    return text => text
  const cast = fromText(source, target) ?? toText(source, target) ?? betweenOthers(source, target)
  if (cast === null) throw refuse('is not exact here')
  return cast
}

const isPlainText = (type: SqlType): boolean =>
  type.family === 'text' && (type.oid === sqlTypes.text.oid || type.oid === sqlTypes.varchar.oid)

function fromText(source: SqlType, target: SqlType): Cast | null {
  if (source.family !== 'text') return null
  if (isPlainText(target)) return text => text
  if (!isPlainText(source)) return null
  switch (target.family) {
    case 'bpchar':
      return text => text
    case 'text':
    case 'other':
      // `name` cuts at 63 bytes; of the others nothing is known.
      return null
    default:
      return text => readValue(target, text)
  }
}

function toText(source: SqlType, target: SqlType): Cast | null {
  if (!isPlainText(target)) return null
  switch (source.family) {
    case 'bool':
      return text => (text === 't' ? 'true' : 'false')
    case 'bpchar':
      return stripSpaces
    case 'int':
    case 'numeric':
    case 'uuid':
    case 'enum':
    case 'json':
    case 'jsonb':
    // By DateStyle and TimeZone, which are ISO and UTC in every session of ours.
    case 'date':
    case 'timestamp':
    case 'timestamptz':
    case 'time':
      return text => text
    default:
      // Floats follow extra_float_digits, bytea follows bytea_output.
      return null
  }
}

function betweenOthers(source: SqlType, target: SqlType): Cast | null {
  if (source.family === 'int' && target.family === 'int') return text => readValue(target, text)
  if (source.family === 'int' && target.family === 'numeric') return text => text
  if (source.family === 'numeric' && target.family === 'int') return text => readValue(target, roundNumeric(text))
  if (source.family === 'jsonb') return fromJsonb(target)
  if ((source.family === 'int' || source.family === 'numeric') && target.oid === sqlTypes.float8.oid)
    return text => readValue(target, text)
  if (source.oid === sqlTypes.float4.oid && target.oid === sqlTypes.float8.oid)
    return text => String(Math.fround(Number(text)))
  if (isDatetimeFamily(source.family) && isDatetimeFamily(target.family)) {
    const { family } = target
    return text => {
      const micros = datetimeMicros(text)
      return micros === null ? text : printDatetime(family, micros)
    }
  }
  if (source.element !== undefined && target.element !== undefined) {
    const cast = castFunction(source.element, target.element)
    return text => mapArray(text, cast)
  }
  if (source.family === 'json' && target.family === 'jsonb') return text => readValue(target, text)
  return null
}

/** A boolean or a number by itself; Postgres raises on other values. A null is one, too: before Postgres 18 it raised. */
function fromJsonb(target: SqlType): Cast | null {
  const refuse = (): never => {
    throw new ValueError(`a jsonb value is no ${target.name}`)
  }
  switch (target.family) {
    case 'json':
      return text => text
    case 'bool':
      return text => (text === 'true' ? 't' : text === 'false' ? 'f' : refuse())
    case 'numeric':
      return text => (jsonKind(text) === 'number' ? text : refuse())
    case 'int':
      return target.oid === sqlTypes.int2.oid || target.oid === sqlTypes.int4.oid || target.oid === sqlTypes.int8.oid
        ? text => (jsonKind(text) === 'number' ? readValue(target, roundNumeric(text)) : refuse())
        : null
    default:
      return null
  }
}
