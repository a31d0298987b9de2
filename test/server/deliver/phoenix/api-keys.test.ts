import fc from 'fast-check'
import { expect, test } from 'vitest'
import { loadOptions } from '../../../../src/server/config/config.ts'
import { ApiKeys } from '../../../../src/server/deliver/phoenix/api-keys.ts'

const publishable = 'sb_publishable_4f1c9'
const secret = 'sb_secret_tidegate-0123'
const keysOf = (text: string): ApiKeys => new ApiKeys(loadOptions(['API_KEYS'], { API_KEYS: text }).apiKeys)

test('each key stands for its role, for nobody in particular, and does not expire', () => {
  const keys = keysOf(`${publishable}=anon, ${secret} = service_role`)
  expect(keys.principalOf(publishable)).toEqual({ role: 'anon', claims: { role: 'anon' }, expiresAt: null })
  expect(keys.principalOf(secret)).toEqual({ role: 'service_role', claims: { role: 'service_role' }, expiresAt: null })
  expect(keysOf('').principalOf(secret)).toBeNull()
})

test('[P2] nothing else is a key: no part of one, no other case, nothing behind it', () => {
  const keys = keysOf(`${publishable}=anon,${secret}=service_role`)
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc.nat(secret.length - 1).map(length => secret.slice(0, length)),
        fc.string({ minLength: 1 }).map(more => secret + more),
        fc.constantFrom(secret.toUpperCase(), ` ${secret}`, `${secret}=service_role`, 'service_role', '__proto__'),
      ),
      text => keys.principalOf(text) === null,
    ),
  )
})
