import { expect, test } from 'vitest'
import { explanationLines } from '../../src/cli/explanation-lines.ts'
import type { Explanation, MembershipLook, RowExplanation } from '../../src/server/explain/explanation.ts'
import { becauseOf } from '../../src/server/explain/sentence.ts'

const look = (table: string, more: Partial<MembershipLook> = {}): MembershipLook => ({
  ...{ table, key: { id: '7' }, negated: false, rows: 1, candidates: 1, through: [] },
  ...more,
})

const chain = look('public.projects', {
  through: [
    [look('public.teams', { through: [[look('public.team_members', { key: { team_id: '3', user_id: null } })]] })],
  ],
})

function explanationWith(row: Partial<RowExplanation>): Explanation {
  return {
    ...{ table: 'public.tasks', role: 'authenticated', rowSecurity: 'on', exact: true, problems: [], warnings: [] },
    ...{ columns: { readable: ['id'], hidden: [], hiddenButRead: [] }, policies: [], tables: [] },
    row: {
      ...{
        key: { id: '1' },
        found: true,
        visible: true,
        judgedBy: 'tidegate',
        code: null,
        because: 'it is',
        policies: [],
      },
      ...{ postgres: { visible: true, sqlState: null }, agrees: true },
      ...row,
    },
  }
}

test('[P1] a disagreement is loud', () => {
  const lines = explanationLines(explanationWith({ postgres: { visible: false, sqlState: null }, agrees: false }))
  expect(lines.at(-1)).toContain('POSTGRES DISAGREES: a SELECT returns no row')
  expect(explanationLines(explanationWith({})).join('\n')).not.toContain('DISAGREES')
})

test('[P8] a chain shows each hop under the one that leads to it', () => {
  const policy = { name: 'in_team', kind: 'permissive', answer: 'true', reason: null, memberships: [chain] } as const
  const lines = explanationLines(explanationWith({ policies: [policy] }))
  expect(lines.slice(-5, -1)).toEqual([
    '    permissive "in_team": true',
    '      public.projects (id=7) has 1 row',
    '        public.teams (id=7) has 1 row',
    '          public.team_members (team_id=3, user_id=NULL) has 1 row',
  ])
  expect(becauseOf(true, [policy])).toBe(
    'visible by policy "in_team": public.projects (id=7) has 1 row, through public.teams (id=7) has 1 row, through public.team_members (team_id=3, user_id=NULL) has 1 row',
  )
})

test('[P8] a chain that breaks says where', () => {
  const broken = look('public.projects', { rows: 0, through: [[look('public.teams', { rows: 0, candidates: 0 })]] })
  const policy = { name: 'in_team', kind: 'permissive', answer: 'false', reason: null, memberships: [broken] } as const
  expect(becauseOf(false, [policy])).toBe(
    'hidden: no permissive policy lets it through: policy "in_team": public.projects (id=7) has 1 row, which leads nowhere, through public.teams (id=7) has none',
  )
})
