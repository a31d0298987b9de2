// Orders over HTTP, for those who run the service: the same functions as in SQL, and an answer when this node has carried it out.
import pg from 'pg'
import { z } from 'zod'
import { formatPosition, type Position } from '../../protocol/position.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { isAway, type Lane } from '../database.ts'

const name = z.string().min(1).max(1000)
const reason = z.string().max(200).optional()
/** ISO 8601 with an offset. */
const until = z.iso.datetime({ offset: true }).optional()

/** One of the three. */
const orderBody = z.union([
  z.strictObject({
    kick: z.strictObject({
      sub: name.optional(),
      connection: name.optional(),
      topic: name.optional(),
      jti: name.optional(),
      retryAfterMs: z.int().min(0).max(86_400_000).optional(),
      reason,
    }),
  }),
  z.strictObject({ revoke: z.strictObject({ sub: name.optional(), jti: name.optional(), until, reason }) }),
  z.strictObject({
    refresh: z.strictObject({ sub: name, withinMs: z.int().min(1000).max(600_000).optional(), until, reason }),
  }),
])

type OrderBody = z.output<typeof orderBody>

export interface OrderGiverOptions {
  readonly pool: Lane
  /** Resolves when this node has served the commit of a transaction. */
  readonly served: (xid64: bigint) => Promise<Position>
}

export interface OrderGiven {
  readonly order: unknown
  /** Of its commit. */
  readonly position: string
}

/** @returns gives the order that a body of JSON says
 *  @throws BAD_FRAME for a body that says none, BUSY where there are too many, UNAVAILABLE, WAIT_TIMEOUT: it was given, and other nodes
 *    may have carried it out */
export function createOrderGiver({ pool, served }: OrderGiverOptions): (body: string) => Promise<OrderGiven> {
  return async body => {
    const { text, values } = statementOf(parse(body))
    const { order, xid } = await give(pool, text, values)
    return { order, position: formatPosition(await served(BigInt(xid))) }
  }
}

function parse(body: string): OrderBody {
  let value: unknown
  try {
    value = JSON.parse(body)
  } catch (cause) {
    throw new TidegateError('BAD_FRAME', 'the body is not JSON', { cause })
  }
  const parsed = orderBody.safeParse(value)
  if (!parsed.success)
    throw new TidegateError(
      'BAD_FRAME',
      `the body is no order: ${z.prettifyError(parsed.error).slice(0, 500)}; send for example {"kick": {"sub": "<user>"}}`,
    )
  return parsed.data
}

const milliseconds = (ms: number | undefined): string | null => (ms === undefined ? null : `${ms} milliseconds`)

function statementOf(body: OrderBody): { text: string; values: readonly unknown[] } {
  if ('kick' in body) {
    const { sub, connection, topic, jti, retryAfterMs, reason } = body.kick
    return call('tidegate.kick($1, $2, $3, $4, $5, $6)', [
      sub,
      connection,
      topic,
      jti,
      milliseconds(retryAfterMs),
      reason,
    ])
  }
  if ('revoke' in body) {
    const { sub, jti, until, reason } = body.revoke
    return call('tidegate.revoke($1, $2, $3, $4)', [sub, jti, until, reason])
  }
  const { sub, withinMs = 10_000, until, reason } = body.refresh
  return call('tidegate.refresh($1, $2, $3, $4)', [sub, milliseconds(withinMs), until, reason])
}

const call = (signature: string, values: readonly unknown[]): { text: string; values: readonly unknown[] } => ({
  text: `SELECT to_jsonb(o) AS "order", pg_current_xact_id()::text AS xid FROM ${signature} AS o`,
  values: values.map(value => value ?? null),
})

async function give(pool: Lane, text: string, values: readonly unknown[]): Promise<{ order: unknown; xid: string }> {
  try {
    const { rows } = await pool.query<{ order: unknown; xid: string }>(text, [...values])
    return rows[0]!
  } catch (error) {
    if (isAway(error)) throw new TidegateError('UNAVAILABLE', 'the database cannot be reached', { cause: error })
    if (!(error instanceof pg.DatabaseError)) throw error
    // 23514: names nobody, or too many. 22: a time or a text that Postgres does not take. 54000: the table is full.
    if (error.code === '54000') throw new TidegateError('BUSY', error.message, { cause: error, retryAfterMs: 60_000 })
    if (error.code === '23514' || error.code?.startsWith('22'))
      throw new TidegateError('BAD_FRAME', `Postgres refuses the order: ${error.constraint ?? error.message}`, {
        cause: error,
      })
    // 3F000, 42883, 42P01, 42501: without `migrate` of this version.
    if (/^(3F|42)/.test(error.code ?? ''))
      throw new TidegateError('UNAVAILABLE', 'the database takes no orders; run tidegate migrate', { cause: error })
    throw error
  }
}
