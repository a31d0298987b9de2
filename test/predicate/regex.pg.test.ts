// Regular expressions as they are matched here, against Postgres's own, under a database's usual collation.
import fc from 'fast-check'
import { afterAll, expect, test } from 'vitest'
import { isShortRegex, regexMatcher } from '../../src/predicate/regex.ts'
import { TestDatabase } from '../support/postgres.ts'

const database = await TestDatabase.create()
afterAll(() => database[Symbol.asyncDispose]())

/** Null where Postgres raises. */
async function postgres(
  texts: readonly string[],
  pattern: string,
  operator: '~' | '~*' = '~',
): Promise<boolean[] | null> {
  try {
    const rows = await database.query<{ found: boolean }>(
      `SELECT t ${operator} $2 AS found FROM unnest($1::text[]) WITH ORDINALITY AS u (t, n) ORDER BY n`,
      [texts, pattern],
    )
    return rows.map(({ found }) => found)
  } catch (error) {
    if ((error as { code?: string }).code === '2201B') return null
    throw error
  }
}

const texts = [
  '',
  'a',
  'b',
  'ab',
  'aab',
  'abab',
  'room:42',
  'room:',
  'room:4x',
  'Room:42',
  'a\nb',
  '\n',
  'ä',
  '😀',
  'a-b',
  'a.b',
  'a]b',
  'a\\b',
  '{1}',
  'aaaa',
  '-',
  '^a',
  'a|b',
  'x(y)',
]

const common = [
  '^room:[0-9]+$',
  '^(room|user):[a-z0-9_-]+$',
  'oo',
  '^$',
  '',
  '^.$',
  '^.*$',
  'a.b',
  'a\\.b',
  '[^a]',
  '^[^a-z]+$',
  '(ab)+$',
  '^(?:ab){2}$',
  '^a{2,}b',
  '^a{0,3}$',
  'a??b',
  '^(a|ab)(b|)$',
  '[]a]',
  '[a\\]]',
  '[a-]b|[-b]a',
  '\\{1\\}',
  '^a*$|^\\^',
  'a|b|',
  '(a*)*b',
  '((a|b)*)+$',
  'a{2}{3}',
  'a**',
  '*a',
  '(?i)ROOM',
  '***=a.b',
  'x\\(y\\)',
  'a{,2}',
  'a{1',
  '[z-a]',
  '[[:alpha:]]',
  '\\d',
  '(a)\\1',
  '^*',
  '()',
  '(',
  ')',
  'a)',
  ']',
  '}',
]

test.each(common.filter(pattern => regexMatcher(pattern) !== null))('%j', async pattern => {
  const matches = regexMatcher(pattern)!
  expect(texts.map(text => matches(text))).toEqual(await postgres(texts, pattern))
})

test('these are not known here', () => {
  expect(common.filter(pattern => regexMatcher(pattern) === null)).toEqual([
    '^(a|ab)(b|)$',
    '[]a]',
    'a|b|',
    'a{2}{3}',
    'a**',
    '*a',
    '(?i)ROOM',
    '***=a.b',
    'a{,2}',
    'a{1',
    '[z-a]',
    '[[:alpha:]]',
    '\\d',
    '(a)\\1',
    '^*',
    '()',
    '(',
    ')',
    'a)',
    ']',
    '}',
  ])
})

const matchers = [
  { caseOf: 'exact', operator: '~', chars: ['a', 'b', ':', '.', 'ä', '\n', '😀'] },
  { caseOf: 'either', operator: '~*', chars: ['a', 'b', 'A', 'B', 'K', '\u212a', 'ſ', 'S', 'ä', 'Ä', '.'] },
] as const

test.each(matchers)(
  'whatever is known here is matched as Postgres matches it by $operator',
  async matcher => {
    const { caseOf, operator, chars } = matcher
    const letters = caseOf === 'exact' ? ['ä'] : ['k', 'S', 'A', '[K-b]', '[^A-S]']
    const piece = fc.constantFrom(
      ...'aab.:^$|()[]^-*+?{}'.split(''),
      'a',
      'b',
      '{2}',
      '{1,2}',
      '{70}',
      '(?:',
      '[ab]',
      '[^a]',
      '[a-b]',
      '\\.',
      '\\d',
      ':',
      ...letters,
    )
    const pattern = fc.array(piece, { maxLength: 10 }).map(pieces => pieces.join(''))
    const text = fc.array(fc.constantFrom(...chars), { maxLength: 7 }).map(chars => chars.join(''))
    const repeated = fc.tuple(text, fc.integer({ min: 1, max: 25 })).map(([text, times]) => text.repeat(times))
    const inTexts = fc.array(fc.oneof({ weight: 3, arbitrary: text }, { weight: 1, arbitrary: repeated }), {
      minLength: 5,
      maxLength: 20,
    })
    let short = 0
    let long = 0
    await fc.assert(
      fc.asyncProperty(pattern, inTexts, async (sought, inTexts) => {
        const matches = regexMatcher(sought, caseOf)
        if (matches === null) return
        if (isShortRegex(sought, caseOf)) short += 1
        else long += 1
        expect([sought, inTexts.map(each => matches(each))]).toEqual([
          sought,
          await postgres(inTexts, sought, operator),
        ])
      }),
      { numRuns: 4000 },
    )
    expect(short).toBeGreaterThan(500)
    expect(long).toBeGreaterThan(0)
  },
  60_000,
)

test('without regard to case only patterns in ASCII are known', () => {
  expect(regexMatcher('ä', 'either')).toBe(null)
  const matches = regexMatcher('^r[o-p]{2}M$', 'either')!
  expect(['room', 'ROOM', 'rOpm', 'ram'].map(text => matches(text))).toEqual([true, true, true, false])
})

test('[P7] no text makes a short pattern slow', () => {
  for (const pattern of ['a{63}b', '^((a|b)*a(a|b){29})+c', '(a*)*b']) {
    const matches = regexMatcher(pattern)!
    expect(isShortRegex(pattern)).toBe(true)
    const began = performance.now()
    expect(matches('a'.repeat(1_000_000))).toBe(false)
    expect([pattern, performance.now() - began < 1000]).toEqual([pattern, true])
  }
})

test('[P7] no text makes a pattern slow', () => {
  const matches = regexMatcher('^((a+)+)+$')!
  const began = performance.now()
  expect(matches(`${'a'.repeat(20_000)}!`)).toBe(false)
  expect(performance.now() - began).toBeLessThan(2000)
  expect(regexMatcher('((a{50}){50}){50}')).toBe(null)
})
