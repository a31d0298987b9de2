import { expect, test } from 'vitest'
import { settingsList, settingsOf } from '../../../src/server/authorize/settings.ts'

const claims = {
  sub: 'ada',
  n: 7,
  ok: true,
  list: [1],
  'with space': 1,
  userId: 'x',
  nothing: null,
  meta: { tenant: 't1' },
}
const principal = { role: 'authenticated', claims, expiresAt: null }
const claimSettings = [
  { setting: 'app.tenant', claim: 'meta.tenant' },
  { setting: 'App.User', claim: 'sub' },
  { setting: 'app.missing', claim: 'none.at.all' },
  { setting: 'app.null', claim: 'nothing' },
]

test('claims become the settings of PostgREST and the configured ones, the role last', () => {
  expect(settingsList(principal, { claimSettings })).toEqual([
    ['request.jwt.claims', JSON.stringify(claims)],
    ['request.jwt.claim.sub', 'ada'],
    ['request.jwt.claim.n', '7'],
    ['request.jwt.claim.ok', 'true'],
    ['request.jwt.claim.list', '[1]'],
    ['request.jwt.claim.userid', 'x'],
    ['request.jwt.claim.nothing', 'null'],
    ['request.jwt.claim.meta', '{"tenant":"t1"}'],
    ['app.tenant', 't1'],
    ['app.user', 'ada'],
    ['app.missing', ''],
    ['app.null', ''],
    ['role', 'authenticated'],
  ])
})

test('the function has the same values, ignores case, and knows what is not set', () => {
  const settings = settingsOf(principal, { claimSettings })
  expect([settings('APP.TENANT'), settings('role'), settings('request.jwt.claim.nope'), settings('app.other')]).toEqual(
    ['t1', 'authenticated', undefined, undefined],
  )
})

test('[P2] a claim cannot stand in for the role or for all claims', () => {
  const settings = settingsOf(
    { role: 'anon', claims: { role: 'boss', 's.claims': 'x', __proto__: 'y' } },
    { claimSettings: [{ setting: 'app.a', claim: 'constructor.name' }] },
  )
  expect([settings('role'), settings('request.jwt.claim.s.claims'), settings('app.a')]).toEqual(['anon', undefined, ''])
})
