// What it means that Postgres did not answer: for the audience that asked, and for nobody else.
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { isAway } from '../postgres/database.ts'
import { isLocked } from '../postgres/locked.ts'
import type { Query } from '../route/query.ts'

/** The stream and what SQL shows do not fit together yet: asked again in a moment. */
export class NotYet extends Error {
  constructor(why: string) {
    super(why)
    this.name = 'NotYet'
  }
}

/** How long a client stays away after a policy failed. */
export const failedRetryMs = 5_000

/** Given way in a deadlock, ended while it waited for the stream: no fault of the policy. */
const passingStates: ReadonlySet<string> = new Set(['40P01', '40001', '25P03'])

/** Whether asking again by itself can help: the audience stays, and what its readers hold is true as of their position. */
export const isTransient = (error: unknown): boolean =>
  error instanceof NotYet || (error instanceof TidegateError && (error.code === 'UNAVAILABLE' || error.code === 'BUSY'))

/** Never with the message of Postgres: it may hold values of rows. */
export function failureOf(error: unknown, query: Query, timeoutMs: number): unknown {
  if (error instanceof TidegateError || error instanceof NotYet) return error
  // By a migration: it stands aside, with its connection for others.
  if (isLocked(error)) return new NotYet('a table is locked')
  const code = (error as { code?: unknown }).code
  const { table } = query
  const name = `${table.schema}.${table.name}`
  if (code === '57014')
    return new TidegateError(
      'POLICY_SLOW',
      `Postgres did not answer for ${name} within ${timeoutMs} ms; make its policies faster, or filter the query`,
      { cause: error, retryAfterMs: failedRetryMs },
    )
  if (isAway(error) || typeof code !== 'string' || passingStates.has(code))
    return new TidegateError('UNAVAILABLE', 'the database did not answer', { cause: error })
  if (code === '42501')
    return new TidegateError('TABLE_REFUSED', `the role may not SELECT ${name}, or what its policies read`, {
      cause: error,
    })
  if (code === '42P01' || code === '42703')
    return new TidegateError('UNSUBSCRIBED_TABLE_CHANGED', `${name} changed, or what its policies read`, {
      cause: error,
      retryAfterMs: 1000,
    })
  return new TidegateError('POLICY_FAILED', `a policy of ${name} raised SQLSTATE ${code} for this reader`, {
    cause: error,
    retryAfterMs: failedRetryMs,
  })
}
