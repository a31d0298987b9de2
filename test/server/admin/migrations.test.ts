import { expect, test } from 'vitest'
import { argumentTypes, readFunctions } from '../../../src/server/admin/migrations.ts'

test.each([
  ['CREATE OR REPLACE FUNCTION auth.uid() RETURNS uuid AS', []],
  [
    "CREATE OR REPLACE FUNCTION a.b(\n  sub text,\n  within interval DEFAULT '10 seconds'\n) RETURNS a.c",
    ['text', 'interval'],
  ],
  [
    'CREATE FUNCTION a.b(x timestamp with time zone DEFAULT now(), y text[]) RETURNS void',
    ['timestamp with time zone', 'text[]'],
  ],
])('argument types of %j', (sql, types) => {
  expect(argumentTypes(sql)).toEqual(types)
})

test('a function that is called with something is known by its arguments', async () => {
  const signatures = (await readFunctions()).map(({ signature }) => signature)
  expect(signatures).toContain('auth.uid()')
  expect(signatures).toContain('tidegate.revoke(text, text, timestamptz, text)')
})
