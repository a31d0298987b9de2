// The published shape of every frame: checks what a client sends at the door, and what the documents show.
import { z } from 'zod'
import type { ClientFrame, Json, ServerFrame } from '../../protocol/messages.ts'
import { joinShape, sendShape, trackShape } from './channel-schema.ts'
import { parseShape } from './parse-shape.ts'

const id = z.int().min(0).max(Number.MAX_SAFE_INTEGER)
const ref = id.optional()

// Strict: a misspelt `filter` that was ignored would quietly widen a subscription.
export const clientFrameSchema = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('auth'), token: z.string().min(1) }),
  z.strictObject({
    type: z.literal('subscribe'),
    id,
    kind: z.enum(['live', 'changes']),
    table: z.string().min(1),
    filter: z.string().optional(),
    select: z.array(z.string().min(1)).min(1).optional(),
    order: z.string().min(1).optional(),
    limit: z.int().min(1).optional(),
    events: z
      .array(z.enum(['insert', 'update', 'delete']))
      .min(1)
      .optional(),
    since: z.string().optional(),
  }),
  z.strictObject({ type: z.literal('join'), id, ...joinShape }),
  z.strictObject({ type: z.literal('send'), id, ref, ...sendShape }),
  z.strictObject({ type: z.literal('track'), id, ref, ...trackShape }),
  z.strictObject({ type: z.literal('untrack'), id, ref }),
  z.strictObject({ type: z.literal('unsubscribe'), id }),
  z.strictObject({ type: z.literal('wait'), ref: id, txid: z.string() }),
  z.strictObject({ type: z.literal('heartbeat') }),
])

/** @throws BAD_FRAME */
export const parseClientFrame = (text: string): ClientFrame =>
  withoutUndefined(parseShape(text, clientFrameSchema, 'the frame'))

// zod types an optional field as possibly undefined; parsed from JSON it is there or it is not.
const withoutUndefined = (frame: z.output<typeof clientFrameSchema>): ClientFrame => frame as ClientFrame

const json: z.ZodType<Json> = z.json() as z.ZodType<Json>
const row = z.record(z.string(), json)
const position = z.string().regex(/^[0-9a-f]{8}-[0-9a-f]{1,16}(-[0-9a-f]{1,8})?$/)
const queryPosition = z.string().regex(/^[0-9a-f]{8}-[0-9a-f]{1,16}(-[0-9a-f]{1,8})?\.[0-9A-Za-z_-]{1,32}$/)
const instant = z.iso.datetime({ offset: true })

const after = row.nullable().optional()
const rowChange = z.discriminatedUnion('op', [
  z.strictObject({ op: z.literal('insert'), key: row, row, after }),
  z.strictObject({ op: z.literal('update'), key: row, set: row, after }),
  z.strictObject({ op: z.literal('delete'), key: row }),
  z.strictObject({ op: z.literal('truncate') }),
])
const orderTerm = z.strictObject({
  column: z.string(),
  direction: z.enum(['asc', 'desc']),
  nulls: z.enum(['first', 'last']),
  compare: z.enum(['number', 'text', 'boolean', 'time', 'labels', 'server']),
  labels: z.array(z.string()).optional(),
})
const warning = z.strictObject({ code: z.string(), message: z.string() })
const sender = z.strictObject({ user: z.string().nullable(), connection: z.string().nullable() })
const target = z.union([z.strictObject({ user: z.string() }), z.strictObject({ connection: z.string() })])
const member = z.strictObject({
  ref: z.string(),
  key: z.string(),
  user: z.string().nullable(),
  connection: z.string(),
  meta: json,
  since: instant,
})

/** What joining a channel is answered with, on every wire. */
export const joinedShape = {
  resumed: z.boolean(),
  history: z.boolean(),
  maySend: z.boolean(),
  idempotencyMs: z.int().optional(),
  exact: z.literal(false).optional(),
  warnings: z.array(warning).optional(),
} as const

/** The objects that SSE has in `data:` and long-poll in `data`; the frames have them too, beside `type`. */
export const eventShapes = {
  snapshot: { rows: z.array(row), gone: z.array(row).optional(), done: z.boolean() },
  delta: { changes: z.array(rowChange), done: z.boolean(), committedAt: instant },
  change: {
    op: z.enum(['insert', 'update', 'delete', 'truncate']),
    schema: z.string(),
    table: z.string(),
    key: row.optional(),
    new: row.optional(),
    old: row.optional(),
    committedAt: instant,
  },
  message: {
    id: z.uuid(),
    event: z.string(),
    payload: json.optional(),
    binary: z.base64().optional(),
    sender: sender.nullable(),
    sentAt: instant,
    to: target.optional(),
  },
  presence: {
    here: z.array(member).optional(),
    joined: z.array(member).optional(),
    updated: z.array(member).optional(),
    left: z.array(member).optional(),
    count: z.int(),
  },
  gap: { code: z.string(), reason: z.string(), missed: z.int().nullable() },
  heartbeat: { stale: z.boolean(), lagMs: z.number() },
  resync: { code: z.string(), reason: z.string() },
  refresh: { withinMs: z.number() },
  error: { code: z.string(), message: z.string(), retry: z.boolean(), retryAfterMs: z.number().optional() },
} as const

export const serverFrameSchema = z.discriminatedUnion('type', [
  z.strictObject({
    type: z.literal('welcome'),
    connection: z.string(),
    heartbeatMs: z.number(),
    expiresAt: z.number().nullable(),
    stream: z.string().optional(),
  }),
  z.strictObject({ type: z.literal('authenticated'), expiresAt: z.number().nullable() }),
  z.strictObject({
    type: z.literal('subscribed'),
    id,
    query: z.int(),
    tag: z.string(),
    key: z.array(z.string()).min(1),
    resumed: z.boolean(),
    position,
    order: z.array(orderTerm).min(1).optional(),
    limit: z.int().optional(),
    exact: z.literal(false).optional(),
    warnings: z.array(warning).optional(),
  }),
  z.strictObject({ type: z.literal('snapshot'), id, position: position.optional(), ...eventShapes.snapshot }),
  z.strictObject({ type: z.literal('delta'), query: z.int(), position: position.optional(), ...eventShapes.delta }),
  z.strictObject({ type: z.literal('change'), query: z.int(), position, ...eventShapes.change }),
  z.strictObject({ type: z.literal('resync'), id, ...eventShapes.resync }),
  z.strictObject({
    type: z.literal('heartbeat'),
    position: position.nullable(),
    positions: z.record(z.string(), queryPosition),
    ...eventShapes.heartbeat,
  }),
  z.strictObject({
    type: z.literal('error'),
    id: id.optional(),
    ref: ref.nullable(),
    same: id.optional(),
    ...eventShapes.error,
  }),
  z.strictObject({ type: z.literal('unsubscribed'), id }),
  z.strictObject({ type: z.literal('joined'), id, channel: z.int(), tag: z.string(), position, ...joinedShape }),
  z.strictObject({
    type: z.literal('message'),
    channel: z.int(),
    position: position.optional(),
    ...eventShapes.message,
  }),
  z.strictObject({
    type: z.literal('presence'),
    channel: z.int(),
    position: position.optional(),
    ...eventShapes.presence,
  }),
  z.strictObject({ type: z.literal('gap'), channel: z.int(), position: position.optional(), ...eventShapes.gap }),
  z.strictObject({
    type: z.literal('sent'),
    id,
    ref: id,
    message: z.uuid(),
    position,
    duplicate: z.literal(true).optional(),
  }),
  z.strictObject({ type: z.literal('tracked'), id, ref: id }),
  z.strictObject({ type: z.literal('waited'), ref: id, position }),
  z.strictObject({ type: z.literal('refresh'), ...eventShapes.refresh }),
])

/** Compiles only while the schema and the type of the protocol have the same frames. */
type Same<A, B> = [A, B] extends [B, A] ? true : never
export const serverFramesMatch: Same<z.output<typeof serverFrameSchema>['type'], ServerFrame['type']> = true
export const clientFramesMatch: Same<z.output<typeof clientFrameSchema>['type'], ClientFrame['type']> = true
