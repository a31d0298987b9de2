// Filters in the grammar that clients write.
import fc from 'fast-check'
import { type Column, poolOf, type Sample } from './samples.ts'

/** Filters as a client would write them, over every column and operator; many fit their column, some do not. */
export function filters(sample: Sample): fc.Arbitrary<readonly (readonly [string, string])[]> {
  const value = (column: Column) => fc.constantFrom(...poolOf(column), 'null', '*a*', 'a*', '_')
  const quoted = (text: string): string => `"${text.replace(/["\\]/g, char => `\\${char}`)}"`
  const operator = fc.constantFrom('eq', 'neq', 'lt', 'lte', 'gt', 'gte', 'isdistinct', 'like', 'ilike')
  const pattern = fc.constantFrom('a', '^A', '[a-m]+$', '^.$', '(x|Y)', 'a.*b', '^$', '[^A]')
  const negation = fc.constantFrom('', '', 'not.')
  const isWord = fc.constantFrom('is.null', 'is.not_null', 'is.true', 'is.false', 'is.unknown')
  const condition = fc.constantFrom(...sample.columns).chain(column => {
    const plain = fc.tuple(operator, value(column)).map(([op, text]) => ({ op: `${op}.`, text }))
    const match = fc
      .tuple(fc.constantFrom('match', 'imatch'), pattern)
      .map(([op, text]) => ({ op: `${op}.`, text: text as string | null }))
    const list = fc
      .array(value(column), { maxLength: 3 })
      .map(texts => ({ op: `in.(${texts.map(quoted).join(',')})`, text: null }))
    const is = isWord.map(op => ({ op, text: null }))
    const any = fc.oneof(
      { weight: 4, arbitrary: plain },
      { weight: 2, arbitrary: list },
      { weight: 1, arbitrary: match },
      { weight: 1, arbitrary: is },
    )
    return fc.tuple(negation, any).map(([not, { op, text }]) => ({ name: column.name, not, op, text }))
  })
  const pair = condition.map(({ name, not, op, text }) => [name, `${not}${op}${text ?? ''}`] as const)
  const nested = condition.map(({ name, not, op, text }) => `${name}.${not}${op}${text === null ? '' : quoted(text)}`)
  const items = fc.array(nested, { minLength: 1, maxLength: 3 })
  const inner = fc
    .tuple(fc.constantFrom('and', 'or', 'not.and', 'not.or'), items)
    .map(([op, all]) => `${op}(${all.join(',')})`)
  const group = fc
    .tuple(fc.constantFrom('and', 'or', 'not.and', 'not.or'), items, inner)
    .map(([name, all, last]) => [name, `(${[...all, last].join(',')})`] as const)
  return fc.array(fc.oneof({ weight: 3, arbitrary: pair }, { weight: 1, arbitrary: group }), {
    minLength: 1,
    maxLength: 2,
  })
}
