import { expect, test } from 'vitest'
import type { Explanation, MembershipLook, RowExplanation } from '../../../../src/server/explain/explanation.ts'
import { explainSentences } from '../../../../src/server/inspect/page/explain-sentences.js'

const look: MembershipLook = {
  table: 'public.members',
  key: { room_id: '7', user_id: null },
  negated: false,
  rows: 0,
  candidates: 0,
  through: [],
}
const hidden: RowExplanation = {
  key: { id: '42' },
  found: true,
  visible: false,
  judgedBy: 'tidegate',
  code: null,
  because: 'hidden: no permissive policy lets it through',
  policies: [{ name: 'members', kind: 'permissive', answer: 'false', reason: null, memberships: [look] }],
  postgres: { visible: false, sqlState: null },
  agrees: true,
}
const explained = (row: Partial<RowExplanation>, problems: Explanation['problems'] = []) =>
  explainSentences({
    table: 'public.messages',
    role: 'authenticated',
    rowSecurity: 'on',
    exact: true,
    problems,
    warnings: [],
    columns: { readable: ['id'], hidden: [], hiddenButRead: [] },
    policies: [],
    tables: [],
    row: { ...hidden, ...row },
  })

test('a hidden row: which policy, what it looked for, and that Postgres agrees', () => {
  expect(explained({})).toEqual({
    tone: 'bad',
    verdict: 'public.messages id=42 is hidden from this user.',
    reasons: [
      'The permissive policy "members" does not let it through.',
      'It looks in public.members where room_id = 7 and user_id = NULL and finds none.',
      'Postgres agrees: a SELECT as this user returns no row.',
    ],
    problems: [],
  })
})

test.each<[string, Partial<RowExplanation>, string, string]>([
  ['visible', { visible: true }, 'good', 'public.messages id=42 is visible to this user.'],
  ['of nobody', { found: false, policies: [] }, 'wait', 'There is no row public.messages id=42, for anybody.'],
  ['refused', { visible: null, code: 'TABLE_REFUSED' }, 'bad', 'Nothing of it is shown to this user: TABLE_REFUSED.'],
  ['asked', { visible: null }, 'wait', 'Only Postgres can tell whether authenticated sees public.messages id=42.'],
])('%s', (_, row, tone, verdict) => {
  expect(explained(row)).toMatchObject({ tone, verdict })
})

test('without a policy that decides, the reason is said as it came', () => {
  const because = 'visible: row-level security is off'
  expect(explained({ visible: true, policies: [], because }).reasons[0]).toBe('Visible: row-level security is off.')
})

test('memberships that do not satisfy the rest, speak against, or lead on', () => {
  const said = (more: Partial<MembershipLook>): string =>
    explained({ policies: [{ ...hidden.policies[0]!, memberships: [{ ...look, key: { a: '1' }, ...more }] }] })
      .reasons[1]!
  expect(said({ candidates: 2 })).toContain('finds 2 rows, which do not satisfy the rest.')
  expect(said({ candidates: 1 })).toContain('finds 1 row, which does not satisfy the rest.')
  expect(said({ rows: 1, candidates: 1, negated: true })).toContain('finds 1 row, which speaks against it.')
  expect(said({ candidates: 1, rows: 1, through: [[{ ...look, table: 'public.teams', key: { id: '3' } }]] })).toBe(
    'It looks in public.members where a = 1 and finds 1 row. It looks in public.teams where id = 3 and finds none.',
  )
})

test('a disagreement of Postgres is loud, an error of its own is named', () => {
  expect(explained({ agrees: false, postgres: { visible: true, sqlState: null } }).reasons.at(-1)).toBe(
    'Postgres disagrees: a SELECT returns the row. That is a fault of Tidegate, and worth a report.',
  )
  expect(explained({ postgres: { visible: null, sqlState: '22P02' } }).reasons.at(-1)).toBe(
    'Postgres itself raises 22P02.',
  )
})

test('problems come with what to run', () => {
  const problem = { code: 'IDENTITY_INSUFFICIENT', message: 'lacks room_id', run: 'ALTER TABLE ...' }
  expect(explained({}, [problem]).problems).toEqual([
    { text: 'IDENTITY_INSUFFICIENT: lacks room_id', run: 'ALTER TABLE ...' },
  ])
})
