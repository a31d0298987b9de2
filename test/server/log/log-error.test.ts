import pg from 'pg'
import { expect, test } from 'vitest'
import { TidegateError } from '../../../src/protocol/tidegate-error.ts'
import { errorForLog } from '../../../src/server/log/log-error.ts'

const secret = 'a-value-that-nobody-may-log'

function postgresError(code: string, message: string): Error {
  const error = new pg.DatabaseError(message, 1, 'error')
  return Object.assign(error, {
    severity: 'ERROR',
    code,
    detail: `Key (email)=(${secret}) already exists.`,
    hint: secret,
    where: secret,
    internalQuery: secret,
  })
}

function thrown(act: () => unknown): unknown {
  try {
    act()
  } catch (error) {
    return error
  }
  throw new Error('nothing was thrown')
}

test.each<[string, unknown, string]>([
  ['bad input', postgresError('22P02', `invalid input syntax for type uuid: "${secret}"`), 'Postgres says 22P02'],
  ['a constraint', postgresError('23505', `duplicate key: ${secret}`), 'Postgres says 23505'],
  ['what SQL raises', postgresError('P0001', secret), 'Postgres says P0001'],
  ['a made-up state', postgresError('ZZ999', secret), 'Postgres says ZZ999'],
  ['no table', postgresError('42P01', 'relation "a" does not exist'), 'relation "a" does not exist'],
  [
    'a timeout',
    postgresError('57014', 'canceling statement due to statement timeout'),
    'canceling statement due to statement timeout',
  ],
  ['text that does not parse', thrown(() => JSON.parse(`{"a": ${secret}`)), 'a text does not parse'],
  ['no whole number', thrown(() => BigInt(secret)), 'a text does not parse'],
  ['no address', thrown(() => new URL(`not an address: ${secret}`)), 'Invalid URL'],
  [
    'a command of Redis',
    Object.assign(new Error(`ERR unknown command 'X', with args beginning with: '${secret}'`), {
      command: { name: 'X', args: [secret] },
    }),
    "ERR unknown command 'X'",
  ],
  ['a text', secret, 'not an Error'],
  ['an object', { secret }, 'not an Error'],
  ['nothing', undefined, 'not an Error'],
])('[P2] of %s no value is told', (_, error, message) => {
  const logged = errorForLog(error)
  expect(logged.message).toBe(message)
  expect(JSON.stringify(logged)).not.toContain(secret)
  const wrapped = errorForLog(new TidegateError('UNAVAILABLE', 'the database cannot be reached', { cause: error }))
  expect(wrapped).toMatchObject({ code: 'UNAVAILABLE', message: 'the database cannot be reached' })
  expect(JSON.stringify(wrapped)).not.toContain(secret)
})

test('it says where it was thrown, and ends where causes go round', () => {
  const error: Error & { cause?: unknown } = new Error('why')
  error.cause = error
  const logged = errorForLog(error)
  expect(logged.stack).toMatch(/^ +at .*log-error\.test\.ts/)
  expect(JSON.stringify(logged).match(/"message":"why"/g)).toHaveLength(5)
})
