// Orders for those who run the service, over HTTP and the command line: the same functions as in SQL.
import pg from 'pg'
import { z } from 'zod'
import { formatPosition, type Position } from '../../protocol/position.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { isAway, type Lane } from '../postgres/database.ts'

const name = z.string().min(1).max(1000).optional()
const reason = z.string().max(200).optional()
/** ISO 8601 with an offset. */
const until = z.iso.datetime({ offset: true }).optional()
const kick = z.strictObject({
  sub: name,
  connection: name,
  topic: name,
  jti: name,
  retryAfterMs: z.int().min(0).max(86_400_000).optional(),
  reason,
})
const revoke = z.strictObject({ sub: name, jti: name, until, reason })
const refresh = z.strictObject({ sub: name, withinMs: z.int().min(1000).max(600_000).default(10_000), until, reason })

/** A call of one of the functions. */
export interface OrderCall {
  readonly text: string
  readonly values: readonly unknown[]
}

export interface OrderRow {
  readonly order: { readonly id: number; readonly kind: string; readonly until: string }
  /** `pg_current_xact_id()` */
  readonly xid: string
}

/** @param value `{"kick": {...}}`, `{"revoke": {...}}` or `{"refresh": {...}}` @throws BAD_FRAME */
export function orderCallOf(value: unknown): OrderCall {
  const [entry, ...others] = typeof value === 'object' && value !== null ? Object.entries(value) : []
  const [kind, names] = entry ?? []
  if (others.length === 0 && kind === 'kick') {
    const { sub, connection, topic, jti, retryAfterMs, reason } = parsed(kick, kind, names)
    const retryAfter = retryAfterMs === undefined ? null : milliseconds(retryAfterMs)
    return call('tidegate.kick($1, $2, $3, $4, $5, $6)', [sub, connection, topic, jti, retryAfter, reason])
  }
  if (others.length === 0 && kind === 'revoke') {
    const { sub, jti, until, reason } = parsed(revoke, kind, names)
    return call('tidegate.revoke($1, $2, $3, $4)', [sub, jti, until, reason])
  }
  if (others.length === 0 && kind === 'refresh') {
    const { sub, withinMs, until, reason } = parsed(refresh, kind, names)
    return call('tidegate.refresh($1, $2, $3, $4)', [sub, milliseconds(withinMs), until, reason])
  }
  throw new TidegateError('BAD_FRAME', 'an order is one of kick, revoke and refresh: {"kick": {"sub": "<user>"}}')
}

/** What Postgres says of an order, for whoever gave it. */
export function orderRefusalOf(error: unknown): unknown {
  if (isAway(error)) return new TidegateError('UNAVAILABLE', 'the database cannot be reached', { cause: error })
  if (!(error instanceof pg.DatabaseError)) return error
  const { code = '', constraint, message } = error
  if (code === '54000') return new TidegateError('BUSY', message, { cause: error, retryAfterMs: 60_000 })
  // 23514: names nobody, or too many. 22: a time or a text that Postgres does not take.
  if (code === '23514' || code.startsWith('22'))
    return new TidegateError('BAD_FRAME', `Postgres refuses the order: ${constraint ?? message}`, { cause: error })
  // A function, a schema or a privilege is missing: not migrated by this version.
  if (code.startsWith('3F') || code.startsWith('42'))
    return new TidegateError('UNAVAILABLE', 'the database takes no orders; run tidegate migrate', { cause: error })
  return error
}

export interface OrderGiverOptions {
  readonly pool: Lane
  /** Resolves when this node has served the commit of a transaction. */
  readonly served: (xid64: bigint) => Promise<Position>
}

/** @returns gives the order that a body of JSON says, and tells it with the position of its commit
 *  @throws BAD_FRAME for a body that says none, BUSY where there are too many, UNAVAILABLE, WAIT_TIMEOUT: it was given, and other
 *    nodes may have carried it out */
export function createOrderGiver({ pool, served }: OrderGiverOptions): (body: string) => Promise<object> {
  return async body => {
    const { text, values } = orderCallOf(jsonOf(body))
    const result = await pool.query<OrderRow>(text, [...values]).catch((error: unknown) => {
      throw orderRefusalOf(error)
    })
    const { order, xid } = result.rows[0]!
    return { order, position: formatPosition(await served(BigInt(xid))) }
  }
}

function jsonOf(body: string): unknown {
  try {
    return JSON.parse(body)
  } catch (cause) {
    throw new TidegateError('BAD_FRAME', 'the body is not JSON', { cause })
  }
}

function parsed<T>(schema: z.ZodType<T>, kind: string, names: unknown): T {
  const result = schema.safeParse(names)
  if (result.success) return result.data
  const [issue] = result.error.issues
  const where = [kind, ...(issue?.path ?? [])].join('.')
  throw new TidegateError('BAD_FRAME', `${where}: ${issue?.message ?? 'does not fit'}`)
}

const milliseconds = (ms: number): string => `${ms} milliseconds`

const call = (signature: string, values: readonly unknown[]): OrderCall => ({
  text: `SELECT to_jsonb(o) AS "order", pg_current_xact_id()::text AS xid FROM ${signature} AS o`,
  values: values.map(value => value ?? null),
})
