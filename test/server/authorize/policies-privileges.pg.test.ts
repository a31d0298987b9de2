import { afterAll, beforeAll, expect, test } from 'vitest'
import { ada, PolicyBench } from './policy-bench.ts'
import { policyOf, refusalOf, within } from './policy-cases.ts'

let bench: PolicyBench

beforeAll(async () => {
  bench = await PolicyBench.create()
})

afterAll(() => bench[Symbol.asyncDispose]())

const members = 'members m WHERE m.room_id = messages.room_id'

test('[P2] a table the role may not SELECT refuses the policy that reads it, even negated', async () => {
  const using = 'NOT EXISTS (SELECT FROM private.secrets s WHERE s.room_id = messages.room_id)'
  await within(bench, policyOf(using), async () => {
    const { ada: reader } = bench.principals
    expect(await bench.asked(reader!)).toBe('error: permission denied for table secrets')
    expect(await refusalOf(() => bench.compiled(reader!))).toBe(
      `TABLE_REFUSED: policy "p" on public.messages reads private.secrets, which role ${reader!.role} may not SELECT; GRANT SELECT ON private.secrets TO "${reader!.role}"`,
    )
  })
})

test('[P2] a column of the inner table that the role may not SELECT refuses it too', async () => {
  const setup = 'REVOKE SELECT ON members FROM $authenticated; GRANT SELECT (room_id) ON members TO $authenticated;'
  await within(
    bench,
    `${setup} ${policyOf(`EXISTS (SELECT FROM ${members} AND m.user_id = auth.uid())`)}`,
    async () => {
      const { ada: reader } = bench.principals
      expect(await bench.asked(reader!)).toBe('error: permission denied for table members')
      expect(await refusalOf(() => bench.compiled(reader!))).toContain(
        'TABLE_REFUSED: policy "p" on public.messages reads public.members.user_id',
      )
    },
  )
})

test('[P2] a function the role may not EXECUTE refuses it', async () => {
  await within(
    bench,
    `${policyOf('author = auth.uid()')} REVOKE EXECUTE ON FUNCTION auth.uid() FROM PUBLIC;`,
    async () => {
      const { ada: reader } = bench.principals
      expect(await bench.asked(reader!)).toBe('error: permission denied for function uid')
      expect(await refusalOf(() => bench.compiled(reader!))).toContain(
        'TABLE_REFUSED: policy "p" on public.messages calls function auth.uid()',
      )
    },
  )
})

test('[P2] claims that do not fit a policy are refused, as Postgres raises', async () => {
  await within(bench, policyOf('author = auth.uid()'), async () => {
    const reader = { ...bench.principals.ada!, claims: { sub: 'auth0|1234' } }
    expect(await bench.asked(reader)).toContain('error: invalid input syntax for type uuid')
    expect(await refusalOf(() => bench.compiled(reader))).toContain('CLAIM_INVALID')
  })
})

test('column privileges say what is readable; none is a refusal with the statement', async () => {
  await within(
    bench,
    'REVOKE SELECT ON messages FROM $authenticated; GRANT SELECT (id, body) ON messages TO $authenticated;',
    async () => {
      const access = await bench.access(bench.principals.ada!)
      expect([...access.readable].map(column => access.table.columns[column]!.name)).toEqual(['id', 'body'])
      // By inheritance.
      expect((await bench.access(bench.principals.staff!)).readable).toEqual(access.readable)
      await bench.database.query(
        bench.withRoles(
          'REVOKE SELECT (id, body) ON messages FROM $authenticated; GRANT SELECT (id) ON messages TO PUBLIC',
        ),
      )
      expect([...(await bench.access(bench.principals.ada!)).readable]).toEqual([0])
      await bench.database.query('REVOKE SELECT (id) ON messages FROM PUBLIC')
      const { role } = bench.principals.ada!
      expect(await refusalOf(() => bench.access(bench.principals.ada!))).toBe(
        `TABLE_REFUSED: role ${role} may not SELECT public.messages: GRANT SELECT ON public.messages TO "${role}"`,
      )
    },
  )
})

test('a policy may read a column that its reader may not', async () => {
  await within(
    bench,
    `REVOKE SELECT ON messages FROM $authenticated; GRANT SELECT (id) ON messages TO $authenticated; ${policyOf('author = auth.uid()')}`,
    async () => {
      const { ada: reader } = bench.principals
      expect(await bench.compiled(reader!)).toEqual(await bench.asked(reader!))
      expect((await bench.compiled(reader!)).length).toBe(3)
    },
  )
})

test('no policy and no row-level security come with their warnings', async () => {
  const codes = async (name: string) => (await bench.access(bench.principals[name]!)).warnings.map(({ code }) => code)
  await within(bench, 'CREATE POLICY a ON messages TO $authenticated USING (true);', async () => {
    expect([await codes('ada'), await codes('anonymous')]).toEqual([[], ['NO_POLICY']])
    await bench.database.query('ALTER TABLE messages DISABLE ROW LEVEL SECURITY')
    expect(await codes('anonymous')).toEqual(['NO_ROW_SECURITY'])
  })
})

test('an unknown role is refused', async () => {
  expect(await refusalOf(() => bench.access({ role: 'nobody_at_all', claims: {}, expiresAt: null }))).toContain(
    'ROLE_REFUSED',
  )
})

test('the tables that a policy reads come with it, for its index', async () => {
  await within(
    bench,
    policyOf(
      `EXISTS (SELECT FROM ${members} AND m.user_id = auth.uid()) OR org_id = (SELECT org_id FROM profiles WHERE id = auth.uid())`,
    ),
    async () => {
      const { memberships, policy } = await bench.access(bench.principals.ada!)
      expect(memberships.map(({ name }) => name)).toEqual(['members', 'profiles'])
      expect(policy).toMatchObject({
        kind: 'or',
        args: [
          { kind: 'semiJoin', nullAware: false },
          { kind: 'semiJoin', nullAware: false },
        ],
      })
      expect(await bench.compiled({ ...bench.principals.ada!, claims: { sub: ada } })).toEqual([
        '1',
        '2',
        '3',
        '4',
        '6',
      ])
    },
  )
})
