// Predicates over functions and operators, CASE and casts of the sample table's columns.
import fc from 'fast-check'
import type { CallName, CompareOp, Expr, Predicate, SqlType } from '../../src/predicate/algebra.ts'
import { sqlTypes } from '../../src/predicate/sql-types.ts'

type Column = Extract<Expr, { kind: 'column' }>

const constant = (value: string | null, type: SqlType): Expr => ({ kind: 'const', value, type })
const text = (value: string | null): Expr => constant(value, sqlTypes.text)
const int = (value: number): Expr => constant(String(value), sqlTypes.int4)
const call = (name: CallName, type: SqlType, ...args: Expr[]): Expr => ({ kind: 'call', name, args, type })

const some = <T>(...values: T[]): fc.Arbitrary<T> => fc.constantFrom(...values)

/** Every one is exact; what raises over some value is left to calls.pg.test.ts. */
export function callPredicates(columns: readonly Column[]): fc.Arbitrary<Predicate> {
  const column = (name: string): Column => columns.find(each => each.name === `c_${name}`)!
  const [c_text, c_varchar, c_int2, c_uuid, c_bool, c_texts] = ['text', 'varchar', 'int2', 'uuid', 'bool', 'texts'].map(
    column,
  ) as [Column, Column, Column, Column, Column, Column]
  const result: SqlType = { ...c_text.type, name: 'text' }
  const cast = (arg: Expr): Expr => ({ kind: 'cast', arg, type: result })

  /** Values as text that has but one value: what binding takes apart again. */
  const printed = some(c_int2, c_uuid, c_bool).map(cast)
  const prefixed = fc
    .tuple(fc.oneof(printed, some<Expr>(c_text, c_varchar)), some('', 'room:', 'a'), some('', ':x', 'b'))
    .map(([arg, start, end]) => {
      const left = start === '' ? arg : call('||', result, text(start), arg)
      return end === '' ? left : call('||', result, left, text(end))
    })
  const target = fc
    .tuple(
      some('', 'room:', 'a'),
      some(
        '5',
        '-1',
        '05',
        '99999',
        'true',
        't',
        'a',
        'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11',
        'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11',
        '',
      ),
      some('', ':x', 'b'),
    )
    .map(parts => parts.join(''))
  const equal = fc
    .tuple(prefixed, some<CompareOp>('=', '<>'), fc.option(target, { freq: 9 }), fc.boolean())
    .map(
      ([left, op, value, swap]): Predicate =>
        swap
          ? { kind: 'compare', op, left: text(value), right: left }
          : { kind: 'compare', op, left, right: text(value) },
    )
  const oneOf = fc
    .tuple(prefixed, fc.array(fc.option(target, { freq: 6 }), { maxLength: 4 }))
    .map(([left, values]): Predicate => ({ kind: 'in', left, items: values.map(text) }))
  const made = fc.oneof(
    fc
      .tuple(some('a', ' ', ':', ''), some(1, 2, -1))
      .map(([by, place]) => call('split_part', result, c_text, text(by), int(place))),
    some(1, 2, -1, 3).map(count => call('left', result, c_text, int(count))),
    fc
      .tuple(some(1, 2, 0, -1), some(1, 2, 5))
      .map(([from, count]) => call('substr', result, c_varchar, int(from), int(count))),
    some('a', 'ab', '😀').map(by => call('replace', result, c_text, text(by), text('x'))),
    fc.tuple(some<Expr>(c_text, c_varchar), some<Expr>(c_text, text('-'))).map(args => call('||', result, ...args)),
    some(1, 2).map(at => call('subscript', result, c_texts, int(at))),
    fc.tuple(some<Expr>(text('x'), c_varchar), some<Expr>(text('a'), text(null), c_text)).map(
      ([value, otherwise]): Expr => ({
        kind: 'case',
        whens: [{ kind: 'boolean', arg: c_bool }],
        values: [value],
        otherwise,
        type: result,
      }),
    ),
  )
  const compared = fc
    .tuple(made, some('a', '', 'x', 'ab', 'A', '😀', null))
    .map(([left, value]): Predicate => ({ kind: 'compare', op: '=', left, right: text(value) }))
  const asked = fc
    .tuple(
      some<CallName>('?', '?|', '?&'),
      some('["5", "-1", "true"]', '{"a": 1, "A": 2, "5": 3}', '[]', '"a"', null),
      fc.oneof(printed, some<Expr>(c_text)),
    )
    .map(([name, document, key]): Predicate => {
      const right = name === '?' ? key : c_texts
      return { kind: 'boolean', arg: call(name, sqlTypes.bool, constant(document, sqlTypes.jsonb), right) }
    })
  const arrays = fc
    .tuple(some<CallName>('@>', '&&'), some('{a}', '{}', '{a,b}', '{NULL}', null), fc.boolean())
    .map(([name, value, swap]): Predicate => {
      const other = constant(value, c_texts.type)
      return { kind: 'boolean', arg: call(name, sqlTypes.bool, ...(swap ? [other, c_texts] : [c_texts, other])) }
    })
  const lengths = fc
    .tuple(
      some<CompareOp>('=', '<', '>='),
      some<Expr>(call('length', sqlTypes.int4, c_text), call('cardinality', sqlTypes.int4, c_texts)),
      some(0, 1, 2, 4),
    )
    .map(([op, left, value]): Predicate => ({ kind: 'compare', op, left, right: int(value) }))
  return fc.oneof(equal, oneOf, compared, asked, arrays, lengths)
}
